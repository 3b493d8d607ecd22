-- What the names of conversations at the upstream are made with. Made once, for all that ever use this inbox.
CREATE TABLE own_secret (
    name   TEXT NOT NULL PRIMARY KEY,
    secret BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Conversations of before there was a secret keep the name they had: a UUIDv5 of source, destination and conversation.
CREATE TABLE former_thread (
    upstream_id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

INSERT INTO former_thread (upstream_id)
    SELECT DISTINCT upstream_id FROM delivery
    WHERE turns = 1 AND length(upstream_id) = 36 AND substr(upstream_id, 15, 1) = '5';
