-- The first schema. Times are milliseconds since the Unix epoch, as the gateways' clocks have it, except where a column
-- is a timestamptz: that is the server's clock, and leases go by it.
--
-- Rows that change are narrow (delivery, lane); what does not change stands apart (event, body). Text that callers
-- choose may hold anything, NUL too, so it is kept as bytes (bytea); what is kept as text comes from the configuration.
-- No table refers to another by a constraint: the check would cost every insert a look-up and a lock. What belongs
-- together is written, and removed, in one transaction.
--
-- An index that lists things in order has `+ 0` in its last column, and so have the statements that use it. With it the
-- planner cannot take the plain number's index for such a list instead, which looks cheap to it and walks everything
-- that is long done.

CREATE SEQUENCE event_seq;
CREATE SEQUENCE delivery_key;
-- A lease's number is never given twice, so that nothing which was under a lease can be taken for what is now.
CREATE SEQUENCE fence CACHE 100;

-- `seq` is the order of arrival. `bytes`: about what the event needs, for the ceiling.
CREATE TABLE event (
    seq         bigint PRIMARY KEY,
    id          uuid   NOT NULL UNIQUE,
    received_at bigint NOT NULL,
    bytes       bigint NOT NULL,
    source      text   COLLATE "C" NOT NULL,
    dedup       bytea,
    event_type  bytea,
    thread      bytea,
    strength    text   NOT NULL,
    secret      text,
    filtered    text
);
-- Same source and key, same event. No key (NULL): no double.
CREATE UNIQUE INDEX event_dedup ON event (source, dedup) WHERE dedup IS NOT NULL;
CREATE INDEX event_source ON event (source, (seq + 0));
CREATE INDEX event_thread ON event (thread, (seq + 0)) WHERE thread IS NOT NULL;
CREATE INDEX event_received ON event (received_at, seq);

-- Never updated. Lists are JSON as bytes: it may say \u0000, which jsonb would refuse.
CREATE TABLE body (
    seq          bigint PRIMARY KEY,
    request_line bytea  NOT NULL,
    params       bytea  NOT NULL,
    headers      bytea  NOT NULL,
    body         bytea  NOT NULL
);

-- What ties a source to a destination; a number stands in for both where rows have to be narrow.
CREATE TABLE route (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source      text COLLATE "C" NOT NULL,
    destination text COLLATE "C" NOT NULL,
    UNIQUE (source, destination)
);

-- `key` is the order within a lane: it is drawn while the lane is locked. `lane` is the number of a row below, and
-- means nothing once this one is no longer pending or leased. `turns` says that the upstream id may be shared with
-- other deliveries, `sealed` that it is sent as a caller made it, `leader` with which delivery it went or in whose
-- favour it was dropped, `dropped` how many were dropped in its favour.
CREATE TABLE delivery (
    key                bigint  NOT NULL,
    event              bigint  NOT NULL,
    lane               bigint  NOT NULL,
    leader             bigint,
    doubt              bigint,
    number             integer NOT NULL,
    route              integer NOT NULL,
    attempts           integer NOT NULL DEFAULT 0,
    strikes            integer NOT NULL DEFAULT 0,
    dropped            integer NOT NULL DEFAULT 0,
    turns              boolean NOT NULL,
    sealed             boolean NOT NULL,
    state              text    NOT NULL,
    upstream_id        bytea   NOT NULL,
    answer_status      bytea,
    answer_finished_at bytea,
    answer_result      bytea
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1,
        autovacuum_analyze_scale_factor = 0.05);
CREATE UNIQUE INDEX delivery_key_index ON delivery ((key + 0));
CREATE UNIQUE INDEX delivery_event ON delivery (event, number);
CREATE INDEX delivery_lane ON delivery (lane, key) WHERE state IN ('pending', 'leased');
CREATE INDEX delivery_state ON delivery (state, (event + 0)) WHERE state <> 'delivered';
CREATE INDEX delivery_turn ON delivery (upstream_id, (key + 0)) WHERE turns;
CREATE INDEX delivery_leader ON delivery (leader) WHERE leader IS NOT NULL;

-- One row for each lane that has work. `delivery` is the one under lease and `owner` the replica that has it; none: the
-- lane is ready from `ready_at` on. `route` is that of its first delivery.
CREATE TABLE lane (
    id       bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ready_at bigint  NOT NULL,
    fence    bigint  NOT NULL DEFAULT 0,
    delivery bigint,
    owner    bigint,
    lane     uuid    NOT NULL UNIQUE,
    route    integer NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX lane_ready ON lane (route, ready_at, id) WHERE delivery IS NULL;
CREATE INDEX lane_owner ON lane (owner) WHERE delivery IS NOT NULL;

-- The last tries of each delivery. `fence` is the lease that the try ended, by which an answer that was lost is found
-- again.
CREATE TABLE attempt (
    id         bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery   bigint  NOT NULL,
    fence      bigint  NOT NULL,
    started_at bigint  NOT NULL,
    ended_at   bigint  NOT NULL,
    number     integer NOT NULL,
    status     integer,
    result     bytea   NOT NULL,
    detail     bytea   NOT NULL
);
CREATE INDEX attempt_delivery ON attempt (delivery, (id + 0));

-- One row for each sealed call that may still be needed; gone when its delivery is delivered, dead or cancelled.
CREATE TABLE sealed (
    delivery bigint PRIMARY KEY,
    call     bytea  NOT NULL
);

-- The task object as the upstream wrote it, of deliveries that have one.
CREATE TABLE task (
    delivery bigint PRIMARY KEY,
    task     bytea  NOT NULL
);

-- Kept, not counted. A row for each source and state would have every writer wait for every other one, so each has
-- several, one a slot, and a connection writes to the rows of its own slot. The count is the sum. The source '' holds
-- the bytes of all events.
CREATE TABLE counter (
    slot   integer NOT NULL,
    source text    COLLATE "C" NOT NULL,
    state  text    COLLATE "C" NOT NULL,
    count  bigint  NOT NULL,
    PRIMARY KEY (slot, source, state)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

-- The processes that share the inbox. One that does not renew in time has gone, and its leases with it. `roles` is what
-- it does, as words with commas between.
CREATE TABLE replica (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token      uuid        NOT NULL,
    started_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    roles      text        COLLATE "C" NOT NULL
) WITH (fillfactor = 30);

-- What is held, as `source/NAME` or `destination/KIND/ID`.
CREATE TABLE hold (
    what     text   COLLATE "C" PRIMARY KEY,
    held_at  bigint NOT NULL
);

-- Work in bulk.
CREATE TABLE job (
    id         bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    total      bigint  NOT NULL,
    done       bigint  NOT NULL DEFAULT 0,
    skipped    bigint  NOT NULL DEFAULT 0,
    cursor     bigint,
    started_at bigint  NOT NULL,
    changed_at bigint  NOT NULL,
    pace       bigint  NOT NULL,
    state      text    NOT NULL,
    filter     bytea   NOT NULL
);

-- The words of bodies, where they are to be found; filled behind. `words_until`: every event up to it was seen.
CREATE TABLE words (
    seq   bigint   PRIMARY KEY,
    words tsvector NOT NULL
);
CREATE INDEX words_words ON words USING gin (words);
CREATE TABLE words_until (
    id  integer PRIMARY KEY CHECK (id = 1),
    seq bigint  NOT NULL
);
INSERT INTO words_until VALUES (1, 0);
