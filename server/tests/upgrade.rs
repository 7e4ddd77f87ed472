//! A server of today on the database of an older release, which was halted while jobs were at work.
//!
//! The release is the one before machines could be edited: devices had no slots, and what jobs minted knows of none. What it
//! wrote is written out here as it was, for the types of today would write it as it is.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use server::db::{self, Db};
use server::jobs::Jobs;
use server::jobs::world::Machines;
use shared::job::JobState;
use shared::vm::{Vm, VmState};
use shared::{JobId, LayerId};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use std::collections::BTreeSet;
use std::path::Path;
use support::{clean_up, dir, ended, engine, slate_without_layers};

/// The migrations of that release.
const RELEASE: [i64; 6] = [1, 2, 3, 4, 5, 7];
const GIB: u64 = 1 << 30;
/// What each test's machine is made of.
const BASE: u32 = 10;
const FROZEN: [u32; 2] = [11, 12];
const ACTIVE: [u32; 2] = [13, 14];
const WEB: u32 = 20;
const SNAPSHOT: u32 = 21;

fn id(n: u32) -> String {
    format!("00000000-0000-7000-8000-{n:012}")
}

fn job(n: u32) -> JobId {
    id(n).parse().unwrap()
}

struct Old<'d> {
    conn: SqliteConnection,
    dir: &'d Path,
}

impl<'d> Old<'d> {
    async fn make(dir: &'d Path) -> Self {
        let file = SqliteConnectOptions::new().filename(dir.join("offshoot.db"));
        let mut conn = file.create_if_missing(true).connect().await.unwrap();
        let all = sqlx::migrate!("./migrations");
        let known = all.iter().filter(|m| RELEASE.contains(&m.version));
        Migrator::with_migrations(known.cloned().collect())
            .run(&mut conn)
            .await
            .unwrap();
        std::fs::create_dir(dir.join("layers")).unwrap();
        std::fs::create_dir(dir.join("seeds")).unwrap();
        let mut old = Self { conn, dir };
        let layers = dir.join("layers");
        let storage = json!([id(2), layers]);
        old.sql("INSERT INTO hosts VALUES ($1, 'host-1', 'UP')", json!([id(1)]))
            .await;
        old.sql("INSERT INTO storages VALUES ($1, 'local', $2, 1)", storage)
            .await;
        for (n, name, kind) in [(3, "user", "USER"), (4, "isolated", "ISOLATED")] {
            let network = json!([id(n), name, kind]);
            old.sql("INSERT INTO networks VALUES ($1, $2, $3, NULL)", network)
                .await;
        }
        old.layer(BASE, None, GIB, true).await;
        let image = json!([id(5), id(BASE)]);
        old.sql("INSERT INTO images VALUES ($1, 'demo', $2, 0)", image)
            .await;
        old.web().await;
        old
    }

    /// A machine of two disks with a snapshot.
    async fn web(&mut self) {
        self.layer(FROZEN[0], Some(BASE), GIB, true).await;
        self.layer(FROZEN[1], None, 2 * GIB, true).await;
        self.layer(ACTIVE[0], Some(FROZEN[0]), GIB, true).await;
        self.layer(ACTIVE[1], Some(FROZEN[1]), 2 * GIB, true).await;
        self.machine(WEB, "web", &ACTIVE, 1, None).await;
        self.sql(
            "INSERT INTO snapshots (id, vm, name, description, state, consistency, memory, allocated_bytes, create_time)
             VALUES ($1, $2, 'first', '', 'READY', 'OFFLINE', 0, 0, 0)",
            json!([id(SNAPSHOT), id(WEB)]),
        )
        .await;
        for (position, layer) in FROZEN.into_iter().enumerate() {
            let disk = json!([id(SNAPSHOT), position, id(layer)]);
            self.sql("INSERT INTO snapshot_disks VALUES ($1, $2, $3)", disk)
                .await;
        }
    }

    async fn sql(&mut self, query: &'static str, values: Value) {
        let mut query = sqlx::query(query);
        for value in values.as_array().unwrap() {
            query = match value {
                Value::Null => query.bind(None::<String>),
                Value::Number(n) => query.bind(n.as_i64()),
                Value::String(text) => query.bind(text.clone()),
                json => query.bind(json.to_string()),
            };
        }
        query.execute(&mut self.conn).await.unwrap();
    }

