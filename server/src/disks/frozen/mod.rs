//! A chain of layers that nobody writes any more, read outside QEMU: the source of a copy.
//!
//! QEMU may have the files open; they are opened for reading alone, without locks, and no file but those given.

mod qcow2;
#[cfg(test)]
mod tests;

use qcow2::{Extent, Qcow2};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use vault::Source;
use vault::source::Raw;

/// How far [`Source::data`] follows what has data, in bytes: a source of many terabytes is not gone through at once.
const FAR: u64 = 64 << 20;

/// Why a chain cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FrozenError {
    #[error("open a chain: it has no layer")]
    Empty,
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the layer {path} is damaged: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error("the layer {path} is not taken: {why}")]
    Refused { path: PathBuf, why: String },
    #[error("look for what changed above {base} layers: the chain has {layers}")]
    Base { base: usize, layers: usize },
}

/// A length, and the layer that has it with where it is there; none where no layer does.
type Piece<'a> = (u64, Option<(&'a Layer, Extent)>);

impl FrozenError {
    fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}

impl From<FrozenError> for io::Error {
    fn from(e: FrozenError) -> Self {
        let kind = match &e {
            FrozenError::Io { source, .. } => source.kind(),
            FrozenError::Damaged { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, e)
    }
}

/// What a chain of layers shows, as long as nobody writes to them. It holds 128 KiB of tables for every layer at most,
/// besides the first-level table (16 KiB for a TiB).
pub struct Frozen {
    /// The base first.
    layers: Vec<Layer>,
}

enum Layer {
    Raw {
        path: PathBuf,
        raw: Raw,
    },
    Qcow2(Qcow2),
    /// What an overlay stands on that is not here to be read.
    Unread(Unread),
}

/// A disk of so many bytes that nobody reads: what is copied of it is known to be there already.
pub struct Unread(pub u64);

impl Source for Unread {
    fn bytes(&self) -> u64 {
        self.0
    }

    fn data(&self, _offset: u64, _end: u64) -> io::Result<Option<Range<u64>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Frozen {
    /// Opens qcow2 layers, the base first. What their heads say of backing files is not followed, only whether there is one.
    ///
    /// # Errors
    ///
    /// A file cannot be read, is damaged, or uses what is not taken: compressed or extended clusters, encryption, a data
    /// file. Or the layers are no chain: the base has a backing file, or another has none.
    pub fn open(chain: &[PathBuf]) -> Result<Self, FrozenError> {
        Self::above(Vec::new(), chain)
    }

    /// Opens qcow2 layers that stand on a raw file.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_on_raw(base: &Path, chain: &[PathBuf]) -> Result<Self, FrozenError> {
        let raw = File::open(base)
            .and_then(Raw::new)
            .map_err(FrozenError::io("open", base))?;
        let path = base.to_owned();
        Self::above(vec![Layer::Raw { path, raw }], chain)
    }

    /// Opens an overlay whose backing file is not read: only what it has itself can be, see [`Self::changed_above`].
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_overlay(path: &Path) -> Result<Self, FrozenError> {
        let bytes = Qcow2::open(path)?.bytes;
        Self::above(vec![Layer::Unread(Unread(bytes))], &[path.to_owned()])
    }

    fn above(mut layers: Vec<Layer>, chain: &[PathBuf]) -> Result<Self, FrozenError> {
        for path in chain {
            let layer = Qcow2::open(path)?;
            // A layer that was left out would be read as zeros, or show through where it must not.
            let why = match (layers.is_empty(), layer.backed) {
                (true, true) => "it has a backing file, and is given as the base",
                (false, false) => "it has no backing file, and is given with layers below it",
                _ => {
                    layers.push(Layer::Qcow2(layer));
                    continue;
                }
            };
            return Err(FrozenError::Refused {
                path: path.clone(),
                why: why.into(),
            });
        }
        if layers.is_empty() {
            return Err(FrozenError::Empty);
        }
        Ok(Self { layers })
    }

