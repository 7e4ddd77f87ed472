//! Machines, their disks and NICs.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, json_opt, sql, time, time_opt, to_json, word, word_opt};
use shared::access::rights::Sees;
use shared::edit::{Growth, NewMac, NextStart};
use shared::feed::Noun;
use shared::vm::{Condition, Disk, Lineage, LockedBy, Nic, Vm};
use shared::{ForkPointId, HostId, LayerId, NetworkId, SnapshotId, VmId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// A device that is put in at the next start; else it is taken out.
pub(super) const ADD: &str = "ADD";

const SELECT: &str = "SELECT vms.*, COALESCE(changes.generation, 0) AS generation,
        (SELECT snapshots.id FROM snapshots WHERE snapshots.vm = vms.id AND snapshots.state = 'READY'
         ORDER BY snapshots.create_time DESC, snapshots.id DESC LIMIT 1) AS latest_snapshot,
        locks.job AS lock_job, jobs.kind AS lock_kind
    FROM vms LEFT JOIN changes ON changes.noun = 'vm' AND changes.id = vms.id
    LEFT JOIN locks ON locks.vm = vms.id AND locks.mode <> 'SHARED'
    LEFT JOIN jobs ON jobs.id = locks.job WHERE 1 = 1";

/// What machines may be listed by.
pub const FIELDS: &[Field] = &[
    Field {
        name: "name",
        column: "vms.name",
        by: By::Text,
    },
    Field {
        name: "state",
        column: "vms.state",
        by: By::Text,
    },
    Field {
        name: "createTime",
        column: "vms.create_time",
        by: By::Number,
    },
    Field {
        name: "cpus",
        column: "vms.cpus",
        by: By::Number,
    },
    Field {
        name: "memoryMib",
        column: "vms.memory_mib",
        by: By::Number,
    },
    Field {
        name: "sourceVm",
        column: "vms.source_vm",
        by: By::Exact,
    },
    Field {
        name: "sourceSnapshot",
        column: "vms.source_snapshot",
        by: By::Exact,
    },
    Field {
        name: "forkPoint",
        column: "vms.fork_point",
        by: By::Exact,
    },
    Field {
        name: "sourceImage",
        column: "vms.source_image",
        by: By::Exact,
    },
];

/// What is stored of a machine and not shown.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// The id that tells a guest that it is another machine now.
    pub vmgenid: Uuid,
    /// Whether it has a NoCloud seed disk.
    pub has_seed: bool,
    /// The PCI slot of that.
    pub seed_slot: u32,
    /// What its guest can read about itself.
    pub config: BTreeMap<String, String>,
}

/// A machine to write down.
#[derive(Clone, Debug)]
pub struct NewVm {
    /// The machine, with its disks.
    pub vm: Vm,
    /// What is not shown of it.
    pub hidden: Hidden,
    /// Its NICs' networks, in the order of its NICs.
    pub networks: Vec<NetworkId>,
}

fn read(row: &SqliteRow) -> Result<Vm, DbError> {
    let condition = Condition::from_parts(
        word(row, "state")?,
        time_opt(row, "running_since")?,
        word_opt(row, "pause_reason")?,
        json_opt(row, "error")?,
    )?;
    let (state, running_since, pause_reason, error) = condition.into_parts();
    let locked_by = match (word_opt(row, "lock_job")?, word_opt(row, "lock_kind")?) {
        (Some(job), Some(kind)) => Some(LockedBy { job, kind }),
        _ => None,
    };
    Ok(Vm {
        id: word(row, "id")?,
        name: word(row, "name")?,
        state,
        running_since,
        pause_reason,
        error,
        cpus: row.get::<i64, _>("cpus") as u32,
        memory_mib: row.get::<i64, _>("memory_mib") as u32,
        firmware: word(row, "firmware")?,
        disks: Vec::new(),
        network_interfaces: Vec::new(),
        labels: json(row, "labels")?,
        host: word(row, "host")?,
        bios_uuid: word(row, "bios_uuid")?,
        lineage: Lineage {
            kind: word(row, "lineage_kind")?,
            source_image: word_opt(row, "source_image")?,
            source_vm: word_opt(row, "source_vm")?,
            source_snapshot: word_opt(row, "source_snapshot")?,
            fork_point: word_opt(row, "fork_point")?,
            job: word_opt(row, "job")?,
        },
        locked_by,
        current_snapshot: word_opt(row, "current_snapshot")?,
        latest_snapshot: word_opt(row, "latest_snapshot")?,
        create_time: time(row, "create_time")?,
        description: row.get("description"),
        autostart: row.get::<Option<i64>, _>("autostart").map(|n| n as u32),
        at_next_start: Some(json(row, "next_start")?),
        generation: row.get::<i64, _>("generation") as u64,
    })
}

