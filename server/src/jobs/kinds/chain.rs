//! Keeping chains short: what a machine has frozen for its forks is taken into its active layer again.
//!
//! Whoever stands on a layer keeps it: nothing is written into one that is frozen.

use crate::db;
use crate::db::layers::Layer;
use crate::hypervisor::{LayerMerge, RunState};
use crate::jobs::step::{Cx, StepError};
use shared::vm::Vm;
use shared::{LayerId, VmId};

/// How many are merged at least, however large they are.
const LEAST: usize = 4;

/// The layers that one disk would do better without.
struct Long {
    position: usize,
    base: Layer,
    /// The lowest first.
    between: Vec<LayerId>,
}

async fn long(cx: &Cx, machine: &Vm) -> Result<Vec<Long>, StepError> {
    let mut all = Vec::new();
    for (position, disk) in machine.disks.iter().enumerate() {
        let mut chain = db::layers::chain_of(cx.db(), disk.layer).await?;
        // The active one.
        chain.pop();
        let named = db::layers::named(cx.db(), &chain).await?;
        // A snapshot's layer tells what has changed since; the lowest may be an image.
        let lowest = chain.iter().rposition(|layer| named.contains(&layer.id));
        let below = (lowest.unwrap_or(0) + 1).min(chain.len());
        let mut own = chain.split_off(below);
        if own.len() < cx.world().chain_length {
            continue;
        }
        // As many as are small beside those above them, so that nothing is copied again and again.
        let (mut count, mut above) = (0, 0);
        for layer in own.iter().rev() {
            let file = cx.world().layer_file(layer.id);
            let bytes = cx.disks().info(&file).await?.allocated_bytes;
            if count >= LEAST && bytes > above {
                break;
            }
            (count, above) = (count + 1, above + bytes);
        }
        let between = own.split_off(own.len() - count);
        chain.append(&mut own);
        if let Some(base) = chain.pop() {
            all.push(Long {
                position,
                base,
                between: between.iter().map(|layer| layer.id).collect(),
            });
        }
    }
    Ok(all)
}

/// Merges layers of a running machine, where it has many. `remember` keeps, for the next write, those that may have gone
/// with it: [`super::remove_loose`] removes their files.
pub(super) async fn shorten(
    cx: &Cx,
    id: VmId,
    mut remember: impl FnMut(&[LayerId]),
) -> Result<(), StepError> {
    let Some(machine) = db::vms::by_id(cx.db(), id).await? else {
        return Ok(());
    };
    if cx.hypervisor().state(id).await == RunState::Stopped {
        return Ok(());
    }
    for long in long(cx, &machine).await? {
        let active = machine.disks[long.position].layer;
        cx.message(format!(
            "merging {} layers of {}",
            long.between.len(),
            machine.name
        ));
        let merge = LayerMerge {
            into: cx.world().layer_file(active),
            frozen: false,
            base: Some(cx.world().layer_file(long.base.id)),
            between: long.between.clone(),
        };
        cx.hypervisor().merge_layers(id, &merge, &|_, _| ()).await?;
        remember(&long.between);
        let (base, top) = (long.base.id, long.between.last().copied());
        let between = long.between.clone();
        cx.commit(move |tx| {
            Box::pin(async move {
                db::layers::stand_on(tx, active, Some(base)).await?;
                for layer in between {
                    db::copies::set_merged(tx, layer, active).await?;
                }
                match top {
                    Some(top) => db::layers::release(tx, top).await.map(drop),
                    None => Ok(()),
                }
            })
        })
        .await?;
        cx.log(format!(
            "{}: {} layers merged into the active one",
            machine.name,
            long.between.len()
        ));
    }
    Ok(())
}
