//! What may be done with a migration in which state, and which state may follow which.

use super::MigratingState::{
    self, Active, Cutover, CuttingOver, Error, Expired, FinalSync, Finalized, Finalizing, FirstSync, Paused,
    Pending, Ready,
};
use super::{CreateMigratingVm, CyclePolicy, MigratingVm, TargetDefaults};
use crate::Status;
use crate::can::{Verdict, limit};

/// Shortest rest between cycles, in seconds.
pub const LEAST_IDLE: u32 = 10;
/// Longest rest between cycles, in seconds: thirty days.
pub const MOST_IDLE: u32 = 30 * 24 * 3600;
/// Most uploads that are kept.
pub const MOST_KEPT: u32 = 1000;
/// Longest life of a migration without an extension, in days.
pub const MOST_DAYS: u32 = 3650;

crate::words! {
    /// What a person asks of a migration.
    pub enum Verb {
        /// Upload it for the first time.
        Start = "START",
        /// No more cycles.
        Pause = "PAUSE",
        /// Cycles again.
        Resume = "RESUME",
        /// A cycle now.
        Cycle = "CYCLE",
        /// A test clone.
        Clone = "CLONE",
        /// Adapt the last upload again.
        Adapt = "ADAPT",
        /// Look whether the last upload can be adapted, and how.
        CheckOs = "CHECK_OS",
        /// The last step.
        CutOver = "CUT_OVER",
        /// Remove what the migration kept.
        Finalize = "FINALIZE",
        /// More time until it expires.
        Extend = "EXTEND",
        /// Look at it again.
        Check = "CHECK",
        /// Change what is asked of it.
        Edit = "EDIT",
        /// Take it off the books.
        Delete = "DELETE",
    }
}

impl MigratingVm {
    /// What one that has expired is when it is extended: as it was. The next cycle of one that was paused was not due.
    pub const fn extended(&self) -> MigratingState {
        match (self.cycles, self.next_time, self.last_copy) {
            (0, None, _) => Ready,
            (_, None, _) => Paused,
            (_, Some(_), None) => FirstSync,
            (_, Some(_), Some(_)) => Active,
        }
    }

    /// Whether an upload of it is being adapted.
    pub fn is_adapted_now(&self) -> bool {
        self.adaptation.as_ref().is_some_and(|last| !last.over)
    }
}

impl MigratingState {
    /// Whether `to` may follow.
    pub const fn can_become(self, to: Self) -> bool {
        match self {
            Pending => matches!(to, Ready | Error),
            Ready => matches!(to, FirstSync | Pending | Error | Expired),
            FirstSync => matches!(to, Active | Paused | Error | Expired),
            Active => matches!(to, Paused | CuttingOver | Error | Expired),
            Paused => matches!(to, FirstSync | Active | CuttingOver | Expired),
            // Back to where it was: what does not come to its end leaves all as it was before.
            CuttingOver => matches!(to, FinalSync | Active | Paused),
            FinalSync => matches!(to, Cutover | Active | Paused),
            Cutover => matches!(to, Active | Finalizing),
            Finalizing => matches!(to, Finalized | Cutover),
            Error => matches!(to, Pending),
            Expired => matches!(to, Ready | FirstSync | Active | Paused),
            Finalized => false,
        }
    }

    /// Whether cycles run by themselves.
    pub const fn cycles(self) -> bool {
        matches!(self, FirstSync | Active)
    }

    /// Whether it runs where it was to go.
    pub const fn has_moved(self) -> bool {
        matches!(self, Cutover | Finalizing | Finalized)
    }

    /// Whether a job is at its last steps with it.
    pub const fn is_busy(self) -> bool {
        matches!(self, CuttingOver | FinalSync | Finalizing)
    }
}

