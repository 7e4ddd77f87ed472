//! What people ask of migrations.

use crate::db::migrations::become_;
use crate::db::{self, now};
use crate::jobs::check::{check_cloud_init, check_labels};
use crate::jobs::{By, Jobs};
use crate::sources::{Origin, Sources, libvirt};
use shared::copy::{Copy, OutsideVm, RestoreCopy, RestoreVm};
use shared::job::{Job, JobSpec};
use shared::migrate::adapt::AdaptSpec;
use shared::migrate::can::{self, Verb};
use shared::migrate::views::{Judged, MigrationClone};
use shared::migrate::{
    CloneOf, CreateCutover, CreateMigratingVm, CreateMigrationClone, CreateSource, CutoverSpec,
    FinalizeMigration, FinalizeSpec, JudgeClone, MigratingState, MigratingVm, PatchMigratingVm, Source,
    TargetDefaults,
};
use shared::place::NetworkKind;
use shared::vm::{Firmware, NewNic};
use shared::{Code, CopyId, JobId, MigratingVmId, Name, SourceId, Status, Timestamp};
use uuid::Uuid;

/// A day, in microseconds.
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;
/// Most hours that a test clone is kept without a question: ten years.
const MOST_HOURS: u64 = 87_600;

impl Jobs {
    /// Adds a source.
    pub async fn create_source(&self, request: CreateSource) -> Result<SourceId, Status> {
        let source = Source {
            id: SourceId(Uuid::now_v7()),
            place: {
                let place = request.place()?;
                if let Some(folder) = &place.disks {
                    Sources::of(self.world()).folder(&folder.path)?;
                }
                if let Some(place) = &place.libvirt {
                    libvirt::open(place).await?;
                }
                place
            },
            name: request.name,
            migrating_vms: 0,
            create_time: now(),
            generation: 0,
        };
        let id = source.id;
        let db = &self.world().db;
        db.write(move |tx| Box::pin(async move { db::migrations::insert_source(tx, &source).await }))
            .await?;
        Ok(id)
    }

    /// Removes a source that nothing is carried over from.
    pub async fn delete_source(&self, reference: &str) -> Result<(), Status> {
        let reference = reference.to_owned();
        let gone = self.world().db.write(move |tx| {
            Box::pin(async move {
                let source = db::migrations::source(tx.conn(), &reference).await?;
                if source.migrating_vms > 0 {
                    let message = format!(
                        "{} machines are, or were, carried over from {}: delete their migrations first",
                        source.migrating_vms, source.name
                    );
                    return Err(Status::precondition(message).into());
                }
                db::migrations::delete_source(tx, source.id).await
            })
        });
        Ok(gone.await?)
    }

    /// Carries a machine over.
    pub async fn create_migrating_vm(&self, mut request: CreateMigratingVm) -> Result<MigratingVmId, Status> {
        can::migration(&request)?;
        self.check_defaults("targetDefaults", &mut request.target_defaults)
            .await?;
        let db = &self.world().db;
        let source = db.reading(async |conn| db::migrations::source(conn, &request.source).await);
        let source = source.await?;
        let target = db::targets::known(db, &request.target).await?.target;
        let found = Sources::of(self.world())
            .find(&source, &request.source_vm)
            .await?;
        let found = found.ok_or_else(|| {
            let why = format_args!("{} has no machine {}", source.name, request.source_vm);
            Status::invalid("sourceVm", why)
        })?;
        let time = self.world().clock.now();
        let vm = MigratingVm {
            id: MigratingVmId(Uuid::now_v7()),
            name: request.name,
            source: source.id,
            source_name: source.name,
            source_vm: found.id(),
            source_vm_name: found.name(),
            target: target.id,
            target_name: target.name,
            target_defaults: request.target_defaults,
            policy: request.policy,
            group: request.group,
            wave: request.wave,
            state: MigratingState::Pending,
            state_time: time,
            error: None,
            cycles: 0,
            failures: 0,
            current_cycle: None,
            last_sync_time: None,
            last_copy: None,
            last_rate_bps: None,
            adaptation: None,
            adapts: false,
            adapted: None,
            next_time: None,
            cutover_job: None,
            target_vm: None,
            expire_time: expires(request.policy.expire_days, time),
            create_time: time,
            generation: 0,
        };
        let id = vm.id;
        db.write(move |tx| Box::pin(async move { db::migrations::insert(tx, &vm).await }))
            .await?;
        Ok(id)
    }

