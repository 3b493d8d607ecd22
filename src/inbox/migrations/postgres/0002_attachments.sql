-- Files that came along. Their bytes lie in the attachment store at `key`; a file is there before its row is.
--
-- `event` is null for files of calls that were passed on and not kept, and of events that have gone. Those stay until
-- `expires_at`, since somebody may still hold a link to them. `position` is the order in which an event's came, `origin` what
-- a channel calls a file that was fetched from it.
CREATE TABLE attachment (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           uuid    NOT NULL UNIQUE,
    event        bigint,
    size         bigint  NOT NULL,
    expires_at   bigint  NOT NULL,
    position     integer NOT NULL,
    source       text    COLLATE "C" NOT NULL,
    sha256       bytea   NOT NULL,
    name         bytea   NOT NULL,
    content_type bytea   NOT NULL,
    key          text    NOT NULL,
    origin       bytea
);
CREATE INDEX attachment_event ON attachment (event, position) WHERE event IS NOT NULL;
CREATE INDEX attachment_loose ON attachment (expires_at, (seq + 0)) WHERE event IS NULL;
