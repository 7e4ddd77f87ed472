-- Where machines live that are carried over.
CREATE TABLE sources (
    id          TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL UNIQUE,
    place       TEXT   NOT NULL,
    create_time BIGINT NOT NULL
);

-- The machines that are carried over; what they are asked, and how far they have come, as JSON.
CREATE TABLE migrating_vms (
    id          TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL UNIQUE,
    source      TEXT   NOT NULL REFERENCES sources (id),
    source_vm   TEXT   NOT NULL,
    target      TEXT   NOT NULL REFERENCES targets (id),
    in_group    TEXT,
    state       TEXT   NOT NULL,
    state_time  BIGINT NOT NULL,
    body        TEXT   NOT NULL,
    create_time BIGINT NOT NULL
);
-- Nothing is carried over twice at a time.
CREATE UNIQUE INDEX migrating_vms_source_vm ON migrating_vms (source, source_vm) WHERE state <> 'FINALIZED';

-- What people say of test clones.
CREATE TABLE judged_clones (
    job     TEXT   NOT NULL PRIMARY KEY,
    verdict TEXT   NOT NULL,
    note    TEXT   NOT NULL,
    said_by TEXT   NOT NULL,
    time    BIGINT NOT NULL
);

-- The migration that a job is of: a cycle, a test clone, a cutover or its end.
ALTER TABLE jobs ADD COLUMN migration TEXT;
CREATE INDEX jobs_migration ON jobs (migration, create_time) WHERE migration IS NOT NULL;

-- The migration that uploaded a copy, which keeps some of them.
ALTER TABLE copies ADD COLUMN migration TEXT;
CREATE INDEX copies_migration ON copies (migration) WHERE migration IS NOT NULL;