    async fn layer(&mut self, n: u32, parent: Option<u32>, bytes: u64, made: bool) {
        self.sql(
            "INSERT INTO layers VALUES ($1, $2, $3, $4, 0)",
            json!([id(n), id(2), parent.map(id), bytes]),
        )
        .await;
        if made {
            let file = self.dir.join("layers").join(format!("{}.qcow2", id(n)));
            std::fs::write(file, format!("{bytes} 196608\n")).unwrap();
        }
    }

    /// A machine that is off; one that a job makes has its number.
    async fn machine(&mut self, n: u32, name: &str, disks: &[u32], seed: u32, job: Option<u32>) {
        self.sql(
            "INSERT INTO vms (id, name, state, cpus, memory_mib, firmware, labels, host, bios_uuid, vmgenid, has_seed,
                 lineage_kind, job, create_time) VALUES ($1, $2, 'STOPPED', 1, 64, 'BIOS', '{}', $3, $1, $1, $4, $5, $6, 0)",
            json!([
                id(n),
                name,
                id(1),
                seed,
                if disks.is_empty() { "CLONE" } else { "CREATED" },
                job.map(id)
            ]),
        )
        .await;
        for (position, &layer) in disks.iter().enumerate() {
            let disk = json!([id(n), position, id(layer)]);
            self.sql("INSERT INTO vm_disks VALUES ($1, $2, $3)", disk).await;
        }
        for (position, nic) in nics(n).as_array().unwrap().iter().enumerate() {
            self.sql(
                "INSERT INTO vm_nics (vm, position, mac, network) VALUES ($1, $2, $3, $4)",
                json!([id(n), position, nic["mac"], id(3)]),
            )
            .await;
        }
        if seed == 1 {
            std::fs::write(self.dir.join("seeds").join(format!("{}.img", id(n))), "seed").unwrap();
        }
    }

    /// A job that is at work, or waits when its steps all do, with its locks.
    async fn job(&mut self, n: u32, kind: &str, spec: Value, at: At<'_>, locks: &[(u32, &str)]) {
        let steps: Vec<_> = at
            .steps
            .iter()
            .map(|(name, state)| json!({ "name": name, "state": state }))
            .collect();
        let resources: Vec<_> = at
            .product
            .iter()
            .map(|(vm, name)| json!({ "noun": "vm", "id": id(*vm), "name": name, "role": "PRODUCT" }))
            .collect();
        let queued = at.steps.iter().all(|(_, state)| *state == "WAITING");
        self.sql(
            "INSERT INTO jobs (id, kind, state, vm, product, spec, steps, data, resources, outcome, no_return,
                 cancel_requested, created_by, lease_owner, lease_until, create_time, start_time, state_time)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '{}', $10, $11, 'test', $12, $13, $14, $15, $14)",
            json!([
                id(n),
                kind,
                if queued { "QUEUED" } else { "RUNNING" },
                spec.as_object().unwrap().values().next().unwrap()["vm"],
                at.product.map(|(vm, _)| id(vm)),
                spec,
                json!(steps),
                if at.minted.is_null() { json!("null") } else { at.minted },
                json!(resources),
                u8::from(at.no_return),
                u8::from(at.cancel),
                (!queued).then(|| id(9)),
                (!queued).then_some(i64::MAX),
                n,
                (!queued).then_some(n),
            ]),
        )
        .await;
        for (vm, mode) in locks {
            let lock = json!([id(*vm), id(n), mode]);
            self.sql("INSERT INTO locks VALUES ($1, $2, $3)", lock).await;
        }
    }

    /// A job that makes a machine of an image and a blank disk, in this step. The machine has the job's number and one more.
    async fn creation(&mut self, n: u32, name: &str, seed: u32, minting: &str, cancel: bool) {
        let disks = [n + 2, n + 3];
        let mut request = json!({
            "name": name, "cpus": 1, "memoryMib": 64, "firmware": "BIOS", "start": true,
            "disks": [{ "image": "demo" }, { "sizeGib": 2 }],
        });
        if seed == 1 {
            request["cloudInit"] = json!({ "userData": "#cloud-config\n" });
        }
        let minted = json!({
            "vm": id(n + 1), "bios_uuid": id(n + 1), "vmgenid": id(n + 1), "nics": nics(n + 1), "networks": [id(3), id(3)],
            "layers": [
                { "id": id(disks[0]), "parent": id(BASE), "image": id(5), "virtual_bytes": GIB },
                { "id": id(disks[1]), "parent": null, "image": null, "virtual_bytes": 2 * GIB },
            ],
        });
        let begun = minting == "DONE";
        let steps = [
            ("minting", minting),
            ("preparing-vm-disks", if begun { "RUNNING" } else { "WAITING" }),
            ("starting", "WAITING"),
        ];
        let at = At {
            steps: &steps,
            minted,
            product: Some((n + 1, name)),
            cancel,
            no_return: false,
        };
        let locks = [(n + 1, "EXCLUSIVE")];
        let locks = if begun { &locks[..] } else { &[] };
        self.job(n, "CREATE_VM", json!({ "createVm": request }), at, locks)
            .await;
        if begun {
            self.layer(disks[0], Some(BASE), GIB, true).await;
            self.layer(disks[1], None, 2 * GIB, false).await;
            self.machine(n + 1, name, &disks, seed, Some(n)).await;
        }
    }

    /// A job that clones the machine and has made no disk yet. The clone has the job's number and one more.
    async fn clone(&mut self, n: u32, name: &str, seed: u32) {
        let mut target = json!({ "name": name, "start": true, "bootTimeoutSeconds": 60 });
        if seed == 1 {
            target["cloudInit"] = json!({ "userData": "#cloud-config\n" });
        }
        let spec = json!({ "cloneVm": {
            "vm": id(WEB), "snapshot": id(SNAPSHOT), "request": { "mode": "LINKED", "target": target },
        }});
        let vm = json!({
            "id": id(n + 1), "name": name, "bios_uuid": id(n + 1), "vmgenid": id(n + 1), "nics": nics(n + 1),
            "networks": [id(3), id(3)],
        });
        let minted = json!({ "product": { "Vm": vm }, "layers": [id(n + 2), id(n + 3)], "snapshot": null });
        let steps = [
            ("minting", "DONE"),
            ("taking-snapshot", "SKIPPED"),
            ("adapting-os", if seed == 1 { "DONE" } else { "SKIPPED" }),
            ("preparing-vm-disks", "RUNNING"),
            ("instantiating", "WAITING"),
        ];
        let at = At {
            steps: &steps,
            minted,
            product: Some((n + 1, name)),
            ..At::default()
        };
        let locks = [(WEB, "SHARED"), (n + 1, "EXCLUSIVE")];
        self.job(n, "CLONE_VM", spec, at, &locks).await;
        self.machine(n + 1, name, &[], seed, Some(n)).await;
    }

    /// A job that takes a snapshot of the machine and has laid one of its overlays.
    async fn snapshot(&mut self, n: u32) {
        let spec = json!({ "takeSnapshot": {
            "vm": id(WEB), "request": { "name": "second", "memory": false, "quiesce": false },
        }});
        let overlays = json!({ "layers": [id(n + 2), id(n + 3)], "live": false });
        let at = At {
            steps: &[("minting", "DONE"), ("freezing-disks", "RUNNING")],
            minted: json!({ "snapshot": id(n + 1), "name": "second", "overlays": overlays }),
            ..At::default()
        };
        self.job(n, "TAKE_SNAPSHOT", spec, at, &[(WEB, "CHANGING")]).await;
        self.sql(
            "INSERT INTO snapshots (id, vm, name, description, state, consistency, memory, allocated_bytes, create_time)
             VALUES ($1, $2, 'second', '', 'CREATING', 'ONLINE', 0, 0, 1)",
            json!([id(n + 1), id(WEB)]),
        )
        .await;
        self.layer(n + 2, Some(ACTIVE[0]), GIB, true).await;
        self.layer(n + 3, Some(ACTIVE[1]), 2 * GIB, false).await;
    }

    /// A job that deletes a machine and cannot go back any more.
    async fn deletion(&mut self, n: u32) {
        self.layer(n + 2, Some(BASE), GIB, true).await;
        self.layer(n + 3, None, GIB, true).await;
        self.machine(n + 1, "unwanted", &[n + 2, n + 3], 1, None).await;
        let at = At {
            steps: &[
                ("checking", "DONE"),
                ("deleting", "RUNNING"),
                ("removing-files", "WAITING"),
            ],
            minted: json!({
                "layers": [id(n + 2), id(BASE), id(n + 3)], "directory": "", "memories": [], "unnamed": [],
            }),
            no_return: true,
            ..At::default()
        };
        let locks = [(n + 1, "EXCLUSIVE")];
        let spec = json!({ "deleteVm": { "vm": id(n + 1) } });
        self.job(n, "DELETE_VM", spec, at, &locks).await;
    }

    /// A job that waits for its turn.
    async fn waiting(&mut self, n: u32) {
        let request = json!({
            "name": "patient", "cpus": 1, "memoryMib": 64, "firmware": "BIOS", "start": false,
            "disks": [{ "sizeGib": 2 }], "networkInterfaces": [{ "network": "user" }, { "network": "isolated" }],
        });
        let at = At {
            steps: &[
                ("minting", "WAITING"),
                ("preparing-vm-disks", "WAITING"),
                ("starting", "WAITING"),
            ],
            ..At::default()
        };
        self.job(n, "CREATE_VM", json!({ "createVm": request }), at, &[])
            .await;
    }

    /// An instant of the machine that is not frozen yet.
    async fn instant(&mut self, n: u32) {
        self.sql(
            "INSERT INTO fork_points (id, vm, vm_name, state, cpus, memory_mib, firmware, labels, host, nics, networks,
                 has_seed, accelerator, qemu_version, memory_bytes, memory_place, directory, create_time)
             VALUES ($1, $2, 'web', 'CREATING', 1, 64, 'BIOS', '{}', $3, $4, $5, 1, 'SIM', '7.2', 0, 'DISK', '/points', 0)",
            json!([id(n), id(WEB), id(1), nics(WEB), [id(3), id(3)]]),
        )
        .await;
    }
}

