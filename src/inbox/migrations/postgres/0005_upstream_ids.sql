-- What the names of conversations at the upstream are made with. Made once, for all processes that share this inbox.
CREATE TABLE own_secret (
    name   text  COLLATE "C" PRIMARY KEY,
    secret bytea NOT NULL
);

-- Conversations of before there was a secret keep the name they had: a UUIDv5 of source, destination and conversation.
CREATE TABLE former_thread (
    upstream_id bytea PRIMARY KEY
);

INSERT INTO former_thread (upstream_id)
    SELECT DISTINCT upstream_id FROM delivery
    WHERE turns AND length(upstream_id) = 36 AND get_byte(upstream_id, 14) = ascii('5');
