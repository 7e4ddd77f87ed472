//! What `offshoot migration create`, `edit`, `clone` and `cut-over` are told.

use crate::cli::Failure;
use crate::cli::client::vm::{cloud_init, label, nics};
use crate::cli::client::{Api, Wait};
use clap::{Args, ValueEnum};
use shared::api::GetMigratingVm;
use shared::migrate::{
    CloneVerdict, CreateCutover, CreateMigratingVm, CreateMigrationClone, CyclePolicy, PatchMigratingVm,
    TargetDefaults,
};
use shared::vm::Firmware;
use shared::{CopyId, Name};
use std::path::PathBuf;

/// What a person says of a test clone.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Said {
    /// It does what it should.
    Passed,
    /// It does not.
    Failed,
}

impl From<Said> for CloneVerdict {
    fn from(said: Said) -> Self {
        match said {
            Said::Passed => Self::Passed,
            Said::Failed => Self::Failed,
        }
    }
}

/// What the machine is to be where it goes: in the migration as a whole; or in one test clone or cutover, where that differs from
/// the migration's.
#[derive(Args)]
#[group(skip)]
pub struct There {
    /// Number of processors; if not given as the migration says, or as it was.
    #[arg(long)]
    cpus: Option<u32>,
    /// Memory, in MiB; if not given as the migration says, or as it was.
    #[arg(long)]
    memory_mib: Option<u32>,
    /// Storage that its disks go to, by name or id.
    #[arg(long)]
    storage: Option<String>,
    /// Networks to join, by name or id; as many NICs as it had, in the network that every machine may have, if not given.
    #[arg(long)]
    network: Vec<String>,
    /// A label that it gets beside those that it had, as key=value.
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// File with the user-data that cloud-init is told in it, by a seed disk.
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// What the guest can read of itself in the seed's meta-data, as key=value.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    metadata: Vec<(String, String)>,
}

impl There {
    /// As the server is asked.
    pub fn asked(self) -> Result<TargetDefaults, Failure> {
        Ok(TargetDefaults {
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            network_interfaces: nics(self.network),
            storage: self.storage,
            labels: self.label.into_iter().collect(),
            cloud_init: cloud_init(self.user_data)?,
            metadata: self.metadata.into_iter().collect(),
            ..TargetDefaults::default()
        })
    }
}

/// What is set in the migration as a whole: its name there, and what OS adaptation sets in its system.
#[derive(Args)]
#[group(skip)]
pub struct System {
    /// The machine's name where it goes; the migration's own if not given.
    #[arg(long, value_name = "NAME")]
    name_there: Option<Name>,
    /// How its system calls itself; as it was if not given.
    #[arg(long)]
    hostname: Option<String>,
    /// The firmware that it boots with, which OS adaptation converts: BIOS or EFI; as it was if not given.
    #[arg(long)]
    firmware: Option<Firmware>,
    /// Whether it keeps its machine id and SSH host keys: true or false.
    #[arg(long)]
    keep_identity: Option<bool>,
}

impl System {
    fn onto(self, there: TargetDefaults) -> TargetDefaults {
        TargetDefaults {
            name: self.name_there,
            hostname: self.hostname,
            firmware: self.firmware,
            keep_identity: self.keep_identity,
            ..there
        }
    }
}

/// `offshoot migration create …`
#[derive(Args)]
pub struct CreateArgs {
    /// The migration's name.
    name: Name,
    /// The source, by name or id.
    #[arg(long)]
    source: String,
    /// The machine, as the source calls it, or by its name there.
    #[arg(long)]
    vm: String,
    /// The target that it is uploaded to, by name or id.
    #[arg(long)]
    target: String,
    /// How long there is rest between a cycle and the next.
    #[arg(long, value_name = "SECONDS", default_value_t = CyclePolicy::default().idle_seconds)]
    idle_seconds: u32,
    /// How many uploads are kept.
    #[arg(long, value_name = "N", default_value_t = CyclePolicy::default().keep_last)]
    keep_last: u32,
    /// Have the guest agent freeze the file systems for the moment of each cycle.
    #[arg(long)]
    quiesce: bool,
    /// After how many days it expires unless it is extended; never if not given.
    #[arg(long, value_name = "DAYS")]
    expire_days: Option<u32>,
    /// Leave its uploads as they are, or not: true or false. Those of this server's own machines are, if not given, and others
    /// are adapted.
    #[arg(long)]
    skip_os_adaptation: Option<bool>,
    /// The group that it is in.
    #[arg(long)]
    group: Option<Name>,
    /// The wave of its group: a group is cut over wave by wave.
    #[arg(long, value_name = "N", default_value_t = 1)]
    wave: u32,
    #[command(flatten)]
    there: There,
    #[command(flatten)]
    system: System,
}

impl CreateArgs {
    /// What the server is asked.
    pub fn request(self) -> Result<CreateMigratingVm, Failure> {
        Ok(CreateMigratingVm {
            name: self.name,
            source: self.source,
            source_vm: self.vm,
            target: self.target,
            target_defaults: self.system.onto(self.there.asked()?),
            policy: CyclePolicy {
                idle_seconds: self.idle_seconds,
                quiesce: self.quiesce,
                keep_last: self.keep_last,
                expire_days: self.expire_days,
                skip_os_adaptation: self.skip_os_adaptation,
            },
            group: self.group,
            wave: self.wave,
        })
    }
}