/// Reads the disks and NICs of machines that have been read without.
async fn complete(conn: &mut SqliteConnection, vms: &mut [Vm]) -> Result<(), DbError> {
    if vms.is_empty() {
        return Ok(());
    }
    let at: HashMap<String, usize> = vms
        .iter()
        .enumerate()
        .map(|(n, vm)| (vm.id.to_string(), n))
        .collect();
    let mut disks = QueryBuilder::<Sqlite>::new(
        "WITH RECURSIVE chain (disk, id) AS (SELECT layer, layer FROM vm_disks WHERE vm IN (",
    );
    let mut ids = disks.separated(", ");
    for id in at.keys() {
        ids.push_bind(id.clone());
    }
    disks.push(
        ") UNION ALL SELECT chain.disk, layers.parent FROM chain JOIN layers ON layers.id = chain.id
           WHERE layers.parent IS NOT NULL)
         SELECT vm_disks.*, layers.virtual_bytes,
             (SELECT COUNT(*) FROM chain WHERE chain.disk = vm_disks.layer) AS chain_length
         FROM vm_disks JOIN layers ON layers.id = vm_disks.layer
         WHERE vm_disks.layer IN (SELECT disk FROM chain) ORDER BY vm_disks.vm, vm_disks.boot, vm_disks.position",
    );
    for row in disks
        .build()
        .fetch_all(&mut *conn)
        .await
        .map_err(sql("read disks"))?
    {
        if let Some(&n) = at.get(row.get::<&str, _>("vm")) {
            let disk = Disk {
                number: row.get::<i64, _>("position") as u32,
                slot: row.get::<i64, _>("slot") as u32,
                layer: word(&row, "layer")?,
                virtual_bytes: row.get::<i64, _>("virtual_bytes") as u64,
                chain_length: row.get::<i64, _>("chain_length") as u32,
                allocated_bytes: None,
            };
            let (number, next) = (disk.number, vms[n].at_next_start.get_or_insert_default());
            if let Some(bytes) = row.get::<Option<i64>, _>("grow_to") {
                let virtual_bytes = bytes as u64;
                next.grow_disks.push(Growth {
                    disk: number,
                    virtual_bytes,
                });
            }
            match row.get("change") {
                Some(ADD) => next.add_disks.push(disk),
                change => {
                    if change.is_some() {
                        next.remove_disks.push(number);
                    }
                    vms[n].disks.push(disk);
                }
            }
        }
    }
    let mut nics = QueryBuilder::<Sqlite>::new(
        "SELECT vm_nics.*, networks.name, networks.kind FROM vm_nics
         JOIN networks ON networks.id = vm_nics.network WHERE vm_nics.vm IN (",
    );
    let mut ids = nics.separated(", ");
    for id in at.keys() {
        ids.push_bind(id.clone());
    }
    nics.push(") ORDER BY vm_nics.vm, vm_nics.position");
    for row in nics.build().fetch_all(conn).await.map_err(sql("read NICs"))? {
        if let Some(&n) = at.get(row.get::<&str, _>("vm")) {
            let nic = Nic {
                number: row.get::<i64, _>("position") as u32,
                slot: row.get::<i64, _>("slot") as u32,
                mac: row.get("mac"),
                network: word(&row, "name")?,
                kind: word(&row, "kind")?,
                connected: row.get::<i64, _>("connected") != 0,
                forwards: json(&row, "forwards")?,
            };
            let (number, next) = (nic.number, vms[n].at_next_start.get_or_insert_default());
            if let Some(mac) = row.get("new_mac") {
                next.macs.push(NewMac { nic: number, mac });
            }
            match row.get("change") {
                Some(ADD) => next.add_nics.push(nic),
                change => {
                    if change.is_some() {
                        next.remove_nics.push(number);
                    }
                    vms[n].network_interfaces.push(nic);
                }
            }
        }
    }
    for vm in vms {
        let Some(next) = vm
            .at_next_start
            .take()
            .filter(|next| *next != NextStart::default())
        else {
            continue;
        };
        vm.at_next_start = Some(next);
        // It follows from the disks.
        let firmware = vm.started_next().firmware;
        if firmware != vm.firmware
            && let Some(next) = &mut vm.at_next_start
        {
            next.firmware = Some(firmware);
        }
    }
    Ok(())
}

