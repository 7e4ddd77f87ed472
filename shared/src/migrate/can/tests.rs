use super::*;
use crate::migrate::adapt::LastAdaptation;
use crate::{CopyId, JobId, MigratingVmId, SourceId, TargetId, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

const T: Timestamp = Timestamp::from_micros(1);

/// One that is uploaded, expires some day, and has no cycle at work.
fn web(state: MigratingState) -> MigratingVm {
    MigratingVm {
        id: MigratingVmId(Uuid::nil()),
        name: "web".parse().unwrap(),
        source: SourceId(Uuid::nil()),
        source_name: "here".parse().unwrap(),
        source_vm: "web".into(),
        source_vm_name: "web".into(),
        target: TargetId(Uuid::nil()),
        target_name: "vault".parse().unwrap(),
        target_defaults: TargetDefaults::default(),
        policy: CyclePolicy::default(),
        group: None,
        wave: 1,
        state,
        state_time: T,
        error: None,
        cycles: 1,
        failures: 0,
        current_cycle: None,
        last_sync_time: Some(T),
        last_copy: Some(CopyId(Uuid::nil())),
        last_rate_bps: None,
        adaptation: None,
        adapts: true,
        adapted: None,
        next_time: None,
        cutover_job: None,
        target_vm: None,
        expire_time: Some(T),
        create_time: T,
        generation: 0,
    }
}

/// Why not; empty where it is allowed.
fn why_not(verb: Verb, vm: &MigratingVm) -> String {
    match can(verb, vm) {
        Ok(()) => String::new(),
        Err(why) => {
            assert_eq!(why.code, crate::Code::FailedPrecondition);
            why.message
        }
    }
}

#[test]
fn what_may_follow_what() {
    #[rustfmt::skip]
    let table = [
        //               PEN REA FIR ACT PAU CUT FIN OVR ZIN ZED ERR EXP
        (Pending,      "  .   x   .   .   .   .   .   .   .   .   x   . "),
        (Ready,        "  x   .   x   .   .   .   .   .   .   .   x   x "),
        (FirstSync,    "  .   .   .   x   x   .   .   .   .   .   x   x "),
        (Active,       "  .   .   .   .   x   x   .   .   .   .   x   x "),
        (Paused,       "  .   .   x   x   .   x   .   .   .   .   .   x "),
        (CuttingOver,  "  .   .   .   x   x   .   x   .   .   .   .   . "),
        (FinalSync,    "  .   .   .   x   x   .   .   x   .   .   .   . "),
        (Cutover,      "  .   .   .   x   .   .   .   .   x   .   .   . "),
        (Finalizing,   "  .   .   .   .   .   .   .   x   .   x   .   . "),
        (Finalized,    "  .   .   .   .   .   .   .   .   .   .   .   . "),
        (Error,        "  x   .   .   .   .   .   .   .   .   .   .   . "),
        (Expired,      "  .   x   x   x   x   .   .   .   .   .   .   . "),
    ];
    assert_eq!(table.map(|(state, _)| state)[..], MigratingState::ALL[..]);
    for (from, row) in table {
        let may: Vec<bool> = row.split_whitespace().map(|mark| mark == "x").collect();
        assert_eq!(may.len(), MigratingState::ALL.len());
        for (to, may) in MigratingState::ALL.iter().zip(may) {
            assert_eq!(from.can_become(*to), may, "{from} to {to}");
        }
    }
}

#[test]
fn what_may_be_asked_in_which_state() {
    const OK: &str = "";
    const LOOKED: &str = "web is still being looked at";
    const UNSTARTED: &str = "web is not started yet";
    const STARTED: &str = "web is started already";
    const RUNS: &str = "cycles of web run: pause it first";
    const NOT_OVER: &str = "web is not cut over yet";
    const RESUME: &str = "web is paused: resume it instead";
    const PAUSED: &str = "web is paused already";
    const GOES: &str = "web is being cut over: wait until that is over, or cancel it";
    const OVER: &str = "web is cut over: resume it to go on with cycles, or finalize it";
    const ENDS: &str = "web is being finalized: wait until that is over";
    const ENDED: &str = "web is finalized: nothing of it is left but its story";
    const ERROR: &str = "web cannot be carried over as it is: see its error, and check it again";
    const LATE: &str = "the time of web is over: extend it first";
    const FIRST: &str = "web is FIRST_SYNC, which does not allow that";
    const ACTIVE: &str = "web is ACTIVE, which does not allow that";
    const STILL: &str = "web is PAUSED, which does not allow that";
    #[rustfmt::skip]
    let table = [
        //             START    PAUSE      RESUME     CYCLE      CLONE  ADAPT      CHECK_OS CUT_OVER   FINALIZE  EXTEND CHECK   EDIT   DELETE
        (Pending,     [LOOKED,  LOOKED,    LOOKED,    LOOKED,    OK,    LOOKED,    OK,      LOOKED,    NOT_OVER, OK,    LOOKED, OK,    OK]),
        (Ready,       [OK,      UNSTARTED, UNSTARTED, UNSTARTED, OK,    UNSTARTED, OK,      UNSTARTED, NOT_OVER, OK,    OK,     OK,    OK]),
        (FirstSync,   [STARTED, OK,        FIRST,     OK,        OK,    FIRST,     OK,      FIRST,     NOT_OVER, OK,    FIRST,  OK,    RUNS]),
        (Active,      [STARTED, OK,        ACTIVE,    OK,        OK,    OK,        OK,      OK,        NOT_OVER, OK,    ACTIVE, OK,    RUNS]),
        (Paused,      [RESUME,  PAUSED,    OK,        RESUME,    OK,    OK,        OK,      OK,        NOT_OVER, OK,    STILL,  OK,    OK]),
        (CuttingOver, [GOES,    GOES,      GOES,      GOES,      OK,    GOES,      OK,      GOES,      GOES,     GOES,  GOES,   GOES,  GOES]),
        (FinalSync,   [GOES,    GOES,      GOES,      GOES,      OK,    GOES,      OK,      GOES,      GOES,     GOES,  GOES,   GOES,  GOES]),
        (Cutover,     [OVER,    OVER,      OK,        OVER,      OK,    OVER,      OK,      OVER,      OK,       OK,    OVER,   OK,    OK]),
        (Finalizing,  [ENDS,    ENDS,      ENDS,      ENDS,      OK,    ENDS,      OK,      ENDS,      ENDS,     ENDS,  ENDS,   ENDS,  ENDS]),
        (Finalized,   [ENDED,   ENDED,     ENDED,     ENDED,     ENDED, ENDED,     ENDED,   ENDED,     ENDED,    ENDED, ENDED,  ENDED, OK]),
        (Error,       [ERROR,   ERROR,     ERROR,     ERROR,     OK,    ERROR,     OK,      ERROR,     NOT_OVER, OK,    OK,     OK,    OK]),
        (Expired,     [LATE,    LATE,      LATE,      LATE,      OK,    LATE,      OK,      LATE,      NOT_OVER, OK,    LATE,   OK,    OK]),
    ];
    assert_eq!(table.map(|(state, _)| state)[..], MigratingState::ALL[..]);
    for (state, row) in table {
        assert_eq!(row.len(), Verb::ALL.len());
        for (verb, why) in Verb::ALL.iter().zip(row) {
            assert_eq!(why_not(*verb, &web(state)), why, "{verb} of {state}");
        }
    }
}

#[test]
fn what_is_not_uploaded_is_neither_cloned_nor_cut_over() {
    const NOTHING: &str = "nothing of web is uploaded yet: wait for its first cycle";
    for state in MigratingState::ALL {
        let vm = MigratingVm {
            last_copy: None,
            ..web(*state)
        };
        let clone = match state {
            Finalized => "web is finalized: nothing of it is left but its story",
            _ => NOTHING,
        };
        assert_eq!(why_not(Verb::Clone, &vm), clone, "{state}");
        assert_eq!(why_not(Verb::CheckOs, &vm), clone, "{state}");
        if !state.is_busy() && *state != Finalized {
            assert_eq!(why_not(Verb::CutOver, &vm), NOTHING, "{state}");
            assert_eq!(why_not(Verb::Adapt, &vm), NOTHING, "{state}");
        }
    }
}

#[test]
fn one_cycle_at_a_time_and_no_more_time_for_what_does_not_expire() {
    for state in [FirstSync, Active] {
        let vm = MigratingVm {
            current_cycle: Some(JobId(Uuid::nil())),
            ..web(state)
        };
        assert_eq!(why_not(Verb::Cycle, &vm), "a cycle of web is at work already");
        assert_eq!(why_not(Verb::Pause, &vm), "");
    }
    for state in MigratingState::ALL {
        let vm = MigratingVm {
            expire_time: None,
            ..web(*state)
        };
        if *state == Expired {
            // Its rule was taken back when it had expired already.
            assert_eq!(why_not(Verb::Extend, &vm), "");
        } else if !state.is_busy() && *state != Finalized {
            assert_eq!(why_not(Verb::Extend, &vm), "web does not expire", "{state}");
        }
    }
}

fn adaptation(over: bool, error: Option<Status>) -> Option<LastAdaptation> {
    Some(LastAdaptation {
        job: Some(JobId(Uuid::nil())),
        upload: CopyId(Uuid::nil()),
        over,
        error,
    })
}

#[test]
fn what_cannot_be_adapted_is_not_cut_over_unless_that_is_skipped() {
    let encrypted = || Some(Status::precondition("its disk is encrypted"));
    for state in [Active, Paused] {
        let runs = MigratingVm {
            adaptation: adaptation(false, None),
            ..web(state)
        };
        let already = "an upload of web is being adapted already";
        assert_eq!(why_not(Verb::Adapt, &runs), already);
        assert_eq!(why_not(Verb::CutOver, &runs), "");
        let refused = MigratingVm {
            adaptation: adaptation(true, encrypted()),
            ..web(state)
        };
        let why = why_not(Verb::CutOver, &refused);
        assert!(why.contains("its disk is encrypted. Mend that"), "{why}");
        assert_eq!(why_not(Verb::Adapt, &refused), "");
        let skipped = MigratingVm {
            adapts: false,
            ..refused
        };
        assert_eq!(why_not(Verb::CutOver, &skipped), "");
        let skips = "uploads of web are not adapted: its policy skips that";
        assert_eq!(why_not(Verb::Adapt, &skipped), skips);
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Asked(Verb),
    /// What a look at the machine has found.
    Looked(bool),
    CycleBegins,
    CycleEnds(bool),
    Adapts,
    Adapted(bool),
    /// The job of a cutover, or of the end, takes a step on or is undone.
    Job(bool),
    TimePasses,
    NeverExpires,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => prop::sample::select(Verb::ALL).prop_map(Event::Asked),
        2 => any::<bool>().prop_map(Event::Looked),
        2 => Just(Event::CycleBegins),
        2 => any::<bool>().prop_map(Event::CycleEnds),
        1 => Just(Event::Adapts),
        1 => any::<bool>().prop_map(Event::Adapted),
        3 => any::<bool>().prop_map(Event::Job),
        1 => Just(Event::TimePasses),
        1 => Just(Event::NeverExpires),
    ]
}

/// Takes a state, unless it cannot follow.
fn set(vm: &mut MigratingVm, to: MigratingState) -> Result<(), TestCaseError> {
    prop_assert!(
        vm.state == to || vm.state.can_become(to),
        "{} became {to}",
        vm.state
    );
    vm.state = to;
    match to {
        FirstSync | Active => vm.next_time = Some(Timestamp::from_micros(0)),
        Expired => {}
        _ => vm.next_time = None,
    }
    Ok(())
}

/// What the server does with one that may be asked.
fn done(vm: &mut MigratingVm, paused: &mut bool, verb: Verb) -> Result<(), TestCaseError> {
    match verb {
        Verb::Start => set(vm, FirstSync),
        Verb::Pause => set(vm, Paused),
        Verb::Resume if vm.last_copy.is_some() => set(vm, Active),
        Verb::Resume => set(vm, FirstSync),
        Verb::CutOver => {
            *paused = vm.state == Paused;
            set(vm, CuttingOver)
        }
        Verb::Finalize => set(vm, Finalizing),
        Verb::Check => set(vm, Pending),
        Verb::Extend if vm.state == Expired => set(vm, vm.extended()),
        Verb::Adapt => {
            vm.adaptation = adaptation(false, None);
            Ok(())
        }
        Verb::Extend | Verb::Cycle | Verb::Clone | Verb::CheckOs | Verb::Edit | Verb::Delete => Ok(()),
    }
}

fn happens(vm: &mut MigratingVm, paused: &mut bool, event: Event) -> Result<(), TestCaseError> {
    let back = if *paused { Paused } else { Active };
    match (event, vm.state) {
        (Event::Asked(verb), _) if can(verb, vm).is_ok() => done(vm, paused, verb),
        (Event::Looked(good), Pending) => set(vm, if good { Ready } else { Error }),
        (Event::CycleBegins, FirstSync | Active | FinalSync) if vm.current_cycle.is_none() => {
            vm.current_cycle = Some(JobId(Uuid::nil()));
            vm.cycles += 1;
            Ok(())
        }
        (Event::CycleEnds(false), _) => {
            vm.current_cycle = None;
            Ok(())
        }
        (Event::CycleEnds(true), _) if vm.current_cycle.take().is_some() => {
            vm.last_copy = Some(CopyId(Uuid::nil()));
            if vm.state == FirstSync {
                set(vm, Active)?;
            }
            Ok(())
        }
        (Event::Adapts, Active | Paused) if !vm.is_adapted_now() && vm.last_copy.is_some() => {
            vm.adaptation = adaptation(false, None);
            Ok(())
        }
        (Event::Adapted(good), _) if vm.is_adapted_now() => {
            let why = (!good).then(|| Status::precondition("its disk is encrypted"));
            vm.adaptation = adaptation(true, why);
            Ok(())
        }
        // It waits for the cycle that is at work, and for its own.
        (Event::Job(true), CuttingOver) if vm.current_cycle.is_none() => set(vm, FinalSync),
        // And for what is adapted.
        (Event::Job(true), FinalSync) if vm.current_cycle.is_none() && !vm.is_adapted_now() => {
            set(vm, Cutover)
        }
        (Event::Job(false), CuttingOver | FinalSync) => set(vm, back),
        (Event::Job(true), Finalizing) => set(vm, Finalized),
        (Event::Job(false), Finalizing) => set(vm, Cutover),
        (Event::TimePasses, Ready | FirstSync | Active | Paused) if vm.expire_time.is_some() => {
            set(vm, Expired)
        }
        (Event::NeverExpires, _) if can(Verb::Edit, vm).is_ok() => {
            vm.expire_time = None;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What a person, and a server that all goes well with, do to bring one to its end.
fn next(vm: &MigratingVm) -> Event {
    match vm.state {
        Pending => Event::Looked(true),
        Ready => Event::Asked(Verb::Start),
        FirstSync if vm.current_cycle.is_none() => Event::CycleBegins,
        FirstSync => Event::CycleEnds(true),
        Paused if vm.last_copy.is_none() => Event::Asked(Verb::Resume),
        Active | Paused if vm.is_adapted_now() => Event::Adapted(true),
        Active | Paused if vm.adaptation.as_ref().is_some_and(|last| last.error.is_some()) => {
            Event::Asked(Verb::Adapt)
        }
        Active | Paused => Event::Asked(Verb::CutOver),
        CuttingOver | FinalSync if vm.current_cycle.is_some() => Event::CycleEnds(true),
        FinalSync if vm.is_adapted_now() => Event::Adapted(true),
        CuttingOver | FinalSync | Finalizing => Event::Job(true),
        Cutover => Event::Asked(Verb::Finalize),
        Error => Event::Asked(Verb::Check),
        Expired => Event::Asked(Verb::Extend),
        Finalized => Event::Asked(Verb::Delete),
    }
}

#[test]
fn what_expired_is_extended_to_what_it_was() {
    let ever = Some(Timestamp::from_micros(0));
    let copy = Some(CopyId(Uuid::nil()));
    for (cycles, next_time, last_copy, was) in [
        (0, None, None, Ready),
        (0, ever, None, FirstSync),
        (2, ever, None, FirstSync),
        (1, None, None, Paused),
        (2, None, copy, Paused),
        (2, ever, copy, Active),
    ] {
        let vm = MigratingVm {
            cycles,
            next_time,
            last_copy,
            ..web(Expired)
        };
        assert_eq!(vm.extended(), was, "{cycles} {next_time:?} {last_copy:?}");
        assert!(was.can_become(Expired) && Expired.can_become(was));
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_and_happens_no_rule_is_broken_and_there_is_a_way_to_the_end(
        all in prop::collection::vec(events(), 1..80),
    ) {
        let mut vm = MigratingVm { cycles: 0, last_copy: None, last_sync_time: None, ..web(Pending) };
        let mut paused = false;
        for event in all {
            let before = vm.clone();
            happens(&mut vm, &mut paused, event)?;
            if before.state == Finalized {
                prop_assert_eq!(&vm, &before, "what is finalized stays so");
            }
            if before.state.is_busy() && matches!(event, Event::Asked(_)) {
                prop_assert_eq!(vm.state, before.state, "a person changes nothing under a job's hands");
            }
            prop_assert!(vm.cycles >= before.cycles && vm.cycles <= before.cycles + 1);
            prop_assert!(before.last_copy.is_none() || vm.last_copy.is_some(), "an upload is lost");
            prop_assert!(vm.state != Active || vm.last_copy.is_some(), "{}", vm.state);
            for verb in Verb::ALL {
                let verdict = can(*verb, &vm);
                if let Err(why) = &verdict {
                    prop_assert!(why.message.contains("web"), "a reason names the migration: {}", why);
                }
                let of_uploads = matches!(verb, Verb::Clone | Verb::CheckOs);
                if vm.state.is_busy() && !of_uploads {
                    prop_assert!(verdict.is_err(), "{verb} of {}", vm.state);
                }
                if of_uploads && vm.state != Finalized {
                    prop_assert_eq!(verdict.is_ok(), vm.last_copy.is_some());
                }
                if vm.state == Finalized {
                    prop_assert_eq!(verdict.is_ok(), *verb == Verb::Delete);
                }
            }
        }
        let mut steps = 0;
        while vm.state != Finalized {
            let (before, event) = (vm.clone(), next(&vm));
            happens(&mut vm, &mut paused, event)?;
            prop_assert!(vm != before, "there is no way out of {}: {event:?}", vm.state);
            steps += 1;
            prop_assert!(steps <= 18, "it goes round in circles: {}", vm.state);
        }
    }

    #[test]
    fn nothing_leads_out_of_the_end_and_all_else_leads_to_it(state in prop::sample::select(MigratingState::ALL)) {
        let follows = MigratingState::ALL.iter().filter(|to| state.can_become(**to)).count();
        prop_assert_eq!(follows == 0, state == Finalized);
        prop_assert!(!state.can_become(state));
    }
}
