-- Calls that callers made themselves, kept closed until their delivery ends, and the upstream's whole last word.
--
-- Both are wide and stand apart from `delivery`, whose rows change often. Without AUTOINCREMENT: `delivery.key` is
-- never given twice already.

-- 1: it is sent as a caller made it. Stays 1 when the call itself has been erased.
ALTER TABLE delivery ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0;

-- One row for each sealed call that may still be needed; gone when its delivery is delivered, dead or cancelled.
CREATE TABLE sealed (
    delivery INTEGER PRIMARY KEY REFERENCES delivery (key) ON DELETE CASCADE,
    call     BLOB NOT NULL
) STRICT;

-- The task object as the upstream wrote it, of deliveries that have one.
CREATE TABLE task (
    delivery INTEGER PRIMARY KEY REFERENCES delivery (key) ON DELETE CASCADE,
    task     BLOB NOT NULL
) STRICT;