/// A page of machines.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<Vm>, DbError> {
    let mut page = listing
        .run(db, SELECT, "FROM vms WHERE 1 = 1", "vms.id", read)
        .await?;
    db.reading(async |conn| complete(conn, &mut page.items).await)
        .await?;
    Ok(page)
}

async fn find_where(
    conn: &mut SqliteConnection,
    column: &'static str,
    value: &str,
) -> Result<Option<Vm>, DbError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" AND ").push(column).push(" = ").push_bind(value);
    let row = query
        .build()
        .fetch_optional(&mut *conn)
        .await
        .map_err(sql("read a VM"))?;
    let Some(row) = row else { return Ok(None) };
    let mut vms = [read(&row)?];
    complete(conn, &mut vms).await?;
    let [vm] = vms;
    Ok(Some(vm))
}

/// The machine with this id, as the transaction sees it.
pub async fn get(conn: &mut SqliteConnection, id: VmId) -> Result<Option<Vm>, DbError> {
    find_where(conn, "vms.id", &id.to_string()).await
}

/// The machine with this id.
pub async fn by_id(db: &Db, id: VmId) -> Result<Option<Vm>, DbError> {
    db.reading(async |conn| get(conn, id).await).await
}

/// The machine with this name or id.
pub async fn find(db: &Db, reference: &str) -> Result<Option<Vm>, DbError> {
    let column = if reference.parse::<VmId>().is_ok() {
        "vms.id"
    } else {
        "vms.name"
    };
    db.reading(async |conn| find_where(conn, column, reference).await)
        .await
}