    /// What a machine is to be, with networks and storages by id.
    async fn check_defaults(&self, field: &str, asked: &mut TargetDefaults) -> Result<(), Status> {
        check_labels(&format!("{field}.labels"), &asked.labels)?;
        check_cloud_init(&format!("{field}.cloudInit"), asked.cloud_init.as_ref())?;
        if asked.firmware == Some(Firmware::Efi) {
            self.world().efi()?;
        }
        self.resolve_storage(asked.storage.as_mut()).await?;
        let nics = format!("{field}.networkInterfaces");
        self.resolve_nics(&nics, asked.network_interfaces.as_mut()).await
    }

    /// Changes a migration if `verb` may be asked of it; answers it as it is then.
    async fn ask(
        &self,
        reference: &str,
        verb: Verb,
        change: impl FnOnce(&mut MigratingVm, Timestamp) -> Result<(), Status> + Send + 'static,
    ) -> Result<MigratingVm, Status> {
        let (reference, time) = (reference.to_owned(), self.world().clock.now());
        let done = self.world().db.write(move |tx| {
            Box::pin(async move {
                let mut vm = db::migrations::known(tx.conn(), &reference).await?;
                can::can(verb, &vm)?;
                change(&mut vm, time)?;
                db::migrations::save(tx, &vm).await?;
                Ok(vm)
            })
        });
        Ok(done.await?)
    }

    /// Changes what is asked of a migration.
    pub async fn update_migrating_vm(
        &self,
        reference: &str,
        mut patch: PatchMigratingVm,
    ) -> Result<MigratingVm, Status> {
        if let Some(defaults) = &mut patch.target_defaults {
            can::defaults("targetDefaults", defaults)?;
            self.check_defaults("targetDefaults", defaults).await?;
        }
        if let Some(policy) = &patch.policy {
            can::policy(policy)?;
        }
        if let Some(wave) = patch.wave {
            can::wave("wave", wave)?;
        }
        let group = match patch.group.as_deref() {
            None => None,
            Some("") => Some(None),
            Some(name) => {
                let name: Name = name.parse().map_err(|e| Status::invalid("group", e))?;
                Some(Some(name))
            }
        };
        let change = move |vm: &mut MigratingVm, time: Timestamp| {
            if let Some(name) = patch.name {
                vm.name = name;
            }
            if let Some(defaults) = patch.target_defaults {
                if defaults.wanted() != vm.target_defaults.wanted() {
                    // The last upload is adapted anew.
                    (vm.adaptation, vm.adapted) = (None, None);
                }
                vm.target_defaults = defaults;
            }
            if let Some(wave) = patch.wave {
                vm.wave = wave;
            }
            if let Some(group) = group {
                vm.group = group;
            }
            if let Some(policy) = patch.policy {
                if policy.expire_days != vm.policy.expire_days {
                    vm.expire_time = expires(policy.expire_days, time);
                }
                // A shorter rest counts at once.
                let idle = i64::from(policy.idle_seconds) * 1_000_000;
                vm.next_time = vm.next_time.map(|next| next.min(time.plus_micros(idle)));
                vm.policy = policy;
            }
            Ok(())
        };
        self.ask(reference, Verb::Edit, change).await
    }

    /// Takes a migration off the books: its uploads stay at the target.
    pub async fn delete_migrating_vm(&self, reference: &str) -> Result<(), Status> {
        let reference = reference.to_owned();
        let gone = self.world().db.write(move |tx| {
            Box::pin(async move {
                let vm = db::migrations::known(tx.conn(), &reference).await?;
                can::can(Verb::Delete, &vm)?;
                db::migrations::delete(tx, &vm).await?;
                Ok(vm)
            })
        });
        let vm = gone.await?;
        if let Some(place) = Sources::of(self.world()).libvirt(vm.source).await?
            && vm.state != MigratingState::Finalized
            && let Err(e) = libvirt::forget(&place, &vm).await
        {
            // It may be away for ever.
            tracing::warn!(error = %db::chain(&e), migration = %vm.name, "checkpoints stay");
        }
        Ok(())
    }

    /// Starts the cycles.
    pub async fn start_migration(&self, reference: &str) -> Result<MigratingVm, Status> {
        self.ask(reference, Verb::Start, |vm, time| {
            become_(vm, MigratingState::FirstSync, time);
            vm.next_time = Some(time);
            Ok(())
        })
        .await
    }

