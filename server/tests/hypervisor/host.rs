//! A host for each test, and what the tests have in common.

use regex::Regex;
use server::disks::helper::Helper;
use server::disks::{Disks, LayerFile, QemuImg};
use server::hypervisor::qemu::Qemu;
use server::hypervisor::{
    BootError, BootExpectation, DiskSpec, Ended, Hypervisor, MachineEvent, MachineSpec, RunState,
};
use shared::{LayerId, VmId};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;

/// Offshoot itself.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_offshoot");
pub const MIB: u64 = 1 << 20;

/// What converts images from outside.
pub fn helper() -> Helper {
    Helper {
        program: PROGRAM.into(),
        user: None,
    }
}

/// A host of its own for each test; its machines end with it.
pub struct Host {
    pub hv: Option<Qemu>,
    pub disks: QemuImg,
    pub machines: Vec<VmId>,
    pub dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    pub fn at(dir: tempfile::TempDir) -> Self {
        let hv = Qemu::new(&dir.path().join("run"), None, PROGRAM.as_ref()).unwrap();
        Self {
            hv: Some(hv),
            disks: QemuImg::new(),
            machines: Vec::new(),
            dir,
        }
    }

    /// Another server on the same directory.
    pub fn restart(&mut self) {
        drop(self.hv.take());
        let run = self.dir.path().join("run");
        self.hv = Some(Qemu::new(&run, None, PROGRAM.as_ref()).unwrap());
    }

    /// The number of a machine's process.
    pub fn pid(&self, vm: VmId) -> String {
        let record = self.dir.path().join("run").join(vm.to_string()).join("process");
        let line = std::fs::read_to_string(record).unwrap();
        line.split(' ').next().unwrap().to_owned()
    }

    pub fn hv(&self) -> &Qemu {
        self.hv.as_ref().unwrap()
    }

    pub fn layer(&self) -> LayerFile {
        let id = LayerId(Uuid::now_v7());
        LayerFile {
            id,
            path: self.dir.path().join(format!("{id}.qcow2")),
            shown: None,
        }
    }

    pub async fn blank(&self) -> LayerFile {
        let layer = self.layer();
        self.disks.create_blank(&layer, 64 * MIB).await.unwrap();
        layer
    }

    pub async fn overlay(&self, backing: &LayerFile) -> LayerFile {
        let layer = self.layer();
        self.disks.create_overlay(&layer, backing, None).await.unwrap();
        layer
    }

    pub async fn import(&self, variant: &str) -> LayerFile {
        let layer = self.layer();
        self.import_to(&layer, &image(variant)).await;
        layer
    }

    pub async fn import_to(&self, layer: &LayerFile, from: &Path) {
        let found = self.disks.inspect(from, None, 1 << 40).await.unwrap().remove(0);
        self.disks
            .import(&helper(), from, &found, layer, &|_, _| {})
            .await
            .unwrap();
    }

    pub fn machine(&mut self, chain: &[&LayerFile]) -> MachineSpec {
        let id = VmId(Uuid::now_v7());
        self.machines.push(id);
        MachineSpec {
            id,
            name: "guest".parse().unwrap(),
            cpus: 1,
            memory_mib: 256,
            bios_uuid: Uuid::new_v4(),
            vmgenid: Uuid::new_v4(),
            disks: vec![DiskSpec {
                number: 0,
                slot: 4,
                chain: chain.iter().copied().cloned().collect(),
            }],
            firmware: None,
            seed: None,
            seed_slot: 0,
            nics: Vec::new(),
            config: Default::default(),
        }
    }

    pub async fn boots(&self, vm: VmId, seconds: u64) -> Result<shared::clone::Proof, BootError> {
        let expect = BootExpectation {
            pattern: None,
            timeout: Duration::from_secs(seconds),
        };
        self.hv()
            .watch_boot(vm, &expect, &|line| eprintln!("{line}"))
            .await
    }

    pub async fn sees(&self, vm: VmId, pattern: &str) -> Result<shared::clone::Proof, BootError> {
        let pattern = Some(Regex::new(pattern).unwrap());
        let expect = BootExpectation {
            pattern,
            timeout: Duration::from_secs(120),
        };
        self.hv().watch_boot(vm, &expect, &|_| {}).await
    }

    pub fn ticks(&self, vm: VmId) -> Vec<String> {
        let text = String::from_utf8_lossy(&std::fs::read(self.hv().serial_log(vm)).unwrap()).into_owned();
        text.lines()
            .filter(|l| l.contains("offshoot-guest nonce="))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let Some(hv) = self.hv.take() else { return };
        let machines = std::mem::take(&mut self.machines);
        // Also when a test has failed; on a thread of its own, since a runtime cannot wait within another.
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for vm in machines {
                    hv.kill(vm).await.unwrap();
                }
            });
        });
    }
}

/// The demo guest, built where it is not there yet.
pub fn image(variant: &str) -> PathBuf {
    let script = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../guest/build.sh");
    let out = Command::new(script)
        .args(["--variant", variant])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(out.status.success(), "guest/build.sh failed");
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .last()
        .unwrap()
        .into()
}

pub async fn next(events: &mut Receiver<MachineEvent>) -> (RunState, Option<Ended>) {
    let event = tokio::time::timeout(Duration::from_secs(60), events.recv())
        .await
        .expect("an event")
        .unwrap();
    (event.state, event.ended)
}

pub fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.ends_with(b"IEND\xaeB`\x82")
}
