//! What machines do by themselves, written down: a guest that shuts down, a disk that is full, a QEMU that dies.

use super::{Inner, World};
use crate::db::{self, DbError, now};
use crate::hypervisor::{Ended, MachineEvent, RunState};
use shared::vm::{Condition, VmState};
use shared::{Code, Status, Timestamp, VmId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// How often all machines are looked at, whatever events said.
const EVERY: Duration = Duration::from_secs(30);

/// The state that follows when a machine is seen like this; none if it stays as it is.
pub fn next(current: &Condition, seen: RunState, crash: Option<&str>, now: Timestamp) -> Option<Condition> {
    let since = match current {
        Condition::Running { since } | Condition::Paused { since, .. } | Condition::Stopping { since } => {
            *since
        }
        Condition::Stopped | Condition::Starting | Condition::Error { .. } => now,
    };
    let next = match (current, seen) {
        // A guest that has been asked to shut down runs until it has.
        (Condition::Stopping { .. }, RunState::Running) => return None,
        (_, RunState::Running) => Condition::Running { since },
        (_, RunState::Paused(reason)) => Condition::Paused { since, reason },
        // The job that starts it says how that went.
        (Condition::Starting | Condition::Error { .. }, RunState::Stopped) => return None,
        (_, RunState::Stopped) => match crash {
            Some(text) => Condition::Error {
                error: Status::new(
                    Code::Aborted,
                    format!("its QEMU ended by itself: {text}; start it again"),
                ),
            },
            None => Condition::Stopped,
        },
    };
    (next != *current).then_some(next)
}

/// Writes down how a machine is seen; answers its state then. A machine that is not known is passed over.
pub async fn write(world: &World, vm: VmId, seen: RunState, crash: Option<String>) -> Result<(), DbError> {
    world
        .db
        .write(move |tx| {
            Box::pin(async move {
                let Some(current) = db::vms::get(tx.conn(), vm).await? else {
                    return Ok(());
                };
                if let Some(next) = next(&current.condition()?, seen, crash.as_deref(), now()) {
                    db::vms::set_condition(tx, vm, next).await?;
                }
                Ok(())
            })
        })
        .await
}

/// Looks at a machine now and writes down what is seen.
pub async fn look(world: &World, vm: VmId) -> Result<RunState, DbError> {
    let seen = world.hypervisor.state(vm).await;
    write(world, vm, seen, None).await?;
    Ok(seen)
}

/// At the start: finds every machine that has gone on running without a server.
pub(super) async fn adopt(world: &World) -> Result<(), DbError> {
    for vm in db::vms::ids(&world.db).await? {
        match world.hypervisor.adopt(vm).await {
            Ok(seen) => {
                let starting = db::vms::by_id(&world.db, vm)
                    .await?
                    .is_some_and(|v| v.state == VmState::Starting);
                if starting && seen == RunState::Stopped {
                    // The job that was starting it goes on from there, or undoes it.
                    continue;
                }
                write(world, vm, seen, None).await?;
            }
            Err(e) => {
                tracing::error!(%vm, error = %db::chain(&e), "a machine could not be adopted");
                let error = Status::new(
                    Code::Unavailable,
                    format!("it could not be adopted: {}", db::chain(&e)),
                );
                world
                    .db
                    .write(move |tx| Box::pin(db::vms::set_condition(tx, vm, Condition::Error { error })))
                    .await?;
            }
        }
    }
    Ok(())
}

/// Follows the machines until the server stops. Looking at all of them now and then makes up for lost events.
pub(super) async fn watch(inner: Arc<Inner>, mut events: broadcast::Receiver<MachineEvent>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.tick().await;
    loop {
        let done = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    let crash = match event.ended {
                        Some(Ended::Crashed(text)) => Some(text),
                        Some(Ended::GuestShutDown | Ended::Killed) | None => None,
                    };
                    // The event may be old by now: what counts is how the machine is.
                    let seen = inner.world.hypervisor.state(event.vm).await;
                    write(&inner.world, event.vm, seen, crash).await
                }
                Err(broadcast::error::RecvError::Lagged(_)) => look_at_all(&inner.world).await,
                Err(broadcast::error::RecvError::Closed) => return,
            },
            _ = tick.tick() => look_at_all(&inner.world).await,
            () = inner.stop.cancelled() => return,
        };
        if let Err(e) = done {
            tracing::error!(error = %db::chain(&e), "a machine's state could not be written");
        }
    }
}

async fn look_at_all(world: &World) -> Result<(), DbError> {
    for vm in db::vms::ids(&world.db).await? {
        look(world, vm).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::vm::PauseReason;

    const T: Timestamp = Timestamp::from_micros(7);

    fn conditions() -> impl Strategy<Value = Condition> {
        prop_oneof![
            Just(Condition::Stopped),
            Just(Condition::Starting),
            Just(Condition::Running { since: T }),
            prop::sample::select(PauseReason::ALL).prop_map(|reason| Condition::Paused { since: T, reason }),
            Just(Condition::Stopping { since: T }),
            Just(Condition::Error {
                error: Status::precondition("broken")
            }),
        ]
    }

    fn seen() -> impl Strategy<Value = RunState> {
        prop_oneof![
            Just(RunState::Stopped),
            Just(RunState::Running),
            prop::sample::select(PauseReason::ALL).prop_map(RunState::Paused),
        ]
    }

    proptest! {
        #[test]
        fn what_is_seen_is_believed_once(current in conditions(), seen in seen(), crashed: bool) {
            let crash = crashed.then_some("assertion failed");
            let now = Timestamp::from_micros(9);
            if let Some(after) = next(&current, seen, crash, now) {
                prop_assert_eq!(next(&after, seen, crash, now), None, "the same sight again is no change");
                let has_process = after.state().has_process();
                prop_assert_eq!(has_process, seen != RunState::Stopped);
            }
        }
    }

    #[test]
    fn a_guest_asked_to_shut_down_is_stopping_until_it_has() {
        let stopping = Condition::Stopping { since: T };
        assert_eq!(next(&stopping, RunState::Running, None, T), None);
        assert_eq!(
            next(&stopping, RunState::Stopped, None, T),
            Some(Condition::Stopped)
        );
    }
}
