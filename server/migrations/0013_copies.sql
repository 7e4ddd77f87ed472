-- Places that copies go to. What is secret, and the key of the vault there, are sealed by the server's own key.
CREATE TABLE targets (
    id               TEXT   NOT NULL PRIMARY KEY,
    name             TEXT   NOT NULL UNIQUE,
    place            TEXT   NOT NULL,
    secret           TEXT,
    vault            TEXT   NOT NULL UNIQUE,
    vault_key        TEXT   NOT NULL,
    found            TEXT   NOT NULL,
    away             TEXT,
    away_since       BIGINT,
    bytes_per_second BIGINT,
    at_once          BIGINT NOT NULL,
    checked          TEXT,
    create_time      BIGINT NOT NULL,
    CHECK ((away IS NULL) = (away_since IS NULL))
);

-- What the vaults have, as they say it: it can be read from them again. What only this server knows of a copy stands beside it.
CREATE TABLE copies (
    id            TEXT   NOT NULL PRIMARY KEY,
    target        TEXT   NOT NULL REFERENCES targets (id) ON DELETE CASCADE,
    vm            TEXT   NOT NULL,
    vm_name       TEXT   NOT NULL,
    snapshot_time BIGINT NOT NULL,
    create_time   BIGINT NOT NULL,
    stored_bytes  BIGINT NOT NULL,
    body          TEXT   NOT NULL,
    booted        TEXT,
    damage        TEXT,
    legal_hold    BIGINT NOT NULL DEFAULT 0,
    policy        TEXT
);
CREATE INDEX copies_vm ON copies (vm, snapshot_time);
CREATE INDEX copies_target ON copies (target, create_time);
CREATE INDEX copies_time ON copies (snapshot_time, id);

-- Snapshots that were taken for a copy: kept until the next copy to that target, which then reads what has changed since.
CREATE TABLE copy_snapshots (
    snapshot TEXT NOT NULL PRIMARY KEY REFERENCES snapshots (id) ON DELETE CASCADE,
    target   TEXT NOT NULL
);

-- Which layer took up which: what the one showed, the other shows, or something that was written since.
CREATE TABLE merged_layers (
    layer TEXT NOT NULL PRIMARY KEY,
    taken TEXT NOT NULL
);

-- Who has a job stand still.
ALTER TABLE jobs ADD COLUMN held_by TEXT;
-- A layer whose data are still at a target: which disk of which copy, as JSON.
ALTER TABLE layers ADD COLUMN copy_of TEXT;
CREATE INDEX layers_copy ON layers (id) WHERE copy_of IS NOT NULL;
