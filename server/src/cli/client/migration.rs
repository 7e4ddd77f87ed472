//! `offshoot migration …`: machines that are carried over from a source, and what becomes of them.

mod asked;
mod group;
mod told;

use super::http::{self, Client};
use super::{Api, Failure, List, Wait, job};
use asked::{CloneArgs, CreateArgs, CutOverArgs, EditArgs, Said};
use clap::Subcommand;
use group::GroupCommand;
use serde::Serialize;
use shared::JobId;
use shared::api::{
    AdaptMigration, CheckMigration, CheckOs, CycleNow, DeleteMigratingVm, ExtendMigration, GetForecast,
    GetJob, GetMigratingVm, ListCutovers, ListCycles, ListMigratingVms, ListMigrationClones, PauseMigration,
    PostCutover, PostFinalize, PostJudgement, PostMigratingVm, PostMigrationClone, ResumeMigration,
    StartMigration, UpdateMigratingVm,
};
use shared::job::{Job, JobSpec};
use shared::migrate::views::{CutoverJob, Judged, MigrationClone};
use shared::migrate::{FinalizeMigration, JudgeClone};
use told::{clone_line, cutover_line, line, shown};

/// `offshoot migration …`
#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one is made, once")]
pub enum MigrationCommand {
    /// Lists machines that are carried over.
    List(#[command(flatten)] List),
    /// Carries a machine over: it is looked at, and waits to be started.
    Create(CreateArgs),
    /// Shows one.
    Show {
        /// Its name or id.
        migration: String,
    },
    /// Changes one; what is not given stays.
    Edit(EditArgs),
    /// Starts its cycles. Its machine runs on.
    Start {
        /// Its name or id.
        migration: String,
    },
    /// Stops its cycles. One that is at work is cancelled, and the next finds what it has uploaded.
    Pause {
        /// Its name or id.
        migration: String,
    },
    /// Goes on with its cycles, also after a cutover.
    Resume {
        /// Its name or id.
        migration: String,
    },
    /// Begins a cycle now.
    Cycle {
        /// Its name or id.
        migration: String,
    },
    /// Lists its cycles, newest first.
    Cycles {
        /// Its name or id.
        migration: String,
        #[command(flatten)]
        list: List,
    },
    /// Looks again whether it can be carried over.
    Check {
        /// Its name or id.
        migration: String,
    },
    /// Adapts the system of its last upload again, alone. After each cycle it is done by itself, unless that is skipped.
    Adapt {
        /// Its name or id.
        migration: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Looks whether the system of its last upload can be adapted, and what that would change. Nothing is written.
    CheckOs {
        /// Its name or id.
        migration: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Groups: what is asked of many at once.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Gives it more time until it expires.
    Extend {
        /// Its name or id.
        migration: String,
    },
    /// Makes a test clone of what was uploaded: isolated, and started at once from the upload.
    Clone(CloneArgs),
    /// Lists its test clones, newest first.
    Clones {
        /// Its name or id.
        migration: String,
        #[command(flatten)]
        list: List,
    },
    /// Says of a test clone whether it does what it should.
    Judge {
        /// The id of the test clone.
        clone: String,
        /// What there is to say of it.
        verdict: Said,
        /// What else there is to say.
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
    },
    /// Shows how long a cutover would take, by what was measured.
    Forecast {
        /// Its name or id.
        migration: String,
    },
    /// Cuts it over: its source is shut down, what has changed last is uploaded, and it starts where it goes.
    CutOver(CutOverArgs),
    /// Lists its cutovers, newest first.
    Cutovers {
        /// Its name or id.
        migration: String,
        #[command(flatten)]
        list: List,
    },
    /// Ends it after its cutover, and removes what it kept. The source's machine stays, and stays off.
    Finalize {
        /// Its name or id.
        migration: String,
        /// Leave its uploads at the target, as copies like any other.
        #[arg(long)]
        keep_copies: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Takes it off the books. Its uploads stay at the target, as copies like any other.
    Delete {
        /// Its name or id.
        migration: String,
    },
}

impl MigrationCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListMigratingVms { query }, told::table).await
            }
            Self::Create(args) => {
                let request = args.request()?;
                api.show(&PostMigratingVm { request }, |vm| shown(&vm)).await
            }
            Self::Show { migration: vm } => api.show(&GetMigratingVm { vm }, |vm| shown(&vm)).await,
            Self::Edit(args) => {
                let (vm, request) = args.request(api).await?;
                api.show(&UpdateMigratingVm { vm, request }, |vm| shown(&vm))
                    .await
            }
            Self::Start { migration: vm } => api.show(&StartMigration { vm }, |vm| line(&vm)).await,
            Self::Pause { migration: vm } => api.show(&PauseMigration { vm }, |vm| line(&vm)).await,
            Self::Resume { migration: vm } => api.show(&ResumeMigration { vm }, |vm| line(&vm)).await,
            Self::Cycle { migration: vm } => api.show(&CycleNow { vm }, |vm| line(&vm)).await,
            Self::Check { migration: vm } => api.show(&CheckMigration { vm }, |vm| line(&vm)).await,
            Self::Adapt { migration: vm, wait } => api.begin(&AdaptMigration { vm }, wait).await,
            Self::CheckOs { migration: vm, wait } => api.begin(&CheckOs { vm }, wait).await,
            Self::Group(command) => command.run(api).await,
            Self::Extend { migration: vm } => api.show(&ExtendMigration { vm }, |vm| line(&vm)).await,
            Self::Cycles { migration: vm, list } => {
                let query = list.into();
                api.show(&ListCycles { vm, query }, told::cycles).await
            }
            Self::Clone(args) => {
                let (vm, wait) = (args.migration.clone(), args.wait);
                let request = args.request()?;
                let call = PostMigrationClone { vm, request };
                let client = api.client()?;
                let text = client.text(&call).await?;
                let clone: MigrationClone = http::read(&text)?;
                if !wait.wait {
                    return api.print(&text, clone, |clone| following(clone_line(&clone), clone.id));
                }
                ended(api, &client, clone.id, |job| {
                    MigrationClone::of(job, Judged::default())
                })
                .await
            }
            Self::Clones { migration: vm, list } => {
                let query = list.into();
                api.show(&ListMigrationClones { vm, query }, told::clones).await
            }
            Self::Judge { clone, verdict, note } => {
                let (client, id) = (api.client()?, clone.clone());
                let vm = migration_of(&client.call(&GetJob { id }).await?)?;
                let request = JudgeClone {
                    verdict: verdict.into(),
                    note,
                };
                let call = PostJudgement { vm, clone, request };
                api.show(&call, |clone| clone_line(&clone)).await
            }
            Self::Forecast { migration: vm } => api.show(&GetForecast { vm }, |f| told::forecast(&f)).await,
            Self::CutOver(args) => {
                let (vm, wait) = (args.migration.clone(), args.wait);
                let request = args.request()?;
                let client = api.client()?;
                let text = client.text(&PostCutover { vm, request }).await?;
                let cutover: CutoverJob = http::read(&text)?;
                if !wait.wait {
                    return api.print(&text, cutover, |c| following(cutover_line(&c), c.id));
                }
                ended(api, &client, cutover.id, CutoverJob::of).await
            }
            Self::Cutovers { migration: vm, list } => {
                let query = list.into();
                api.show(&ListCutovers { vm, query }, told::cutovers).await
            }
            Self::Finalize {
                migration: vm,
                keep_copies,
                wait,
            } => {
                let request = FinalizeMigration { keep_copies };
                api.begin(&PostFinalize { vm, request }, wait).await
            }
            Self::Delete { migration: vm } => {
                let told = format!("migration {vm} is off the books; its uploads stay at the target");
                api.show(&DeleteMigratingVm { vm }, |()| told).await
            }
        }
    }
}

/// The migration that a test clone is of.
fn migration_of(job: &Job) -> Result<String, Failure> {
    let of = match &*job.spec {
        JobSpec::RestoreCopy(spec) => spec.migration.as_ref().filter(|of| of.cutover.is_none()),
        _ => None,
    };
    let none = || {
        format!(
            "{} is no test clone: offshoot migration clones lists them",
            job.id
        )
    };
    Ok(of.ok_or_else(none)?.migrating_vm.to_string())
}

fn following(line: String, job: JobId) -> String {
    format!("{line}\nfollow it: offshoot job wait {job}")
}

/// Follows a job to its end and prints it, as JSON in the words of migration, and fails if the job did.
async fn ended<T: Serialize>(
    api: &Api,
    client: &Client,
    id: JobId,
    read: impl FnOnce(&Job) -> Option<T>,
) -> Result<(), Failure> {
    let job = client.call(&GetJob { id: id.to_string() }).await?;
    let job = api.follow(client, job).await?;
    if api.json {
        crate::cli::say(serde_json::to_string_pretty(&read(&job))?)?;
    } else if let Some(text) = job::success(&job) {
        crate::cli::say(text)?;
    }
    Ok(job::check(&job)?)
}
