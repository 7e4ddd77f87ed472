-- Jobs that a release from before 0009 has begun: what they minted knows of no numbers and slots. Slot 0 would be read as
-- what an EFI firmware remembers.
UPDATE jobs SET data = json_set(data,
    '$.layers', json((
        SELECT json_group_array(json_set(value, '$.number', key, '$.slot', 4 + key)) FROM json_each(data, '$.layers'))),
    '$.nics', json((
        SELECT json_group_array(json_set(value, '$.number', key, '$.slot', 4 + json_array_length(jobs.data, '$.layers')
            + (json_type(jobs.spec, '$.createVm.cloudInit') IS NOT NULL) + key)) FROM json_each(data, '$.nics'))),
    '$.seed_slot', 4 + json_array_length(data, '$.layers'))
WHERE kind = 'CREATE_VM' AND end_time IS NULL AND json_type(data, '$.vm') IS NOT NULL
    AND json_type(data, '$.seed_slot') IS NULL;

UPDATE jobs SET data = json_set(data, '$.product.Vm.nics', json((
        SELECT json_group_array(json_set(value, '$.number', key, '$.slot', 4 + json_array_length(jobs.data, '$.layers')
            + (json_type(jobs.spec, '$.cloneVm.request.target.cloudInit') IS NOT NULL) + key))
        FROM json_each(data, '$.product.Vm.nics'))))
WHERE kind = 'CLONE_VM' AND end_time IS NULL AND json_type(data, '$.product.Vm.nics[0]') IS NOT NULL
    AND json_type(data, '$.product.Vm.nics[0].slot') IS NULL;

-- A clone gets its disks late: where it had none yet, 0009 gave their slots to its seed and its NICs.
CREATE TEMPORARY TABLE early AS
    SELECT vms.id AS vm, json_array_length(jobs.data, '$.layers') AS disks
    FROM vms JOIN jobs ON jobs.product = vms.id AND jobs.kind = 'CLONE_VM' AND jobs.end_time IS NULL
    WHERE vms.seed_slot = 4 AND NOT EXISTS (SELECT 1 FROM vm_disks WHERE vm_disks.vm = vms.id);
UPDATE vm_nics SET slot = slot + (SELECT disks FROM early WHERE early.vm = vm_nics.vm)
    WHERE vm IN (SELECT vm FROM early);
UPDATE vms SET seed_slot = seed_slot + (SELECT disks FROM early WHERE early.vm = vms.id)
    WHERE id IN (SELECT vm FROM early);
DROP TABLE early;

-- So did it with an instant that was not frozen yet: its disks are those of its machine.
UPDATE fork_points SET
    seed_slot = seed_slot + (SELECT COUNT(*) FROM vm_disks WHERE vm_disks.vm = fork_points.vm),
    nics = (SELECT json_group_array(json_set(value, '$.slot', json_extract(value, '$.slot')
            + (SELECT COUNT(*) FROM vm_disks WHERE vm_disks.vm = fork_points.vm))) FROM json_each(nics))
WHERE state = 'CREATING' AND seed_slot = 4
    AND NOT EXISTS (SELECT 1 FROM fork_point_disks WHERE point = fork_points.id);
