use super::*;
use crate::hypervisor::sim::Sim;
use std::io::Write;

fn bytes(said: Option<Said>) -> Vec<u8> {
    match said {
        Some(Said::Bytes(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

/// A line whose log is written by the test, and what keeps it growing.
fn line(path: &Path) -> (Line, watch::Sender<()>, File) {
    let writer = File::options().create(true).append(true).open(path).unwrap();
    let (grows, grown) = watch::channel(());
    let (input, _) = mpsc::channel(1);
    let log = File::open(path).unwrap();
    (Line { log, input, grown }, grows, writer)
}

#[tokio::test]
async fn what_was_said_and_what_is_said_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let (line, grows, mut log) = line(&dir.path().join("log"));
    log.write_all(b"before ").unwrap();
    let mut view = line.view(4).unwrap();
    // Written after the viewer has begun, and before it has read anything.
    log.write_all(b"now").unwrap();
    assert_eq!(view.next().await.unwrap(), Some(Said::Note(Note::Backlog(4))));
    assert_eq!(bytes(view.next().await.unwrap()), b"ore now");
    log.write_all(b" and then").unwrap();
    grows.send_replace(());
    assert_eq!(bytes(view.next().await.unwrap()), b" and then");
    log.write_all(b", the end").unwrap();
    drop(grows);
    assert_eq!(bytes(view.next().await.unwrap()), b", the end");
    assert_eq!(view.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_viewer_that_lags_is_told_and_goes_on_near_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (line, _grows, mut log) = line(&dir.path().join("log"));
    let mut slow = line.view(0).unwrap();
    let mut quick = line.view(0).unwrap();
    assert_eq!(quick.next().await.unwrap(), Some(Said::Note(Note::Backlog(0))));
    assert_eq!(slow.next().await.unwrap(), Some(Said::Note(Note::Backlog(0))));
    let mut read = 0;
    for _ in 0..(BEHIND / NEAR + 1) {
        log.write_all(&vec![b'x'; NEAR as usize]).unwrap();
        for _ in 0..(NEAR as usize / PIECE) {
            read += bytes(quick.next().await.unwrap()).len() as u64;
        }
    }
    log.write_all(b"the end").unwrap();
    assert_eq!(bytes(quick.next().await.unwrap()), b"the end");
    let all = read + 7;
    assert_eq!(
        slow.next().await.unwrap(),
        Some(Said::Note(Note::Skipped(all - NEAR)))
    );
    let mut rest = Vec::new();
    while (rest.len() as u64) < NEAR {
        rest.extend(bytes(slow.next().await.unwrap()));
    }
    assert!(rest.ends_with(b"xthe end") && rest.len() as u64 == NEAR);
}

#[tokio::test]
async fn a_log_that_is_cut_is_read_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let (line, _grows, mut log) = line(&dir.path().join("log"));
    log.write_all(b"long").unwrap();
    let mut view = line.view(100).unwrap();
    assert_eq!(view.next().await.unwrap(), Some(Said::Note(Note::Backlog(4))));
    assert_eq!(bytes(view.next().await.unwrap()), b"long");
    log.set_len(0).unwrap();
    log.write_all(b"new").unwrap();
    assert_eq!(view.next().await.unwrap(), Some(Said::Note(Note::Cut {})));
    assert_eq!(bytes(view.next().await.unwrap()), b"new");
}

#[tokio::test]
async fn a_machine_that_is_off_has_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let consoles = Consoles::new(Arc::new(Sim::new(dir.path()).unwrap()));
    let vm = VmId(uuid::Uuid::from_u128(1));
    assert!(matches!(consoles.line(vm).await, Err(HvError::NotRunning { .. })));
}
