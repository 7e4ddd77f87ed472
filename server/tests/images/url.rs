//! Images by address, from a small server that redirects and breaks off as it is told.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Serves the disk at `/disk`; at `/breaks` a quarter at a time, with ranges; at `/away` it sends on to where it is told.
struct Web {
    address: String,
    asked: Arc<AtomicUsize>,
}

async fn web(away: &'static str) -> Web {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, own) = (asked.clone(), address.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let own = own.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let disk = disk();
                let from = head
                    .lines()
                    .find_map(|l| l.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
                let all = disk.len();
                let answer = match path.as_str() {
                    "/disk" => (format!("200 OK\r\ncontent-length: {all}"), disk),
                    "/breaks" => {
                        let at: usize = from.unwrap_or(0);
                        let piece = disk[at..(at + all / 4).min(all)].to_vec();
                        let status = match from {
                            None => "200 OK".to_owned(),
                            Some(at) => format!(
                                "206 Partial Content\r\ncontent-range: bytes {at}-{}/{all}",
                                all - 1
                            ),
                        };
                        (
                            format!("{status}\r\netag: \"one\"\r\ncontent-length: {}", all - at),
                            piece,
                        )
                    }
                    "/on" => (
                        format!("302 Found\r\nlocation: http://{own}/disk\r\ncontent-length: 0"),
                        Vec::new(),
                    ),
                    "/away" => (
                        format!("302 Found\r\nlocation: {away}\r\ncontent-length: 0"),
                        Vec::new(),
                    ),
                    "/round" => (
                        format!("302 Found\r\nlocation: http://{own}/round\r\ncontent-length: 0"),
                        Vec::new(),
                    ),
                    _ => ("404 Not Found\r\ncontent-length: 0".to_owned(), Vec::new()),
                };
                let head = format!("HTTP/1.1 {}\r\nconnection: close\r\n\r\n", answer.0);
                // Whoever asked may have gone.
                _ = stream.write_all(head.as_bytes()).await;
                _ = stream.write_all(&answer.1).await;
            });
        }
    });
    Web { address, asked }
}

async fn fetched(site: &Site, name: &str, url: &str) -> Value {
    over(
        site,
        &site
            .post("/api/v1/images", json!({"name": name, "url": url}))
            .await,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_fetched_over_breaks_and_redirects() {
    let web = web("").await;
    let site = site(|config, _| config.image_urls_private = true).await;
    for path in ["disk", "breaks", "on"] {
        let job = fetched(&site, path, &format!("http://{}/{path}", web.address)).await;
        succeeded(&job);
        reads_as_the_disk(&site, path).await;
    }
    // In four pieces.
    assert_eq!(web.asked.load(Ordering::SeqCst), 1 + 4 + 2);
    let before = left(&site).await;
    let lost = failed(&fetched(&site, "none", &format!("http://{}/none", web.address)).await);
    assert!(lost.contains("404"), "{lost}");
    let round = failed(&fetched(&site, "round", &format!("http://{}/round", web.address)).await);
    assert!(round.contains("too often"), "{round}");
    assert_eq!(left(&site).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_address_is_refused_by_name_number_and_redirect() {
    let web = web("http://127.0.0.1:9/").await;
    let site = site(|_, _| ()).await;
    let port = web.address.rsplit(':').next().unwrap();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "169.254.169.254",
    ] {
        let why = failed(&fetched(&site, "own", &format!("http://{host}:{port}/disk")).await);
        assert!(
            why.contains("no public address") && why.contains("image_urls_private"),
            "{host}: {why}"
        );
    }
    assert_eq!(web.asked.load(Ordering::SeqCst), 0, "nobody was connected to");
    for url in ["file:///etc/passwd", "ftp://example.org/a"] {
        let refused = site
            .post("/api/v1/images", json!({"name": "own", "url": url}))
            .await;
        assert_eq!(refused.field(), "url", "{url}");
    }
    assert!(left(&site).await.is_empty());
}

/// The server that is asked first may be a public one; this one only stands for it.
#[tokio::test]
async fn a_redirect_is_looked_at_as_the_address_is() {
    use server::fetch::Fetcher;
    for away in ["file:///etc/passwd", "gopher://example.org/"] {
        let web = web(away).await;
        let dir = tempfile::tempdir().unwrap();
        let fetcher = Fetcher::new(true, 1 << 30).unwrap();
        let url = format!("http://{}/away", web.address);
        let why = fetcher
            .fetch(&url, &dir.path().join("a"), &|_, _| ())
            .await
            .unwrap_err();
        assert!(why.to_string().contains("by http or https"), "{why}");
    }
}

#[tokio::test]
async fn more_than_is_allowed_is_not_fetched() {
    use server::fetch::{FetchError, Fetcher};
    let web = web("").await;
    let dir = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(true, 1 << 20).unwrap();
    let url = format!("http://{}/disk", web.address);
    let why = fetcher
        .fetch(&url, &dir.path().join("a"), &|_, _| ())
        .await
        .unwrap_err();
    assert!(matches!(why, FetchError::TooLarge { .. }), "{why}");
}
