//! Forks go on where the source was, and so does the source.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn forks_go_on_where_the_source_was_and_the_source_goes_on_too() {
    let mut host = Host::new();
    let (source, switch) = counting(&mut host).await;
    let [base, first] = &source.disks[0].chain[..] else {
        panic!("two layers")
    };
    let mut events = host.hv().events();
    let point = point(&host);
    let before = ticks(&host, source.id).last().unwrap().clone();
    let begin = Instant::now();
    let captured = host.hv().capture(&source, &switch, &point).await.unwrap();
    eprintln!("captured after {:?}", begin.elapsed());
    let after = ticks(&host, source.id).last().unwrap().clone();
    assert!((1..2_000_000).contains(&captured.pause_micros), "{captured:?}");
    eprintln!("{captured:?}");
    assert!(captured.copied_bytes > 1 << 20, "{captured:?}");
    assert!(!captured.forced);
    assert_eq!(host.hv().state(source.id).await, RunState::Running);
    let again = host.hv().capture(&source, &switch, &point).await.unwrap();
    assert_eq!(again.pause_micros, 0, "it is there already");

    // Two of the same moment, each on an overlay of its own.
    let overlays: [LayerFile; 2] = [host.overlay(first).await, host.overlay(first).await];
    for overlay in &overlays {
        let mut fork = host.machine(&[base, first, overlay]);
        fork.name = "fork".parse().unwrap();
        for _ in 0..2 {
            let begin = Instant::now();
            host.hv().fork(&fork, &point).await.unwrap();
            eprintln!("forked after {:?}", begin.elapsed());
        }
        assert_eq!(host.hv().state(fork.id).await, RunState::Running);
        host.sees(fork.id, TICK).await.unwrap();
        let seen = ticks(&host, fork.id);
        let (nonce, begin) = &seen[0];
        assert_eq!(*nonce, before.0, "the same boot");
        assert!(
            (before.1..=after.1 + 1).contains(begin),
            "it goes on in the moment of the capture: {begin}, captured within {before:?} and {after:?}"
        );
        assert!(seen.windows(2).all(|w| w[1].1 == w[0].1 + 1), "no tick is lost");
        // It did not boot: that would have begun with the kernel's lines.
        let log = std::fs::read_to_string(host.hv().serial_log(fork.id)).unwrap();
        assert!(!log.contains("Linux version"), "{log}");
    }

    // Its own ticks have no hole, and nobody was told of the pause.
    let all = ticks(&host, source.id);
    assert!(all.windows(2).all(|w| w[1].1 == w[0].1 + 1 && w[1].0 == w[0].0));
    let told = std::iter::from_fn(|| events.try_recv().ok());
    assert!(
        !told.into_iter().any(|e| e.vm == source.id),
        "the source never changed"
    );

    // One whose process waited before anybody knew of it: its overlay is made, and its name known, only now.
    let own = host.overlay(first).await;
    let mut fork = host.machine(&[base, first, &own]);
    let kept = host.dir.path().join("own");
    std::fs::rename(&own.path, &kept).unwrap();
    for _ in 0..2 {
        host.hv().keep_ready(&fork, &point).await.unwrap();
    }
    let nobodys = host.machine(&[base, first, &own]);
    host.hv().keep_ready(&nobodys, &point).await.unwrap();
    let pid = host.pid(fork.id);
    host.restart();
    host.hv().end_unasked(&[fork.id].into()).await.unwrap();
    assert!(
        !host.dir.path().join("run").join(nobodys.id.to_string()).exists(),
        "what nobody knows ends"
    );
    std::fs::rename(&kept, &own.path).unwrap();
    fork.name = "asked".parse().unwrap();
    for _ in 0..2 {
        host.hv().fork(&fork, &point).await.unwrap();
    }
    assert_eq!(host.pid(fork.id), pid, "the process that waited is the fork's");
    host.sees(fork.id, " host=asked").await.unwrap();
    assert_eq!(ticks(&host, fork.id)[0].0, before.0, "the same boot");
}
