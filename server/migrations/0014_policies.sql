-- Policies: what they say as JSON, with machines and targets by id. `last_time` is the last moment of the schedule that was dealt with.
CREATE TABLE policies (
    id          TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL UNIQUE,
    body        TEXT   NOT NULL,
    enabled     BIGINT NOT NULL,
    last_time   BIGINT NOT NULL,
    create_time BIGINT NOT NULL
);

-- The runs of policies, which group the copy tasks of one moment. `missed` says why all of its tasks were, `filled` whether all are there.
CREATE TABLE copy_runs (
    id          TEXT   NOT NULL PRIMARY KEY,
    policy      TEXT   NOT NULL,
    policy_name TEXT   NOT NULL,
    time        BIGINT NOT NULL,
    create_time BIGINT NOT NULL,
    created_by  TEXT   NOT NULL,
    scheduled   BIGINT NOT NULL,
    missed      TEXT,
    filled      BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX copy_runs_time ON copy_runs (time, id);
CREATE INDEX copy_runs_policy ON copy_runs (policy, time);
CREATE INDEX copy_runs_unfilled ON copy_runs (id) WHERE filled = 0;

-- The run that a copy task is part of.
ALTER TABLE jobs ADD COLUMN run TEXT;
CREATE INDEX jobs_run ON jobs (run) WHERE run IS NOT NULL;

-- The copies of a policy, of which its retention keeps some.
CREATE INDEX copies_policy ON copies (policy, vm, target) WHERE policy IS NOT NULL;

-- Since when a target was away when people were told so.
ALTER TABLE targets ADD COLUMN away_told BIGINT;
