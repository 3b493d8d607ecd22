-- Claims by route, turns that go together, what is held, jobs in bulk.

-- What ties a source to a destination; a number stands in for both where rows have to be narrow.
CREATE TABLE route (
    id          INTEGER PRIMARY KEY,
    source      TEXT NOT NULL,
    destination TEXT NOT NULL,
    UNIQUE (source, destination)
) STRICT;
INSERT INTO route (source, destination)
    SELECT DISTINCT e.source, d.destination FROM delivery AS d JOIN event AS e ON e.seq = d.event
    WHERE d.state IN ('pending', 'leased', 'unknown');

-- `route` means nothing in rows that ended before there were routes. `leader` says with which delivery it went, or in
-- whose favour it was dropped; `dropped`, how many were dropped in its favour. `fence` counts its leases. It stood with
-- the lane before, but a delivery can outlive its lane: one that is settled by hand may be sent again in another.
ALTER TABLE delivery ADD COLUMN route INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN leader INTEGER;
ALTER TABLE delivery ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lane DROP COLUMN fence;
UPDATE delivery SET route = (
    SELECT r.id FROM event AS e JOIN route AS r ON r.source = e.source AND r.destination = delivery.destination
    WHERE e.seq = delivery.event
) WHERE state IN ('pending', 'leased', 'unknown');
CREATE INDEX delivery_leader ON delivery (leader, key) WHERE state = 'merged';

-- The route of the lane's first delivery. A claim goes through the routes, and in each through the lanes that are due.
ALTER TABLE lane ADD COLUMN route INTEGER NOT NULL DEFAULT 0;
UPDATE lane SET route = coalesce(
    (SELECT route FROM delivery WHERE key = lane.delivery),
    (SELECT route FROM delivery INDEXED BY delivery_lane WHERE lane = lane.id AND state = 'pending' ORDER BY key LIMIT 1),
    0
);
-- Without work; it does no harm when it is gone.
DELETE FROM lane WHERE route = 0;
DROP INDEX lane_ready;
CREATE INDEX lane_ready ON lane (route, ready_at, id) WHERE delivery IS NULL;

-- For whoever looks for a conversation or a kind of event.
CREATE INDEX event_thread ON event (thread, seq) WHERE thread IS NOT NULL;
CREATE INDEX event_kind ON event (event_type, seq) WHERE event_type IS NOT NULL;

-- What an operator holds.
CREATE TABLE hold (
    kind  TEXT    NOT NULL,
    name  TEXT    NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE job (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    filter     TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    total      INTEGER NOT NULL,
    done       INTEGER NOT NULL DEFAULT 0,
    skipped    INTEGER NOT NULL DEFAULT 0,
    pace       INTEGER NOT NULL,
    cursor     INTEGER,
    started_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

-- The words of bodies, where they are to be found by them: filled in behind, up to `seq`.
CREATE VIRTUAL TABLE words USING fts5 (body, content = '', contentless_delete = 1, tokenize = 'unicode61');
CREATE TABLE words_upto (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO words_upto VALUES (1, 0);