/// How far a job has come.
#[derive(Default)]
struct At<'a> {
    steps: &'a [(&'a str, &'a str)],
    minted: Value,
    product: Option<(u32, &'a str)>,
    no_return: bool,
    cancel: bool,
}

/// The two NICs of a machine, as they were told of then.
fn nics(machine: u32) -> Value {
    let nic = |n| json!({ "mac": format!("52:54:00:00:{machine:02x}:{n:02x}"), "network": "user", "kind": "USER", "connected": true });
    json!([nic(0), nic(1)])
}

async fn machine(jobs: &Jobs, name: &str) -> Vm {
    db::vms::find(&jobs.world().db, name).await.unwrap().unwrap()
}

/// The slots of its disks, its seed and its NICs.
async fn slots(jobs: &Jobs, vm: &Vm) -> (Vec<u32>, Option<u32>, Vec<u32>) {
    let hidden = db::vms::hidden(&jobs.world().db, vm.id).await.unwrap().unwrap();
    let disks: Vec<_> = vm.disks.iter().map(|d| d.slot).collect();
    let nics: Vec<_> = vm.network_interfaces.iter().map(|n| n.slot).collect();
    let numbers: Vec<_> = vm.network_interfaces.iter().map(|n| n.number).collect();
    assert_eq!(numbers, [0, 1], "{}", vm.name);
    let seed = hidden.has_seed.then_some(hidden.seed_slot);
    let all: Vec<_> = disks.iter().chain(&nics).chain(&seed).copied().collect();
    let several: BTreeSet<_> = all.iter().collect();
    assert_eq!(
        several.len(),
        all.len(),
        "one slot for two devices of {}",
        vm.name
    );
    (disks, seed, nics)
}

