-- How many runs were counted against a budget, by day (numbered from 1970 on).
CREATE TABLE spent (
    day    INTEGER NOT NULL,
    budget TEXT    NOT NULL,
    runs   INTEGER NOT NULL,
    PRIMARY KEY (day, budget)
) STRICT, WITHOUT ROWID;