    /// Stops the cycles; one that is at work is cancelled, and what it has uploaded is found again.
    pub async fn pause_migration(&self, reference: &str) -> Result<MigratingVm, Status> {
        let vm = self
            .ask(reference, Verb::Pause, |vm, time| {
                become_(vm, MigratingState::Paused, time);
                vm.next_time = None;
                Ok(())
            })
            .await?;
        if let Some(job) = vm.current_cycle {
            // It may have come to its end just now, or be past its point of no return: then it counts.
            if let Err(e) = self.cancel(job).await {
                tracing::info!(%job, error = %e, "a cycle goes on though its migration is paused");
            }
        }
        Ok(vm)
    }

    /// Goes on with the cycles, after a pause or a cutover.
    pub async fn resume_migration(&self, reference: &str) -> Result<MigratingVm, Status> {
        self.ask(reference, Verb::Resume, |vm, time| {
            let state = match vm.last_copy {
                Some(_) => MigratingState::Active,
                None => MigratingState::FirstSync,
            };
            become_(vm, state, time);
            vm.next_time = Some(time);
            Ok(())
        })
        .await
    }

    /// Has the next cycle begin now.
    pub async fn cycle_now(&self, reference: &str) -> Result<MigratingVm, Status> {
        self.ask(reference, Verb::Cycle, |vm, time| {
            vm.next_time = Some(time);
            Ok(())
        })
        .await
    }

    /// Gives a migration as much time again until it expires, from now on.
    pub async fn extend_migration(&self, reference: &str) -> Result<MigratingVm, Status> {
        self.ask(reference, Verb::Extend, |vm, time| {
            vm.expire_time = expires(vm.policy.expire_days, time);
            if vm.state == MigratingState::Expired {
                let state = vm.extended();
                become_(vm, state, time);
                vm.next_time = state.cycles().then_some(time);
            }
            Ok(())
        })
        .await
    }

    /// Looks again whether a machine can be carried over.
    pub async fn check_migration(&self, reference: &str) -> Result<MigratingVm, Status> {
        self.ask(reference, Verb::Check, |vm, time| {
            become_(vm, MigratingState::Pending, time);
            Ok(())
        })
        .await
    }

    /// The machine that a migration makes of an upload.
    async fn restored(
        &self,
        vm: &MigratingVm,
        copy: &Copy,
        asked: &TargetDefaults,
        name: Name,
        isolated: bool,
    ) -> Result<RestoreVm, Status> {
        let defaults = vm.target_defaults.with(asked);
        can::defaults("target", &defaults)?;
        let cloud_init = defaults.seed();
        let networks = db::places::networks(&self.world().db).await?;
        let on = |kind| {
            let network = networks.iter().find(|network| network.kind == kind);
            let nics = copy.machine.nics as usize;
            network.map(|network| vec![NewNic::on(network.id.to_string()); nics])
        };
        let network_interfaces = match (isolated, defaults.network_interfaces) {
            (true, _) => on(NetworkKind::Isolated),
            (false, Some(nics)) => Some(nics),
            (false, None) => on(NetworkKind::User),
        };
        Ok(RestoreVm {
            name,
            cpus: defaults.cpus,
            memory_mib: defaults.memory_mib,
            network_interfaces,
            cloud_init,
            storage: defaults.storage,
            labels: defaults.labels,
            start: true,
            instant: true,
        })
    }

    /// Makes a test clone of what was uploaded.
    pub async fn migration_clone(
        &self,
        reference: &str,
        mut request: CreateMigrationClone,
        by: By,
    ) -> Result<Job, Status> {
        can::overrides("target", &request.target)?;
        self.check_defaults("target", &mut request.target).await?;
        if let Some(hours) = request.keep_hours {
            shared::can::limit::within("keepHours", u64::from(hours), 1, MOST_HOURS, "hours")?;
        }
        let db = &self.world().db;
        let vm = db.reading(async |conn| db::migrations::known(conn, reference).await);
        let vm = vm.await?;
        can::can(Verb::Clone, &vm)?;
        let copy = self.uploaded(&vm, request.copy).await?;
        let name = match &request.target.name {
            Some(name) => name.clone(),
            None => test_name(&vm.name)?,
        };
        let mut machine = self
            .restored(&vm, &copy, &request.target, name, request.isolated)
            .await?;
        (machine.start, machine.instant) = (request.start, request.start);
        let of = CloneOf {
            migrating_vm: vm.id,
            cutover: None,
            keep_hours: request.keep_hours,
        };
        let request = RestoreCopy {
            vm: Some(machine),
            ..RestoreCopy::default()
        };
        self.restore_for(&copy, request, Some(of), by).await
    }

