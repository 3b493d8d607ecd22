-- Deliveries that answer another delivery: a settlement owes them.

-- The number of the delivery, of the same event, that this one answers. Empty: it is owed by the event.
ALTER TABLE delivery ADD COLUMN answers integer;

-- The answer, in the form that its destination takes.
CREATE TABLE payload (
    delivery bigint PRIMARY KEY,
    payload  bytea  NOT NULL
);
