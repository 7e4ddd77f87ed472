//! Objects as files below a directory.

use super::{Listed, Objects, Put, direct};
use crate::error::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What a file is called until it is whole.
const PARTIAL: &str = ".partial";

/// A directory.
#[derive(Clone, Debug)]
pub struct Local {
    root: PathBuf,
}

impl Local {
    /// The objects below this directory, which is there.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    async fn off<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = self.root.clone();
        let done = tokio::task::spawn_blocking(move || {
            // A disk that is not mounted is away, not empty.
            if !root.is_dir() {
                return Err(StoreError::Away(format!(
                    "there is no directory {}",
                    root.display()
                )));
            }
            work(&root)
        });
        done.await
            .map_err(|_| StoreError::Other("a thread ended early".into()))?
    }
}

#[async_trait]
impl Objects for Local {
    async fn put(&self, name: &str, pieces: Vec<Bytes>, put: Put) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.off(move |root| write(&root.join(name), &pieces, put)).await
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let name = name.to_owned();
        self.off(move |root| {
            let file = File::open(root.join(name))?;
            let size = file.metadata()?.len();
            let range = range.unwrap_or(0..size);
            if range.end > size {
                return Err(StoreError::Other(format!(
                    "it ends at {size}, before {}",
                    range.end
                )));
            }
            Ok(direct::read(&file, range)?)
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let prefix = prefix.to_owned();
        self.off(move |root| {
            let mut all = Vec::new();
            match below(root, prefix.trim_end_matches('/'), &mut all) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
            Ok(all)
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.off(move |root| match fs::remove_file(root.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        })
        .await
    }
}

fn write(path: &Path, pieces: &[Bytes], put: Put) -> Result<(), StoreError> {
    let dir = path.parent().ok_or(StoreError::NotFound)?;
    fs::create_dir_all(dir)?;
    // No other writer has this one's name.
    let partial = path.with_added_extension(format!("{}{PARTIAL}", uuid::Uuid::new_v4().simple()));
    let written = (|| {
        let mut file = File::create_new(&partial)?;
        direct::write(&mut file, pieces)?;
        file.sync_data()?;
        match put {
            Put::Replace => fs::rename(&partial, path),
            // Unlike rename, it does not replace.
            Put::Create => fs::hard_link(&partial, path).and_then(|()| fs::remove_file(&partial)),
        }
    })();
    if written.is_err() {
        _ = fs::remove_file(&partial);
    }
    written?;
    Ok(File::open(dir)?.sync_all()?)
}

fn below(root: &Path, prefix: &str, all: &mut Vec<Listed>) -> io::Result<()> {
    let dir = root.join(prefix);
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.ends_with(PARTIAL) {
            continue;
        }
        let name = match prefix {
            "" => name,
            prefix => format!("{prefix}/{name}"),
        };
        if entry.file_type()?.is_dir() {
            below(root, &name, all)?;
        } else {
            match entry.metadata() {
                Ok(about) => all.push(Listed {
                    name,
                    size: about.len(),
                }),
                // Deleted since.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}
