//! Guests that write their memory faster than it travels.

use super::*;

/// A guest writes so much memory without end, and is captured. Whatever comes of it comes soon, and it runs on.
async fn captured_while_it_scribbles(memory_mib: u32, over_mib: u32) -> Result<Captured, HvError> {
    let mut host = Host::new();
    let base = host.import("demo").await;
    let first = host.overlay(&base).await;
    let mut source = host.machine(&[&base, &first]);
    source.memory_mib = memory_mib;
    host.hv().start(&source).await.unwrap();
    host.boots(source.id, 120).await.unwrap();
    scribbles(&host, &source, over_mib).await;
    let new = host.overlay(&first).await;
    let switch = [DiskSwitch { old: first, new }];
    let begin = Instant::now();
    let captured = host.hv().capture(&source, &switch, &point(&host)).await;
    let took = begin.elapsed();
    eprintln!("{captured:?} after {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(host.hv().state(source.id).await, RunState::Running);
    let last = ticks(&host, source.id).last().unwrap().1;
    host.sees(source.id, &format!("tick={} ", last + 3))
        .await
        .unwrap();
    captured
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_rewrites_its_memory_is_stopped_for_it_and_that_is_said() {
    match captured_while_it_scribbles(900, 640).await {
        Ok(captured) => {
            assert!(captured.forced, "{captured:?}");
            assert!(captured.pause_micros < 2_000_000, "{captured:?}");
        }
        Err(e) => assert!(matches!(e, HvError::TooBusy(_)), "{e}"),
    }
}
