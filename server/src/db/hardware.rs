//! What machines are made of, changed: what is wanted stands beside what runs until it is taken.

use super::vms::ADD;
use super::{DbError, Tx, json, sql, to_json, word};
use shared::edit::{EditVm, FIRST_SLOT, NextStart, PortForward};
use shared::feed::Noun;
use shared::vm::{Disk, Firmware, Nic, PatchVm, Vm};
use shared::{LayerId, Name, NetworkId, VmId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::collections::BTreeSet;

/// Changes what people see of a machine; answers whether there is such a machine.
pub async fn patch(tx: &mut Tx, id: VmId, patch: &PatchVm) -> Result<bool, DbError> {
    let name = patch.name.as_ref();
    let done = sqlx::query(
        "UPDATE vms SET labels = COALESCE($2, labels), name = COALESCE($3, name), description = COALESCE($4, description),
             autostart = CASE WHEN $5 THEN $6 ELSE autostart END WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(patch.labels.as_ref().map(to_json).transpose()?)
    .bind(name.map(|n| n.as_str()))
    .bind(&patch.description)
    .bind(patch.autostart.is_some())
    .bind(patch.autostart.flatten().map(i64::from))
    .execute(tx.conn())
    .await;
    let found = match name {
        Some(name) => super::taken("VM", name, done)?,
        None => done.map_err(sql("change a VM"))?,
    };
    let found = found.rows_affected() > 0;
    if found {
        tx.changed(Noun::Vm, id, false);
    }
    Ok(found)
}

/// Gives a machine a disk that is booted from in its turn; one of this number gets the layer.
pub async fn put_disk(tx: &mut Tx, vm: VmId, boot: usize, disk: &Disk) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO vm_disks (vm, position, slot, boot, layer) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (vm, position) DO UPDATE SET layer = excluded.layer",
    )
    .bind(vm.to_string())
    .bind(i64::from(disk.number))
    .bind(i64::from(disk.slot))
    .bind(boot as i64)
    .bind(disk.layer.to_string())
    .execute(tx.conn())
    .await
    .map_err(sql("write a disk"))?;
    Ok(())
}

/// Takes a disk off a machine that is off.
pub async fn take_disk(tx: &mut Tx, vm: VmId, number: u32) -> Result<(), DbError> {
    sqlx::query("DELETE FROM vm_disks WHERE vm = $1 AND position = $2")
        .bind(vm.to_string())
        .bind(i64::from(number))
        .execute(tx.conn())
        .await
        .map_err(sql("take a disk off a VM"))?;
    Ok(())
}

/// Gives a machine other disks; answers the layers that were active before: for [`super::layers::release`]. A disk whose PCI
/// slot a NIC or the seed has by now gets another.
pub async fn set_disks(tx: &mut Tx, vm: VmId, disks: &[Disk]) -> Result<Vec<LayerId>, DbError> {
    let rows = sqlx::query("DELETE FROM vm_disks WHERE vm = $1 RETURNING layer")
        .bind(vm.to_string())
        .fetch_all(tx.conn())
        .await
        .map_err(sql("take a VM's disks"))?;
    let others = sqlx::query(
        "SELECT slot FROM vm_nics WHERE vm = $1 UNION SELECT seed_slot FROM vms WHERE id = $1 AND has_seed = 1",
    )
    .bind(vm.to_string())
    .fetch_all(tx.conn())
    .await
    .map_err(sql("read the slots of a VM"))?;
    let others: BTreeSet<u32> = others.iter().map(|r| r.get::<i64, _>("slot") as u32).collect();
    let mut taken: BTreeSet<u32> = disks
        .iter()
        .map(|d| d.slot)
        .chain(others.iter().copied())
        .collect();
    for (boot, disk) in disks.iter().enumerate() {
        let mut disk = disk.clone();
        if others.contains(&disk.slot) {
            disk.slot = (FIRST_SLOT..).find(|n| !taken.contains(n)).unwrap_or(disk.slot);
            taken.insert(disk.slot);
        }
        put_disk(tx, vm, boot, &disk).await?;
    }
    follow_firmware(tx, vm).await?;
    tx.changed(Noun::Vm, vm, false);
    rows.iter().map(|r| word(r, "layer")).collect()
}

