//! A bucket as a store, on a server that checks signatures.

use super::support::{Disk, noise};
use super::{copy, restore};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use vault::prune::{self, Pruning};
use vault::store::{Objects, Put, S3, S3Settings, probe};
use vault::{Error, Making, StoreError, Vault, Wrapping};

/// Serves the buckets in this directory, until the test ends; answers where.
async fn serve(root: &Path) -> String {
    _ = rustls::crypto::ring::default_provider().install_default();
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    service.set_auth(SimpleAuth::from_single("somebody", "a secret"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    format!("http://{at}")
}

fn settings(endpoint: &str) -> S3Settings {
    S3Settings {
        endpoint: endpoint.to_owned(),
        region: "us-east-1".into(),
        bucket: "copies".into(),
        prefix: "of/this-site".into(),
        access_key: "somebody".into(),
        secret_key: "a secret".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_copies() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("copies")).unwrap();
    let endpoint = serve(dir.path()).await;
    let store = Arc::new(S3::new(&settings(&endpoint)).unwrap());
    assert!(probe(&*store).await.unwrap().conditional_put);
    let identity = age::x25519::Identity::generate().to_public().to_string();
    let wrapping = Wrapping::Recipient(identity);
    let vault = Vault::create(store.clone(), &wrapping, Making::at(1))
        .await
        .unwrap();
    // Three packs: the longest bodies that are sent.
    let disk = Disk(Arc::new(noise(1, 70 << 20)));
    let made = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    assert!(restore(&vault, &made).await.unwrap()[..] == [disk.clone()]);
    let second = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    assert_eq!(second.moved.new, 0);
    vault.forget(made.id).await.unwrap();
    vault.forget(second.id).await.unwrap();
    let how = |now| Pruning {
        stay: std::time::Duration::ZERO,
        ..Pruning::at(now)
    };
    assert_eq!(prune::run(&vault, how(1)).await.unwrap().marked, 3);
    assert_eq!(prune::run(&vault, how(2)).await.unwrap().removed, 3);
    assert!(store.list("packs/").await.unwrap().is_empty());
    // All of it below the prefix that was asked for.
    let top: Vec<_> = std::fs::read_dir(dir.path().join("copies"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(top, ["of"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_bucket_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("copies")).unwrap();
    let endpoint = serve(dir.path()).await;
    let tried = async |settings: S3Settings| match probe(&S3::new(&settings).unwrap()).await {
        Err(Error::Store { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let wrong_secret = S3Settings {
        secret_key: "another".into(),
        ..settings(&endpoint)
    };
    assert!(matches!(tried(wrong_secret).await, StoreError::Denied(_)));
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let away = tried(settings(&format!("http://{nobody}"))).await;
    assert!(matches!(away, StoreError::Away(_)), "{away:?}");
    let store = S3::new(&settings(&endpoint)).unwrap();
    store
        .put("x", vec![vec![1; 10].into()], Put::Create)
        .await
        .unwrap();
    assert!(matches!(
        store.put("x", vec![vec![2].into()], Put::Create).await,
        Err(StoreError::Exists)
    ));
    assert!(store.get("x", Some(5..11)).await.is_err());
    assert!(matches!(store.get("y", None).await, Err(StoreError::NotFound)));
    store.delete("y").await.unwrap();
}
