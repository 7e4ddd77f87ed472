//! How many requests a copy to a bucket takes, as the server counts them.

use crate::{Result, copy};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;
use vault::store::{S3, S3Settings};
use vault::{Making, Vault, Wrapping};

/// Copies a disk to a bucket in this directory.
pub async fn take(disk: &str, dir: &Path) -> Result<Value> {
    std::fs::create_dir(dir.join("copies"))?;
    let counted = Arc::new(AtomicU64::new(0));
    let store = S3::new(&S3Settings {
        endpoint: serve(dir, counted.clone()).await?,
        region: "us-east-1".into(),
        bucket: "copies".into(),
        prefix: String::new(),
        access_key: "bench".into(),
        secret_key: "a secret".into(),
    })?;
    let vault = Vault::create(
        Arc::new(store),
        &Wrapping::Passphrase("bench".into()),
        Making::at(1),
    )
    .await?;
    let before = counted.load(Ordering::Relaxed);
    let mut told = copy(&vault, disk, None).await?;
    told["requests"] = (counted.load(Ordering::Relaxed) - before).into();
    Ok(told)
}

/// Serves the buckets in this directory, for as long as this process is there; answers where.
async fn serve(root: &Path, counted: Arc<AtomicU64>) -> Result<String> {
    // The client asks for one, though it speaks no TLS.
    drop(rustls::crypto::ring::default_provider().install_default());
    let files = s3s_fs::FileSystem::new(root).map_err(|e| format!("{}: {e:?}", root.display()))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single("bench", "a secret"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (service, counted) = (service.clone(), counted.clone());
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                counted.fetch_add(1, Ordering::Relaxed);
                Service::call(&service, request)
            });
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // A connection that breaks is the client's to tell.
                _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    Ok(format!("http://{at}"))
}
