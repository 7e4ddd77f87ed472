//! A vault against stores that fail, bytes that change, and others at work in it.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a list of what has changed may have one range"
)]

mod beside;
mod cancel;
mod commit;
mod damage;
mod faults;
mod garage;
mod heal;
mod keys;
mod local;
mod moto;
mod prune;
mod round_trip;
mod s3;
mod seek;
mod stores;

mod support;

use std::sync::{Arc, Mutex};
use support::{Disk, Restored};
use uuid::Uuid;
use vault::{CancellationToken, Change, Commit, Copy, Result, Vault};

/// Copies disks, by what is known of the changes where a parent is given.
async fn copy(
    vault: &Vault,
    disks: &[Disk],
    parent: Option<(&Copy, &[Vec<std::ops::Range<u64>>])>,
) -> Result<Copy> {
    let writer = vault.begin(2).await?;
    let cancel = CancellationToken::new();
    let before = match parent {
        Some((copy, _)) => writer.parent(copy.id).await?,
        None => None,
    };
    let mut done = Vec::new();
    for (n, disk) in disks.iter().enumerate() {
        let change = before.as_ref().and_then(|copy| {
            Some(Change {
                parent: copy.disks.get(n)?,
                ranges: parent?.1.get(n)?,
            })
        });
        let name = format!("disk{n}");
        let copied = writer
            .disk(
                &name,
                Arc::new(disk.clone()),
                change,
                serde_json::Value::Null,
                &cancel,
            )
            .await;
        match copied {
            Ok(disk) => done.push(disk),
            Err(e) => {
                writer.leave().await;
                return Err(e);
            }
        }
    }
    writer
        .commit(done, what(Uuid::new_v4(), before.map(|copy| copy.id)))
        .await
}

/// What a copy is committed with.
fn what(id: Uuid, parent: Option<Uuid>) -> Commit {
    Commit {
        id,
        about: serde_json::json!({"of": "a test"}),
        parent,
        now: 1,
    }
}

/// What a copy has, disk by disk.
async fn restore(vault: &Vault, copy: &Copy) -> Result<Vec<Disk>> {
    let reader = vault.reader().await?;
    let mut disks = Vec::new();
    for disk in &copy.disks {
        let sink = Arc::new(Restored(Mutex::new(vec![0; disk.bytes as usize])));
        reader
            .restore(disk, sink.clone(), &|_| (), &CancellationToken::new())
            .await?;
        let bytes = std::mem::take(&mut *sink.0.lock().unwrap());
        disks.push(Disk(Arc::new(bytes)));
    }
    Ok(disks)
}
