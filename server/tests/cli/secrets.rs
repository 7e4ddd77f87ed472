//! Secrets that commands take: from files, the environment and the terminal, and told to nobody.

use super::{Ran, Site, offshoot, ran};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

const PASSPHRASE: &str = "hunter2 hunter2 hunter2";

/// What a command says when this is its standard input.
async fn with_input(mut command: Command, input: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that wants no input may have ended.
    _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let ended = ended.await.unwrap();
    Ran {
        code: ended.status.code().unwrap(),
        stdout: String::from_utf8(ended.stdout).unwrap(),
        stderr: String::from_utf8(ended.stderr).unwrap(),
    }
}

fn silent(ran: &Ran) {
    let said = format!("{ran:?}").to_lowercase();
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_wrong_or_in_the_wrong_place_is_not_repeated() {
    let site = Site::start().await;
    let dir = site._dir.path();
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let right = write("right", PASSPHRASE);
    let wrong = write("wrong", "hunter2 and then some");
    let lines = write("lines", "hunter2 hunter2\nhunter2 hunter2\n");
    let short = write("short", "hunter2\n");
    let there = dir.join("there").display().to_string();
    let made = site
        .run(&format!(
            "target add there --json --local {there} --passphrase-file {right}"
        ))
        .await;
    assert_eq!(made.code, 0, "{made:?}");
    silent(&made);
    site.ok("target detach there").await;

    let new = dir.join("new").display().to_string();
    let store = "target add far --s3-bucket b --s3-access-key k --s3-endpoint";
    let server = "target add far --remote-target there --remote-url";
    for (code, args) in [
        // The wrong one, and one that cannot be.
        (
            3,
            format!("target add there --attach --local {there} --passphrase-file {wrong}"),
        ),
        (
            3,
            format!("target add new --local {new} --passphrase-file {short}"),
        ),
        // One as the name of its file, and files of something else.
        (
            1,
            format!("target add new --local {new} --passphrase-file hunter2"),
        ),
        (
            1,
            format!("target add new --local {new} --passphrase-file {lines}"),
        ),
        (
            1,
            format!("target add there --attach --local {there} --identity-file {right}"),
        ),
        (
            1,
            format!("target add there --attach --local {there} --identity-file hunter2"),
        ),
        (
            1,
            format!("{store} http://127.0.0.1:1 --passphrase-file {right} --s3-secret-file hunter2"),
        ),
        (
            1,
            format!("{server} http://127.0.0.1:1 --passphrase-file {right} --remote-token-file hunter2"),
        ),
        // On the command line after all.
        (
            1,
            format!("target add new --local {new} --recipient AGE-SECRET-KEY-1HUNTER2"),
        ),
        (2, format!("target add new --local {new} --passphrase hunter2")),
        (2, format!("target add new --local {new} --passphrase=hunter2")),
        (2, format!("{store} http://127.0.0.1:1 --s3-secret hunter2")),
        (2, format!("{server} http://127.0.0.1:1 --remote-token=hunter2")),
        (
            3,
            format!(
                "{server} http://eve:hunter2@127.0.0.1:1 --passphrase-file {right} --remote-token-file {right}"
            ),
        ),
        (
            3,
            format!("{store} http://hunter2@127.0.0.1:1 --passphrase-file {right} --s3-secret-file {right}"),
        ),
    ] {
        for json in ["", " --json"] {
            let ran = site.run(&format!("{args}{json}")).await;
            assert_eq!(ran.code, code, "{args}: {ran:?}");
            silent(&ran);
        }
    }
    // Where nobody answers.
    let away = format!("{server} http://127.0.0.1:1 --passphrase-file {right} --remote-token-file {right}");
    let away = site.run(&away).await;
    assert_eq!(away.code, 4, "{away:?}");
    silent(&away);
    let audit = site.ok("audit export --format csv").await;
    assert!(
        audit.contains("/api/v1/targets") && !audit.to_lowercase().contains("hunter2"),
        "{audit}"
    );
    assert_eq!(site.json("target list").await["totalSize"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_from_standard_input_or_the_environment() {
    let site = Site::start().await;
    let there = site._dir.path().join("there");
    let add = |more: &str| {
        let mut command = site.command(&format!("target add there {more} --local"));
        command.arg(&there);
        command
    };
    let none = ran(add("")).await;
    assert_eq!(none.code, 1, "{none:?}");
    assert!(
        none.stderr.contains("--passphrase-file") && none.stderr.contains("OFFSHOOT_PASSPHRASE"),
        "{none:?}"
    );
    let empty = with_input(add("--passphrase-file -"), "\n").await;
    assert_eq!(empty.code, 1, "{empty:?}");
    assert!(empty.stderr.contains("there is nothing in"), "{empty:?}");
    let made = with_input(add("--passphrase-file -"), &format!("{PASSPHRASE}\n")).await;
    assert_eq!(made.code, 0, "{made:?}");
    silent(&made);
    site.ok("target detach there").await;
    let mut attach = add("--attach");
    attach.env("OFFSHOOT_PASSPHRASE", PASSPHRASE);
    let attached = ran(attach).await;
    assert_eq!(attached.code, 0, "{attached:?}");

    // Two of one input: the second finds nothing.
    let both = "target add far --s3-bucket b --s3-access-key k --passphrase-file - --s3-secret-file -";
    let both = with_input(site.command(both), PASSPHRASE).await;
    assert_eq!(both.code, 1, "{both:?}");
    assert!(both.stderr.contains("--s3-secret-file"), "{both:?}");
    silent(&both);
}

/// `script` gives it a terminal of its own; what is said there when this is typed.
async fn typed(site: &Site, args: String, lines: &'static [&'static str]) -> (Option<i32>, String) {
    let mut script = Command::new("script");
    script.args([
        "-qec",
        &format!("{} {args}", offshoot("").get_program().display()),
        "/dev/null",
    ]);
    script.env("OFFSHOOT_URL", format!("http://{}", site.running.address));
    script.env("OFFSHOOT_TOKEN", &site.token);
    script.env_remove("OFFSHOOT_PASSPHRASE");
    let talk = move || {
        let mut child = script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut seen = Vec::new();
        for (n, line) in lines.iter().enumerate() {
            // Each is typed when it is asked for: echo is off by then.
            while String::from_utf8_lossy(&seen).matches(": ").count() <= n {
                let mut byte = [0];
                assert_eq!(output.read(&mut byte).unwrap(), 1, "ended: {seen:?}");
                seen.push(byte[0]);
            }
            input.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        output.read_to_end(&mut seen).unwrap();
        (
            child.wait().unwrap().code(),
            String::from_utf8_lossy(&seen).into_owned(),
        )
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_is_asked_for_twice_and_not_shown() {
    let site = Site::start().await;
    let there = site._dir.path().join("there").display().to_string();
    let add = format!("target add there --local {there}");
    let (code, seen) = typed(&site, add.clone(), &[PASSPHRASE, "hunter2 hunter2 hunter3"]).await;
    assert_eq!(code, Some(1), "{seen}");
    assert!(
        seen.contains("not the same") && !seen.contains("hunter2"),
        "{seen}"
    );
    let (code, seen) = typed(&site, add, &[PASSPHRASE, PASSPHRASE]).await;
    assert_eq!(code, Some(0), "{seen}");
    assert!(
        seen.contains("Passphrase of the vault: ")
            && seen.contains("Once more: ")
            && !seen.contains("hunter2"),
        "{seen}"
    );
    site.ok("target detach there").await;
    // One that is there is asked for once.
    let attach = format!("target add there --attach --local {there}");
    let (code, seen) = typed(&site, attach, &[PASSPHRASE]).await;
    assert_eq!(code, Some(0), "{seen}");
    assert!(!seen.contains("Once more"), "{seen}");
}