    /// What machines are made of: the upload that is named, or the latest; where uploads are adapted, as it is then.
    async fn uploaded(&self, vm: &MigratingVm, asked: Option<CopyId>) -> Result<Copy, Status> {
        let db = &self.world().db;
        let none = || Status::precondition(format!("nothing of {} is uploaded yet", vm.name));
        if let Some(id) = asked
            && !db::migrations::is_upload(db, id, vm.id).await?
        {
            let why = format_args!("{id} is no upload of {}, or not any more", vm.name);
            return Err(Status::invalid("copy", why));
        }
        let id = match (vm.adapts, asked) {
            (false, asked) => asked.or(vm.last_copy).ok_or_else(none)?,
            (true, None) => vm
                .adapted
                .map(|adapted| adapted.copy)
                .ok_or_else(|| unadapted(vm))?,
            (true, Some(asked)) => {
                let upload = db::copies::by_id(db, asked).await?.ok_or_else(none)?;
                let all = db::copies::adapted(db, upload.target, upload.vm).await?;
                // The newest, where it was adapted more than once.
                let of = all
                    .iter()
                    .filter(|(_, of)| *of == asked)
                    .map(|(copy, _)| *copy)
                    .max();
                of.ok_or_else(|| {
                    let why = format_args!("{asked} is not adapted: take a later upload of {}", vm.name);
                    Status::invalid("copy", why)
                })?
            }
        };
        let found = db::copies::by_id(db, id).await?;
        found.ok_or_else(|| Status::not_found("copy", id))
    }

    /// Adapts the last upload again, alone.
    pub async fn adapt_migration(&self, reference: &str, by: By) -> Result<Job, Status> {
        let (vm, upload) = self.last_upload(reference, Verb::Adapt).await?;
        self.adapt(&vm, upload, by).await
    }

    /// Looks whether the last upload can be adapted, and what that would change.
    pub async fn check_os(&self, reference: &str, by: By) -> Result<Job, Status> {
        let (vm, upload) = self.last_upload(reference, Verb::CheckOs).await?;
        let spec = AdaptSpec {
            check: true,
            ..self.adaptation(&vm, upload)
        };
        self.submit(JobSpec::AdaptCopy(spec), None, None, by).await
    }

    /// A migration of which this may be asked, and its last upload.
    async fn last_upload(&self, reference: &str, verb: Verb) -> Result<(MigratingVm, CopyId), Status> {
        let db = &self.world().db;
        let vm = db.reading(async |conn| db::migrations::known(conn, reference).await);
        let vm = vm.await?;
        can::can(verb, &vm)?;
        let none = || Status::precondition(format!("nothing of {} is uploaded yet", vm.name));
        let upload = vm.last_copy.ok_or_else(none)?;
        Ok((vm, upload))
    }

    /// Notes what a person says of a test clone.
    pub async fn judge_clone(
        &self,
        reference: &str,
        clone: &str,
        request: JudgeClone,
        By(by): By,
    ) -> Result<MigrationClone, Status> {
        shared::can::limit::length("note", &request.note, 4096)?;
        let db = &self.world().db;
        let vm = db.reading(async |conn| db::migrations::known(conn, reference).await);
        let vm = vm.await?;
        let judged = Judged {
            verdict: Some(request.verdict),
            note: request.note,
            by,
            time: Some(self.world().clock.now()),
        };
        let none = || Status::not_found("test clone", clone);
        let id: JobId = clone.parse().map_err(|_| none())?;
        let stored = db::jobs::by_id(db, id).await?.ok_or_else(none)?;
        let found = MigrationClone::of(&stored.job, judged.clone());
        let found = found
            .filter(|found| found.migrating_vm == vm.id)
            .ok_or_else(none)?;
        db.write(move |tx| Box::pin(async move { db::migrations::judge(tx, id, &judged, vm.id).await }))
            .await?;
        Ok(found)
    }

    /// Cuts a machine over.
    pub async fn cut_over(&self, reference: &str, request: CreateCutover, by: By) -> Result<Job, Status> {
        self.cut_over_once(reference, request, None, by).await
    }

