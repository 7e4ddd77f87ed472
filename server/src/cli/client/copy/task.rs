//! What is said of copy tasks.

use crate::cli::client::table::{Table, bytes};
use shared::api::CopyTaskPage;
use shared::copy::{CopyProgress, CopyTask};
use shared::{Timestamp, seed};
use std::fmt::Write;

/// A figure of the seed's, which is never below zero.
fn size(n: Option<i64>) -> u64 {
    n.and_then(|n| u64::try_from(n).ok()).unwrap_or_default()
}

/// How far it is, of how much.
fn done(stats: &seed::copy_snapshot::CopyRunStats) -> String {
    match stats.logical_size_bytes {
        None => String::new(),
        all => format!(
            "{} of {}",
            bytes(size(stats.logical_bytes_transferred)),
            bytes(size(all))
        ),
    }
}

/// The rate that people look at: of the last two minutes while it runs, on the whole when it is over.
fn rate(task: &CopyTask) -> Option<u64> {
    let stats = &task.stats;
    stats
        .recent_rate_bps
        .or_else(|| stats.seed.logical_transfer_rate_bps.map(|rate| size(Some(rate))))
}

/// Copy tasks, for people.
pub fn table(page: CopyTaskPage) -> String {
    let mut table = Table::new([
        "ID", "VM", "TARGET", "STATUS", "DONE", "RATE", "STORED", "CREATED",
    ]);
    for task in &page.copy_tasks {
        table.row([
            task.id.to_string(),
            task.vm_name.to_string(),
            task.target_name.to_string(),
            task.status.to_string(),
            done(&task.stats.seed),
            rate(task)
                .map(|rate| format!("{}/s", bytes(rate)))
                .unwrap_or_default(),
            bytes(task.stats.stored_bytes),
            task.create_time.to_string(),
        ]);
    }
    table.of(page.total_size)
}

/// A copy task in one line.
pub fn line(task: &CopyTask) -> String {
    let why = task.hold_reason.as_ref().or(task.error.as_ref());
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    format!(
        "copy of {} to {}: {}{why}, task {}",
        task.vm_name, task.target_name, task.status, task.id
    )
}

/// A copy task, with all that there is to say of it.
pub fn shown(task: &CopyTask) -> String {
    let (stats, seed) = (&task.stats, &task.stats.seed);
    let mut text = String::new();
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<9} {value}");
        }
    };
    let time = |micros: Option<i64>| micros.map(|micros| Timestamp::from_micros(micros).to_string());
    field("task", Some(task.id.to_string()));
    field("of", Some(format!("{} ({})", task.vm_name, task.vm)));
    field("snapshot", task.snapshot_name.as_ref().map(ToString::to_string));
    field("target", Some(task.target_name.to_string()));
    field("status", Some(task.status.to_string()));
    field("error", task.error.clone());
    field("on hold", task.hold_reason.clone());
    for warning in &task.warnings {
        field("warning", Some(warning.clone()));
    }
    field("copy", task.copy.map(|copy| copy.to_string()));
    field("booted", task.verified.as_ref().map(super::sign));
    field("by", Some(task.created_by.clone()));
    field("created", Some(task.create_time.to_string()));
    field("started", time(task.task_start_time_usecs));
    field("ended", time(task.task_end_time_usecs));
    let incremental = seed.is_incremental.map(|only| match only {
        true => "only what has changed".to_owned(),
        false => "everything".to_owned(),
    });
    field("reads", incremental);
    field("done", Some(done(seed)));
    field("rate", rate(task).map(|rate| format!("{}/s", bytes(rate))));
    let sent = seed.physical_bytes_transferred;
    field("sent", sent.map(|sent| bytes(size(Some(sent)))));
    field(
        "stored",
        Some(format!(
            "{}; the vault had {} already, compression saved {}",
            bytes(stats.stored_bytes),
            bytes(stats.saved_by_dedupe_bytes),
            bytes(stats.saved_by_compression_bytes)
        )),
    );
    field(
        "chunks",
        Some(format!(
            "{} new, {} were there, {} had not changed",
            stats.chunks_new, stats.chunks_reused, stats.chunks_unchanged
        )),
    );
    let mut table = Table::new(["DISK", "STATUS", "DONE", "SIZE"]);
    for disk in &task.sub_tasks {
        table.row([
            disk.name.clone(),
            disk.status.to_string(),
            bytes(disk.done_bytes),
            bytes(disk.bytes),
        ]);
    }
    format!("{text}\n{table}")
}

/// What a copy that was made has moved, and what a person must know of it.
pub fn outcome(progress: &CopyProgress) -> String {
    let figures = &progress.figures;
    let mut text = format!(
        "; {} gone through, {} read, {} stored; copy {}",
        bytes(figures.done_bytes),
        bytes(figures.read_bytes),
        bytes(figures.stored_bytes),
        progress.copy
    );
    for warning in &progress.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    text
}
