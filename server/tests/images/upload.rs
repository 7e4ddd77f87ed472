//! Uploads that break off, go on, and survive the server.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_breaks_off_is_gone_on_with() {
    let site = site(|_, _| ()).await;
    let disk = disk();
    let upload = begin(&site, json!({"name": "disk", "sizeBytes": disk.len()}))
        .await
        .json();
    let id = upload["id"].as_str().unwrap();
    let finish = format!("/api/v1/uploads/{id}/finish");
    // A MiB, of which some has come when the link breaks.
    let first = futures::stream::iter([Ok::<_, std::io::Error>(disk[..1 << 20].to_vec())]);
    let body = reqwest::Body::wrap_stream(futures::StreamExt::chain(first, futures::stream::pending()));
    let path = format!("/api/v1/uploads/{id}/content?offset=0");
    let file = data(&site).join("uploads").join(id);
    let some = async {
        while std::fs::metadata(&file).unwrap().len() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = site.request(Method::PATCH, &path).body(body).send() => panic!("{answer:?}"),
        () = async { tokio::time::timeout(PATIENCE, some).await.unwrap() } => {}
    }
    let early = site.post(&finish, json!({})).await;
    // Until what has come is written it is that part's turn.
    assert_eq!(early.status, 409, "{early:?}");
    let arrived = tokio::time::timeout(PATIENCE, async {
        loop {
            // Refused for the offset, it tells how much there is; or it is still the other's turn.
            let answer = part(&site, id, 99, vec![0]).await;
            assert_eq!(answer.status, 409, "{answer:?}");
            if answer.error() == "FAILED_PRECONDITION" {
                return site.get(&format!("/api/v1/uploads/{id}")).await.json()["receivedBytes"]
                    .as_u64()
                    .unwrap();
            }
        }
    });
    let arrived = arrived.await.unwrap() as usize;
    assert!((1..=1 << 20).contains(&arrived), "{arrived}");
    let early = site.post(&finish, json!({})).await;
    assert!(early.body.contains("send the rest first"), "{}", early.body);
    let more = part(&site, id, arrived, [&disk[arrived..], b"x"].concat()).await;
    assert_eq!(more.field(), "body");
    let now = site.get(&format!("/api/v1/uploads/{id}")).await.json()["receivedBytes"]
        .as_u64()
        .unwrap() as usize;
    let rest = part(&site, id, now, disk[now..].to_vec()).await;
    assert_eq!(rest.json()["receivedBytes"], disk.len(), "{rest:?}");
    succeeded(&over(&site, &site.post(&finish, json!({})).await).await);
    reads_as_the_disk(&site, "disk").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_thrown_away_by_hand_and_by_time() {
    let site = site(|_, _| ()).await;
    let begun = async |name: &str| {
        let upload = begin(&site, json!({"name": name, "sizeBytes": 10})).await.json();
        upload["id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (begun("a").await, begun("b").await);
    part(&site, &second, 0, vec![1; 5]).await;
    let gone = send(site.request(Method::DELETE, &format!("/api/v1/uploads/{first}"))).await;
    assert_eq!(gone.status, 200, "{gone:?}");
    let jobs = &site.running.server.jobs;
    let now = server::db::now();
    jobs.sweep(now).await.unwrap();
    assert_eq!(left(&site).await.len(), 2, "it is not over");
    jobs.sweep(now.plus_micros(25 * 3600 * 1_000_000)).await.unwrap();
    assert!(left(&site).await.is_empty(), "{:?}", left(&site).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_or_no_free_name_is_not_begun() {
    let site = site(|_, _| ()).await;
    let large = begin(&site, json!({"name": "a", "sizeBytes": 1_u64 << 39})).await;
    assert_eq!(large.status, 507, "{large:?}");
    let larger = begin(&site, json!({"name": "a", "sizeBytes": 1_u64 << 60})).await;
    assert_eq!(larger.field(), "sizeBytes");
    succeeded(&upload(&site, "taken", disk(), json!({})).await);
    let again = begin(&site, json!({"name": "taken", "sizeBytes": 1})).await;
    assert_eq!((again.status, again.error().as_str()), (409, "ALREADY_EXISTS"));
    assert_eq!(left(&site).await.len(), 2);
}

/// A server that is a process of its own.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(dir: &Path, listen: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_offshoot"))
            .args(["serve", "--sim", "--listen", listen, "--data-dir"])
            .arg(dir)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines
            .find(|l| l.as_ref().unwrap().contains("listening"))
            .unwrap()
            .unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let address = line.split("127.0.0.1:").nth(1).unwrap();
        let port: String = address.chars().take_while(char::is_ascii_digit).collect();
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The command uploads; the server is killed in the midst, started again, and the command goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, "127.0.0.1:0");
    let token = Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .args(["token", "create", "cli", "--user", "admin", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(
        token.status.success(),
        "{}",
        String::from_utf8_lossy(&token.stderr)
    );
    let token = String::from_utf8(token.stdout).unwrap();
    let token = token.split_whitespace().last().unwrap().to_owned();

    server::use_ring();
    let client = reqwest::Client::new();
    let disk = disk();
    let source = dir.path().join("disk.raw");
    std::fs::write(&source, &disk).unwrap();
    let changed = std::fs::metadata(&source).unwrap().modified().unwrap();
    let changed = changed.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let fingerprint = shared::image::fingerprint("disk.raw", changed as i64);
    let request = json!({"name": "disk", "sizeBytes": disk.len(), "fingerprint": fingerprint});
    let upload: Value = client
        .post(format!("{}/api/v1/uploads", server.url))
        .bearer_auth(&token)
        .json(&request)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let id = upload["id"].as_str().unwrap();
    let content = format!("/api/v1/uploads/{id}/content");
    // Pieces come until the server has some of them, and then no more: it is killed with the part half sent.
    let sent = std::sync::Arc::new(AtomicU64::new(0));
    let file = data.join("uploads").join(id);
    let (count, pieces) = (sent.clone(), disk.clone());
    let body = futures::stream::unfold(0, move |at: usize| {
        let (piece, count) = (pieces[at..at + 65_536].to_vec(), count.clone());
        async move {
            if at >= 4 << 20 {
                return std::future::pending().await;
            }
            count.fetch_add(65_536, Ordering::SeqCst);
            Some((Ok::<_, std::io::Error>(piece), at + 65_536))
        }
    });
    let part = client
        .patch(format!("{}{content}?offset=0", server.url))
        .bearer_auth(&token)
        .body(reqwest::Body::wrap_stream(body))
        .send();
    let written = async {
        while std::fs::metadata(&file).map_or(0, |m| m.len()) < 1 << 20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = part => panic!("{answer:?}"),
        () = async { tokio::time::timeout(PATIENCE, written).await.unwrap() } => {}
    }
    server.kill();
    let kept = std::fs::metadata(&file).unwrap().len();
    assert!(kept >= 1 << 20 && kept < disk.len() as u64, "{kept}");

    let again = Server::start(&data, "127.0.0.1:0");
    let out = Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .args(["image", "upload", "--name", "disk", "--wait"])
        .arg(&source)
        .env("OFFSHOOT_URL", &again.url)
        .env("OFFSHOOT_TOKEN", &token)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // The same upload went on: no other is left, and the image is there.
    let get = async |path: &str| -> Value {
        let answer = client
            .get(format!("{}{path}", again.url))
            .bearer_auth(&token)
            .send()
            .await;
        answer.unwrap().json().await.unwrap()
    };
    assert_eq!(get("/api/v1/uploads").await["totalSize"], 0);
    assert_eq!(get("/api/v1/images/disk").await["virtualBytes"], disk.len());
}
