//! States: each a word, a colour and a shape.

use crate::words::w;
use leptos::prelude::*;
use shared::job::{Job, JobState, StepState};
use shared::vm::{PauseReason, Vm, VmState};

/// How a state feels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    Busy,
    Warn,
    Bad,
    Still,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "state good",
            Self::Busy => "state busy",
            Self::Warn => "state warn",
            Self::Bad => "state bad",
            Self::Still => "state still",
        }
    }

    /// The class of the colour alone.
    pub const fn ink(self) -> &'static str {
        match self {
            Self::Good => "ink-good",
            Self::Busy => "ink-busy",
            Self::Warn => "ink-warn",
            Self::Bad => "ink-bad",
            Self::Still => "ink-still",
        }
    }

    /// The outline of the shape, in a box of 10, and how it is drawn.
    const fn shape(self) -> (&'static str, &'static str) {
        match self {
            Self::Good => ("M1 5a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "shape solid"),
            Self::Busy => ("M5 1.2a3.8 3.8 0 1 1-3.6 5", "shape turn"),
            Self::Warn => ("M5 .8 9.6 9.2H.4Z", "shape solid"),
            Self::Bad => ("M1.5 1.5l7 7m0-7l-7 7", "shape thick"),
            Self::Still => ("M1.4 5a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z", "shape"),
        }
    }
}

/// The shape alone.
pub fn shape(tone: Tone) -> AnyView {
    let (d, class) = tone.shape();
    view! {
        <svg class=class viewBox="0 0 10 10" aria-hidden="true">
            <path d=d></path>
        </svg>
    }
    .into_any()
}

/// A state with its word.
pub fn pill(tone: Tone, word: impl Into<String>) -> AnyView {
    view! {
        <span class=tone.class()>
            {shape(tone)} <span>{word.into()}</span>
        </span>
    }
    .into_any()
}

/// A machine's state.
pub fn vm_tone(vm: &Vm) -> (Tone, &'static str) {
    match (vm.state, vm.pause_reason) {
        (VmState::Running, _) => (Tone::Good, w().running),
        (VmState::Starting, _) => (Tone::Busy, w().starting),
        (VmState::Stopping, _) => (Tone::Busy, w().stopping),
        (VmState::Stopped, _) => (Tone::Still, w().stopped),
        (VmState::Error, _) => (Tone::Bad, w().error),
        (VmState::Paused, Some(PauseReason::NoSpace)) => (Tone::Warn, w().paused_no_space),
        (VmState::Paused, Some(PauseReason::IoError)) => (Tone::Warn, w().paused_io_error),
        (VmState::Paused, Some(PauseReason::GuestPanicked)) => (Tone::Bad, w().paused_panicked),
        (VmState::Paused, Some(PauseReason::User) | None) => (Tone::Warn, w().paused),
    }
}

pub fn vm_pill(vm: &Vm) -> AnyView {
    let (tone, word) = vm_tone(vm);
    pill(tone, word)
}

pub fn job_tone(job: &Job) -> Tone {
    match job.state {
        JobState::Queued => Tone::Still,
        JobState::Running | JobState::Unwinding => Tone::Busy,
        JobState::UndoBlocked => Tone::Bad,
        JobState::OnHold => Tone::Warn,
        JobState::Succeeded => Tone::Good,
        JobState::Failed => Tone::Bad,
        JobState::Cancelled => Tone::Still,
    }
}

/// A job's state; while it runs, the step it is at.
pub fn job_pill(job: &Job) -> AnyView {
    let step = job
        .current_step()
        .filter(|s| job.state == JobState::Running && s.state == StepState::Running);
    let word = match step {
        Some(step) => super::job::step_name(job.kind, &step.name),
        None => job_word(job.state).to_owned(),
    };
    pill(job_tone(job), word)
}

pub fn job_word(state: JobState) -> &'static str {
    match state {
        JobState::Queued => w().queued,
        JobState::Running => w().job_running,
        JobState::Unwinding => w().unwinding,
        JobState::UndoBlocked => w().undo_blocked,
        JobState::OnHold => w().on_hold,
        JobState::Succeeded => w().succeeded,
        JobState::Failed => w().failed,
        JobState::Cancelled => w().cancelled,
    }
}

pub fn step_tone(state: StepState) -> (Tone, &'static str) {
    match state {
        StepState::Waiting => (Tone::Still, w().step_waiting),
        StepState::Running => (Tone::Busy, w().step_running),
        StepState::Done => (Tone::Good, w().step_done),
        StepState::Failed => (Tone::Bad, w().step_failed),
        StepState::Undoing => (Tone::Busy, w().step_undoing),
        StepState::Undone => (Tone::Warn, w().step_undone),
        StepState::Skipped => (Tone::Still, w().step_skipped),
    }
}
