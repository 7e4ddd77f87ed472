//! What keeps an installation in order.

use super::{Site, offshoot, ran};
use server::cli::serve::Running;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

#[tokio::test(flavor = "multi_thread")]
async fn a_back_up_is_made_in_use_and_taken_by_the_next_start() {
    let site = Site::start().await;
    site.machine("kept").await;
    let (data, file) = (&site.config.data_dir, site._dir.path().join("back up"));
    let local = |command: &str| {
        let mut command = offshoot(command);
        command.arg(&file).arg("--data-dir").arg(data);
        command
    };
    let made = ran(local("backup")).await;
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.stdout.contains("bytes"), "{made:?}");
    let twice = ran(local("backup")).await;
    assert_eq!(twice.code, 1, "{twice:?}");
    assert!(twice.stderr.contains("is there already"), "{twice:?}");

    site.machine("later").await;
    let restored = ran(local("restore")).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert!(
        restored.stdout.contains("at the server's next start"),
        "{restored:?}"
    );
    // The server that runs knows all that it knew.
    site.ok("vm show later").await;

    let Site {
        running,
        config,
        token,
        _dir,
    } = site;
    running.stop().await.unwrap();
    let running = Running::start(config.clone()).await.unwrap();
    let site = Site {
        running,
        config,
        token,
        _dir,
    };
    site.ok("vm show kept").await;
    let gone = site.run("vm show later").await;
    assert_eq!(gone.code, 3, "{gone:?}");
    let kept = std::fs::read_dir(&site.config.data_dir).unwrap();
    let before = kept.filter(|e| {
        e.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("before-")
    });
    assert!(before.count() >= 1, "what was there is kept");
}

#[tokio::test]
async fn shells_complete_and_man_has_a_page_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let bash = ran(offshoot("completion bash")).await;
    assert_eq!(bash.code, 0, "{bash:?}");
    let script = dir.path().join("offshoot.bash");
    let words =
        "COMP_WORDS=(offshoot vm st); COMP_CWORD=2; _offshoot offshoot st vm; echo \"${COMPREPLY[@]}\"";
    std::fs::write(&script, format!("{}\n{words}\n", bash.stdout)).unwrap();
    let mut shell = Command::new("bash");
    shell.arg("--norc").arg(&script);
    let completed = ran(shell).await;
    assert!(
        completed.stdout.contains("start") && completed.stdout.contains("stop"),
        "{completed:?}"
    );
    for other in ["zsh", "fish"] {
        assert!(
            !ran(offshoot(&format!("completion {other}")))
                .await
                .stdout
                .is_empty()
        );
    }

    let pages = dir.path().join("man");
    let mut man = offshoot("man");
    man.arg(&pages);
    let written = ran(man).await;
    assert_eq!(written.code, 0, "{written:?}");
    let page = std::fs::read_to_string(pages.join("offshoot-vm-start.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains("offshoot"), "{page}");
    for page in std::fs::read_dir(&pages).unwrap() {
        let path = page.unwrap().path();
        // groff takes nothing else without being told.
        assert!(std::fs::read_to_string(&path).unwrap().is_ascii(), "{path:?}");
    }
    assert!(
        !pages.join("offshoot-guard.1").exists(),
        "what the server runs itself is nobody's command"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_read_with_a_token() {
    let site = Site::start().await;
    site.machine("web").await;
    let url = format!("http://{}/metrics", site.running.address);
    let ask = |token: Option<&str>| {
        let request = reqwest::Client::new().get(&url);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
        .send()
    };
    assert_eq!(ask(None).await.unwrap().status(), 401);
    // Whoever may list machines only may not.
    site.ok("role create lister --privilege vm.read").await;
    let mut confined = offshoot("token create lister --role lister --data-dir");
    confined.arg(&site.config.data_dir);
    let confined = ran(confined).await;
    assert_eq!(confined.code, 0, "{confined:?}");
    let confined = confined.stdout.lines().last().unwrap().to_owned();
    let refused = ask(Some(&confined)).await.unwrap();
    assert_eq!(refused.status(), 403);
    assert!(refused.text().await.unwrap().contains("metrics.read"));
    let answer = ask(Some(&site.token)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = answer.text().await.unwrap();
    for line in [
        "offshoot_vms{state=\"RUNNING\"} 1\n",
        "offshoot_jobs{kind=\"CREATE_VM\",state=\"SUCCEEDED\"} 1\n",
        "offshoot_build_info{version=",
        "# UNIT offshoot_storage_free_bytes bytes\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.contains("route=\"/api/v1/vms\""), "{text}");
    assert!(
        text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1,
        "{text}"
    );
}

#[test]
fn what_a_server_keeps_is_nobody_elses_whatever_the_directory_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).unwrap();
    let mut server = offshoot("serve --sim --listen 127.0.0.1:0");
    if rustix::process::geteuid().is_root() {
        server.args(["--run-as", "root"]);
    }
    server.arg("--data-dir").arg(&data);
    let mut server = server
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It says where it listens when all is there.
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let open: Vec<_> = ["offshoot.db", "lock", "layers", "run", "uploads"]
        .into_iter()
        .filter(|name| std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o077 != 0)
        .collect();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(open.is_empty(), "{open:?} may be read by others; said: {line}");
}