/// A machine whose disks are others has the firmware that they say: an EFI firmware has variables.
pub async fn follow_firmware(tx: &mut Tx, vm: VmId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE vms SET firmware = CASE WHEN EXISTS (SELECT 1 FROM vm_disks WHERE vm = vms.id AND slot = 0
             AND change IS NOT 'ADD') THEN 'EFI' ELSE 'BIOS' END WHERE id = $1",
    )
    .bind(vm.to_string())
    .execute(tx.conn())
    .await
    .map_err(sql("set a VM's firmware"))
    .map(drop)
}

/// Puts layers into the places of the active ones, in the order of the disks.
pub async fn switch_disks(tx: &mut Tx, vm: VmId, layers: &[LayerId]) -> Result<(), DbError> {
    let Some(machine) = super::vms::get(tx.conn(), vm).await? else {
        return Ok(());
    };
    for (boot, (disk, &layer)) in machine.disks.iter().zip(layers).enumerate() {
        put_disk(
            tx,
            vm,
            boot,
            &Disk {
                layer,
                ..disk.clone()
            },
        )
        .await?;
    }
    tx.changed(Noun::Vm, vm, false);
    Ok(())
}

/// Gives a machine a NIC, at once or as `change` says; one of this number stays as it is.
pub async fn put_nic(
    tx: &mut Tx,
    vm: VmId,
    nic: &Nic,
    network: NetworkId,
    change: Option<&str>,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO vm_nics (vm, position, slot, mac, network, connected, forwards, change)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (vm, position) DO NOTHING",
    )
    .bind(vm.to_string())
    .bind(i64::from(nic.number))
    .bind(i64::from(nic.slot))
    .bind(&nic.mac)
    .bind(network.to_string())
    .bind(i64::from(nic.connected))
    .bind(to_json(&nic.forwards)?)
    .bind(change)
    .execute(tx.conn())
    .await
    .map_err(sql("write a NIC"))?;
    Ok(())
}

/// Notes which NICs of a machine are connected to their networks, in their order.
pub async fn set_connected(tx: &mut Tx, vm: &Vm, connected: &[bool]) -> Result<(), DbError> {
    for (nic, connected) in vm.network_interfaces.iter().zip(connected) {
        sqlx::query("UPDATE vm_nics SET connected = $3 WHERE vm = $1 AND position = $2")
            .bind(vm.id.to_string())
            .bind(i64::from(nic.number))
            .bind(i64::from(*connected))
            .execute(tx.conn())
            .await
            .map_err(sql("connect the NICs of a VM"))?;
    }
    tx.changed(Noun::Vm, vm.id, false);
    Ok(())
}

/// A disk as a snapshot or a fork point has it.
pub(super) fn disk(row: &SqliteRow) -> Result<Disk, DbError> {
    Ok(Disk {
        number: row.get::<i64, _>("position") as u32,
        slot: row.get::<i64, _>("slot") as u32,
        layer: super::word(row, "layer")?,
        virtual_bytes: row.get::<i64, _>("virtual_bytes") as u64,
        chain_length: 1,
        allocated_bytes: None,
    })
}

/// What is to be put in.
#[derive(Clone, Debug, Default)]
pub struct Added {
    /// Disks.
    pub disks: Vec<Disk>,
    /// NICs, each with its network.
    pub nics: Vec<(Nic, NetworkId)>,
    /// The networks that NICs move to, by their numbers.
    pub moves: Vec<(u32, NetworkId)>,
}

