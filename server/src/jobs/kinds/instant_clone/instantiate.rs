//! Clones begin where the point stands, become others, and are looked at.

use super::{Minted, SIDE_BY_SIDE, clone_spec, files, forget_point, spare, spec, stored};
use crate::db;
use crate::db::now;
use crate::hypervisor::{BootError, BootExpectation, HvError, MachineSpec, Point, RunState};
use crate::jobs::kinds::{chain, remove_loose};
use crate::jobs::observe;
use crate::jobs::spares::MintedClone;
use crate::jobs::step::{Cx, StepError};
use futures::{StreamExt, TryStreamExt, stream};
use regex::Regex;
use shared::clone::Proof;
use shared::fork::{ForkProof, ForkedClone, Identity};
use shared::place::Accelerator;
use shared::{LayerId, VmId};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a guest may take to give a sign. It need not give any.
const ANSWER_AT_MOST: Duration = Duration::from_secs(15);

/// How long a hook has for its guest to itself. An agent that has to answer takes the processor from it, and under TCG
/// both have to be translated first.
const HOOK_ALONE: Duration = Duration::from_millis(100);

/// What the demo guest, and whoever does as it does, prints of what lives in memory only.
static COUNTS: LazyLock<Regex> = LazyLock::new(|| {
    // It is a constant: it parses.
    #[allow(clippy::unwrap_used)]
    Regex::new(r"nonce=([0-9a-f]{16}) tick=(\d+) host=").unwrap()
});

