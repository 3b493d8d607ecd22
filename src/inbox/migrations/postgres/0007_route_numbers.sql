-- Numbers are given out in one range for each class and kind of account, so that a claim finds some of each. Those from
-- before stand in front of all ranges.
ALTER TABLE route ALTER COLUMN id DROP IDENTITY;
CREATE SEQUENCE route_number;
