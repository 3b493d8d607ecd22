-- The first schema. Times are milliseconds since the Unix epoch; ids and lanes are 16 bytes.
--
-- Rows that change are narrow (delivery, lane); what does not change stands apart (event, body). Every statement that
-- names a state also names its index: left to itself the planner may take a partial index that holds next to nothing,
-- which is right until the day it is not.

-- `seq` is the order of arrival. AUTOINCREMENT here and below, so that a number is never given twice: a cursor or a
-- lease from before a sweep must not fit something newer.
CREATE TABLE event (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          BLOB    NOT NULL UNIQUE,
    source      TEXT    NOT NULL,
    dedup       TEXT,
    event_type  TEXT,
    thread      TEXT,
    received_at INTEGER NOT NULL,
    strength    TEXT    NOT NULL,
    secret      TEXT,
    filtered    TEXT
) STRICT;
-- Same source and key, same event. No key (NULL): no double.
CREATE UNIQUE INDEX event_dedup ON event (source, dedup) WHERE dedup IS NOT NULL;
CREATE INDEX event_source ON event (source, seq);
CREATE INDEX event_received ON event (received_at, seq);

-- Never updated. The body stands last, so that what is before it is read without walking its pages.
CREATE TABLE body (
    seq          INTEGER PRIMARY KEY REFERENCES event (seq) ON DELETE CASCADE,
    request_line TEXT NOT NULL,
    params       TEXT NOT NULL,
    headers      TEXT NOT NULL,
    body         BLOB NOT NULL
) STRICT;

-- `key` is the order within a lane. `lane` is the number of a row below, and means nothing once this one is no longer
-- pending or leased. `turns` says that the upstream id may be shared with other deliveries.
CREATE TABLE delivery (
    key                INTEGER PRIMARY KEY AUTOINCREMENT,
    event              INTEGER NOT NULL REFERENCES event (seq) ON DELETE CASCADE,
    number             INTEGER NOT NULL,
    destination        TEXT    NOT NULL,
    lane               INTEGER NOT NULL,
    upstream_id        TEXT    NOT NULL,
    turns              INTEGER NOT NULL,
    state              TEXT    NOT NULL,
    attempts           INTEGER NOT NULL DEFAULT 0,
    strikes            INTEGER NOT NULL DEFAULT 0,
    doubt              INTEGER,
    answer_status      TEXT,
    answer_finished_at TEXT,
    answer_result      TEXT
) STRICT;
CREATE UNIQUE INDEX delivery_event ON delivery (event, number);
CREATE INDEX delivery_lane ON delivery (lane, key) WHERE state = 'pending';
CREATE INDEX delivery_state ON delivery (state, event) WHERE state <> 'delivered';
CREATE INDEX delivery_turn ON delivery (upstream_id, key) WHERE turns = 1;

-- One row for each lane that has work. `delivery` is the one under lease; none: the lane is ready from `ready_at` on.
-- Lanes' names are random, so what touches them touches pages all over the file; numbers in order of arrival stand in
-- for them everywhere but at a lane's beginning and end.
CREATE TABLE lane (
    id       INTEGER PRIMARY KEY,
    lane     BLOB    NOT NULL UNIQUE,
    ready_at INTEGER NOT NULL,
    fence    INTEGER NOT NULL DEFAULT 0,
    delivery INTEGER
) STRICT;
CREATE INDEX lane_ready ON lane (ready_at, id) WHERE delivery IS NULL;

-- The last tries of each delivery.
CREATE TABLE attempt (
    id         INTEGER PRIMARY KEY,
    delivery   INTEGER NOT NULL REFERENCES delivery (key) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    result     TEXT    NOT NULL,
    status     INTEGER,
    detail     TEXT    NOT NULL
) STRICT;
CREATE INDEX attempt_delivery ON attempt (delivery, id);

-- Kept, not counted: one row for each source and state.
CREATE TABLE counter (
    source TEXT    NOT NULL,
    state  TEXT    NOT NULL,
    count  INTEGER NOT NULL,
    PRIMARY KEY (source, state)
) STRICT, WITHOUT ROWID;

-- One row, written when the inbox asks itself whether it can write again.
CREATE TABLE probe (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    beat INTEGER NOT NULL
) STRICT;
