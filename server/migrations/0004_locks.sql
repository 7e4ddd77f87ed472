-- A third mode: a job that changes a machine alone, beside those that only need it to stay.
CREATE TABLE new_locks (
    vm   TEXT NOT NULL,
    job  TEXT NOT NULL REFERENCES jobs (id),
    mode TEXT NOT NULL CHECK (mode IN ('SHARED', 'CHANGING', 'EXCLUSIVE')),
    PRIMARY KEY (vm, job)
);
INSERT INTO new_locks SELECT vm, job, mode FROM locks;
DROP TABLE locks;
ALTER TABLE new_locks RENAME TO locks;
CREATE INDEX locks_job ON locks (job);
