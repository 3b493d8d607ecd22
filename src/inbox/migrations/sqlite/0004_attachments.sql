-- Files that came along. Their bytes lie in the attachment store at `key`; a file is there before its row is.
--
-- `event` is null for files of calls that were passed on and not kept, and of events that have gone. Those stay until
-- `expires_at`, since somebody may still hold a link to them. `origin` is what a channel calls a file that was fetched
-- from it.
CREATE TABLE attachment (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           BLOB    NOT NULL UNIQUE,
    event        INTEGER REFERENCES event (seq) ON DELETE SET NULL,
    position     INTEGER NOT NULL,
    source       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    content_type TEXT    NOT NULL,
    size         INTEGER NOT NULL,
    sha256       BLOB    NOT NULL,
    key          TEXT    NOT NULL,
    origin       TEXT,
    expires_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX attachment_event ON attachment (event, position) WHERE event IS NOT NULL;
CREATE INDEX attachment_loose ON attachment (expires_at, seq) WHERE event IS NULL;
