-- A device keeps its number and its PCI slot as long as a machine has it: a fork loads the state of devices by their slots.
-- Until now slots were given in turn from 4 on: disks, seed, NICs.
ALTER TABLE vm_disks ADD COLUMN slot BIGINT NOT NULL DEFAULT 0;
-- The lowest is booted from first.
ALTER TABLE vm_disks ADD COLUMN boot BIGINT NOT NULL DEFAULT 0;
-- What becomes of it at the next start.
ALTER TABLE vm_disks ADD COLUMN change TEXT CHECK (change IN ('ADD', 'REMOVE'));
ALTER TABLE vm_disks ADD COLUMN grow_to BIGINT;
UPDATE vm_disks SET slot = 4 + position, boot = position;

ALTER TABLE vms ADD COLUMN seed_slot BIGINT NOT NULL DEFAULT 0;
UPDATE vms SET seed_slot = 4 + (SELECT COUNT(*) FROM vm_disks WHERE vm_disks.vm = vms.id);

ALTER TABLE vm_nics ADD COLUMN slot BIGINT NOT NULL DEFAULT 0;
ALTER TABLE vm_nics ADD COLUMN change TEXT CHECK (change IN ('ADD', 'REMOVE'));
ALTER TABLE vm_nics ADD COLUMN new_mac TEXT;
ALTER TABLE vm_nics ADD COLUMN forwards TEXT NOT NULL DEFAULT '[]';
UPDATE vm_nics SET slot = position + (SELECT seed_slot + has_seed FROM vms WHERE vms.id = vm_nics.vm);

ALTER TABLE snapshot_disks ADD COLUMN slot BIGINT NOT NULL DEFAULT 0;
UPDATE snapshot_disks SET slot = 4 + position;

ALTER TABLE fork_points ADD COLUMN seed_slot BIGINT NOT NULL DEFAULT 0;
ALTER TABLE fork_point_disks ADD COLUMN slot BIGINT NOT NULL DEFAULT 0;
UPDATE fork_point_disks SET slot = 4 + position;
UPDATE fork_points SET seed_slot = 4 + (SELECT COUNT(*) FROM fork_point_disks WHERE point = fork_points.id);
UPDATE fork_points SET nics = (
    SELECT json_group_array(json_set(value, '$.number', key, '$.slot', seed_slot + has_seed + key)) FROM json_each(nics)
);

ALTER TABLE vms ADD COLUMN description TEXT NOT NULL DEFAULT '';
-- Processors, memory and boot order from the next start on.
ALTER TABLE vms ADD COLUMN next_start TEXT NOT NULL DEFAULT '{}';
-- Its turn when the host has restarted; none if it is not started then.
ALTER TABLE vms ADD COLUMN autostart BIGINT;
-- The boot of the host that machines were last started in.
ALTER TABLE hosts ADD COLUMN boot TEXT;