/// The layer that a disk stands on, and its size as its file tells it.
async fn below(jobs: &Jobs, layer: LayerId) -> (Option<LayerId>, u64) {
    let world = jobs.world();
    let chain = db::layers::chain_of(&world.db, layer).await.unwrap();
    let found = world.disks.info(&world.layer_file(layer)).await.unwrap();
    assert_eq!(chain.last().unwrap().virtual_bytes, found.virtual_bytes);
    (chain.last().unwrap().parent, found.virtual_bytes)
}

fn layer(n: u32) -> LayerId {
    id(n).parse().unwrap()
}

async fn in_state(jobs: &Jobs, n: u32, state: JobState) {
    let done = ended(jobs, job(n)).await;
    assert_eq!(done.state, state, "{:#?}", done);
}

#[tokio::test]
async fn machines_that_were_being_made_have_the_disks_that_were_asked_for() {
    let dir = dir();
    let mut old = Old::make(dir.path()).await;
    old.creation(100, "fresh", 0, "DONE", false).await;
    old.creation(110, "seeded", 1, "DONE", false).await;
    // It had minted, and nothing of it was on the books.
    old.creation(120, "hardly", 1, "RUNNING", false).await;
    old.creation(130, "unwanted", 0, "DONE", true).await;
    old.waiting(140).await;
    old.conn.close().await.unwrap();

    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    for (n, name, expected) in [
        (100, "fresh", (vec![4, 5], None, vec![6, 7])),
        (110, "seeded", (vec![4, 5], Some(6), vec![7, 8])),
        (120, "hardly", (vec![4, 5], Some(6), vec![7, 8])),
    ] {
        in_state(&jobs, n, JobState::Succeeded).await;
        let vm = machine(&jobs, name).await;
        assert_eq!(vm.state, VmState::Running, "{name}");
        assert_eq!(slots(&jobs, &vm).await, expected, "{name}");
        let disks: Vec<_> = vm.disks.iter().map(|d| (d.number, d.layer)).collect();
        assert_eq!(disks, [(0, layer(n + 2)), (1, layer(n + 3))]);
        assert_eq!(below(&jobs, layer(n + 2)).await, (Some(layer(BASE)), GIB));
        assert_eq!(below(&jobs, layer(n + 3)).await, (None, 2 * GIB), "{name}");
    }
    in_state(&jobs, 130, JobState::Cancelled).await;
    in_state(&jobs, 140, JobState::Succeeded).await;
    let patient = machine(&jobs, "patient").await;
    assert_eq!(slots(&jobs, &patient).await, (vec![4], None, vec![5, 6]));
    assert!(patient.network_interfaces.iter().all(|nic| nic.connected));
    assert_eq!(below(&jobs, patient.disks[0].layer).await, (None, 2 * GIB));
    let left = slate_without_layers(&jobs).await;
    assert!(!left.iter().any(|line| line.contains("unwanted")), "{left:#?}");
    clean_up(&jobs).await;
}

