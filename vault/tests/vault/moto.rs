//! A second server of S3, by others: moto, a program in Python that `scripts/setup.sh test` installs.

use super::support::{Disk, noise};
use super::{copy, restore};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use vault::prune::{self, Pruning};
use vault::store::{Objects, Put, S3, S3Settings, probe};
use vault::{CancellationToken, Error, Making, StoreError, Vault, Wrapping};

/// Ends with the test.
struct Moto {
    _server: Child,
    endpoint: String,
    client: reqwest::Client,
}

impl Moto {
    async fn start() -> Self {
        _ = rustls::crypto::ring::default_provider().install_default();
        let mut server = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("moto_server is not on PATH: scripts/setup.sh test installs it, scripts/env.sh says where it is");
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let endpoint = loop {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("moto_server ended at once");
            if let Some((_, at)) = line.split_once("Running on ") {
                break at.trim().to_owned();
            }
        };
        // It tells of each request, and stops when nobody listens.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            _server: server,
            endpoint,
            client: reqwest::Client::new(),
        }
    }

    /// What the vault itself never asks for.
    async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        header: (&str, &str),
        body: &'static str,
    ) -> String {
        let url = format!("{}/{path}", self.endpoint);
        // It looks who asks, not how that is signed.
        let who = "AWS4-HMAC-SHA256 Credential=somebody/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let asked = self.client.request(method, url).header("authorization", who);
        let answer = asked.header(header.0, header.1).body(body).send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    }

    fn bucket(&self, bucket: &str) -> Arc<S3> {
        let settings = S3Settings {
            endpoint: self.endpoint.clone(),
            region: "us-east-1".into(),
            bucket: bucket.into(),
            prefix: String::new(),
            access_key: "somebody".into(),
            secret_key: "a secret".into(),
        };
        Arc::new(S3::new(&settings).unwrap())
    }
}

async fn made(store: Arc<S3>) -> Vault {
    let identity = age::x25519::Identity::generate().to_public().to_string();
    Vault::create(store, &Wrapping::Recipient(identity), Making::at(1))
        .await
        .unwrap()
}

fn at(now: i64) -> Pruning {
    Pruning {
        stay: std::time::Duration::ZERO,
        ..Pruning::at(now)
    }
}

const PUT: reqwest::Method = reqwest::Method::PUT;
const NONE: (&str, &str) = ("x-none", "");

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_maker_keeps_copies() {
    let moto = Moto::start().await;
    moto.ask(PUT, "plain", NONE, "").await;
    let store = moto.bucket("plain");
    assert!(probe(&*store).await.unwrap().conditional_put);
    store.put("x", vec![vec![1].into()], Put::Create).await.unwrap();
    let second = store.put("x", vec![vec![2].into()], Put::Create).await;
    assert!(matches!(second, Err(StoreError::Exists)), "{second:?}");
    let vault = made(store.clone()).await;
    let disk = Disk(Arc::new(noise(1, 40 << 20)));
    let copied = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    assert!(restore(&vault, &copied).await.unwrap()[..] == [disk]);
    vault.forget(copied.id).await.unwrap();
    assert_eq!(prune::run(&vault, at(1)).await.unwrap().marked, 2);
    let pruned = prune::run(&vault, at(2)).await.unwrap();
    assert_eq!((pruned.removed, pruned.refused), (2, vec![]));
    assert!(store.list("packs/").await.unwrap().is_empty());
    let missing = probe(&*moto.bucket("nobodys")).await.unwrap_err();
    assert!(
        matches!(&missing, Error::Store { op: "write", .. }),
        "{missing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_locks_objects_keeps_what_is_removed() {
    let moto = Moto::start().await;
    moto.ask(PUT, "locked", ("x-amz-bucket-object-lock-enabled", "true"), "")
        .await;
    let store = moto.bucket("locked");
    let vault = made(store.clone()).await;
    let disk = Disk(Arc::new(noise(1, 1 << 20)));
    let copied = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    let hold = "<LegalHold><Status>ON</Status></LegalHold>";
    for object in store.list("").await.unwrap() {
        moto.ask(PUT, &format!("locked/{}?legal-hold", object.name), NONE, hold)
            .await;
    }
    vault.forget(copied.id).await.unwrap();
    prune::run(&vault, at(1)).await.unwrap();
    let pruned = prune::run(&vault, at(2)).await.unwrap();
    assert_eq!((pruned.removed, pruned.refused), (1, vec![]));
    assert!(matches!(vault.copy(copied.id).await, Err(Error::NoCopy(_))));
    // Who has the bucket's own key may still find it, as the lock wants.
    let versions = moto.ask(reqwest::Method::GET, "locked?versions", NONE, "").await;
    assert!(versions.contains(&vault::verify::object_of(copied.id)) && versions.contains("packs/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_not_remove_anything_is_told_and_stops_nothing_else() {
    let moto = Moto::start().await;
    moto.ask(PUT, "keeps", NONE, "").await;
    let store = moto.bucket("keeps");
    let vault = made(store.clone()).await;
    let mut copies = Vec::new();
    for seed in 0..2 {
        let disk = Disk(Arc::new(noise(seed, 1 << 20)));
        copies.push(copy(&vault, &[disk], None).await.unwrap());
    }
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:DeleteObject",
        "Resource":["arn:aws:s3:::keeps/packs/*","arn:aws:s3:::keeps/index/*","arn:aws:s3:::keeps/probe/*"]}]}"#;
    moto.ask(PUT, "keeps?policy", NONE, policy).await;
    let probed = probe(&*store).await.unwrap_err();
    assert!(
        matches!(
            &probed,
            Error::Store {
                op: "delete",
                source: StoreError::Denied(_),
                ..
            }
        ),
        "{probed:?}"
    );
    for copy in copies {
        vault.forget(copy.id).await.unwrap();
    }
    assert_eq!(prune::run(&vault, at(1)).await.unwrap().marked, 2);
    for now in 2..5 {
        let pruned = prune::run(&vault, at(now)).await.unwrap();
        assert_eq!((pruned.removed, pruned.waiting), (0, 1));
        let packs = pruned.refused.iter().filter(|r| r.object.starts_with("packs/"));
        assert_eq!(packs.count(), 2);
        assert!(
            pruned
                .refused
                .iter()
                .all(|r| r.why.starts_with("access is denied")),
            "{pruned:?}"
        );
        // Those of the two copies, and the one without their packs.
        assert!(store.list("index/").await.unwrap().len() <= 3);
    }
    moto.ask(reqwest::Method::DELETE, "keeps?policy", NONE, "").await;
    let pruned = prune::run(&vault, at(9)).await.unwrap();
    assert_eq!((pruned.removed, pruned.waiting, pruned.refused), (2, 0, vec![]));
    let found = vault::verify::run(&vault, |_| true, &|_, _| (), &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(found.damaged, []);
}