/// When cycles run from now on.
#[derive(Args)]
#[group(skip)]
struct Cycles {
    /// How long there is rest between a cycle and the next.
    #[arg(long, value_name = "SECONDS")]
    idle_seconds: Option<u32>,
    /// How many uploads are kept.
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Whether the guest agent freezes the file systems: true or false.
    #[arg(long)]
    quiesce: Option<bool>,
    /// After how many days it expires unless it is extended; 0 for never.
    #[arg(long, value_name = "DAYS")]
    expire_days: Option<u32>,
    /// Whether its uploads are left as they are: true or false.
    #[arg(long)]
    skip_os_adaptation: Option<bool>,
}

impl Cycles {
    /// These, and for what is not given those.
    fn onto(&self, policy: CyclePolicy) -> CyclePolicy {
        let days = self.expire_days.map(|days| Some(days).filter(|days| *days > 0));
        CyclePolicy {
            idle_seconds: self.idle_seconds.unwrap_or(policy.idle_seconds),
            quiesce: self.quiesce.unwrap_or(policy.quiesce),
            keep_last: self.keep_last.unwrap_or(policy.keep_last),
            expire_days: days.unwrap_or(policy.expire_days),
            skip_os_adaptation: self.skip_os_adaptation.or(policy.skip_os_adaptation),
        }
    }
}

/// `offshoot migration edit …`
#[derive(Args)]
pub struct EditArgs {
    /// Its name or id.
    migration: String,
    /// Another name for the migration.
    #[arg(long)]
    name: Option<Name>,
    #[command(flatten)]
    cycles: Cycles,
    /// The group that it is in.
    #[arg(long)]
    group: Option<Name>,
    /// Take it out of its group.
    #[arg(long, conflicts_with = "group")]
    no_group: bool,
    /// The wave of its group.
    #[arg(long, value_name = "N")]
    wave: Option<u32>,
    /// Let the machine be where it goes as it was, but for what is given here.
    #[arg(long)]
    as_it_was: bool,
    #[command(flatten)]
    there: There,
    #[command(flatten)]
    system: System,
}

impl EditArgs {
    /// The migration and what is to change of it; what is not given is as the server has it.
    pub async fn request(self, api: &Api) -> Result<(String, PatchMigratingVm), Failure> {
        let vm = self.migration.clone();
        let now = api.client()?.call(&GetMigratingVm { vm }).await?;
        let policy = self.cycles.onto(now.policy);
        let there = match self.as_it_was {
            true => TargetDefaults::default(),
            false => now.target_defaults.clone(),
        };
        let there = there.with(&self.system.onto(self.there.asked()?));
        let group = self.group.map(|group| group.to_string());
        let request = PatchMigratingVm {
            name: self.name,
            target_defaults: (there != now.target_defaults).then_some(there),
            policy: (policy != now.policy).then_some(policy),
            group: group.or_else(|| self.no_group.then(String::new)),
            wave: self.wave,
        };
        Ok((self.migration, request))
    }
}

/// `offshoot migration clone …`
#[derive(Args)]
pub struct CloneArgs {
    /// The migration, by name or id.
    pub(super) migration: String,
    /// Name of the clone.
    #[arg(long)]
    name: Option<Name>,
    /// Put its NICs where the migration says, beside production, and not in the isolated network.
    #[arg(long)]
    no_isolation: bool,
    /// Leave it stopped.
    #[arg(long)]
    no_start: bool,
    /// After how many hours it is put up for removal; a person removes it.
    #[arg(long, value_name = "HOURS")]
    keep_hours: Option<u32>,
    /// The id of the upload to make it of; the latest if not given.
    #[arg(long, value_name = "ID")]
    copy: Option<CopyId>,
    #[command(flatten)]
    there: There,
    #[command(flatten)]
    pub(super) wait: Wait,
}

impl CloneArgs {
    /// What the server is asked.
    pub fn request(self) -> Result<CreateMigrationClone, Failure> {
        Ok(CreateMigrationClone {
            copy: self.copy,
            target: TargetDefaults {
                name: self.name,
                ..self.there.asked()?
            },
            isolated: !self.no_isolation,
            start: !self.no_start,
            keep_hours: self.keep_hours,
        })
    }
}

/// `offshoot migration cut-over …`
#[derive(Args)]
pub struct CutOverArgs {
    /// The migration, by name or id.
    pub(super) migration: String,
    /// Name of the machine; the migration's, or what it says, if not given.
    #[arg(long)]
    name: Option<Name>,
    /// How long the guest may take to shut down until its power is taken away.
    #[arg(long, value_name = "SECONDS", default_value_t = CreateCutover::default().power_off_after_seconds)]
    power_off_after: u32,
    #[command(flatten)]
    there: There,
    #[command(flatten)]
    pub(super) wait: Wait,
}

impl CutOverArgs {
    /// What the server is asked.
    pub fn request(self) -> Result<CreateCutover, Failure> {
        Ok(CreateCutover {
            power_off_after_seconds: self.power_off_after,
            target: TargetDefaults {
                name: self.name,
                ..self.there.asked()?
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_of_cycles_stays() {
        let there = CyclePolicy {
            quiesce: true,
            expire_days: Some(30),
            ..CyclePolicy::default()
        };
        let given = |expire_days| Cycles {
            idle_seconds: Some(60),
            keep_last: None,
            quiesce: None,
            expire_days,
            skip_os_adaptation: None,
        };
        let wanted = CyclePolicy {
            idle_seconds: 60,
            ..there
        };
        assert_eq!(given(None).onto(there), wanted);
        let never = CyclePolicy {
            expire_days: None,
            ..wanted
        };
        assert_eq!(given(Some(0)).onto(there), never);
    }
}
