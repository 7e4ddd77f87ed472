//! The process that lets a source go on.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_lets_its_source_go_on_whether_or_not_anybody_is_there() {
    let mut host = Host::new();
    let (source, _) = counting(&mut host).await;
    let watch = host
        .dir
        .path()
        .join("run")
        .join(source.id.to_string())
        .join("watch");
    let guardian = || {
        let (leash, its_end) = UnixStream::pair().unwrap();
        let mut child = Command::new(PROGRAM)
            .args(["guard".as_ref(), watch.as_os_str()])
            .arg(source.id.to_string())
            .stdin(std::os::fd::OwnedFd::from(its_end))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        (child, leash)
    };

    // A server that hangs holds the leash, and does nothing.
    let (mut held, leash) = guardian();
    let mut events = host.hv().events();
    host.hv().control(source.id, Control::Pause).await.unwrap();
    let paused = Instant::now();
    assert_eq!(next(&mut events).await.0, RunState::Paused(PauseReason::User));
    assert_eq!(next(&mut events).await.0, RunState::Running);
    let took = paused.elapsed();
    assert!(
        took > Duration::from_millis(300),
        "a fork may take its moment: {took:?}"
    );
    drop(leash);
    assert!(held.wait().unwrap().success());

    // One that has ended does not.
    let (mut left, leash) = guardian();
    host.hv().control(source.id, Control::Pause).await.unwrap();
    assert_eq!(next(&mut events).await.0, RunState::Paused(PauseReason::User));
    drop(leash);
    assert!(left.wait().unwrap().success());
    assert_eq!(next(&mut events).await.0, RunState::Running);

    // Without a source there is nothing to watch over.
    let (mut last, _leash) = guardian();
    host.hv().kill(source.id).await.unwrap();
    assert!(last.wait().unwrap().success());
}

/// Whoever takes what a source sends is halted while that stands still: QEMU hears nobody until it is rid of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_cuts_the_connection_of_a_source_that_nobody_takes_from() {
    let mut host = Host::new();
    let base = host.import("demo").await;
    let first = host.overlay(&base).await;
    let source = host.machine(&[&base, &first]);
    host.hv().start(&source).await.unwrap();
    host.boots(source.id, 120).await.unwrap();
    scribbles(&host, &source, 150).await;
    // This is the server now.
    let log = host.hv().serial_log(source.id);
    drop(host.hv.take());
    let run = host.dir.path().join("run").join(source.id.to_string());
    let guardian = Guardian::start(PROGRAM.as_ref(), &run.join("watch"), source.id)
        .await
        .unwrap();
    let leash = guardian.leash();
    let halted = tokio::task::spawn_blocking(move || {
        let listener = std::os::unix::net::UnixListener::bind(run.join("out")).unwrap();
        let mut qmp = Watch::connect_to(&run, "qmp");
        let paused_before = json!([{ "capability": "pause-before-switchover", "state": true },
            { "capability": "events", "state": true }]);
        qmp.ask(
            "migrate-set-capabilities",
            &json!({ "capabilities": paused_before }),
        );
        qmp.ask(
            "migrate-set-parameters",
            &json!({ "max-bandwidth": 1_u64 << 40, "downtime-limit": 2000 }),
        );
        qmp.ask(
            "migrate",
            &json!({ "uri": format!("unix:{}", run.join("out").display()) }),
        );
        let (mut stream, _) = listener.accept().unwrap();
        leash.hand(&stream).unwrap();
        let halt = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let taking = std::thread::spawn({
            let halt = halt.clone();
            move || {
                let mut nowhere = vec![0; 1 << 20];
                while !halt.load(std::sync::atomic::Ordering::SeqCst)
                    && stream.read(&mut nowhere).unwrap() > 0
                {}
                // Kept open, as by a server that is halted.
                stream
            }
        });
        qmp.event(|event| event["data"]["status"] == "pre-switchover");
        halt.store(true, std::sync::atomic::Ordering::SeqCst);
        let stood = Instant::now();
        qmp.ask("migrate-continue", &json!({ "state": "pre-switchover" }));
        qmp.event(|event| event["event"] == "RESUME");
        let took = stood.elapsed();
        drop(taking.join());
        took
    });
    let halted = halted.await;
    host.restart();
    let took = halted.unwrap();
    // Without a guardian it stands still for ever.
    assert!(took > STANDS_STILL_AT_MOST / 2, "{took:?}");
    guardian.dismiss().await;
    let ticks = || {
        let log = std::fs::read(&log).unwrap();
        log.windows(5).filter(|w| *w == b"tick=").count()
    };
    let (before, begin) = (ticks(), Instant::now());
    while ticks() < before + 3 {
        assert!(begin.elapsed() < Duration::from_secs(30), "it stands still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(host.hv().adopt(source.id).await.unwrap(), RunState::Running);
}

/// A host that is too slow for a moment is tried again on, and nobody has to ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_was_let_go_before_its_disks_were_switched_over_is_tried_again() {
    let mut host = Host::new();
    // The first guardian does nothing, and the test stands in for it.
    let program = host.dir.path().join("first-one-idle");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = guard ] && mkdir \"$0.had\" 2>/dev/null && printf . && exec cat >/dev/null\nexec {PROGRAM} \"$@\"\n"
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    host.hv = Some(Qemu::new(&host.dir.path().join("run"), None, &program).unwrap());
    let (source, switch) = counting(&mut host).await;
    let before = ticks(&host, source.id).last().unwrap().clone();
    let mut watch = Watch::connect(&host, source.id);
    let hasty = std::thread::spawn(move || {
        watch.event(|event| event["event"] == "MIGRATION" && event["data"]["status"] == "active");
        watch.ask("migrate_cancel", &json!({}));
    });
    let captured = host.hv().capture(&source, &switch, &point(&host)).await.unwrap();
    hasty.join().unwrap();
    assert_eq!(captured.again, 1, "{captured:?}");
    assert!(captured.pause_micros > 0, "{captured:?}");
    assert_eq!(host.hv().state(source.id).await, RunState::Running);
    host.sees(source.id, &format!("nonce={} tick={} ", before.0, before.1 + 3))
        .await
        .unwrap();
}
