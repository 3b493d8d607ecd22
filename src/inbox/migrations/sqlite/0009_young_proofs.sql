-- Proofs are put into their index a while after their event, many at a time and in the order of the index.
--
-- Until when the proofs of an event count as used: null as long as it is kept.
ALTER TABLE event ADD COLUMN proofs_until INTEGER;

-- One row: the proofs of the events up to this one are in the index.
CREATE TABLE proof_place (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    event INTEGER NOT NULL
) STRICT;
INSERT INTO proof_place (id, event) SELECT 1, coalesce(max(seq), 0) FROM event;
