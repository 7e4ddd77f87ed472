//! What people do with machines: looking at them, typing into them, bringing their disks.

mod consoles;
mod snapshots;
mod upload;

use crate::report::Figure;
use crate::site::{Site, work_dir};
use crate::{Result, Size, clone};
use server::config::Config;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

/// Takes the group's figures, of real guests.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    let demo = clone::guest("build.sh").await?;
    let mut config = Config::simulated(dir.path().join("data"));
    config.sim = false;
    config.images = vec![format!("demo={}", demo.display()).parse()?];
    let site = Site::start(config).await?;
    let mut terminated = signal(SignalKind::terminate())?;
    let taken = tokio::select! {
        taken = figures(&site, dir.path(), size) => taken,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminated.recv() => Err("terminated".into()),
    };
    site.close().await?;
    let mut taken = taken?;
    taken.extend(upload::take(size).await?);
    Ok(taken)
}

async fn figures(site: &Site, dir: &Path, size: Size) -> Result<Vec<Figure>> {
    let mut all = Vec::new();
    all.extend(consoles::take(site, size).await?);
    all.extend(snapshots::take(site, dir, size).await?);
    Ok(all)
}