/// What is stored of a machine and not shown.
pub async fn hidden(db: &Db, id: VmId) -> Result<Option<Hidden>, DbError> {
    let row = sqlx::query("SELECT vmgenid, has_seed, seed_slot, config FROM vms WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(db.read())
        .await
        .map_err(sql("read a VM"))?;
    row.map(|r| {
        Ok(Hidden {
            vmgenid: word(&r, "vmgenid")?,
            has_seed: r.get::<i64, _>("has_seed") != 0,
            seed_slot: r.get::<i64, _>("seed_slot") as u32,
            config: json(&r, "config")?,
        })
    })
    .transpose()
}

/// The machines that were forked at the same instant as one, and those that were forked from it, oldest first.
pub async fn family(db: &Db, id: VmId, fork_point: Option<ForkPointId>) -> Result<Vec<VmId>, DbError> {
    let rows = sqlx::query(
        "SELECT id FROM vms WHERE id <> $1 AND fork_point IS NOT NULL AND (fork_point = $2 OR source_vm = $1)
         ORDER BY create_time, id LIMIT 256",
    )
    .bind(id.to_string())
    .bind(fork_point.map(|p| p.to_string()))
    .fetch_all(db.read())
    .await
    .map_err(sql("read the family of a VM"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}

/// Ids of all machines.
pub async fn ids(db: &Db) -> Result<Vec<VmId>, DbError> {
    let rows = sqlx::query("SELECT id FROM vms")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the VMs"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}

/// How many machines there are in each state, and the memory of those that run, in MiB.
pub async fn counts(db: &Db, sees: &Sees) -> Result<BTreeMap<String, (u64, u64)>, DbError> {
    let rows = sqlx::query(
        "SELECT CASE WHEN state = 'PAUSED' AND pause_reason <> 'USER' THEN 'TROUBLED' ELSE state END AS state,
             COUNT(*) AS n, SUM(memory_mib) AS mib FROM vms
         WHERE $1 IS NULL OR id IN (SELECT value FROM json_each($1)) GROUP BY 1",
    )
    .bind(super::seen(sees)?)
    .fetch_all(db.read())
    .await
    .map_err(sql("count the VMs"))?;
    Ok(rows
        .iter()
        .map(|r| {
            (
                r.get("state"),
                (r.get::<i64, _>("n") as u64, r.get::<i64, _>("mib") as u64),
            )
        })
        .collect())
}

/// Writes a machine down with its disks and NICs; writing it again is no change. The layers exist already.
pub async fn insert(tx: &mut Tx, new: &NewVm) -> Result<(), DbError> {
    let vm = &new.vm;
    let (state, since, reason, error) = vm.condition()?.into_parts();
    let id = vm.id.to_string();
    let done = sqlx::query(
        "INSERT INTO vms (id, name, state, running_since, pause_reason, error, cpus, memory_mib, firmware, labels, host,
             bios_uuid, vmgenid, has_seed, lineage_kind, source_image, source_vm, source_snapshot, job, create_time,
             fork_point, config, seed_slot, description, autostart)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
             $24, $25)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(&id)
    .bind(vm.name.as_str())
    .bind(state.word())
    .bind(since.map(|t| t.micros()))
    .bind(reason.map(|r| r.word()))
    .bind(error.as_ref().map(to_json).transpose()?)
    .bind(i64::from(vm.cpus))
    .bind(i64::from(vm.memory_mib))
    .bind(vm.firmware.word())
    .bind(to_json(&vm.labels)?)
    .bind(vm.host.to_string())
    .bind(vm.bios_uuid.to_string())
    .bind(new.hidden.vmgenid.to_string())
    .bind(i64::from(new.hidden.has_seed))
    .bind(vm.lineage.kind.word())
    .bind(vm.lineage.source_image.map(|i| i.to_string()))
    .bind(vm.lineage.source_vm.map(|i| i.to_string()))
    .bind(vm.lineage.source_snapshot.map(|i| i.to_string()))
    .bind(vm.lineage.job.map(|i| i.to_string()))
    .bind(vm.create_time.micros())
    .bind(vm.lineage.fork_point.map(|i| i.to_string()))
    .bind(to_json(&new.hidden.config)?)
    .bind(i64::from(new.hidden.seed_slot))
    .bind(&vm.description)
    .bind(vm.autostart.map(i64::from))
    .execute(tx.conn())
    .await;
    let fresh = super::taken("VM", &vm.name, done)?.rows_affected() > 0;
    if fresh {
        for (boot, disk) in vm.disks.iter().enumerate() {
            super::hardware::put_disk(tx, vm.id, boot, disk).await?;
        }
        for (nic, network) in vm.network_interfaces.iter().zip(&new.networks) {
            super::hardware::put_nic(tx, vm.id, nic, *network, None).await?;
        }
    }
    tx.changed(Noun::Vm, vm.id, false);
    Ok(())
}

/// Gives a machine another generation id: its guest is not where it was.
pub async fn set_vmgenid(tx: &mut Tx, vm: VmId, vmgenid: uuid::Uuid) -> Result<(), DbError> {
    sqlx::query("UPDATE vms SET vmgenid = $2 WHERE id = $1")
        .bind(vm.to_string())
        .bind(vmgenid.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("set a VM's generation id"))?;
    Ok(())
}

/// Sets a machine's state; answers whether that was a change.
pub async fn set_condition(tx: &mut Tx, id: VmId, to: Condition) -> Result<bool, DbError> {
    let (state, since, reason, error) = to.into_parts();
    let done = sqlx::query(
        "UPDATE vms SET state = $2, running_since = $3, pause_reason = $4, error = $5 WHERE id = $1
         AND (state, running_since, pause_reason, error) IS NOT ($2, $3, $4, $5)",
    )
    .bind(id.to_string())
    .bind(state.word())
    .bind(since.map(|t| t.micros()))
    .bind(reason.map(|r| r.word()))
    .bind(error.as_ref().map(to_json).transpose()?)
    .execute(tx.conn())
    .await
    .map_err(sql("set a VM's state"))?;
    let changed = done.rows_affected() > 0;
    if changed {
        tx.changed(Noun::Vm, id, false);
    }
    Ok(changed)
}

/// Sets the snapshot that a machine's disks stand on.
pub async fn set_current(tx: &mut Tx, id: VmId, snapshot: Option<SnapshotId>) -> Result<(), DbError> {
    sqlx::query("UPDATE vms SET current_snapshot = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(snapshot.map(|s| s.to_string()))
        .execute(tx.conn())
        .await
        .map_err(sql("set a VM's current snapshot"))?;
    tx.changed(Noun::Vm, id, false);
    Ok(())
}

/// Takes a machine off the books, with its snapshots' names. Answers every layer that it or they stood on:
/// for [`super::layers::release`].
pub async fn delete(tx: &mut Tx, id: VmId) -> Result<Vec<LayerId>, DbError> {
    let id_text = id.to_string();
    let rows = sqlx::query(
        "SELECT layer FROM vm_disks WHERE vm = $1
         UNION SELECT layer FROM snapshot_disks JOIN snapshots ON snapshots.id = snapshot_disks.snapshot
         WHERE snapshots.vm = $1",
    )
    .bind(&id_text)
    .fetch_all(tx.conn())
    .await
    .map_err(sql("read a VM's layers"))?;
    let snapshots = sqlx::query("SELECT id FROM snapshots WHERE vm = $1")
        .bind(&id_text)
        .fetch_all(tx.conn())
        .await
        .map_err(sql("read a VM's snapshots"))?;
    for snapshot in &snapshots {
        tx.changed(Noun::Snapshot, snapshot.get::<&str, _>("id"), true);
    }
    let done = sqlx::query("DELETE FROM vms WHERE id = $1 RETURNING fork_point")
        .bind(&id_text)
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("delete a VM"))?;
    if let Some(row) = done {
        tx.changed(Noun::Vm, id, true);
        if let Some(point) = word_opt(&row, "fork_point")? {
            // One stands on it less.
            super::fork_points::touch(tx, point).await?;
        }
    }
    rows.iter().map(|r| word(r, "layer")).collect()
}

/// The host that machines are made on.
pub async fn first_host(conn: &mut SqliteConnection) -> Result<HostId, DbError> {
    let row = sqlx::query("SELECT id FROM hosts ORDER BY name LIMIT 1")
        .fetch_one(conn)
        .await
        .map_err(sql("read the hosts"))?;
    word(&row, "id")
}

/// Whether there is a machine with this id.
pub async fn exists(tx: &mut Tx, id: VmId) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM vms WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("look for a VM"))?;
    Ok(row.is_some())
}

/// Whether a machine has this name.
pub async fn name_taken(tx: &mut Tx, name: &shared::Name) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM vms WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(tx.conn())
        .await
        .map_err(sql("look for a VM's name"))?;
    Ok(row.is_some())
}

/// Every layer that a machine and its snapshots read through, down to the bases.
pub async fn all_layers(db: &Db, id: VmId) -> Result<Vec<LayerId>, DbError> {
    let rows = sqlx::query(
        "WITH RECURSIVE chain (id) AS (
             SELECT layer FROM vm_disks WHERE vm = $1
             UNION SELECT layer FROM snapshot_disks JOIN snapshots ON snapshots.id = snapshot_disks.snapshot
             WHERE snapshots.vm = $1
             UNION SELECT layers.parent FROM chain JOIN layers ON layers.id = chain.id
             WHERE layers.parent IS NOT NULL
         )
         SELECT id FROM chain",
    )
    .bind(id.to_string())
    .fetch_all(db.read())
    .await
    .map_err(sql("read a VM's layers"))?;
    rows.iter().map(|r| word(r, "id")).collect()
}