    /// As [`Self::cut_over`]; asked twice with the same id it is one job.
    pub(in crate::jobs) async fn cut_over_once(
        &self,
        reference: &str,
        mut request: CreateCutover,
        once: Option<Uuid>,
        by: By,
    ) -> Result<Job, Status> {
        can::overrides("target", &request.target)?;
        self.check_defaults("target", &mut request.target).await?;
        let most = u64::from(shared::can::limit::BOOT_TIMEOUT_SECONDS);
        let seconds = u64::from(request.power_off_after_seconds);
        shared::can::limit::within("powerOffAfterSeconds", seconds, 1, most, "seconds")?;
        let db = &self.world().db;
        let vm = db.reading(async |conn| db::migrations::known(conn, reference).await);
        let vm = vm.await?;
        let origin = Sources::of(self.world()).of_migration(&vm).await?;
        let defaults = vm.target_defaults.with(&request.target);
        let name = defaults.name.as_ref().unwrap_or(&vm.name);
        // Said now: at the end of a cutover its machine is off.
        if db::vms::find(db, name.as_str()).await?.is_some() {
            let why = format!("there is a machine called {name} already: give the new one another name");
            return Err(Status::invalid("target.name", why));
        }
        let spec = CutoverSpec {
            migrating_vm: vm.id,
            name: vm.name.clone(),
            source_vm: match &origin {
                Origin::Local(machine) => Some(machine.id),
                Origin::Exported(_) | Origin::Libvirt(_) => None,
            },
            outside: match &origin {
                Origin::Libvirt(machine) => Some(OutsideVm {
                    source: vm.source,
                    id: machine.uuid.clone(),
                }),
                Origin::Local(_) | Origin::Exported(_) => None,
            },
            ran: origin.runs(),
            adapts: vm.adapts,
            forecast: crate::inventory::migrations::forecast(self.world(), reference).await?,
            request,
        };
        self.submit(JobSpec::CutOver(spec), once, None, by).await
    }

    /// The machine that a cutover makes of its final sync.
    pub(in crate::jobs) async fn cutover_machine(
        &self,
        vm: &MigratingVm,
        cutover: (JobId, &CreateCutover),
        request_id: Uuid,
        by: By,
    ) -> Result<Job, Status> {
        let (id, asked) = cutover;
        let copy = self.uploaded(vm, None).await?;
        let defaults = vm.target_defaults.with(&asked.target);
        let name = defaults.name.unwrap_or_else(|| vm.name.clone());
        let machine = self.restored(vm, &copy, &asked.target, name, false).await?;
        let of = CloneOf {
            migrating_vm: vm.id,
            cutover: Some(id),
            keep_hours: None,
        };
        let request = RestoreCopy {
            vm: Some(machine),
            request_id: Some(request_id),
            ..RestoreCopy::default()
        };
        self.restore_for(&copy, request, Some(of), by).await
    }

    /// Removes what a migration kept, after its cutover.
    pub async fn finalize_migration(
        &self,
        reference: &str,
        request: FinalizeMigration,
        by: By,
    ) -> Result<Job, Status> {
        let db = &self.world().db;
        let vm = db.reading(async |conn| db::migrations::known(conn, reference).await);
        let vm = vm.await?;
        let spec = FinalizeSpec {
            migrating_vm: vm.id,
            name: vm.name,
            request,
        };
        self.submit(JobSpec::FinalizeMigration(spec), None, None, by)
            .await
    }
}

/// Why there is nothing adapted to make a machine of.
fn unadapted(vm: &MigratingVm) -> Status {
    let why = vm.adaptation.as_ref().and_then(|last| last.error.as_ref());
    Status::precondition(match why {
        Some(why) => format!(
            "the system of {} could not be adapted: {}. Mend that and adapt it again, or have its policy skip OS adaptation",
            vm.name,
            why.message.trim_end_matches('.')
        ),
        None => format!("no upload of {} is adapted yet: wait until one is", vm.name),
    })
}

/// When a migration expires that lives for so many days from now on.
fn expires(days: Option<u32>, now: Timestamp) -> Option<Timestamp> {
    days.map(|days| now.plus_micros(i64::from(days) * DAY_MICROS))
}

/// A name that nobody has, of the migration's.
fn test_name(of: &Name) -> Result<Name, Status> {
    let tail = &Uuid::new_v4().simple().to_string()[..8];
    let stem: String = of.as_str().chars().take(63 - 5 - 9).collect();
    format!("{}-test-{tail}", stem.trim_end_matches('-'))
        .parse()
        .map_err(|e: shared::NameError| Status::new(Code::Internal, e.to_string()))
}
