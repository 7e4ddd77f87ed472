//! The data directory, the console's files, and the tools that build the demo guest.

use super::{Check, has, nearest};
use crate::cli::client::table::bytes;
use crate::cli::run_as::{self, Plan};
use crate::config::Config;
use crate::hypervisor::qemu::check_run_dir;
use rustix::fs::statvfs;

/// With less than this guests are paused soon.
const SPACE_NEEDED: u64 = 1 << 30;
/// With less than this there is no room for a full clone of something real.
const SPACE_WANTED: u64 = 10 << 30;

pub fn data_dir(config: &Config) -> Vec<Check> {
    let elsewhere = "name another directory by --data-dir or OFFSHOOT_DATA_DIR";
    let dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let there = nearest(&dir);
    let shown = dir.display();
    // Tried: root may write everywhere, and still there is nothing to be made below /proc.
    let mut checks = vec![match tempfile::tempdir_in(there) {
        Ok(_) => Check::ok("data directory", shown.to_string()),
        Err(e) => Check::fail(
            "data directory",
            format!("{shown} cannot be written: {}: {e}", there.display()),
            elsewhere,
        ),
    }];
    if let Err(e) = check_run_dir(&dir.join("run")) {
        checks.push(Check::fail("sockets", e.to_string(), elsewhere));
    }
    checks.push(match statvfs(there) {
        Err(e) => Check::fail("disk space", format!("{}: {e}", there.display()), elsewhere),
        Ok(fs) => {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            let found = format!("{} free in {}", bytes(free), there.display());
            let fix = format!("make room there, or {elsewhere}");
            match free {
                0..SPACE_NEEDED => Check::fail("disk space", found, fix),
                SPACE_NEEDED..SPACE_WANTED => Check::warn("disk space", found, fix),
                _ => Check::ok("disk space", found),
            }
        }
    });
    checks
}

/// Who the server would run as.
pub fn user(config: &Config) -> Check {
    let name = "user";
    match run_as::plan(config) {
        Ok(Plan::Stay) => Check::ok(name, "the server stays the user that starts it"),
        Ok(Plan::Become(who)) => Check::ok(
            name,
            format!("started by root, the server becomes {}", who.name()),
        ),
        Ok(Plan::NobodyToBecome) => Check::warn(
            name,
            "started by root, the server and all guests run as root",
            "useradd --system --groups kvm offshoot, or name another user by --run-as",
        ),
        Err(e) => Check::fail(
            name,
            e.to_string(),
            "name another user by --run-as or OFFSHOOT_RUN_AS",
        ),
    }
}

pub fn site(config: &Config) -> Check {
    let name = "console";
    let dir = config.site_dir.display();
    if config.site_dir.join("manifest.json").is_file() {
        Check::ok(name, format!("its files are in {dir}"))
    } else {
        Check::warn(
            name,
            format!("its files are not in {dir}: the API works, pages do not"),
            "make build, or name their directory by --site-dir or OFFSHOOT_SITE_DIR",
        )
    }
}

pub fn guest_tools() -> Check {
    let name = "demo guest";
    let tools = [
        ("mformat", "mtools"),
        ("mcopy", "mtools"),
        ("syslinux", "syslinux"),
        ("mke2fs", "e2fsprogs"),
        ("zstd", "zstd"),
        ("flock", "util-linux"),
    ];
    let mut missing: Vec<_> = tools
        .iter()
        .filter(|(tool, _)| !has(tool))
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Check::ok(name, "all tools that build it are there");
    }
    let packages = missing.join(" ");
    Check::warn(
        name,
        format!("it cannot be built without {packages}; nothing else needs them"),
        format!("sudo apt-get install --no-install-recommends {packages}"),
    )
}