/// Writes down what is wanted of a machine; writing it again is no change.
pub async fn want(tx: &mut Tx, vm: VmId, request: &EditVm, added: &Added) -> Result<(), DbError> {
    let id = vm.to_string();
    let row = sqlx::query("SELECT next_start, cpus, memory_mib FROM vms WHERE id = $1")
        .bind(&id)
        .fetch_one(tx.conn())
        .await
        .map_err(sql("read a VM"))?;
    let mut next: NextStart = json(&row, "next_start")?;
    // What is asked to be as it runs waits for nothing any more.
    let differs = |column: &str, n: &u32| i64::from(*n) != row.get::<i64, _>(column);
    next.cpus = request.cpus.or(next.cpus).filter(|n| differs("cpus", n));
    next.memory_mib = request
        .memory_mib
        .or(next.memory_mib)
        .filter(|n| differs("memory_mib", n));
    if !request.boot_order.is_empty() {
        next.boot_order.clone_from(&request.boot_order);
    }
    set_next(tx, &id, &next).await?;
    if request.firmware == Some(Firmware::Efi) {
        // Its variables were to be forgotten.
        sqlx::query("UPDATE vm_disks SET change = NULL WHERE vm = $1 AND slot = 0 AND change = 'REMOVE'")
            .bind(&id)
            .execute(tx.conn())
            .await
            .map_err(sql("keep the firmware of a VM"))?;
    }
    for disk in &added.disks {
        sqlx::query(
            "INSERT INTO vm_disks (vm, position, slot, boot, layer, change)
             VALUES ($1, $2, $3, (SELECT COALESCE(MAX(boot), 0) + 1 FROM vm_disks WHERE vm = $1), $4, $5)
             ON CONFLICT (vm, position) DO NOTHING",
        )
        .bind(&id)
        .bind(i64::from(disk.number))
        .bind(i64::from(disk.slot))
        .bind(disk.layer.to_string())
        .bind(ADD)
        .execute(tx.conn())
        .await
        .map_err(sql("write a disk"))?;
    }
    for grow in &request.grow_disks {
        sqlx::query("UPDATE vm_disks SET grow_to = $3 WHERE vm = $1 AND position = $2")
            .bind(&id)
            .bind(i64::from(grow.disk))
            .bind(i64::from(grow.size_gib) << 30)
            .execute(tx.conn())
            .await
            .map_err(sql("grow a disk"))?;
    }
    for (nic, network) in &added.nics {
        put_nic(tx, vm, nic, *network, Some(ADD)).await?;
    }
    for (number, network) in &added.moves {
        sqlx::query("UPDATE vm_nics SET network = $3 WHERE vm = $1 AND position = $2")
            .bind(&id)
            .bind(i64::from(*number))
            .bind(network.to_string())
            .execute(tx.conn())
            .await
            .map_err(sql("move a NIC"))?;
    }
    for change in &request.change_nics {
        let forwards = change.forwards.as_ref().map(to_json).transpose()?;
        sqlx::query(
            "UPDATE vm_nics SET new_mac = COALESCE($3, new_mac), forwards = COALESCE($4, forwards)
             WHERE vm = $1 AND position = $2",
        )
        .bind(&id)
        .bind(i64::from(change.nic))
        .bind(&change.mac)
        .bind(forwards)
        .execute(tx.conn())
        .await
        .map_err(sql("change a NIC"))?;
    }
    if request.firmware == Some(Firmware::Bios) {
        for forget in [
            // Those that are to come are not there yet.
            "DELETE FROM vm_disks WHERE vm = $1 AND slot = 0 AND change = 'ADD'",
            "UPDATE vm_disks SET change = 'REMOVE' WHERE vm = $1 AND slot = 0",
        ] {
            sqlx::query(forget)
                .bind(&id)
                .execute(tx.conn())
                .await
                .map_err(sql("change the firmware of a VM"))?;
        }
    }
    for (update, numbers) in [
        (
            "UPDATE vm_disks SET change = 'REMOVE' WHERE vm = $1 AND position = $2",
            &request.remove_disks,
        ),
        (
            "UPDATE vm_nics SET change = 'REMOVE' WHERE vm = $1 AND position = $2",
            &request.remove_nics,
        ),
    ] {
        for number in numbers {
            sqlx::query(update)
                .bind(&id)
                .bind(i64::from(*number))
                .execute(tx.conn())
                .await
                .map_err(sql("take a device out"))?;
        }
    }
    tx.changed(Noun::Vm, vm, false);
    Ok(())
}

async fn set_next(tx: &mut Tx, id: &str, next: &NextStart) -> Result<(), DbError> {
    sqlx::query("UPDATE vms SET next_start = $2 WHERE id = $1")
        .bind(id)
        .bind(to_json(next)?)
        .execute(tx.conn())
        .await
        .map_err(sql("write what becomes of a VM"))
        .map(drop)
}

