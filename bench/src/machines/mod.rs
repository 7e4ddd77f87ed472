//! What people do with machines: looking at them, typing into them, bringing their disks.

mod consoles;
mod upload;

use crate::report::Figure;
use crate::site::{Site, work_dir};
use crate::{Result, Size, clone};
use server::config::Config;
use tokio::signal::unix::{SignalKind, signal};

/// Takes the group's figures, of real guests.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    let demo = clone::demo_guest().await?;
    let mut config = Config::simulated(dir.path().join("data"));
    config.sim = false;
    config.images = vec![format!("demo={}", demo.display()).parse()?];
    let site = Site::start(config).await?;
    let mut terminated = signal(SignalKind::terminate())?;
    let taken = tokio::select! {
        taken = figures(&site, size) => taken,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminated.recv() => Err("terminated".into()),
    };
    site.close().await?;
    let mut taken = taken?;
    taken.extend(upload::take(size).await?);
    Ok(taken)
}

async fn figures(site: &Site, size: Size) -> Result<Vec<Figure>> {
    let mut all = Vec::new();
    all.extend(consoles::take(site, size).await?);
    Ok(all)
}
