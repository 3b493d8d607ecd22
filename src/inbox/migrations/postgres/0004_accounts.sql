-- A route is also of an account and a class. What waits from before is the operator's own, apart from the calls that
-- callers made at the drop-in.
ALTER TABLE route ADD COLUMN account text COLLATE "C" NOT NULL DEFAULT 'operator';
ALTER TABLE route ADD COLUMN class text COLLATE "C" NOT NULL DEFAULT 'normal';
UPDATE route SET account = 'foreign' WHERE source = 'dropin';
ALTER TABLE route ALTER COLUMN account DROP DEFAULT;
ALTER TABLE route ALTER COLUMN class DROP DEFAULT;
ALTER TABLE route DROP CONSTRAINT route_source_destination_key;
ALTER TABLE route ADD CONSTRAINT route_unique UNIQUE (source, destination, account, class);