/// A disk has grown, or need not.
pub async fn grown(tx: &mut Tx, vm: VmId, number: u32, layer: LayerId, bytes: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE layers SET virtual_bytes = $2 WHERE id = $1")
        .bind(layer.to_string())
        .bind(bytes as i64)
        .execute(tx.conn())
        .await
        .map_err(sql("grow a layer"))?;
    sqlx::query("UPDATE vm_disks SET grow_to = NULL WHERE vm = $1 AND position = $2")
        .bind(vm.to_string())
        .bind(i64::from(number))
        .execute(tx.conn())
        .await
        .map_err(sql("grow a disk"))?;
    tx.changed(Noun::Vm, vm, false);
    Ok(())
}

/// The devices that stay as they are until the next start.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// Numbers of disks.
    pub disks: Vec<u32>,
    /// Numbers of NICs.
    pub nics: Vec<u32>,
}

/// Devices that are in by now are the machine's, and those that are out are not, but for those that are left.
/// Answers the layers of the disks that went, for [`super::layers::release`].
pub async fn taken(tx: &mut Tx, vm: VmId, left: &Left) -> Result<Vec<LayerId>, DbError> {
    let id = vm.to_string();
    let (disks, nics) = (to_json(&left.disks)?, to_json(&left.nics)?);
    let gone = sqlx::query(
        "DELETE FROM vm_disks WHERE vm = $1 AND change = 'REMOVE'
             AND position NOT IN (SELECT value FROM json_each($2)) RETURNING layer",
    )
    .bind(&id)
    .bind(&disks)
    .fetch_all(tx.conn())
    .await
    .map_err(sql("take disks out"))?;
    sqlx::query(
        "UPDATE vm_disks SET change = NULL WHERE vm = $1 AND change = 'ADD'
             AND position NOT IN (SELECT value FROM json_each($2))",
    )
    .bind(&id)
    .bind(&disks)
    .execute(tx.conn())
    .await
    .map_err(sql("put disks in"))?;
    for change in [
        "DELETE FROM vm_nics WHERE vm = $1 AND change = 'REMOVE'
             AND position NOT IN (SELECT value FROM json_each($2))",
        "UPDATE vm_nics SET change = NULL WHERE vm = $1 AND change = 'ADD'
             AND position NOT IN (SELECT value FROM json_each($2))",
    ] {
        sqlx::query(change)
            .bind(&id)
            .bind(&nics)
            .execute(tx.conn())
            .await
            .map_err(sql("change the NICs of a VM"))?;
    }
    tx.changed(Noun::Vm, vm, false);
    gone.iter()
        .map(|row: &SqliteRow| super::word(row, "layer"))
        .collect()
}

/// All that is wanted of a machine that does not run is so from now on; its disks have grown before. Answers as [`taken`].
pub async fn started(tx: &mut Tx, vm: VmId) -> Result<Vec<LayerId>, DbError> {
    let id = vm.to_string();
    let Some(machine) = super::vms::get(tx.conn(), vm).await? else {
        return Ok(Vec::new());
    };
    if machine.at_next_start.is_none() {
        return Ok(Vec::new());
    }
    let next = machine.started_next();
    sqlx::query("UPDATE vms SET cpus = $2, memory_mib = $3 WHERE id = $1")
        .bind(&id)
        .bind(i64::from(next.cpus))
        .bind(i64::from(next.memory_mib))
        .execute(tx.conn())
        .await
        .map_err(sql("change a VM"))?;
    set_next(tx, &id, &NextStart::default()).await?;
    sqlx::query("UPDATE vm_nics SET mac = COALESCE(new_mac, mac), new_mac = NULL WHERE vm = $1")
        .bind(&id)
        .execute(tx.conn())
        .await
        .map_err(sql("change the NICs of a VM"))?;
    let gone = taken(tx, vm, &Left::default()).await?;
    for (boot, disk) in next.disks.iter().enumerate() {
        sqlx::query("UPDATE vm_disks SET boot = $3 WHERE vm = $1 AND position = $2")
            .bind(&id)
            .bind(i64::from(disk.number))
            .bind(boot as i64)
            .execute(tx.conn())
            .await
            .map_err(sql("change the boot order of a VM"))?;
    }
    follow_firmware(tx, vm).await?;
    Ok(gone)
}

