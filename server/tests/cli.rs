//! The commands, as a person runs them.
#![allow(clippy::unwrap_used)]

#[path = "cli/console.rs"]
mod console;
#[path = "cli/copies.rs"]
mod copies;
#[path = "cli/migrations.rs"]
mod migrations;
#[path = "cli/oidc.rs"]
mod oidc;
#[path = "cli/policies.rs"]
mod policies;
#[path = "cli/secrets.rs"]
mod secrets;
#[path = "cli/upkeep.rs"]
mod upkeep;

use serde_json::{Value, json};
use server::cli::serve::Running;
use server::config::{Config, ImageSource};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A simulating server on a directory and a port of its own.
struct Site {
    running: Running,
    config: Config,
    token: String,
    _dir: TempDir,
}

impl Site {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// One that is configured otherwise.
    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image.qcow2");
        // What the simulation takes for an image: its size, and what it occupies.
        std::fs::write(&image, "1073741824 196608\n").unwrap();
        let mut config = Config {
            images: vec![ImageSource {
                name: "demo".parse().unwrap(),
                path: image,
            }],
            ..Config::simulated(dir.path().join("data"))
        };
        change(&mut config);
        let running = Running::start(config.clone()).await.unwrap();
        let access = &running.server.access;
        let token = access
            .token_for(&"admin".parse().unwrap(), "cli".parse().unwrap())
            .await;
        Self {
            token: token.unwrap().secret,
            running,
            config,
            _dir: dir,
        }
    }

    fn command(&self, args: &str) -> Command {
        let mut command = offshoot(args);
        command.env("OFFSHOOT_URL", format!("http://{}", self.running.address));
        command.env("OFFSHOOT_TOKEN", &self.token);
        command
    }

    /// Runs a command to its end.
    async fn run(&self, args: &str) -> Ran {
        ran(self.command(args)).await
    }

    /// Runs a command that succeeds, and returns what it printed.
    async fn ok(&self, args: &str) -> String {
        let ran = self.run(args).await;
        assert_eq!(ran.code, 0, "{args}: {ran:?}");
        ran.stdout
    }

    async fn json(&self, args: &str) -> Value {
        let text = self.ok(&format!("{args} --json")).await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    async fn machine(&self, name: &str) {
        self.ok(&format!("vm create {name} --image demo --start --wait"))
            .await;
    }
}

/// The program, with an environment that says nothing about servers.
fn offshoot(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offshoot"));
    command.args(args.split_whitespace()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OFFSHOOT_") {
            command.env_remove(name);
        }
    }
    command
}

#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

