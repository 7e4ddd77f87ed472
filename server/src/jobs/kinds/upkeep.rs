//! Looks at all that a vault has, and takes out of it what no copy needs.

use crate::copies::Opened;
use crate::db::locks::LockMode;
use crate::db::{self, now};
use crate::jobs::step::{Cx, Kind, Plan, StepError};
use async_trait::async_trait;
use shared::feed::Noun;
use shared::job::{JobSpec, Resource, ResourceRole, step};
use shared::target::{Checked, Damage, PruneSpec, VaultOutcome, VerifySpec};
use shared::{Code, CopyId, Name, TargetId};
use std::collections::HashMap;
use std::sync::Arc;
use vault::CancellationToken;
use vault::prune::Pruning;

pub(super) struct VerifyTarget;
pub(super) struct PruneTarget;

/// How many damaged objects a job names.
const NAMED: usize = 100;

async fn open(cx: &Cx, target: TargetId, name: &Name) -> Result<Arc<Opened>, StepError> {
    cx.resource(Resource {
        noun: Noun::Target,
        id: target.to_string(),
        name: name.clone(),
        role: ResourceRole::Source,
    });
    Ok(cx.world().copies.open(target).await?)
}

fn verify_spec(cx: &Cx) -> Result<VerifySpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::VerifyTarget(spec) => Ok(spec),
        _ => Err(StepError::new(
            Code::Internal,
            "not a request to look at a target",
        )),
    }
}

fn prune_spec(cx: &Cx) -> Result<PruneSpec, StepError> {
    match cx.job().spec.into_inner() {
        JobSpec::PruneTarget(spec) => Ok(spec),
        _ => Err(StepError::new(
            Code::Internal,
            "not a request to clean up a target",
        )),
    }
}

async fn verify(cx: &Cx) -> Result<(), StepError> {
    let spec = verify_spec(cx)?;
    let opened = open(cx, spec.target, &spec.target_name).await?;
    let percent = spec.request.percent;
    // Another sample each time, and the same one however often the step runs.
    let salt = cx.id().0.as_u128();
    let wanted = |pack: uuid::Uuid| {
        let hash = blake3::hash(&(salt ^ pack.as_u128()).to_be_bytes());
        u32::from(hash.as_bytes()[0]) * 100 < percent * 256
    };
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let told = |done, total| cx.progress(done, total);
    let found = vault::verify::run(&opened.vault, wanted, &told, &cancel)
        .await
        .map_err(|e| opened.failed(e))?;
    let mut of_copies: HashMap<CopyId, Vec<String>> = HashMap::new();
    for damage in &found.damaged {
        for copy in &damage.hurts {
            let of = of_copies.entry(CopyId(*copy)).or_default();
            if of.len() < NAMED {
                of.push(format!("{}: {}", damage.object, damage.why));
            }
        }
    }
    let hurt = found.hurt.len() as u64;
    for copy in &found.hurt {
        // What hurts it is not told of one object alone.
        of_copies
            .entry(CopyId(*copy))
            .or_insert_with(|| vec!["something that it needs is lost".to_owned()]);
    }
    let named = found.damaged.iter().take(NAMED).map(|damage| Damage {
        object: damage.object.clone(),
        why: damage.why.clone(),
        copies: damage.hurts.iter().copied().map(CopyId).collect(),
    });
    let outcome = VaultOutcome {
        packs: found.packs,
        read_bytes: found.bytes,
        damage: named.collect(),
        damaged: found.damaged.len() as u64,
        hurt_copies: hurt,
        healed: found.healed.len() as u64,
        ..VaultOutcome::default()
    };
    cx.message(match (outcome.damaged, hurt) {
        (0, 0) if !found.healed.is_empty() => format!(
            "{} packs read: {} objects are damaged that no copy needs any more",
            found.packs,
            found.healed.len()
        ),
        (0, 0) => format!("{} packs read: all is as it was written", found.packs),
        (damaged, hurt) => format!("{damaged} objects are damaged or lost, which hurts {hurt} copies"),
    });
    for damage in &outcome.damage {
        cx.log(format!("{}: {}", damage.object, damage.why));
    }
    let checked = Checked {
        time: now(),
        percent,
        damaged: outcome.damaged,
        hurt_copies: hurt,
        job: cx.id(),
    };
    cx.outcome(|o| o.vault = Some(Box::new(outcome)));
    let target = spec.target;
    cx.commit(move |tx| {
        Box::pin(async move {
            db::targets::set_checked(tx, target, &checked).await?;
            // A sample says nothing of what it has not read.
            if percent == 100 || !of_copies.is_empty() {
                db::copies::set_damage(tx, target, &of_copies).await?;
            }
            Ok(())
        })
    })
    .await
}

async fn prune(cx: &Cx) -> Result<(), StepError> {
    let spec = prune_spec(cx)?;
    let opened = open(cx, spec.target, &spec.target_name).await?;
    let pruned = vault::prune::run(&opened.vault, Pruning::at(now().micros()))
        .await
        .map_err(|e| opened.failed(e))?;
    cx.message(format!(
        "{} bytes freed; {} packs are marked, to go in a day at the earliest",
        pruned.removed_bytes,
        pruned.marked + pruned.waiting
    ));
    cx.outcome(|o| {
        let before = o.vault.as_ref().map_or(0, |v| v.freed_bytes);
        o.vault = Some(Box::new(VaultOutcome {
            freed_bytes: before + pruned.removed_bytes,
            marked_packs: pruned.marked + pruned.waiting,
            ..VaultOutcome::default()
        }));
    });
    let target = spec.target;
    cx.commit(move |tx| {
        Box::pin(async move {
            tx.changed(Noun::Target, target, false);
            Ok(())
        })
    })
    .await
}

#[async_trait]
impl Kind for VerifyTarget {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![Plan::always(step::VERIFYING)]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Shared
    }

    async fn run(&self, _name: &str, cx: &Cx) -> Result<(), StepError> {
        verify(cx).await
    }

    /// It has only looked.
    async fn undo(&self, _name: &str, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}

#[async_trait]
impl Kind for PruneTarget {
    fn plan(&self, _spec: &JobSpec) -> Vec<Plan> {
        vec![Plan::always(step::CLEANING_UP)]
    }

    fn mode(&self, _spec: &JobSpec) -> LockMode {
        LockMode::Shared
    }

    async fn run(&self, _name: &str, cx: &Cx) -> Result<(), StepError> {
        prune(cx).await
    }

    /// What nobody needs is no loss.
    async fn undo(&self, _name: &str, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}
