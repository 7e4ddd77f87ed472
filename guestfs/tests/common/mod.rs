//! What the tests here share: a program that is its own helper.
#![allow(dead_code)]

pub mod disks;

use clap::Parser;
use disks::kvm;
use guestfs::helper::{self, HelperArgs};
use guestfs::{Helper, Setup};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Of overlays, as qcow2's own default.
pub const CLUSTER: u32 = 64 << 10;

#[derive(Parser)]
enum Program {
    FilesHelper(HelperArgs),
}

/// Runs the tests; or is the helper, where it is called as that, for the crate has no program.
pub fn run(trials: impl FnOnce() -> Vec<Trial>) -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(helper::COMMAND) {
        let Program::FilesHelper(args) = Program::parse();
        if let Err(e) = helper::run(args) {
            eprintln!("{e}");
        }
        return ExitCode::FAILURE;
    }
    libtest_mimic::run(&Arguments::from_args(), trials()).exit_code()
}

/// A test that waits for much.
pub fn trial<F>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Runtime::new().map_err(Failed::from)?;
        runtime.block_on(test());
        Ok(())
    })
}

pub fn setup(dir: &Path) -> Setup {
    let cache = std::env::var_os("OFFSHOOT_CACHE");
    Setup {
        helper: Helper {
            program: std::env::current_exe().unwrap(),
        },
        run_dir: dir.join("run"),
        cache_dir: cache.map_or(dir.join("cache"), |c| Path::new(&c).join("files")),
        kvm: kvm(),
        idle: Duration::from_secs(600),
        first_try: guestfs::FIRST_TRY,
    }
}
