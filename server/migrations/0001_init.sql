-- Times are microseconds since the Unix epoch, UTC. Ids are UUIDs as text. JSON is text.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- One row for each thing that ever changed, with its last generation: the feed reads this, there is no event log.
CREATE TABLE changes (
    noun       TEXT NOT NULL,
    id         TEXT NOT NULL,
    generation BIGINT NOT NULL,
    deleted    BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (noun, id)
);
CREATE UNIQUE INDEX changes_generation ON changes (generation);

CREATE TABLE hosts (
    id    TEXT PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('UP', 'MAINTENANCE'))
);

CREATE TABLE storages (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    path       TEXT NOT NULL,
    is_default BIGINT NOT NULL
);

CREATE TABLE networks (
    id     TEXT PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    kind   TEXT NOT NULL CHECK (kind IN ('USER', 'BRIDGE', 'ISOLATED')),
    bridge TEXT
);

-- qcow2 layers: property of no VM. A layer goes when no disk, snapshot, image or other layer stands on it.
CREATE TABLE layers (
    id            TEXT PRIMARY KEY,
    storage       TEXT NOT NULL REFERENCES storages (id),
    parent        TEXT REFERENCES layers (id),
    virtual_bytes BIGINT NOT NULL,
    create_time   BIGINT NOT NULL
);
CREATE INDEX layers_parent ON layers (parent);

CREATE TABLE images (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    layer       TEXT NOT NULL REFERENCES layers (id),
    create_time BIGINT NOT NULL
);
CREATE INDEX images_layer ON images (layer);

CREATE TABLE vms (
    id               TEXT PRIMARY KEY,
    name             TEXT NOT NULL UNIQUE,
    state            TEXT NOT NULL CHECK (state IN ('STOPPED', 'STARTING', 'RUNNING', 'PAUSED', 'STOPPING', 'ERROR')),
    running_since    BIGINT,
    pause_reason     TEXT,
    error            TEXT,
    cpus             BIGINT NOT NULL,
    memory_mib       BIGINT NOT NULL,
    firmware         TEXT NOT NULL,
    labels           TEXT NOT NULL,
    host             TEXT NOT NULL REFERENCES hosts (id),
    bios_uuid        TEXT NOT NULL,
    vmgenid          TEXT NOT NULL,
    has_seed         BIGINT NOT NULL,
    lineage_kind     TEXT NOT NULL,
    source_image     TEXT,
    source_vm        TEXT,
    source_snapshot  TEXT,
    job              TEXT,
    current_snapshot TEXT,
    create_time      BIGINT NOT NULL,
    CHECK ((state IN ('RUNNING', 'PAUSED', 'STOPPING')) = (running_since IS NOT NULL)),
    CHECK ((state = 'PAUSED') = (pause_reason IS NOT NULL)),
    CHECK ((state = 'ERROR') = (error IS NOT NULL))
);
CREATE INDEX vms_create_time ON vms (create_time, id);
CREATE INDEX vms_state ON vms (state);
CREATE INDEX vms_source_vm ON vms (source_vm);

CREATE TABLE vm_disks (
    vm       TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    layer    TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (vm, position)
);
CREATE UNIQUE INDEX vm_disks_layer ON vm_disks (layer);

CREATE TABLE vm_nics (
    vm       TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    mac      TEXT NOT NULL,
    network  TEXT NOT NULL REFERENCES networks (id),
    PRIMARY KEY (vm, position)
);

CREATE TABLE snapshots (
    id              TEXT PRIMARY KEY,
    vm              TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    description     TEXT NOT NULL,
    parent          TEXT REFERENCES snapshots (id) ON DELETE SET NULL,
    state           TEXT NOT NULL CHECK (state IN ('CREATING', 'READY')),
    consistency     TEXT NOT NULL,
    memory          BIGINT NOT NULL,
    pause_micros    BIGINT,
    allocated_bytes BIGINT NOT NULL,
    create_time     BIGINT NOT NULL,
    UNIQUE (vm, name)
);
CREATE INDEX snapshots_latest ON snapshots (vm, state, create_time);
CREATE INDEX snapshots_parent ON snapshots (parent);

CREATE TABLE snapshot_disks (
    snapshot TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    layer    TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (snapshot, position)
);
CREATE INDEX snapshot_disks_layer ON snapshot_disks (layer);

CREATE TABLE jobs (
    id               TEXT PRIMARY KEY,
    kind             TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN
        ('QUEUED', 'RUNNING', 'UNWINDING', 'UNDO_BLOCKED', 'ON_HOLD', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    vm               TEXT,
    product          TEXT,
    clone_job_id     TEXT,
    spec             TEXT NOT NULL,
    steps            TEXT NOT NULL,
    data             TEXT NOT NULL,
    resources        TEXT NOT NULL,
    outcome          TEXT NOT NULL,
    unwind_cause     TEXT,
    error            TEXT,
    blocked          TEXT,
    hold_reason      TEXT,
    no_return        BIGINT NOT NULL DEFAULT 0,
    cancel_requested BIGINT NOT NULL DEFAULT 0,
    retry_of         TEXT,
    created_by       TEXT NOT NULL,
    request_id       TEXT,
    lease_owner      TEXT,
    lease_until      BIGINT,
    create_time      BIGINT NOT NULL,
    start_time       BIGINT,
    state_time       BIGINT NOT NULL,
    end_time         BIGINT,
    CHECK ((state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) = (end_time IS NOT NULL)),
    CHECK ((state IN ('UNWINDING', 'UNDO_BLOCKED')) = (unwind_cause IS NOT NULL)),
    CHECK ((state = 'UNDO_BLOCKED') = (blocked IS NOT NULL)),
    CHECK ((state = 'ON_HOLD') = (hold_reason IS NOT NULL))
);
-- Only the few that are not over: history does not slow the queue.
CREATE INDEX jobs_active ON jobs (create_time, id) WHERE end_time IS NULL;
CREATE INDEX jobs_create_time ON jobs (create_time, id);
CREATE INDEX jobs_vm ON jobs (vm, create_time);
CREATE INDEX jobs_product ON jobs (product, create_time) WHERE product IS NOT NULL;
CREATE INDEX jobs_failed ON jobs (end_time) WHERE state = 'FAILED';
CREATE INDEX jobs_request ON jobs (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX jobs_clone_job_id ON jobs (clone_job_id) WHERE clone_job_id IS NOT NULL;

CREATE TABLE job_log (
    id   INTEGER PRIMARY KEY,
    job  TEXT NOT NULL,
    time BIGINT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX job_log_job ON job_log (job, id);

-- A lock names the job that holds it and dies with it.
CREATE TABLE locks (
    vm   TEXT NOT NULL,
    job  TEXT NOT NULL REFERENCES jobs (id),
    mode TEXT NOT NULL CHECK (mode IN ('SHARED', 'EXCLUSIVE')),
    PRIMARY KEY (vm, job)
);
CREATE INDEX locks_job ON locks (job);