/// Whether this may be asked of a migration now.
pub fn can(verb: Verb, vm: &MigratingVm) -> Verdict {
    let name = &vm.name;
    let refuse = |text: String| Err(Status::precondition(text));
    let state = vm.state;
    if state.is_busy() && !matches!(verb, Verb::Clone | Verb::CheckOs) {
        return refuse(match state {
            Finalizing => format!("{name} is being finalized: wait until that is over"),
            _ => format!("{name} is being cut over: wait until that is over, or cancel it"),
        });
    }
    if state == Finalized && verb != Verb::Delete {
        return refuse(format!(
            "{name} is finalized: nothing of it is left but its story"
        ));
    }
    if let (Verb::CutOver, true, Some(e)) = (
        verb,
        vm.adapts,
        vm.adaptation.as_ref().and_then(|a| a.error.as_ref()),
    ) {
        return refuse(format!(
            "the system of {name} could not be adapted: {}. Mend that and adapt it again, or have its policy skip OS adaptation",
            e.message.trim_end_matches('.')
        ));
    }
    let fits = match verb {
        Verb::Start => state == Ready,
        Verb::Pause => state.cycles(),
        Verb::Resume => matches!(state, Paused | Cutover),
        Verb::Cycle => state.cycles() && vm.current_cycle.is_none(),
        Verb::Clone | Verb::CheckOs => vm.last_copy.is_some(),
        Verb::Adapt => {
            matches!(state, Active | Paused) && vm.last_copy.is_some() && vm.adapts && !vm.is_adapted_now()
        }
        Verb::CutOver => matches!(state, Active | Paused) && vm.last_copy.is_some(),
        Verb::Finalize => state == Cutover,
        // One that is to expire no more, but has, goes on by that.
        Verb::Extend => vm.expire_time.is_some() || state == Expired,
        Verb::Check => matches!(state, Ready | Error),
        Verb::Edit => true,
        Verb::Delete => matches!(
            state,
            Ready | Paused | Cutover | Finalized | Error | Expired | Pending
        ),
    };
    if fits {
        return Ok(());
    }
    refuse(match (verb, state) {
        (Verb::Clone | Verb::CutOver | Verb::Adapt | Verb::CheckOs, _) if vm.last_copy.is_none() => {
            format!("nothing of {name} is uploaded yet: wait for its first cycle")
        }
        (Verb::Cycle, FirstSync | Active) => format!("a cycle of {name} is at work already"),
        (Verb::Adapt, FirstSync | Active | Paused) if !vm.adapts => {
            format!("uploads of {name} are not adapted: its policy skips that")
        }
        (Verb::Adapt, _) if vm.is_adapted_now() => format!("an upload of {name} is being adapted already"),
        (Verb::Start, FirstSync | Active) => format!("{name} is started already"),
        (Verb::Start | Verb::Cycle, Paused) => format!("{name} is paused: resume it instead"),
        (Verb::Pause, Paused) => format!("{name} is paused already"),
        (Verb::Extend, _) => format!("{name} does not expire"),
        (Verb::Finalize, _) => format!("{name} is not cut over yet"),
        (Verb::Delete, _) => format!("cycles of {name} run: pause it first"),
        (_, Pending) => format!("{name} is still being looked at"),
        (_, Ready) => format!("{name} is not started yet"),
        (_, Error) => format!("{name} cannot be carried over as it is: see its error, and check it again"),
        (_, Expired) => format!("the time of {name} is over: extend it first"),
        (_, Cutover) => format!("{name} is cut over: resume it to go on with cycles, or finalize it"),
        (_, state) => format!("{name} is {state}, which does not allow that"),
    })
}

/// Whether there can be such a migration.
pub fn migration(asked: &CreateMigratingVm) -> Verdict {
    limit::length("source", &asked.source, 256)?;
    limit::length("sourceVm", &asked.source_vm, 1024)?;
    limit::length("target", &asked.target, 256)?;
    policy(&asked.policy)?;
    wave("wave", asked.wave)?;
    defaults("targetDefaults", &asked.target_defaults)
}

/// Whether cycles can run so.
pub fn policy(policy: &CyclePolicy) -> Verdict {
    let within = |field, n, least, most, unit| {
        limit::within(field, u64::from(n), u64::from(least), u64::from(most), unit)
    };
    within(
        "policy.idleSeconds",
        policy.idle_seconds,
        LEAST_IDLE,
        MOST_IDLE,
        "seconds",
    )?;
    within("policy.keepLast", policy.keep_last, 1, MOST_KEPT, "uploads")?;
    match policy.expire_days {
        Some(days) => within("policy.expireDays", days, 1, MOST_DAYS, "days"),
        None => Ok(()),
    }
}

/// Whether a machine can be so.
pub fn defaults(field: &str, asked: &TargetDefaults) -> Verdict {
    if let Some(n) = asked.cpus {
        limit::cpus(&format!("{field}.cpus"), n)?;
    }
    if let Some(n) = asked.memory_mib {
        limit::memory(&format!("{field}.memoryMib"), n)?;
    }
    if let Some(hostname) = &asked.hostname
        && !is_hostname(hostname)
    {
        let why = "a hostname is of labels of letters, digits and hyphens with dots between, and at most 64 characters long";
        return Err(Status::invalid(&format!("{field}.hostname"), why));
    }
    let told = asked.cloud_init.as_ref().and_then(|ci| ci.meta_data.as_ref());
    if told.is_some() && !asked.metadata.is_empty() {
        let why = "cloudInit.metaData says the same: give one of both";
        return Err(Status::invalid(&format!("{field}.metadata"), why));
    }
    for (name, value) in &asked.metadata {
        limit::length(&format!("{field}.metadata"), name, 128)?;
        limit::length(&format!("{field}.metadata.{name}"), value, 16 << 10)?;
    }
    Ok(())
}

/// Whether a machine in one job can be so, where that differs from the migration's own.
pub fn overrides(field: &str, asked: &TargetDefaults) -> Verdict {
    let whole = [
        ("hostname", asked.hostname.is_some()),
        ("firmware", asked.firmware.is_some()),
        ("keepIdentity", asked.keep_identity.is_some()),
    ];
    for (name, given) in whole {
        if given {
            let why = "OS adaptation sets it, in the migration as a whole: set it in its targetDefaults";
            return Err(Status::invalid(&format!("{field}.{name}"), why));
        }
    }
    defaults(field, asked)
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 64 && text.split('.').all(label)
}

/// Most waves of a group.
pub const MOST_WAVES: u32 = 100;

/// Whether there can be such a wave.
pub fn wave(field: &str, n: u32) -> Verdict {
    limit::within(field, u64::from(n), 1, u64::from(MOST_WAVES), "waves")
}

#[cfg(test)]
mod tests;