#[tokio::test]
async fn clones_snapshots_and_deletions_go_on() {
    let dir = dir();
    let mut old = Old::make(dir.path()).await;
    old.clone(200, "plain", 0).await;
    old.clone(210, "adapted", 1).await;
    old.snapshot(220).await;
    old.deletion(230).await;
    old.conn.close().await.unwrap();

    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    for n in [200, 210, 220, 230] {
        in_state(&jobs, n, JobState::Succeeded).await;
    }
    for (n, name, expected) in [
        (200, "plain", (vec![4, 5], None, vec![6, 7])),
        (210, "adapted", (vec![4, 5], Some(6), vec![7, 8])),
    ] {
        let vm = machine(&jobs, name).await;
        assert_eq!(vm.state, VmState::Running, "{name}");
        assert_eq!(slots(&jobs, &vm).await, expected, "{name}");
        assert_eq!(below(&jobs, layer(n + 2)).await, (Some(layer(FROZEN[0])), GIB));
        assert_eq!(
            below(&jobs, layer(n + 3)).await,
            (Some(layer(FROZEN[1])), 2 * GIB)
        );
    }
    let web = machine(&jobs, "web").await;
    assert_eq!(slots(&jobs, &web).await, (vec![4, 5], Some(6), vec![7, 8]));
    let active: Vec<_> = web.disks.iter().map(|d| d.layer).collect();
    assert_eq!(active, [layer(222), layer(223)]);
    let second = db::snapshots::find(&jobs.world().db, web.id, "second")
        .await
        .unwrap()
        .unwrap();
    let disks = db::snapshots::disks_of(&jobs.world().db, second.id)
        .await
        .unwrap();
    let disks: Vec<_> = disks.iter().map(|d| (d.slot, d.layer)).collect();
    assert_eq!(disks, [(4, layer(ACTIVE[0])), (5, layer(ACTIVE[1]))]);
    let left = slate_without_layers(&jobs).await;
    assert!(!left.iter().any(|line| line.contains("unwanted")), "{left:#?}");
    assert!(!left.contains(&format!("seeds/{}.img", id(231))), "{left:#?}");
    clean_up(&jobs).await;
}

#[tokio::test]
async fn an_instant_that_was_not_frozen_has_the_slots_of_its_machine() {
    let dir = dir();
    let mut old = Old::make(dir.path()).await;
    old.instant(300).await;
    old.conn.close().await.unwrap();

    let db = Db::open(&dir.path().join("offshoot.db")).await.unwrap();
    let row = sqlx::query("SELECT seed_slot, nics FROM fork_points")
        .fetch_one(db.read())
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>("seed_slot"), 6);
    let nics: Vec<shared::vm::Nic> = serde_json::from_str(row.get("nics")).unwrap();
    let nics: Vec<_> = nics.iter().map(|nic| (nic.number, nic.slot)).collect();
    assert_eq!(nics, [(0, 7), (1, 8)]);
}
