//! `offshoot copy …`: copies of snapshots, and the tasks that make them.

mod restore;
pub mod task;

use super::copy_files::{CopyFiles, CopyGet};
use super::table::{Table, bytes, millis};
use super::{Api, Failure, List, Wait, http, joined};
use clap::{Args, Subcommand, ValueEnum};
use restore::Restore;
use shared::VmId;
use shared::api::{
    CancelCopyTask, DeleteCopy, GetCopy, GetCopyTask, GetJob, HoldCopyTask, ListAllCopyTasks, ListCopies,
    ListCopyTasks, ListQuery, PostBoot, PostCopyTask, ReleaseCopyTask, UpdateCopy,
};
use shared::clone::DEFAULT_BOOT_TIMEOUT_SECONDS;
use shared::copy::{BootCopy, Booted, Copy, CopyTask, CreateCopyTask, PatchCopy};

/// `offshoot copy …`
#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one is made, once")]
pub enum CopyCommand {
    /// Copies a snapshot of a machine to a target; the machine may run.
    Create(Create),
    /// Lists copies, newest first.
    List {
        /// Of this machine, by its id or by the name that it had: it may be gone.
        #[arg(long)]
        vm: Option<String>,
        /// At this target, by name or id.
        #[arg(long)]
        target: Option<String>,
        #[command(flatten)]
        list: List,
    },
    /// Shows a copy.
    Show {
        /// Its id.
        copy: String,
    },
    /// Lists copy tasks, newest first.
    Tasks {
        /// Of this machine, by name or id; of all if not given.
        vm: Option<String>,
        #[command(flatten)]
        list: List,
    },
    /// Shows a copy task, with its figures and its disks.
    Task {
        /// Its id.
        task: String,
    },
    /// Has a copy task stand still; what it has copied stays.
    Hold {
        /// Its id.
        task: String,
    },
    /// Lets a copy task go on.
    Release {
        /// Its id.
        task: String,
    },
    /// Cancels a copy task; the next one finds what it has copied.
    Cancel {
        /// Its id.
        task: String,
    },
    /// Removes a copy. What no other needs of it goes when its target is pruned.
    Delete {
        /// Its id.
        copy: String,
    },
    /// Puts a copy under legal hold: nothing removes it until that is taken back.
    Keep {
        /// Its id.
        copy: String,
        /// Whether it is held.
        #[arg(long, value_enum, default_value = "on")]
        legal_hold: Switch,
    },
    /// Boots a copy without networks, to see that it does, and throws that machine away.
    Boot {
        /// Its id.
        copy: String,
        /// How long it may take to boot, in seconds.
        #[arg(long, default_value_t = DEFAULT_BOOT_TIMEOUT_SECONDS)]
        boot_timeout: u32,
        /// A regular expression for the line of the serial port that proves the boot.
        #[arg(long)]
        boot_pattern: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Brings a copy back: as a new machine, over one, as more disks of one, or as a file.
    Restore(Restore),
    /// Lists the file systems of a copy, or a directory in one.
    Files(CopyFiles),
    /// Fetches a file of a copy, or a directory as tar.
    Get(CopyGet),
}

/// On or off.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// `offshoot copy create …`
#[derive(Args)]
pub struct Create {
    /// The machine's name or id.
    vm: String,
    /// The target's name or id.
    #[arg(long)]
    target: String,
    /// The snapshot's name or id; one that is taken now if not given.
    #[arg(long)]
    snapshot: Option<String>,
    /// Keep the memory in the snapshot that is taken, too.
    #[arg(long, conflicts_with = "snapshot")]
    memory: bool,
    /// Have the guest agent freeze the file systems for the moment of that snapshot.
    #[arg(long, conflicts_with_all = ["snapshot", "memory"])]
    quiesce: bool,
    /// Boot the copy afterwards, to see that it does.
    #[arg(long)]
    boot: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Create {
    async fn run(self, api: &Api) -> Result<(), Failure> {
        let (vm, wait) = (self.vm, self.wait.wait);
        let request = CreateCopyTask {
            target: self.target,
            snapshot: self.snapshot,
            memory: self.memory,
            quiesce: self.quiesce,
            boot: self.boot,
            request_id: None,
        };
        let client = api.client()?;
        let text = client.text(&PostCopyTask { vm, request }).await?;
        let task: CopyTask = http::read(&text)?;
        let id = task.id.to_string();
        if !wait {
            return api.print(&text, task, |task| {
                format!("{}\nfollow it: offshoot job wait {}", task::line(&task), task.id)
            });
        }
        let job = client.call(&GetJob { id: id.clone() }).await?;
        let job = api.follow(&client, job).await?;
        api.ended(&client, &job, &GetCopyTask { task: id }).await
    }
}

impl CopyCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(api).await,
            Self::List { vm, target, list } => {
                let by_id = vm.as_ref().is_some_and(|vm| vm.parse::<VmId>().is_ok());
                let of = if by_id { "vm" } else { "vmName" };
                let query = narrowed(list, [(of, vm), ("target", target)]);
                api.show(&ListCopies { query }, |page| {
                    let mut table =
                        Table::new(["ID", "VM", "MOMENT", "TARGET", "SIZE", "STORED", "BOOTED", "NOTE"]);
                    for copy in &page.copies {
                        table.row([
                            copy.id.to_string(),
                            copy.vm_name.to_string(),
                            copy.snapshot_time.to_string(),
                            copy.target_name.to_string(),
                            bytes(copy.figures.logical_bytes),
                            bytes(copy.figures.stored_bytes),
                            copy.booted.as_ref().map(sign).unwrap_or_default(),
                            note(copy),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Show { copy } => api.show(&GetCopy { copy }, |c| shown(&c)).await,
            Self::Tasks { vm, list } => {
                let query = list.into();
                match vm {
                    Some(vm) => api.show(&ListCopyTasks { vm, query }, task::table).await,
                    None => api.show(&ListAllCopyTasks { query }, task::table).await,
                }
            }
            Self::Task { task } => api.show(&GetCopyTask { task }, |t| task::shown(&t)).await,
            Self::Hold { task } => api.show(&HoldCopyTask { task }, |t| task::line(&t)).await,
            Self::Release { task } => api.show(&ReleaseCopyTask { task }, |t| task::line(&t)).await,
            Self::Cancel { task } => api.show(&CancelCopyTask { task }, |t| task::line(&t)).await,
            Self::Delete { copy } => {
                let told =
                    format!("copy {copy} is removed; `offshoot target prune` frees what only it needed");
                api.show(&DeleteCopy { copy }, |()| told).await
            }
            Self::Keep { copy, legal_hold } => {
                let request = PatchCopy {
                    legal_hold: matches!(legal_hold, Switch::On),
                };
                api.show(&UpdateCopy { copy, request }, |c| shown(&c)).await
            }
            Self::Boot {
                copy,
                boot_timeout,
                boot_pattern,
                wait,
            } => {
                let request = BootCopy {
                    boot_timeout_seconds: boot_timeout,
                    boot_pattern,
                };
                api.begin(&PostBoot { copy, request }, wait).await
            }
            Self::Restore(restore) => restore.run(api).await,
            Self::Files(ask) => ask.run(api).await,
            Self::Get(ask) => ask.run(api).await,
        }
    }
}

/// A list of what has these values, where they are given.
fn narrowed<const N: usize>(list: List, by: [(&str, Option<String>); N]) -> ListQuery {
    let mut query = ListQuery::from(list);
    for (field, value) in by {
        if let Some(value) = value {
            let filter = query.filter.get_or_insert_default();
            let space = if filter.is_empty() { "" } else { " " };
            filter.push_str(&format!("{space}{field}={value}"));
        }
    }
    query
}

/// The sign that a copy boots, or does not.
fn sign(booted: &Booted) -> String {
    let in_time = booted.proof.boot_millis.map(|ms| format!(" in {}", millis(ms)));
    match booted.booted {
        true => format!("{}{}", booted.proof.strength, in_time.unwrap_or_default()),
        false => "did not boot".to_owned(),
    }
}

fn note(copy: &Copy) -> String {
    let all = [
        (!copy.damage.is_empty(), "damaged"),
        (copy.legal_hold, "legal hold"),
        (copy.memory, "with memory"),
    ];
    joined(all.into_iter().filter(|(so, _)| *so).map(|(_, word)| word))
}

fn shown(copy: &Copy) -> String {
    let (figures, machine) = (&copy.figures, &copy.machine);
    let how = if copy.incremental {
        "incremental"
    } else {
        "read in full"
    };
    let mut lines = vec![
        format!("copy         {}", copy.id),
        format!("of           {} ({})", copy.vm_name, copy.vm),
        format!("snapshot     {} ({})", copy.snapshot_name, copy.snapshot),
        format!("moment       {}", copy.snapshot_time),
        format!("consistency  {}", copy.consistency),
        format!("target       {}", copy.target_name),
        format!("made         {}, {how}", copy.create_time),
        format!(
            "size         {}, of which {} were read",
            bytes(figures.logical_bytes),
            bytes(figures.read_bytes)
        ),
        format!(
            "stored       {}; the vault had {} already, compression saved {}",
            bytes(figures.stored_bytes),
            bytes(figures.saved_by_dedupe()),
            bytes(figures.saved_by_compression())
        ),
        format!(
            "machine      {} MiB, {}, processors {}, NICs {}",
            machine.memory_mib, machine.firmware, machine.cpus, machine.nics
        ),
    ];
    for disk in &copy.disks {
        lines.push(format!("disk         {}: {}", disk.number, bytes(disk.bytes)));
    }
    let yes = |so: bool| if so { "yes" } else { "no" };
    lines.push(format!("memory       {}", yes(copy.memory)));
    lines.push(format!("legal hold   {}", yes(copy.legal_hold)));
    lines.push(match &copy.booted {
        None => "booted       never tried".to_owned(),
        Some(booted) => {
            let why = booted.error.as_ref().map(|why| format!(": {why}"));
            format!(
                "booted       {} on {}{} (job {})",
                sign(booted),
                booted.time,
                why.unwrap_or_default(),
                booted.job
            )
        }
    });
    if let Some(policy) = copy.policy {
        lines.push(format!("policy       {policy}"));
    }
    for damage in &copy.damage {
        lines.push(format!("damaged      {damage}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_narrowed_beside_its_filter() {
        let list = |filter: Option<&str>| List {
            filter: filter.map(str::to_owned),
            order_by: None,
            page_size: None,
            page_token: None,
        };
        let by = |vm: Option<&str>| [("vm", vm.map(str::to_owned)), ("target", Some("there".into()))];
        let of = |filter, vm| narrowed(list(filter), by(vm)).filter.unwrap();
        assert_eq!(of(None, Some("web")), "vm=web target=there");
        assert_eq!(of(Some("legalHold=true"), None), "legalHold=true target=there");
        assert_eq!(narrowed(list(None), [("vm", None)]), ListQuery::default());
    }
}