pub(super) async fn instantiate(cx: &Cx) -> Result<(), StepError> {
    let (spec, minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let stored = stored(cx, minted.point).await?;
    let point = files(&stored);
    let mut specs = Vec::new();
    for clone in &minted.clones {
        specs.push(clone_spec(cx, &spec, clone.id).await?);
    }
    let total = u32::try_from(minted.clones.len()).unwrap_or(u32::MAX);
    cx.count(0, total);
    // None runs before all are ready to: those that ran would only keep the others from it.
    let all: Vec<_> = specs.iter().map(|spec| stand(cx, spec, &point)).collect();
    stream::iter(all)
        .buffered(SIDE_BY_SIDE)
        .try_collect::<()>()
        .await?;
    let done = AtomicU32::new(0);
    let all = specs.into_iter().zip(&minted.clones).map(|(spec, clone)| {
        let (point, done) = (&point, &done);
        async move {
            let running = run(cx, spec, point, clone).await?;
            cx.count(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok::<_, StepError>(running)
        }
    });
    let running = futures::future::try_join_all(all).await?;
    let beside = running.len().saturating_sub(1);
    // All run; now each is given its identity and asked for a sign.
    let all = running
        .into_iter()
        .map(|(spec, clone)| met(cx, spec, clone, beside));
    let clones: Vec<ForkedClone> = futures::future::try_join_all(all).await?;
    if let Some(first) = clones.first() {
        keep_screen(cx, first.vm).await;
    }
    cx.outcome(|o| {
        let fork = o.fork.get_or_insert_default();
        fork.request_to_running_micros = clones.iter().filter_map(|c| c.running_micros).min();
        fork.clones = clones;
    });
    Ok(())
}

/// Has one clone stand where the point does.
async fn stand(cx: &Cx, spec: &MachineSpec, point: &Point) -> Result<(), StepError> {
    let tried = cx.hypervisor().serial_log(spec.id).exists();
    if tried && cx.hypervisor().state(spec.id).await == RunState::Stopped {
        // It may have written: it begins with the disks of the instant.
        for disk in &spec.disks {
            if let [.., below, active] = disk.chain.as_slice() {
                cx.disks().remove(&active.path).await?;
                cx.disks().create_overlay(active, below, None).await?;
            }
        }
    }
    Ok(cx.hypervisor().await_point(spec, point).await?)
}

/// Has one clone run.
async fn run(
    cx: &Cx,
    spec: MachineSpec,
    point: &Point,
    clone: &MintedClone,
) -> Result<(MachineSpec, ForkedClone), StepError> {
    cx.hypervisor().fork(&spec, point).await?;
    let running_micros = since(cx);
    observe::look(cx.world(), clone.id).await?;
    let memory = cx.hypervisor().memory(clone.id, spec.memory_mib).await.ok();
    Ok((
        spec,
        ForkedClone {
            vm: clone.id,
            name: clone.name.clone(),
            running_micros,
            answered_micros: None,
            identified_micros: None,
            identity: None,
            memory,
            memory_later: None,
            nonce: None,
            first_tick: None,
        },
    ))
}

/// Microseconds since the request.
fn since(cx: &Cx) -> Option<u64> {
    u64::try_from(now().micros() - cx.job().create_time.micros()).ok()
}

/// Gives a clone its identity, and waits for a sign of its guest.
async fn met(
    cx: &Cx,
    spec: MachineSpec,
    mut clone: ForkedClone,
    beside: usize,
) -> Result<ForkedClone, StepError> {
    let patience = cx.world().answer_within;
    let patience = patience.saturating_mul(u32::try_from(beside).unwrap_or(u32::MAX).saturating_add(1));
    let patience = patience.min(ANSWER_AT_MOST);
    let hook = CancellationToken::new();
    let settled = async {
        let _over = hook.clone().drop_guard();
        if spec.nics.is_empty() {
            return Ok(None);
        }
        let identity = cx.hypervisor().settle(&spec, beside).await?;
        let at = since(cx);
        hook.cancel();
        if identity != Identity::Unchanged {
            cx.hypervisor().connect(&spec).await?;
        }
        Ok::<_, StepError>(Some((identity, at)))
    };
    let agent = async {
        let _ = timeout(HOOK_ALONE, hook.cancelled()).await;
        sign(cx, clone.vm, None, patience).await
    };
    let (counted, answered, identity) =
        tokio::try_join!(sign(cx, clone.vm, Some(&COUNTS), patience), agent, settled)?;
    clone.answered_micros = [&counted, &answered]
        .into_iter()
        .flatten()
        .map(|(at, _)| *at)
        .min();
    if let Some(found) = counted.as_ref().and_then(|(_, line)| COUNTS.captures(line)) {
        clone.nonce = Some(found[1].to_owned());
        clone.first_tick = found[2].parse().ok();
    }
    if let Some((identity, at)) = identity {
        clone.identity = Some(identity);
        clone.identified_micros = at.filter(|_| identity != Identity::Unchanged);
        if identity == Identity::Unchanged {
            cx.log(format!(
                "{} kept the addresses of its source and is connected to nothing: its guest has neither a hook nor an \
                 agent, and did not let go of its NICs",
                clone.name
            ));
        } else if spec.nics.iter().any(|nic| nic.connected) {
            let vm = super::super::vm(cx, clone.vm).await?;
            let connected: Vec<bool> = spec.nics.iter().map(|nic| nic.connected).collect();
            cx.commit(move |tx| {
                Box::pin(async move { db::hardware::set_connected(tx, &vm, &connected).await })
            })
            .await?;
        }
    }
    Ok(clone)
}

/// When a guest gave a sign, and the line it printed, if that is what is looked for; else its agent's answer is one, too.
/// It need not give any.
async fn sign(
    cx: &Cx,
    vm: VmId,
    pattern: Option<&Regex>,
    timeout: Duration,
) -> Result<Option<(u64, String)>, StepError> {
    let expect = BootExpectation {
        pattern: pattern.cloned(),
        timeout,
    };
    match cx.hypervisor().watch_boot(vm, &expect, &|_| ()).await {
        Ok(Proof { matched, .. }) => Ok(since(cx).map(|at| (at, matched.unwrap_or_default()))),
        Err(BootError::Timeout { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn keep_screen(cx: &Cx, vm: VmId) {
    let kept = async {
        let png = cx.hypervisor().screen(vm).await?;
        let file = cx.world().screen_file(cx.id());
        tokio::fs::write(&file, png)
            .await
            .map_err(HvError::io("write", &file))
    };
    match kept.await {
        Ok(()) => cx.outcome(|o| o.screen = true),
        Err(e) => cx.log(format!("there is no picture of the screen: {}", db::chain(&e))),
    }
}

/// The clones are whole: they and the source are let go, and looked at once more a little later.
pub(super) async fn verify(cx: &Cx) -> Result<(), StepError> {
    let (spec, mut minted): (_, Minted) = (spec(cx)?, cx.minted()?);
    let stored = db::fork_points::by_id(cx.db(), minted.point).await?;
    let kept = stored.as_ref().is_some_and(|stored| stored.kept);
    if let Some(stored) = stored.filter(|_| !kept) {
        forget_point(cx, &stored).await?;
    }
    if spec.point.is_none() {
        let remember = |merged: &[LayerId]| {
            minted.merged.extend(merged);
            cx.mint(&minted);
        };
        if let Err(e) = chain::shorten(cx, spec.vm, remember).await {
            // The chain is longer, and that is all.
            cx.log(format!("layers could not be merged: {}", e.status.message));
        }
        remove_loose(cx, &minted.merged).await?;
    }
    cx.let_go().await?;
    if kept && let Err(e) = spare::keep(cx, minted.point).await {
        cx.log(format!(
            "no process waits for the next fork of this point: {}",
            e.status.message
        ));
    }
    if cx.hypervisor().accelerator() != Accelerator::Sim {
        cx.message("measuring what their memory costs after a while");
        tokio::time::sleep(cx.world().measure_after).await;
    }
    let mut later = Vec::new();
    for clone in &minted.clones {
        // Whoever has it now may have stopped or deleted it.
        later.push(match db::vms::by_id(cx.db(), clone.id).await? {
            Some(vm) => cx.hypervisor().memory(vm.id, vm.memory_mib).await.ok(),
            None => None,
        });
    }
    cx.outcome(|o| {
        let fork: &mut ForkProof = o.fork.get_or_insert_default();
        for (clone, later) in fork.clones.iter_mut().zip(later) {
            clone.memory_later = later;
        }
    });
    let answered = |p: &ForkProof| p.clones.iter().filter(|c| c.answered_micros.is_some()).count();
    let (answered, all) = (
        cx.job().outcome.fork.as_ref().map_or(0, answered),
        minted.clones.len(),
    );
    cx.message(match all {
        1 if answered == 1 => "its guest goes on".to_owned(),
        1 => "it runs; its guest has given no sign".to_owned(),
        n => format!("the guests of {answered} of {n} have given a sign"),
    });
    Ok(())
}