/// The ports of the host that lead to each NIC: its machine with its name, and its number. Those of other networks lead nowhere.
pub async fn forwards(tx: &mut Tx) -> Result<Vec<(VmId, Name, u32, Vec<PortForward>)>, DbError> {
    let rows = sqlx::query(
        "SELECT vms.id, vms.name, vm_nics.position, vm_nics.forwards FROM vm_nics
         JOIN vms ON vms.id = vm_nics.vm JOIN networks ON networks.id = vm_nics.network
         WHERE vm_nics.forwards <> '[]' AND networks.kind = 'USER'",
    )
    .fetch_all(tx.conn())
    .await
    .map_err(sql("read the port forwards"))?;
    rows.iter()
        .map(|r| {
            let number = r.get::<i64, _>("position") as u32;
            Ok((word(r, "id")?, word(r, "name")?, number, json(r, "forwards")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use shared::vm::Nic;
    use sqlx::{Connection, SqliteConnection};

    const BEFORE: [&str; 4] = [
        include_str!("../../migrations/0001_init.sql"),
        include_str!("../../migrations/0002_access.sql"),
        include_str!("../../migrations/0003_fork_points.sql"),
        include_str!("../../migrations/0004_locks.sql"),
    ];

    /// Two disks, a seed and two NICs; and an instant of it that is kept.
    const MACHINE: &str = "
        INSERT INTO hosts VALUES ('h', 'h', 'UP');
        INSERT INTO storages VALUES ('s', 's', '/s', 1);
        INSERT INTO networks VALUES ('n', 'n', 'USER', NULL);
        INSERT INTO layers VALUES ('a', 's', NULL, 1, 0), ('b', 's', NULL, 1, 0);
        INSERT INTO vms (id, name, state, cpus, memory_mib, firmware, labels, host, bios_uuid, vmgenid, has_seed,
            lineage_kind, create_time) VALUES ('v', 'v', 'STOPPED', 1, 64, 'BIOS', '{}', 'h', '', '', 1, 'CREATED', 0);
        INSERT INTO vm_disks VALUES ('v', 0, 'a'), ('v', 1, 'b');
        INSERT INTO vm_nics (vm, position, mac, network) VALUES ('v', 0, 'x', 'n'), ('v', 1, 'y', 'n');
        INSERT INTO fork_points (id, vm, vm_name, state, cpus, memory_mib, firmware, labels, host, nics, networks,
            has_seed, accelerator, qemu_version, memory_bytes, memory_place, directory, create_time)
            VALUES ('p', 'v', 'v', 'READY', 1, 64, 'BIOS', '{}', 'h',
                '[{\"mac\":\"x\",\"network\":\"n\",\"kind\":\"USER\"},{\"mac\":\"y\",\"network\":\"n\",\"kind\":\"USER\"}]',
                '[]', 1, 'TCG', '7.2', 0, 'DISK', '/p', 0);
        INSERT INTO fork_point_disks VALUES ('p', 0, 'a'), ('p', 1, 'b');";

    #[tokio::test]
    async fn machines_from_before_keep_the_slots_that_qemu_gave_them() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let after = include_str!("../../migrations/0009_hardware.sql");
        for sql in BEFORE.into_iter().chain([MACHINE, after]) {
            sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
        }
        let mut slots = async |query: &'static str| -> Vec<i64> {
            sqlx::query_scalar(query).fetch_all(&mut conn).await.unwrap()
        };
        assert_eq!(slots("SELECT slot FROM vm_disks ORDER BY position").await, [4, 5]);
        assert_eq!(slots("SELECT seed_slot FROM vms").await, [6]);
        assert_eq!(slots("SELECT slot FROM vm_nics ORDER BY position").await, [7, 8]);
        assert_eq!(
            slots("SELECT slot FROM fork_point_disks ORDER BY position").await,
            [4, 5]
        );
        assert_eq!(slots("SELECT seed_slot FROM fork_points").await, [6]);
        let nics: String = sqlx::query_scalar("SELECT nics FROM fork_points")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        let nics: Vec<Nic> = serde_json::from_str(&nics).unwrap();
        let nics: Vec<_> = nics.iter().map(|n| (n.number, n.slot, n.mac.as_str())).collect();
        assert_eq!(nics, [(0, 7, "x"), (1, 8, "y")]);
    }
}