async fn ran(mut command: Command) -> Ran {
    let run = move || command.output().unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = tokio::task::spawn_blocking(run).await.unwrap();
    Ran {
        code: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_from_its_making_to_its_end() {
    let site = Site::start().await;
    let created = site
        .ok("vm create web --image demo --cpus 2 --label tier=front --wait")
        .await;
    assert!(created.starts_with("create vm web: succeeded in "), "{created}");
    let table = site.ok("vm list").await;
    let row = table.lines().nth(1).unwrap_or_default();
    assert!(
        table.starts_with("NAME ") && row.starts_with("web ") && row.contains("STOPPED"),
        "{table}"
    );
    let vm = site.json("vm show web").await;
    assert_eq!(
        (&vm["cpus"], &vm["labels"]),
        (&json!(2), &json!({"tier": "front"}))
    );
    for (command, state) in [
        ("vm start web --wait", "RUNNING"),
        ("vm pause web --wait", "PAUSED"),
        ("vm resume web --wait", "RUNNING"),
        ("vm reset web --wait", "RUNNING"),
        ("vm stop web --power-off --wait", "STOPPED"),
    ] {
        site.ok(command).await;
        assert_eq!(site.json("vm show web").await["state"], state, "{command}");
    }
    for (command, connected) in [
        ("vm disconnect web --wait", false),
        ("vm connect web --nic 0 --wait", true),
    ] {
        site.ok(command).await;
        let vm = site.json("vm show web").await;
        assert_eq!(vm["networkInterfaces"][0]["connected"], connected, "{command}");
    }
    let refused = site.run("vm connect web --nic 3").await;
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(
        refused.stderr.contains("web has no NIC 3: its last is 0"),
        "{refused:?}"
    );
    let jobs = site.json("job list --page-size 2").await;
    assert_eq!(
        (jobs["jobs"].as_array().unwrap().len(), &jobs["totalSize"]),
        (2, &json!(8))
    );
    let table = site.ok("job list --page-size 2").await;
    assert!(
        table.ends_with("2 of 8; --page-size shows more, --filter fewer\n"),
        "{table}"
    );
    let id = jobs["jobs"][0]["id"].as_str().unwrap();
    assert!(
        site.ok(&format!("job show {id}"))
            .await
            .contains("switching-networks")
    );
    site.ok(&format!("job log {id}")).await;
    site.ok("vm delete web --wait").await;
    let gone = site.run("vm show web").await;
    assert_eq!(gone.code, 3, "{gone:?}");
    assert!(
        gone.stderr.contains("web") && gone.stderr.contains("(trace id "),
        "{gone:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn screen_and_serial_are_printed_as_they_are() {
    let site = Site::start().await;
    site.machine("web").await;
    let picture = site.config.data_dir.join("screen.png");
    let said = site
        .ok(&format!("vm screen web --output {}", picture.display()))
        .await;
    assert!(said.contains("screen.png: "), "{said}");
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    let mut piped = site.command("vm screen web");
    let bytes = tokio::task::spawn_blocking(move || piped.output().unwrap().stdout)
        .await
        .unwrap();
    assert_eq!(bytes, std::fs::read(&picture).unwrap());
    let all = site.ok("vm serial web").await;
    assert!(all.len() > 10, "{all:?}");
    assert_eq!(site.ok("vm serial web --last 5").await, all[all.len() - 5..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_of_the_latest_snapshot_and_of_one_taken_now() {
    let site = Site::start().await;
    site.machine("web").await;
    let early = site.run("clone create web --name copy").await;
    assert_eq!(early.code, 3, "{early:?}");
    assert!(early.stderr.contains("take a snapshot first"), "{early:?}");

    site.ok("snapshot take web --name before --description why --wait")
        .await;
    let tree = site.ok("snapshot list web").await;
    let names: Vec<_> = tree.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(names, ["NAME", "before", "NOW"], "{tree}");
    assert!(
        site.ok("snapshot show web before")
            .await
            .contains("description why")
    );
    let both = site.run("snapshot take web --memory --quiesce").await;
    assert_eq!(both.code, 2, "{both:?}");
    site.ok("snapshot take web --name kept --memory --wait").await;
    let done = site
        .ok("snapshot revert web kept --keep-current --name later --wait")
        .await;
    assert!(done.starts_with("revert vm web to kept: succeeded in "), "{done}");
    let none = site.run("snapshot show web none").await;
    assert!(
        none.stderr.contains("there is no snapshot none of web"),
        "{none:?}"
    );
    site.ok("snapshot revert web before --disks-only --start --wait")
        .await;
    for name in ["kept", "later"] {
        let gone = site.ok(&format!("snapshot delete web {name} --wait")).await;
        let title = format!("delete snapshot {name} of web: ");
        assert!(gone.starts_with(&title), "{gone}");
    }
    let tree = site.ok("snapshot list web").await;
    let names: Vec<_> = tree.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(names, ["NAME", "before", "NOW"], "{tree}");

    let seed = site.config.data_dir.join("user-data");
    std::fs::write(&seed, "#cloud-config\n").unwrap();
    let done = site
        .ok(&format!(
            "clone create web --name copy --user-data {} --wait",
            seed.display()
        ))
        .await;
    assert!(
        done.contains("→ copy: succeeded in ") && done.contains("proof of boot: "),
        "{done}"
    );
    let job = site
        .json("clone create web --name now --snapshot-now --full --wait")
        .await;
    assert_eq!(
        (&job["state"], &job["offshoot"]["mode"]),
        (&json!("SUCCEEDED"), &json!("FULL"))
    );
    let list = site.json("clone list web").await;
    assert_eq!(
        list["cloneJobs"][0], job,
        "what --wait prints is what the API answers"
    );
    let id = job["offshoot"]["id"].as_str().unwrap();
    assert!(site.ok(&format!("clone show {id}")).await.contains("SUCCEEDED"));
    let late = site.run(&format!("clone cancel {id}")).await;
    assert_eq!(late.code, 3, "{late:?}");
    site.ok("clone create web --disks-only parts --wait").await;
    let both = site
        .run("clone create web --snapshot before --snapshot-now")
        .await;
    assert_eq!(both.code, 2, "{both:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_says_why_and_where_to_look() {
    let site = Site::start().await;
    site.machine("web").await;
    let failed = site
        .run("clone create web --name fail-at-instantiating --snapshot-now --wait")
        .await;
    assert_eq!((failed.code, failed.stdout.as_str()), (1, ""), "{failed:?}");
    assert!(
        failed.stderr.contains("failed: ") && failed.stderr.contains("offshoot job log "),
        "{failed:?}"
    );
    let id = failed.stderr.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert!(!site.ok(&format!("job log {id}")).await.is_empty());
    let waited = site.run(&format!("job wait {id} --json")).await;
    assert_eq!(waited.code, 1, "{waited:?}");
    let told: Value = serde_json::from_str(&waited.stdout).unwrap();
    assert_eq!((&told["state"], &told["id"]), (&json!("FAILED"), &json!(id)));
    let again = site.run(&format!("job retry {id} --wait")).await;
    assert_eq!(again.code, 1, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_outlasts_the_server() {
    let mut site = Site::start().await;
    site.machine("web").await;
    let mut waiting = site
        .command("clone create web --name wait-at-instantiating --snapshot-now --wait")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says so when the job is where it waits.
    let stderr = BufReader::new(waiting.stderr.take().unwrap());
    let seen = tokio::task::spawn_blocking(move || {
        let mut lines = stderr.lines();
        let seen = lines.any(|line| line.unwrap().contains("instantiating"));
        (seen, lines)
    });
    let (seen, _lines) = seen.await.unwrap();
    assert!(seen);
    let address: SocketAddr = site.running.address;
    site.running.stop().await.unwrap();
    let config = Config {
        listen: address,
        ..site.config.clone()
    };
    site.running = Running::start(config).await.unwrap();
    let sim = site.running.server.world().hypervisor.as_sim().unwrap();
    sim.release("wait-at-instantiating");
    let output = tokio::task::spawn_blocking(move || waiting.wait_with_output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("succeeded"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_fails_whoever_waits_for_it() {
    let site = Site::start().await;
    site.machine("web").await;
    let begun = site
        .json("clone create web --name wait-at-instantiating --snapshot-now")
        .await;
    let id = begun["offshoot"]["id"].as_str().unwrap().to_owned();
    let waiting = tokio::spawn(ran(site.command(&format!("job wait {id}"))));
    let cancelled = site.json(&format!("job cancel {id}")).await;
    assert_eq!(cancelled["id"], json!(id));
    let waited = waiting.await.unwrap();
    assert_eq!(waited.code, 1, "{waited:?}");
    assert!(waited.stderr.contains("ended CANCELLED"), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_tells_whose_fault_it_is() {
    let site = Site::start().await;
    let mut stranger = site.command("vm list");
    stranger.env("OFFSHOOT_TOKEN", "ofs_wrong");
    let stranger = ran(stranger).await;
    assert_eq!(stranger.code, 5, "{stranger:?}");
    assert!(stranger.stderr.contains("offshoot token create"), "{stranger:?}");
    for (args, code, said) in [
        ("vm create web --image none", 3, "none"),
        ("vm list --page-size 0", 3, "pageSize"),
        ("vm set none", 3, "it changes nothing"),
        ("vm create web", 2, "--blank-gib"),
        ("notice create ops", 2, "--mail"),
        ("image upload / --name wrong", 1, "is no file"),
        ("vm lisst", 2, "lisst"),
        ("vm list --url https://127.0.0.1:1", 4, "offshoot serve"),
        ("vm list --url ftp://127.0.0.1:1", 2, "http"),
        ("vm list --url http://127.0.0.1:1", 4, "offshoot serve"),
        (
            "vm create web --image demo --user-data /does/not/exist",
            1,
            "/does/not/exist",
        ),
    ] {
        let ran = site.run(args).await;
        assert_eq!(ran.code, code, "{args}: {ran:?}");
        assert!(ran.stderr.contains(said), "{args}: {ran:?}");
        assert!(
            !ran.stderr.contains("--token"),
            "the environment says it: {ran:?}"
        );
    }
    assert_eq!(site.json("image uploads").await["totalSize"], 0);
}

/// A directory with programs that print what they are told to: nothing of this machine's.
fn programs(all: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, script) in all {
        let path = dir.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        writeln!(file, "#!/bin/sh\n{script}").unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755))
            .unwrap();
    }
    dir
}

/// What doctor finds with this PATH and this data directory, by name.
async fn doctor(path: &Path, data_dir: &Path) -> (i32, Value) {
    let mut command = offshoot("doctor --json");
    command.env("PATH", path).env("OFFSHOOT_DATA_DIR", data_dir);
    let ran = ran(command).await;
    let told: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    assert_eq!(told["ok"], ran.code == 0, "{ran:?}");
    let checks = told["checks"].as_array().unwrap().iter();
    let by_name = checks
        .map(|c| (c["name"].as_str().unwrap().to_owned(), c.clone()))
        .collect();
    (ran.code, Value::Object(by_name))
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_the_packages_that_are_missing() {
    let (path, data) = (programs(&[]), tempfile::tempdir().unwrap());
    let (code, checks) = doctor(path.path(), data.path()).await;
    assert_eq!(code, 1);
    for name in ["QEMU", "qemu-img"] {
        assert_eq!(checks[name]["level"], "fail", "{checks}");
        let fix = checks[name]["fix"].as_str().unwrap();
        assert!(
            fix.contains("apt-get install") && fix.contains("qemu-system-x86 qemu-utils"),
            "{fix}"
        );
    }
    assert_eq!(checks["data directory"]["level"], "ok", "{checks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_an_old_qemu_and_a_newer_qemu_img() {
    let data = tempfile::tempdir().unwrap();
    let path = programs(&[
        (
            "qemu-system-x86_64",
            "echo 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)'; exit 1",
        ),
        ("qemu-img", "echo 'qemu-img version 10.0.2 (Debian 1:10.0.2)'"),
        ("dpkg-query", "printf '1:7.2+dfsg-7'"),
    ]);
    let (code, checks) = doctor(path.path(), data.path()).await;
    assert_eq!((code, &checks["QEMU"]["level"]), (1, &json!("ok")), "{checks}");
    assert_eq!(checks["qemu-img"]["level"], "fail", "{checks}");
    let fix = "sudo apt-get install --no-install-recommends --allow-downgrades \
               qemu-system-x86=1:7.2+dfsg-7 qemu-utils=1:7.2+dfsg-7";
    assert_eq!(checks["qemu-img"]["fix"], fix, "{checks}");
    assert_eq!(
        checks["machine"]["level"], "fail",
        "a QEMU that only knows its version is none: {checks}"
    );

    let path = programs(&[
        ("qemu-system-x86_64", "echo 'QEMU emulator version 6.2.0'"),
        ("qemu-img", "echo 'qemu-img version 6.2.0'"),
    ]);
    let (code, checks) = doctor(path.path(), data.path()).await;
    assert_eq!((code, &checks["QEMU"]["level"]), (1, &json!("fail")), "{checks}");
    assert!(
        checks["QEMU"]["found"]
            .as_str()
            .unwrap()
            .contains("6.2.0 is too old"),
        "{checks}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_this_machine_fit_and_a_long_directory_unfit() {
    let data = tempfile::tempdir().unwrap();
    let path = PathBuf::from(std::env::var_os("PATH").unwrap());
    let (code, checks) = doctor(&path, data.path()).await;
    assert_eq!(code, 0, "{checks}");
    for name in ["QEMU", "qemu-img", "sandbox", "machine", "EFI firmware"] {
        assert_eq!(checks[name]["level"], "ok", "{checks}");
    }
    let long = data
        .path()
        .join("a-name-that-leaves-no-room-for-the-names-of-sockets")
        .join("data");
    let (code, checks) = doctor(&path, &long).await;
    assert_eq!(
        (code, &checks["sockets"]["level"]),
        (1, &json!("fail")),
        "{checks}"
    );
    assert!(
        checks["sockets"]["fix"]
            .as_str()
            .unwrap()
            .contains("OFFSHOOT_DATA_DIR"),
        "{checks}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn images_come_and_disks_go() {
    let site = Site::start().await;
    let dir = site.config.data_dir.parent().unwrap().to_owned();
    let file = dir.join("disk.img");
    let mut disk = vec![0x5a; 3 << 20];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    std::fs::write(&file, &disk).unwrap();
    let said = site
        .ok(&format!("image upload {} --name mine --wait", file.display()))
        .await;
    assert!(said.starts_with("import image mine: succeeded in "), "{said}");
    assert!(site.ok("image show mine").await.contains("3.0 MiB"));
    let wrong = format!(
        "image upload {} --name wrong --wait --sha256 {}",
        file.display(),
        "0".repeat(64)
    );
    let wrong = site.run(&wrong).await;
    assert!(wrong.code == 1 && wrong.stderr.contains("SHA-256"), "{wrong:?}");
    assert_eq!(site.json("image uploads").await["totalSize"], 0);

    site.ok("image rename mine ours").await;
    let list = site.ok("image list").await;
    assert!(list.contains("ours") && !list.contains("mine"), "{list}");
    for (from, why) in [("/etc/passwd", "image_roots"), ("ftp://example.org/a", "http")] {
        let refused = site.run(&format!("image import {from} --name bad")).await;
        assert!(refused.code == 3 && refused.stderr.contains(why), "{refused:?}");
    }

    site.machine("web").await;
    site.ok("snapshot take web --name first --wait").await;
    site.ok("image of-snapshot web first --name golden --wait").await;
    site.ok("vm create web-2 --image golden --wait").await;
    let out = dir.join("web.img");
    let said = site
        .ok(&format!(
            "image export web --snapshot first --format raw --output {}",
            out.display()
        ))
        .await;
    assert_eq!(said.trim(), out.display().to_string());
    assert!(out.exists());
    assert_eq!(
        site.json("image exports").await["totalSize"],
        0,
        "it is removed when it is fetched"
    );
    site.ok("image export web-2 --wait").await;
    let exports = site.json("image exports").await;
    let id = exports["exports"][0]["id"].as_str().unwrap().to_owned();
    assert!(
        site.ok(&format!("image show-export {id}"))
            .await
            .contains("web-2-0.qcow2")
    );
    site.ok(&format!("image download {id} --output {}", out.display()))
        .await;
    site.ok(&format!("image delete-export {id}")).await;
    for image in ["ours", "golden"] {
        site.ok(&format!("image delete {image} --wait")).await;
    }
    assert_eq!(site.json("image list").await["totalSize"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_says_who_is_in_its_way() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut command = offshoot(&format!("demo --once --listen {}", taken.local_addr().unwrap()));
    command.env("OFFSHOOT_DATA_DIR", data.path());
    let ran = ran(command).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(
        ran.stderr.contains("is taken by another program") && ran.stderr.contains("--listen"),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_of_jobs_that_fail() {
    let site = Site::start().await;
    let made = site
        .ok("notice create ops --webhook https://hook.example.org/a --on JOB_FAILED,JOB_ON_HOLD")
        .await;
    assert!(
        made.contains("tells JOB_FAILED, JOB_ON_HOLD") && made.contains("\nwhsec_"),
        "{made}"
    );
    let list = site.ok("notice list").await;
    let row = list.lines().nth(1).unwrap();
    assert!(
        row.starts_with("ops   WEBHOOK  https://hook.example.org/a  0"),
        "{list}"
    );
    assert!(site.ok("notice roll-secret ops").await.contains("\nwhsec_"));
    let off = site.json("notice update ops --name night --enabled false").await;
    assert_eq!((&off["name"], &off["enabled"]), (&json!("night"), &json!(false)));
    assert!(
        site.ok("notice show night")
            .await
            .starts_with("night (switched off)")
    );
    let test = site.run("notice test night").await;
    assert_eq!(test.code, 3, "{test:?}");
    assert!(test.stderr.contains("is switched off"), "{test:?}");
    assert!(site.ok("notice deliveries night").await.starts_with("TIME"));
    let mail = site.run("notice create people --mail eve@example.org").await;
    assert!(mail.code == 3 && mail.stderr.contains("smtp_url"), "{mail:?}");
    assert_eq!(site.run("notice create neither").await.code, 2);
    assert!(site.ok("notice delete night").await.contains("is deleted"));
}

#[tokio::test]
async fn the_password_of_the_mail_server_is_not_printed() {
    let config = "config --smtp-url smtps://ops:hidden@mail.example.org --mail-from offshoot@example.org";
    let printed = ran(offshoot(config)).await;
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(
        printed.stdout.contains("smtps://ops@mail.example.org"),
        "{printed:?}"
    );
    assert!(!format!("{printed:?}").contains("hidden"), "{printed:?}");
    let wrong = ran(offshoot(
        "config --smtp-url smtp://ops:hidden@mail.example.org --mail-from a@b.org",
    ))
    .await;
    assert!(
        wrong.code == 1 && wrong.stderr.contains("in the clear"),
        "{wrong:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn people_roles_tokens_and_the_audit() {
    let site = Site::start().await;
    site.machine("web").await;
    let made = site.ok("user create eve --role viewer").await;
    assert!(made.contains("roles       viewer"), "{made}");
    site.ok("role create restarter --privilege vm.read,vm.power --description restarts")
        .await;
    assert!(
        site.ok("role list")
            .await
            .contains("restarter  2           restarts")
    );
    let role = site
        .json("role update restarter --privilege vm.read,vm.power,job.read")
        .await;
    assert_eq!(role["privileges"], json!(["vm.read", "vm.power", "job.read"]));
    let given = site.json("user grant eve restarter --vm web").await;
    assert_eq!(given["grants"][1]["vmName"], "web");
    assert!(site.ok("user show eve").await.contains("restarter on web"));
    let used = site.run("role delete restarter").await;
    assert_eq!(used.code, 3, "{used:?}");
    assert!(used.stderr.contains("is in use"), "{used:?}");
    site.ok("user revoke eve restarter --vm web").await;
    assert!(site.ok("role delete restarter").await.contains("is deleted"));
    assert!(site.ok("user rename eve eva").await.contains("name        eva"));
    assert!(site.ok("user disable eva").await.contains("disabled    yes"));
    assert!(site.ok("user enable eva").await.contains("disabled    no"));
    assert!(site.ok("user list").await.contains("eva"));
    assert!(site.ok("user make-link eva").await.contains("/welcome/"));
    assert_eq!(site.json("user remove-two-factor eva").await["twoFactor"], false);
    assert!(site.ok("user me").await.contains("user.manage"));
    assert!(site.ok("session list --user eva").await.starts_with("ID"));
    let none = site.run("session end 00000000-0000-0000-0000-000000000000").await;
    assert_eq!(none.code, 3, "{none:?}");

    let begun = site.ok("user set-up-two-factor").await;
    assert!(begun.contains("otpauth://totp/Offshoot:admin?secret="), "{begun}");
    let wrong = site.run("user confirm-two-factor 0").await;
    assert!(
        wrong.code == 3 && wrong.stderr.contains("code: it is wrong"),
        "{wrong:?}"
    );
    assert_eq!(site.run("user drop-two-factor 0").await.code, 3);

    assert!(site.ok("token list").await.contains("cli"));
    let dir = site.config.data_dir.display().to_string();
    let secret = site
        .ok(&format!(
            "token create ro --role viewer --days 2 --data-dir {dir}"
        ))
        .await;
    let mut reads = site.command("vm list");
    reads.env("OFFSHOOT_TOKEN", secret.trim());
    assert_eq!(ran(reads).await.code, 0);
    let mut starts = site.command("vm stop web --power-off");
    starts.env("OFFSHOOT_TOKEN", secret.trim());
    let refused = ran(starts).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("vm.power"), "{refused:?}");
    assert!(site.ok("token revoke ro").await.contains("taken back"));

    let table = site.ok("audit list --filter result=PERMISSION_DENIED").await;
    assert!(
        table.contains("admin/ro") && table.contains("POST /api/v1/vms/web/stop"),
        "{table}"
    );
    let csv = site.ok("audit export --format csv --filter path:/users").await;
    assert!(
        csv.lines().count() > 5 && csv.starts_with("id,time,user"),
        "{csv}"
    );
    assert!(site.ok("user delete eva").await.contains("is deleted"));
    let last = site.run("user delete admin").await;
    assert_eq!(last.code, 3, "{last:?}");
    assert!(last.stderr.contains("the last administrator"), "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_edited_renamed_and_given_their_turn() {
    let site = Site::start().await;
    site.machine("web").await;
    site.ok("network add lab").await;
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let edited = site
        .ok(&format!(
            "vm edit web --cpus 2 --add-blank-gib 1 --grow 0=2 --add-nic lab --forward 0={port}:22 --wait"
        ))
        .await;
    assert!(edited.starts_with("edit vm web: succeeded in "), "{edited}");
    let shown = site.ok("vm show web").await;
    for line in [
        "disk        1: 1.0 GiB",
        &format!("forwards {port}:22"),
        "on lab (ISOLATED)",
        "next start  processors 2",
        "firmware    BIOS",
        "1 layer, ",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let refused = site.run("vm edit web --remove-disk 9").await;
    assert_eq!(
        (refused.code, refused.stderr.contains("has no disk 9")),
        (3, true),
        "{refused:?}"
    );
    assert_eq!(
        site.ok("vm rename web front").await.trim(),
        "it is called front now"
    );
    let set = site.json("vm set front --autostart 3 --description hello").await;
    assert_eq!(
        (&set["autostart"], &set["description"]),
        (&json!(3), &json!("hello"))
    );
    assert_eq!(
        site.json("vm set front --no-autostart").await.get("autostart"),
        None
    );
    let off = site.ok("vm stop front --timeout 5 --wait").await;
    assert!(off.contains("succeeded"), "{off}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_storages_and_networks_are_listed_and_changed() {
    let site = Site::start().await;
    assert!(site.ok("host list").await.contains("UP"));
    assert!(site.ok("host maintenance host-1").await.contains("MAINTENANCE"));
    assert!(site.ok("host up host-1").await.contains("UP"));
    let path = site._dir.path().join("more");
    let added = site
        .ok(&format!("storage add more {} --default", path.display()))
        .await;
    assert!(added.contains("the default"), "{added}");
    assert!(site.ok("storage list").await.contains("more"));
    site.ok("storage rename more fast").await;
    site.ok("storage default local").await;
    assert_eq!(site.ok("storage delete fast").await.trim(), "fast is removed");
    assert_eq!(
        site.ok("network add lan --kind BRIDGE --bridge br0").await.trim(),
        "lan: BRIDGE over br0"
    );
    site.ok("network edit lan --name office").await;
    assert!(site.ok("network list").await.contains("office"));
    assert_eq!(
        site.json("network list").await["networks"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(site.run("network delete user").await.code, 3);
    site.ok("network delete office").await;
}
