//! A third server of S3, by others: garage. It has no conditional put.

use super::support::{Disk, noise};
use super::{copy, restore};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use vault::prune::{self, Pruning};
use vault::store::{Objects, S3, S3Settings, probe};
use vault::{Error, Making, StoreError, Vault, Wrapping};

const KEY: &str = "GK0123456789abcdef01234567";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Ends with the test.
struct Garage {
    _server: Child,
    endpoint: String,
}

/// Each line, until nobody writes any more.
fn tell(from: impl AsyncRead + Send + Unpin + 'static, told: tokio::sync::mpsc::UnboundedSender<String>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            _ = told.send(line);
        }
    });
}

impl Garage {
    async fn start(dir: &Path) -> Self {
        _ = rustls::crypto::ring::default_provider().install_default();
        // It takes no port 0: these are free now.
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (api, rpc) = (free(), free());
        let config = format!(
            r#"
            metadata_dir = "{dir}/meta"
            data_dir = "{dir}/data"
            db_engine = "sqlite"
            replication_factor = 1
            rpc_bind_addr = "{rpc}"
            rpc_public_addr = "{rpc}"
            rpc_secret = "{SECRET}"
            [s3_api]
            s3_region = "garage"
            api_bind_addr = "{api}"
            "#,
            dir = dir.display()
        );
        let file = dir.join("garage.toml");
        std::fs::write(&file, config).unwrap();
        let mut server = Command::new("garage")
            .arg("-c")
            .arg(&file)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET)
            .env("GARAGE_DEFAULT_BUCKET", "copies")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect(
                "garage is not on PATH: scripts/setup.sh soak installs it, scripts/env.sh says where it is",
            );
        let (told, mut lines) = tokio::sync::mpsc::unbounded_channel();
        tell(server.stdout.take().unwrap(), told.clone());
        tell(server.stderr.take().unwrap(), told);
        let mut all = Vec::new();
        let listens = async {
            while let Some(line) = lines.recv().await {
                let ready = line.contains("listening") && line.contains(&api.to_string());
                all.push(line);
                if ready {
                    return true;
                }
            }
            false
        };
        let listens = tokio::time::timeout(Duration::from_secs(60), listens).await;
        assert!(listens.unwrap_or_default(), "{all:#?}");
        Self {
            _server: server,
            endpoint: format!("http://{api}"),
        }
    }

    fn bucket(&self, bucket: &str, secret: &str) -> Arc<S3> {
        let settings = S3Settings {
            endpoint: self.endpoint.clone(),
            region: "garage".into(),
            bucket: bucket.into(),
            prefix: "of/this-site".into(),
            access_key: KEY.into(),
            secret_key: secret.into(),
        };
        Arc::new(S3::new(&settings).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "garage takes long to build: make soak"]
async fn a_store_without_conditional_put_keeps_copies() {
    let dir = tempfile::tempdir().unwrap();
    let garage = Garage::start(dir.path()).await;
    let store = garage.bucket("copies", SECRET);
    assert!(!probe(&*store).await.unwrap().conditional_put);
    let identity = age::x25519::Identity::generate().to_public().to_string();
    let wrapping = Wrapping::Recipient(identity);
    let vault = Vault::create(store.clone(), &wrapping, Making::at(1))
        .await
        .unwrap();
    let disk = Disk(Arc::new(noise(1, 70 << 20)));
    let first = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    assert!(restore(&vault, &first).await.unwrap()[..] == [disk.clone()]);
    let second = copy(&vault, std::slice::from_ref(&disk), None).await.unwrap();
    assert_eq!(second.moved.new, 0);
    vault.forget(first.id).await.unwrap();
    vault.forget(second.id).await.unwrap();
    let how = |now| Pruning {
        stay: Duration::ZERO,
        ..Pruning::at(now)
    };
    assert_eq!(prune::run(&vault, how(1)).await.unwrap().marked, 3);
    assert_eq!(prune::run(&vault, how(2)).await.unwrap().removed, 3);
    assert!(store.list("packs/").await.unwrap().is_empty());

    let tried = async |store: Arc<S3>| match probe(&*store).await {
        Err(Error::Store { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let wrong = tried(garage.bucket("copies", &"f".repeat(64))).await;
    assert!(matches!(wrong, StoreError::Denied(_)), "{wrong:?}");
    let missing = tried(garage.bucket("nobodys", SECRET)).await;
    assert_eq!(missing.to_string(), "there is no bucket nobodys");
}
