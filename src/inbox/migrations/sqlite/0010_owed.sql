-- Deliveries that answer another delivery: a settlement owes them.

-- The number of the delivery, of the same event, that this one answers. Empty: it is owed by the event.
ALTER TABLE delivery ADD COLUMN answers INTEGER;

-- The answer, in the form that its destination takes. It stands apart, as it is wide and `delivery` changes often.
CREATE TABLE payload (
    delivery INTEGER PRIMARY KEY REFERENCES delivery (key) ON DELETE CASCADE,
    payload  BLOB NOT NULL
) STRICT;
