-- Instants that machines are forked from. One without a name lives as long as the job that took it.
CREATE TABLE fork_points (
    id           TEXT PRIMARY KEY,
    name         TEXT UNIQUE,
    vm           TEXT NOT NULL,
    vm_name      TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('CREATING', 'READY')),
    cpus         BIGINT NOT NULL,
    memory_mib   BIGINT NOT NULL,
    firmware     TEXT NOT NULL,
    labels       TEXT NOT NULL,
    host         TEXT NOT NULL REFERENCES hosts (id),
    nics         TEXT NOT NULL,
    networks     TEXT NOT NULL,
    has_seed     BIGINT NOT NULL,
    accelerator  TEXT NOT NULL,
    qemu_version TEXT NOT NULL,
    pause_micros BIGINT,
    memory_bytes BIGINT NOT NULL,
    memory_place TEXT NOT NULL CHECK (memory_place IN ('RAM', 'DISK')),
    directory    TEXT NOT NULL,
    create_time  BIGINT NOT NULL
);
CREATE INDEX fork_points_create_time ON fork_points (create_time, id);

CREATE TABLE fork_point_disks (
    point    TEXT NOT NULL REFERENCES fork_points (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    layer    TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (point, position)
);
CREATE INDEX fork_point_disks_layer ON fork_point_disks (layer);

ALTER TABLE vms ADD COLUMN fork_point TEXT;
CREATE INDEX vms_fork_point ON vms (fork_point) WHERE fork_point IS NOT NULL;

-- What the guest can read about itself.
ALTER TABLE vms ADD COLUMN config TEXT NOT NULL DEFAULT '{}';

-- A NIC that is not connected keeps its network for later.
ALTER TABLE vm_nics ADD COLUMN connected BIGINT NOT NULL DEFAULT 1;
