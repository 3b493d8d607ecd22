-- What proved requests, so that each proof counts once.
--
-- `proofs` of an event are its marks, 32 bytes each: by them its rows below are found when it goes. `replays` counts the
-- requests that came again with a proof of this event and were not kept.
ALTER TABLE event ADD COLUMN proofs bytea, ADD COLUMN replays bigint NOT NULL DEFAULT 0, ADD COLUMN replayed_at bigint;

-- One row for each proof. `event` is null where the request was passed on and not kept; `until` where the proof counts as
-- used for as long as its event is kept.
CREATE TABLE proof (
    event bigint,
    until bigint,
    mark  bytea PRIMARY KEY
);
CREATE INDEX proof_until ON proof (until) WHERE event IS NULL;
