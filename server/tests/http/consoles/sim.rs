//! With machines that are simulated: a serial line that echoes, and a grey screen.

use super::{Viewer, machine, work};
use crate::site::{Site, form, send};
use reqwest::Method;
use serde_json::json;
use shared::console::{Note, OFF, SIGNED_OUT};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

async fn site() -> Site {
    let site = Site::start().await;
    machine(&site.running, &site.token, "web", None).await;
    site
}

async fn open(site: &Site, path: &str) -> Viewer {
    Viewer::open(&site.running, &site.token, path).await
}

#[tokio::test]
async fn two_see_the_same_and_both_may_type() {
    let site = site().await;
    let mut one = open(&site, "web/console").await;
    let boot = one.until("web login: \n").await;
    assert!(boot.starts_with("[    0.000000] Linux version"), "{boot}");
    assert_eq!(one.notes, [Note::Backlog(boot.len() as u64)]);
    one.send(b"from one\r").await;
    assert_eq!(one.until("from one\r\n").await, "from one\r\n");
    // Who comes later reads what was said before, and then goes on: nothing is missed, nothing comes twice.
    let mut two = open(&site, "web/console").await;
    assert_eq!(two.until("one\r\n").await, format!("{boot}from one\r\n"));
    two.send(b"from two\r").await;
    for viewer in [&mut one, &mut two] {
        assert_eq!(viewer.until("two\r\n").await, "from two\r\n");
    }
    // As much as is asked for comes first.
    let mut last = open(&site, "web/console?last=5").await;
    assert_eq!(last.until("\n").await, "two\r\n");
    assert_eq!(last.notes, [Note::Backlog(5)]);
}

#[tokio::test]
async fn screens_are_shown_to_all_and_keys_are_heard() {
    let site = site().await;
    let (mut one, mut two) = (open(&site, "web/vnc").await, open(&site, "web/vnc").await);
    assert_eq!(one.rfb(true).await, (64, 48));
    assert_eq!(two.rfb(true).await, (64, 48));
    let before = one.picture().await;
    assert_eq!((before.len(), &before), (4 * 64 * 48, &two.picture().await));
    one.send(&[4, 1, 0, 0, 0, 0, 0, b'a']).await;
    assert_ne!(one.picture().await, before);
}

#[tokio::test]
async fn the_end_of_the_machine_is_the_end_of_all_who_look() {
    let site = site().await;
    let mut serial = open(&site, "web/console").await;
    serial.send(b"last words\r").await;
    serial.until("last words\r\n").await;
    let screen = open(&site, "web/vnc").await;
    work(
        &site.running,
        &site.token,
        "/web/stop",
        json!({ "mode": "POWER_OFF" }),
    )
    .await;
    assert_eq!(serial.closed().await.0.unwrap().0, OFF);
    assert_eq!(screen.closed().await.0.unwrap().0, OFF);
}

#[tokio::test]
async fn a_server_that_stops_says_goodbye() {
    let site = site().await;
    let mut serial = open(&site, "web/console").await;
    serial.until("login: ").await;
    let screen = open(&site, "web/vnc").await;
    let watch = async { (serial.closed().await.0, screen.closed().await.0) };
    let (stopped, (serial, screen)) = tokio::join!(site.running.stop(), watch);
    stopped.unwrap();
    assert_eq!(serial.unwrap(), (1001, "the server stops".to_owned()));
    assert_eq!(screen.unwrap(), (1001, "the server stops".to_owned()));
}

#[tokio::test]
async fn who_signs_out_looks_no_longer() {
    let site = site().await;
    let cookie = site.sign_in().await;
    let mut request = format!("ws://{}/api/v1/vms/web/console", site.running.address)
        .into_client_request()
        .unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    request
        .headers_mut()
        .insert("origin", site.url("").parse().unwrap());
    request
        .headers_mut()
        .insert("sec-websocket-protocol", "binary".parse().unwrap());
    let (socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "binary");
    let mut viewer = Viewer::of(socket);
    viewer.until("login: ").await;
    let out = site
        .bare(Method::POST, "/logout")
        .header("cookie", &cookie)
        .header("origin", site.url(""));
    assert_eq!(send(form(out, &[])).await.status, 303);
    assert_eq!(viewer.closed().await.0.unwrap().0, SIGNED_OUT);
}

/// One that reads nothing, not even what sockets would hold: the other is not held up, and it is told what it has missed.
#[tokio::test]
async fn one_that_lags_is_told_so_and_holds_nobody_up() {
    const MESSAGE: usize = 60_000;
    const MESSAGES: usize = 300;
    let site = site().await;
    let mut quick = open(&site, "web/console?last=0").await;
    let mut slow = open(&site, "web/console?last=0").await;
    for _ in 0..MESSAGES {
        quick.send(&[b'x'; MESSAGE]).await;
        assert_eq!(quick.bytes(MESSAGE).await, [b'x'; MESSAGE]);
    }
    assert_eq!(quick.notes, [Note::Backlog(0)], "nothing was left out");
    quick.send(b"done\r").await;
    assert_eq!(quick.until("done\r\n").await, "done\r\n");
    let seen = slow.until("done\r\n").await.len();
    let left_out: u64 = slow
        .notes
        .iter()
        .filter_map(|note| match note {
            Note::Skipped(n) => Some(*n),
            _ => None,
        })
        .sum();
    assert!(left_out > 0, "it was told: {:?}", slow.notes);
    assert_eq!(seen as u64 + left_out, (MESSAGE * MESSAGES + 6) as u64);
}