    /// What may differ from what the lowest `base_layers` layers show: ranges in bytes, ascending and apart, each as small
    /// as the clusters of the layers above. All of it if `base_layers` is 0; what lies behind the end of the lower layers is
    /// in it, what lies behind the end of this chain is not.
    ///
    /// # Errors
    ///
    /// A table is damaged or cannot be read; or the chain has fewer layers.
    pub fn changed_above(&self, base_layers: usize) -> Result<Vec<Range<u64>>, FrozenError> {
        let bytes = self.bytes();
        let lower = match base_layers.checked_sub(1).map(|n| self.layers.get(n)) {
            None => 0,
            Some(Some(layer)) => layer.bytes(),
            Some(None) => {
                return Err(FrozenError::Base {
                    base: base_layers,
                    layers: self.layers.len(),
                });
            }
        };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        while at < bytes {
            let (mut to, found) = self.find(at, bytes, base_layers)?;
            if found.is_none() && at < lower {
                to = to.min(lower);
            } else {
                match ranges.last_mut() {
                    Some(last) if last.end == at => last.end = to,
                    _ => ranges.push(at..to),
                }
            }
            at = to;
        }
        Ok(ranges)
    }

    /// What is at `from`, in the layers from `lowest` up, and up to where that is so, `end` at most: none where they say
    /// nothing, else the layer that says something, and what.
    fn find(&self, from: u64, mut end: u64, lowest: usize) -> Result<Piece<'_>, FrozenError> {
        for layer in self.layers.iter().skip(lowest).rev() {
            let (to, extent) = layer.extent(from, end)?;
            match extent {
                Extent::Below => end = to,
                found => return Ok((to, Some((layer, found)))),
            }
        }
        Ok((end, None))
    }
}

impl Layer {
    fn bytes(&self) -> u64 {
        match self {
            Self::Raw { raw, .. } => raw.bytes(),
            Self::Qcow2(qcow2) => qcow2.bytes,
            Self::Unread(unread) => unread.bytes(),
        }
    }

    fn extent(&self, from: u64, end: u64) -> Result<(u64, Extent), FrozenError> {
        match self {
            Self::Qcow2(qcow2) => qcow2.extent(from, end),
            Self::Raw { path, raw } => {
                let data = raw
                    .data(from, end)
                    .map_err(FrozenError::io("look for data in", path))?;
                Ok(match data {
                    None => (end, Extent::Zeros),
                    Some(data) if data.start > from => (data.start, Extent::Zeros),
                    Some(data) => (data.end, Extent::Data(from)),
                })
            }
            Self::Unread(_) => Ok((end, Extent::Data(from))),
        }
    }

    fn read(&self, place: u64, buffer: &mut [u8]) -> Result<(), FrozenError> {
        match self {
            Self::Qcow2(qcow2) => qcow2.read(place, buffer),
            Self::Raw { path, raw } => raw.read(place, buffer).map_err(FrozenError::io("read", path)),
            Self::Unread(unread) => {
                let what = Path::new("what an overlay stands on");
                unread.read(place, buffer).map_err(FrozenError::io("read", what))
            }
        }
    }
}

impl Source for Frozen {
    fn bytes(&self) -> u64 {
        self.layers.last().map_or(0, Layer::bytes)
    }

    fn data(&self, offset: u64, end: u64) -> io::Result<Option<Range<u64>>> {
        let end = end.min(self.bytes());
        let mut data: Option<Range<u64>> = None;
        let mut at = offset;
        while at < end && data.as_ref().is_none_or(|data| at - data.start < FAR) {
            let (to, found) = self.find(at, end, 0)?;
            match (found, &mut data) {
                (Some((_, Extent::Data(_))), Some(data)) => data.end = to,
                (Some((_, Extent::Data(_))), none) => *none = Some(at..to),
                (_, Some(_)) => break,
                (_, None) => {}
            }
            at = to;
        }
        Ok(data)
    }

    fn read(&self, offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.bytes() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        while at < end {
            let (to, found) = self.find(at, end, 0)?;
            let (here, rest) = buffer.split_at_mut((to - at) as usize);
            match found {
                Some((layer, Extent::Data(place))) => layer.read(place, here)?,
                _ => here.fill(0),
            }
            buffer = rest;
            at = to;
        }
        Ok(())
    }
}
