//! The console in a real browser, by `console.mjs`.

use crate::report::{Figure, Limit};
use crate::site::{Site, work_dir};
use crate::stats::Sample;
use crate::{Result, Size, api};
use server::cli::serve::link_url;
use std::collections::BTreeMap;
use std::process::Stdio;
use tokio::process::Command;

/// How many machines the lists show a page of.
const MACHINES: usize = 120;

/// What `console.mjs` has measured.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Taken {
    slowdown: f64,
    first_load_bytes: f64,
    pages: BTreeMap<String, Vec<Load>>,
    inp: Vec<Used>,
    pixels: Vec<f64>,
}

#[derive(serde::Deserialize)]
struct Load {
    lcp: f64,
    cls: f64,
    tbt: f64,
}

#[derive(serde::Deserialize)]
struct Used {
    worst: f64,
    count: usize,
}

/// Takes the group's figures.
pub async fn take(size: Size) -> Result<Vec<Figure>> {
    let dir = work_dir()?;
    let site = Site::start(api::config(dir.path())?).await?;
    let taken = figures(&site, size).await;
    site.close().await?;
    taken
}

async fn figures(site: &Site, size: Size) -> Result<Vec<Figure>> {
    api::make(site, MACHINES).await?;
    let link = site.running.first_link.as_ref().ok_or("no first link")?;
    let out = Command::new("node")
        .arg(crate::here().join("console.mjs"))
        .args([
            &site.url,
            &link_url(&site.running.server.config, site.running.address, link),
            &site.token,
            "vm-00000",
        ])
        .arg(size.pick("5", "1"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr);
        return Err(format!("console.mjs has ended with {}: {why}", out.status).into());
    }
    let taken: Taken = serde_json::from_slice(&out.stdout)?;
    if taken.slowdown < 3.0 {
        return Err(format!("the browser is only {:.1} times slower, not 4", taken.slowdown).into());
    }
    let of = |what: fn(&Load) -> f64| worst(&taken.pages, what);
    let inp: Sample = taken.inp.iter().map(|used| used.worst).collect();
    let pixels: Sample = taken.pixels.iter().copied().collect();
    let inputs = taken.inp.iter().map(|used| used.count).sum::<usize>();
    let ((lcp, lcp_noise), (cls, cls_noise), (tbt, tbt_noise)) =
        (of(|l| l.lcp), of(|l| l.cls), of(|l| l.tbt));
    Ok(vec![
        Figure::new("lcpMs", lcp, Limit::AtMost(1000.0), lcp_noise),
        Figure::new("cls", cls, Limit::AtMost(0.05), cls_noise),
        Figure::new("tbtMs", tbt, Limit::AtMost(200.0), tbt_noise),
        Figure::new(
            "inpMs",
            inp.median(),
            Limit::AtMost(100.0),
            format!(
                "worst interaction of a visit; median of {} visits, {}; {inputs} interactions over 16 ms",
                inp.len(),
                inp.range(0)
            ),
        ),
        Figure::new(
            "feedToPixelsP95Ms",
            pixels.percentile(0.95),
            Limit::AtMost(250.0),
            format!(
                "{} changes, from before the request that causes them; median {:.0}, {}",
                pixels.len(),
                pixels.median(),
                pixels.range(0)
            ),
        ),
        Figure::new(
            "firstLoadBrotliKb",
            taken.first_load_bytes / 1000.0,
            Limit::AtMost(300.0),
            "bytes / 1000, as sent",
        ),
    ])
}

/// Of the pages the one with the worst median, and what it is.
fn worst(pages: &BTreeMap<String, Vec<Load>>, what: fn(&Load) -> f64) -> (f64, String) {
    let samples = pages
        .iter()
        .map(|(path, loads)| (path, loads.iter().map(what).collect::<Sample>()));
    let worst = samples.max_by(|(_, a), (_, b)| a.median().total_cmp(&b.median()));
    worst.map_or((f64::NAN, String::new()), |(path, sample)| {
        let decimals = if sample.percentile(1.0) < 1.0 { 4 } else { 0 };
        let (count, range) = (sample.len(), sample.range(decimals));
        (
            sample.median(),
            format!(
                "worst of {} pages: {path}, median of {count} loads, {range}",
                pages.len()
            ),
        )
    })
}
