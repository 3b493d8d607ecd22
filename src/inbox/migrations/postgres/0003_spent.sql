-- How many runs were counted against a budget, by day (numbered from 1970 on).
CREATE TABLE spent (
    day    bigint NOT NULL,
    runs   bigint NOT NULL,
    budget text   COLLATE "C" NOT NULL,
    PRIMARY KEY (day, budget)
);
