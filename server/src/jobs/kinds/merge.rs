//! Merging layers that nobody names any more into the one that stands on them: its data and its changed blocks both.
//!
//! What a layer shows stays the same by that, so whoever reads through it loses nothing. Where two that run read it, it
//! stays: QEMU's lock on the file would refuse, and a longer chain is no loss.

use crate::db;
use crate::hypervisor::{HvError, LayerMerge, RunState};
use crate::jobs::step::{Cx, StepError};
use shared::{LayerId, VmId};

/// Merges those of the layers that nobody names and one other stands on.
pub(super) async fn merge(cx: &Cx, own: VmId, layers: &[LayerId]) -> Result<(), StepError> {
    let mut merged = 0;
    for &layer in layers {
        if let Some((above, below)) = db::layers::between(cx.db(), layer).await? {
            merged += usize::from(one(cx, own, layer, above, below).await?);
        }
    }
    cx.message(match merged {
        0 => "nothing to merge".to_owned(),
        1 => "1 layer merged".to_owned(),
        n => format!("{n} layers merged"),
    });
    Ok(())
}

/// Merges a layer into the one above it; answers whether it could.
async fn one(
    cx: &Cx,
    own: VmId,
    layer: LayerId,
    above: LayerId,
    below: Option<LayerId>,
) -> Result<bool, StepError> {
    let world = cx.world();
    let mut running = Vec::new();
    for id in db::layers::readers(cx.db(), above).await? {
        let Some(reader) = db::vms::by_id(cx.db(), id).await? else {
            continue;
        };
        if id != own && !cx.try_hold(id).await? {
            cx.log(format!(
                "a layer stays: a job is at work on {}, which reads it",
                reader.name
            ));
            return Ok(false);
        }
        if cx.hypervisor().state(id).await != RunState::Stopped {
            running.push(reader);
        }
    }
    let progress = |done, total| cx.progress(done, total);
    let (into, base) = (
        world.layer_file(above),
        below.map(|below| world.layer_file(below)),
    );
    match running.as_slice() {
        [] => {
            let between = [world.layer_file(layer)];
            let merged = cx.disks().merge_up(&into, &between, base.as_ref(), &progress);
            merged.await?;
        }
        [reader] => {
            let merge = LayerMerge {
                frozen: reader.disks.iter().all(|disk| disk.layer != above),
                into,
                base,
                between: vec![layer],
            };
            match cx.hypervisor().merge_layers(reader.id, &merge, &progress).await {
                Ok(()) => {}
                Err(HvError::Refused { why, .. }) => {
                    cx.log(format!("a layer stays: {why}"));
                    return Ok(false);
                }
                Err(e) => return Err(e.into()),
            }
        }
        [first, second, ..] => {
            cx.log(format!(
                "a layer stays: {} and {} run, and both read it",
                first.name, second.name
            ));
            return Ok(false);
        }
    }
    let mut sizes = Vec::new();
    for snapshot in db::snapshots::of_layer(cx.db(), above).await? {
        let mut bytes = 0;
        for layer in db::snapshots::layers(cx.db(), snapshot).await? {
            bytes += cx.disks().info(&world.layer_file(layer)).await?.allocated_bytes;
        }
        sizes.push((snapshot, bytes));
    }
    cx.commit(move |tx| {
        Box::pin(async move {
            db::layers::stand_on(tx, above, below).await?;
            db::layers::release(tx, layer).await?;
            db::copies::set_merged(tx, layer, above).await?;
            for (snapshot, bytes) in sizes {
                db::snapshots::set_allocated(tx, snapshot, bytes).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(true)
}
