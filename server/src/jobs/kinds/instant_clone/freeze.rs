//! The moment itself: the source is captured, and goes on.

use super::{Minted, clone_spec, files, spec, stored};
use crate::hypervisor::{Control, RunState};
use crate::jobs::kinds;
use crate::jobs::kinds::machine_spec;
use crate::jobs::observe;
use crate::jobs::step::{Cx, StepError};
use crate::{db, disks};
use shared::snapshot::SnapshotState;

/// How many forks have their process before the moment comes; the others' would only keep the first from running.
const READY: usize = 2;

pub(super) async fn freeze(cx: &Cx) -> Result<(), StepError> {
    let (spec, mut minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let Some(overlays) = &mut minted.overlays else {
        return Ok(());
    };
    let source = kinds::vm(cx, spec.vm).await?;
    if overlays.are_active(&source) {
        return Ok(());
    }
    let stored = stored(cx, minted.point).await?;
    let switch = overlays.switch(cx.world(), &source);
    overlays.live = true;
    let overlays = overlays.clone();
    cx.mint(&minted);
    cx.commit(|_| Box::pin(async { Ok(()) })).await?;

    let (point, source_spec) = (files(&stored), machine_spec(cx.world(), &source).await?);
    let mut ready = Vec::new();
    for clone in minted.clones.iter().take(READY) {
        ready.push(clone_spec(cx, &spec, clone.id).await?);
    }
    let waiting = async {
        for spec in &ready {
            // One that cannot wait says why when it is its turn.
            _ = cx.hypervisor().await_point(spec, &point).await;
        }
    };
    let capture = cx.hypervisor().capture(&source_spec, &switch, &point);
    let (captured, ()) = tokio::join!(capture, waiting);
    let captured = captured?;
    kinds::tried_again(cx, &captured);
    let pause_micros = Some(captured.pause_micros).filter(|m| *m > 0);
    cx.outcome(|o| {
        o.pause_micros = pause_micros;
        o.copied_bytes = Some(captured.copied_bytes).filter(|b| *b > 0);
        let fork = o.fork.get_or_insert_default();
        fork.source_pause_micros = pause_micros;
        fork.forced = captured.forced;
        fork.memory_place = Some(stored.point.memory_place);
    });
    if let Some(micros) = pause_micros {
        let ms = micros as f64 / 1000.0;
        cx.log(format!("{} stood still for {ms:.1} ms", source.name));
        cx.message(if captured.forced {
            format!("stood still for {ms:.1} ms: it writes its memory faster than that travels")
        } else {
            format!("stood still for {ms:.1} ms")
        });
    }
    let (vm, id) = (source.id, stored.point.id);
    let frozen = source.disks;
    cx.commit(move |tx| {
        Box::pin(async move {
            overlays.take_over(tx, vm).await?;
            db::fork_points::froze(tx, id, &frozen, pause_micros).await
        })
    })
    .await
}

/// The memory is there; where it is kept it is on the disk before anybody is told so.
pub(super) async fn capture(cx: &Cx) -> Result<(), StepError> {
    let minted: Minted = cx.minted()?;
    let stored = stored(cx, minted.point).await?;
    if stored.point.state == SnapshotState::Ready {
        return Ok(());
    }
    let point = files(&stored);
    disks::settled(&point.state, stored.kept).await?;
    let bytes = disks::settled(&point.memory, stored.kept).await?;
    froze(cx, bytes);
    let (id, place) = (stored.point.id, stored.point.memory_place);
    cx.commit(move |tx| Box::pin(db::fork_points::ready(tx, id, bytes, place)))
        .await
}

fn froze(cx: &Cx, bytes: u64) {
    cx.outcome(|o| o.fork.get_or_insert_default().frozen_bytes = Some(bytes));
    cx.message(format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
}

/// It has gone on before this; a source that stands still is let go once more.
pub(super) async fn thaw(cx: &Cx) -> Result<(), StepError> {
    let spec = spec(cx)?;
    match cx.hypervisor().state(spec.vm).await {
        RunState::Running => cx.message("it runs"),
        RunState::Stopped => cx.message("it has stopped since"),
        RunState::Paused(shared::vm::PauseReason::User) => {
            cx.hypervisor().control(spec.vm, Control::Resume).await?;
            cx.message("it stood still, and was let go");
        }
        RunState::Paused(why) => cx.message(format!("it has been paused since: {why}")),
    }
    observe::look(cx.world(), spec.vm).await?;
    Ok(())
}
