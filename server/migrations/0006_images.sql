-- What is being uploaded. How much has arrived, and when, the file itself tells.
CREATE TABLE uploads (
    id          TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL,
    format      TEXT,
    size_bytes  BIGINT NOT NULL,
    sha256      TEXT,
    fingerprint TEXT,
    created_by  TEXT   NOT NULL,
    create_time BIGINT NOT NULL
);
CREATE INDEX uploads_create_time ON uploads (create_time, id);

-- Disks that were written to a file, to be fetched.
CREATE TABLE exports (
    id            TEXT   NOT NULL PRIMARY KEY,
    name          TEXT   NOT NULL,
    vm            TEXT   NOT NULL,
    vm_name       TEXT   NOT NULL,
    snapshot_name TEXT,
    disk          BIGINT NOT NULL,
    format        TEXT   NOT NULL CHECK (format IN ('QCOW2', 'RAW', 'VMDK')),
    size_bytes    BIGINT NOT NULL,
    create_time   BIGINT NOT NULL,
    expire_time   BIGINT NOT NULL
);
CREATE INDEX exports_create_time ON exports (create_time, id);
CREATE INDEX exports_expire_time ON exports (expire_time);
