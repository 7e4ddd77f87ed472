//! Targets, copies and copy tasks, on a vault in a directory.

use super::{Ran, Site, ran};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const PASSPHRASE: &str = "correct horse battery";

/// A file beside the server's data.
fn file(site: &Site, name: &str, text: &str) -> PathBuf {
    let path = site._dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The directory that the vault is in.
fn place(site: &Site) -> PathBuf {
    site._dir.path().join("there")
}

fn adding(site: &Site, more: &str) -> Command {
    let mut command = site.command(&format!("target add there {more} --local"));
    command.arg(place(site));
    command
}

/// A target named `there`.
pub async fn target(site: &Site) -> Ran {
    let passphrase = file(site, "passphrase", &format!("{PASSPHRASE}\n"));
    let mut add = adding(site, "--limit 200MiB --at-once 3");
    add.arg("--passphrase-file").arg(passphrase);
    let added = ran(add).await;
    assert_eq!(added.code, 0, "{added:?}");
    added
}

/// The copy that a machine's disks go into now.
async fn copied(site: &Site, vm: &str) -> String {
    let task = site
        .json(&format!("copy create {vm} --target there --wait"))
        .await;
    assert_eq!(task["status"], "SUCCESS", "{task}");
    task["copy"].as_str().unwrap().to_owned()
}

/// What a command answers once it is as wanted.
async fn once(site: &Site, args: &str, field: &str, wanted: &str) -> Value {
    let wait = async {
        loop {
            let now = site.json(args).await;
            if now[field] == wanted {
                return now;
            }
        }
    };
    let patience = std::time::Duration::from_secs(60);
    let found = tokio::time::timeout(patience, wait).await;
    found.unwrap_or_else(|_| panic!("{args}: {field} does not become {wanted}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_comes_changes_goes_and_is_attached_again() {
    let site = Site::start().await;
    let added = target(&site).await.stdout;
    for line in [
        "name     there\n",
        "kind     LOCAL\n",
        &format!("place    {}\n", place(&site).display()),
        "copies   0, 0 B stored\n",
        "limit    200 MiB/s, 3 copies at once\n",
        "a second write of a name is refused\n",
    ] {
        assert!(added.contains(line), "{line}: {added}");
    }
    let shown = site.json("target show there").await;
    assert_eq!(
        (&shown["kind"], &shown["bytesPerSecond"], &shown["atOnce"]),
        (&json!("LOCAL"), &json!(200 << 20), &json!(3))
    );
    let list = site.ok("target list").await;
    let row: Vec<_> = list
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(
        (row[0], row[1], row[3], row.last()),
        ("there", "LOCAL", "0", Some(&"ok"))
    );

    let edited = site
        .json("target edit there --name yonder --limit none --at-once 1")
        .await;
    assert_eq!(
        (&edited["name"], &edited["atOnce"]),
        (&json!("yonder"), &json!(1))
    );
    assert_eq!(edited.get("bytesPerSecond"), None, "{edited}");
    let other = site.run("target edit yonder --s3-region eu-1").await;
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.stderr.contains("yonder is LOCAL and stays so"), "{other:?}");
    // It may come back: what is wrong is that it is away.
    let gone = site.run("target edit yonder --local /proc/none").await;
    assert_eq!(gone.code, 4, "{gone:?}");
    let checked = site.ok("target check yonder").await;
    assert!(checked.contains("tried    "), "{checked}");

    let told = site.ok("target detach yonder").await;
    assert_eq!(told, "yonder is detached; what is there stays\n");
    assert_eq!(site.run("target show yonder").await.code, 3);

    let passphrase = file(&site, "passphrase", PASSPHRASE);
    let mut anew = adding(&site, "");
    anew.arg("--passphrase-file").arg(passphrase);
    let anew = ran(anew).await;
    assert_eq!(anew.code, 3, "{anew:?}");
    assert!(anew.stderr.contains("attach it"), "{anew:?}");
    // The environment does as well as a file.
    let mut attach = adding(&site, "--attach --json");
    attach.env("OFFSHOOT_PASSPHRASE", PASSPHRASE);
    let attached = ran(attach).await;
    assert_eq!(attached.code, 0, "{attached:?}");
    let attached: Value = serde_json::from_str(&attached.stdout).unwrap();
    assert_eq!(attached["vault"], shown["vault"], "it is the same vault");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_made_listed_kept_and_removed() {
    let site = Site::start().await;
    site.machine("web").await;
    target(&site).await;
    let none = site.run("copy create web --target none").await;
    assert_eq!(none.code, 3, "{none:?}");
    assert!(none.stderr.contains("none"), "{none:?}");

    site.ok("snapshot take web --name first --wait").await;
    let said = site
        .ok("copy create web --target there --snapshot first --wait")
        .await;
    assert!(
        said.starts_with("copy snapshot of web → there: succeeded in ") && said.contains(" stored; copy "),
        "{said}"
    );
    let task = site.json("copy create web --target there --wait").await;
    assert_eq!(
        (&task["status"], &task["stats"]["isIncremental"]),
        (&json!("SUCCESS"), &json!(true)),
        "{task}"
    );
    let (id, copy) = (task["id"].as_str().unwrap(), task["copy"].as_str().unwrap());
    assert_eq!(site.json(&format!("copy task {id}")).await["copy"], copy);
    let shown = site.ok(&format!("copy task {id}")).await;
    for line in [
        "status    SUCCESS\n",
        "reads     only what has changed\n",
        "disk0 ",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    for tasks in ["copy tasks", "copy tasks web"] {
        let table = site.ok(tasks).await;
        assert_eq!(
            (table.lines().count(), table.matches(" SUCCESS ").count()),
            (3, 2),
            "{table}"
        );
    }
    let begun = site.ok("copy create web --target there").await;
    assert!(
        begun.starts_with("copy of web to there: ") && begun.contains("\nfollow it: offshoot job wait "),
        "{begun}"
    );
    let begun = begun.trim_end().rsplit(' ').next().unwrap().to_owned();
    site.ok(&format!("job wait {begun}")).await;
    assert_eq!(
        site.json("copy list --vm web --target there").await["totalSize"],
        3
    );
    assert_eq!(site.json("copy list --vm other").await["totalSize"], 0);
    assert!(site.ok("copy list").await.contains(copy));

    let kept = site.ok(&format!("copy keep {copy}")).await;
    assert!(kept.contains("legal hold   yes\n"), "{kept}");
    let refused = site.run(&format!("copy delete {copy}")).await;
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("legal hold"), "{refused:?}");
    site.ok(&format!("copy keep {copy} --legal-hold off")).await;
    let shown = site.ok(&format!("copy show {copy}")).await;
    for line in [
        &format!("copy         {copy}\n"),
        "legal hold   no\n",
        "incremental\n",
        "disk         0: 1.0 GiB\n",
        "booted       never tried",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let gone = site.ok(&format!("copy delete {copy}")).await;
    assert!(gone.contains("is removed"), "{gone}");
    assert_eq!(site.run(&format!("copy show {copy}")).await.code, 3);
    let pruned = site.ok("target prune there --wait").await;
    assert!(
        pruned.starts_with("prune target there: succeeded in "),
        "{pruned}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_task_is_held_released_and_cancelled() {
    let site = Site::start().await;
    site.machine("wait-at-copying").await;
    target(&site).await;
    let task = site.json("copy create wait-at-copying --target there").await;
    let id = task["id"].as_str().unwrap().to_owned();
    let status = format!("copy task {id}");
    once(&site, &status, "status", "RUNNING").await;
    let said = site.ok(&format!("copy hold {id}")).await;
    assert!(said.starts_with("copy of wait-at-copying to there: "), "{said}");
    let held = once(&site, &status, "status", "ON_HOLD").await;
    assert!(held["holdReason"].as_str().unwrap().contains("admin"), "{held}");
    assert!(site.ok(&status).await.contains("on hold   held by "));
    site.ok(&format!("copy release {id}")).await;
    once(&site, &status, "status", "RUNNING").await;
    let again = site.run(&format!("copy release {id}")).await;
    assert_eq!(again.code, 3, "{again:?}");
    assert!(again.stderr.contains("does not stand still"), "{again:?}");

    let waiting = tokio::spawn(ran(site.command(&format!("job wait {id}"))));
    site.ok(&format!("copy cancel {id}")).await;
    let waited = waiting.await.unwrap();
    assert_eq!(waited.code, 1, "{waited:?}");
    assert!(waited.stderr.contains("ended CANCELLED"), "{waited:?}");
    assert_eq!(site.json(&status).await["status"], "CANCELED");
    let late = site.run(&format!("copy hold {id}")).await;
    assert_eq!(late.code, 3, "{late:?}");
    assert_eq!(site.json("copy list").await["totalSize"], 0);
}

/// Any pack of a vault.
fn a_pack(vault: &Path) -> PathBuf {
    let folders = std::fs::read_dir(vault.join("packs")).unwrap();
    let mut packs = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    packs.next().unwrap().unwrap().path()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_named_and_fails_whoever_waits() {
    let site = Site::start().await;
    site.machine("web").await;
    target(&site).await;
    let copy = copied(&site, "web").await;
    let fine = site.ok("target verify there --wait").await;
    assert!(fine.starts_with("verify target there: succeeded in "), "{fine}");
    assert!(
        site.ok("target show there")
            .await
            .contains("100 % was read, nothing is damaged")
    );

    let pack = a_pack(&place(&site));
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let found = site.run("target verify there --wait").await;
    assert_eq!(found.code, 1, "{found:?}");
    let name = pack.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        found.stdout.contains(&name) && found.stdout.contains(&copy),
        "the object, and the copy that it hurts: {found:?}"
    );
    assert!(
        found.stderr.contains("1 object is damaged, which hurts 1 copy"),
        "{found:?}"
    );
    let row = site.ok("target list").await;
    assert!(row.trim_end().ends_with("damaged"), "{row}");
    let shown = site.ok(&format!("copy show {copy}")).await;
    assert!(shown.contains("damaged      "), "{shown}");
    assert!(site.ok("copy list").await.contains("damaged"));
    let sample = site.run("target verify there --percent 0").await;
    assert_eq!(sample.code, 3, "{sample:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_booted_and_comes_back_in_four_ways() {
    let site = Site::start().await;
    site.machine("web").await;
    target(&site).await;
    let copy = copied(&site, "web").await;
    let booted = site.ok(&format!("copy boot {copy} --wait")).await;
    assert!(
        booted.starts_with("boot copy of web: succeeded in ") && booted.contains("proof of boot: "),
        "{booted}"
    );
    let sign = site.json(&format!("copy show {copy}")).await;
    assert_eq!(sign["booted"]["booted"], true, "{sign}");
    assert!(
        !site
            .ok(&format!("copy show {copy}"))
            .await
            .contains("never tried")
    );
    let list = site.json("vm list").await;
    assert_eq!(list["totalSize"], 1, "what was booted is thrown away: {list}");

    let said = site
        .ok(&format!(
            "copy restore {copy} --name again --start --cpus 2 --wait"
        ))
        .await;
    assert!(
        said.starts_with("restore copy of web → again: succeeded in "),
        "{said}"
    );
    let again = site.json("vm show again").await;
    assert_eq!(
        (
            &again["state"],
            &again["cpus"],
            &again["networkInterfaces"][0]["connected"]
        ),
        (&json!("RUNNING"), &json!(2), &json!(false)),
        "{again}"
    );
    site.ok(&format!("copy restore {copy} --name at-once --instant --wait"))
        .await;
    assert_eq!(site.json("vm show at-once").await["state"], "RUNNING");

    let over = format!("copy restore {copy} --over web --confirm");
    let runs = site.run(&format!("{over} web")).await;
    assert_eq!(runs.code, 3, "{runs:?}");
    assert!(runs.stderr.contains("stop it first"), "{runs:?}");
    site.ok("vm stop web --power-off --wait").await;
    let wrong = site.run(&format!("{over} wob")).await;
    assert_eq!(wrong.code, 3, "{wrong:?}");
    assert!(wrong.stderr.contains("confirm it by its name, web"), "{wrong:?}");
    site.ok(&format!("{over} web --wait")).await;

    let disks = |vm: &Value| vm["disks"].as_array().unwrap().len();
    let before = disks(&site.json("vm show web").await);
    site.ok(&format!("copy restore {copy} --disks-of web --disk 0 --wait"))
        .await;
    assert_eq!(disks(&site.json("vm show web").await), before + 1);
    let none = site
        .run(&format!("copy restore {copy} --disks-of web --disk 9"))
        .await;
    assert_eq!(none.code, 3, "{none:?}");
    assert!(none.stderr.contains("has no disk 9"), "{none:?}");

    let out = site._dir.path().join("disk.raw");
    let mut fetch = site.command(&format!("copy restore {copy} --file raw --output"));
    fetch.arg(&out);
    let fetched = ran(fetch).await;
    assert_eq!(fetched.code, 0, "{fetched:?}");
    assert!(out.exists());
    assert_eq!(
        site.json("image exports").await["totalSize"],
        0,
        "it is removed when it is fetched"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_one_way_is_refused_with_another() {
    let site = Site::start().await;
    for (args, said) in [
        ("target add there", "--local"),
        ("target add there --local /x --s3-bucket b", "cannot be used with"),
        ("target add there --local /x --s3-region r", "cannot be used with"),
        (
            "target add there --local /x --remote-target t",
            "cannot be used with",
        ),
        ("target add there --s3-bucket b", "--s3-access-key"),
        ("target add there --remote-url https://x", "--remote-target"),
        ("target add there --local /x --identity-file f", "--attach"),
        (
            "target add there --local /x --attach --recipient age1x",
            "cannot be used with",
        ),
        ("target add there --local /x --limit 20MB", "20MiB"),
        ("copy create web", "--target"),
        (
            "copy create web --target t --snapshot s --memory",
            "cannot be used with",
        ),
        (
            "copy create web --target t --quiesce --memory",
            "cannot be used with",
        ),
        ("copy restore c", "--disks-of"),
        ("copy restore c --over web", "--confirm"),
        (
            "copy restore c --name a --over web --confirm web",
            "cannot be used with",
        ),
        (
            "copy restore c --over web --confirm web --cpus 2",
            "cannot be used with",
        ),
        ("copy restore c --name a --disk 1", "cannot be used with"),
        ("copy restore c --name a --output f", "cannot be used with"),
        ("copy restore c --disks-of web --instant", "cannot be used with"),
        ("copy restore c --file raw --start", "cannot be used with"),
        ("copy restore c --file ova", "qcow2"),
        ("copy keep c --legal-hold maybe", "off"),
    ] {
        let ran = site.run(args).await;
        assert_eq!(ran.code, 2, "{args}: {ran:?}");
        assert!(ran.stderr.contains(said), "{args}: {ran:?}");
    }
    let two = site.run("copy restore c --file raw --disk 0 --disk 1").await;
    assert_eq!(two.code, 1, "{two:?}");
    let relative = {
        let mut add = site.command("target add there --local copies");
        add.env("OFFSHOOT_PASSPHRASE", PASSPHRASE);
        ran(add).await
    };
    assert_eq!(relative.code, 3, "{relative:?}");
    assert!(relative.stderr.contains("no absolute path"), "{relative:?}");
}
