-- A route is also of an account and a class. What waits from before is the operator's own, apart from the calls that
-- callers made at the drop-in.
CREATE TABLE routes (
    id          INTEGER PRIMARY KEY,
    source      TEXT NOT NULL,
    destination TEXT NOT NULL,
    account     TEXT NOT NULL,
    class       TEXT NOT NULL,
    UNIQUE (source, destination, account, class)
) STRICT;
INSERT INTO routes (id, source, destination, account, class)
    SELECT id, source, destination, CASE source WHEN 'dropin' THEN 'foreign' ELSE 'operator' END, 'normal' FROM route;
DROP TABLE route;
ALTER TABLE routes RENAME TO route;
