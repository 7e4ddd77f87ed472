//! Layers that hold nothing: a small file each, so that they survive the server and a sweep finds them.

use super::*;
use std::fs;

/// Disks for tests and load: every answer comes at once. The files are a line long and the calls stay on the thread:
/// handing them to another would take longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimDisks;

/// What a layer without data is said to take.
const EMPTY: u64 = 196_608;
/// What a copy is said to move.
const COPY: u64 = 64 << 20;

impl SimDisks {
    fn make(path: &Path, info: LayerInfo) -> Result<(), DiskError> {
        if path.exists() {
            return Ok(());
        }
        let text = format!("{} {}\n", info.virtual_bytes, info.allocated_bytes);
        fs::write(path, text).map_err(DiskError::io("make", path))
    }

    fn read(path: &Path) -> Result<LayerInfo, DiskError> {
        let text = fs::read_to_string(path).map_err(DiskError::io("read", path))?;
        let text = text.lines().next().unwrap_or_default();
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(virtual_bytes)), Some(Ok(allocated_bytes))) => Ok(LayerInfo {
                virtual_bytes,
                allocated_bytes,
            }),
            _ => Err(DiskError::Refused {
                path: path.to_owned(),
                why: "it is no simulated layer".into(),
            }),
        }
    }
}

/// The layers that one has taken up, the lowest first: each has a line behind that of the sizes.
fn taken_up(path: &Path) -> io::Result<Vec<LayerId>> {
    let text = fs::read_to_string(path)?;
    let ids = text.lines().skip(1).map(str::parse);
    ids.collect::<Result<_, _>>().map_err(io::Error::other)
}

/// Has a layer take up those below it, the lowest first; one that an earlier call took up may be gone.
pub fn take_up(into: &Path, between: impl Iterator<Item = (LayerId, PathBuf)>) -> io::Result<()> {
    let there = taken_up(into)?;
    let mut more = Vec::new();
    for (layer, path) in between.filter(|(layer, _)| !there.contains(layer)) {
        match taken_up(&path) {
            Ok(taken) => more.extend(taken),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        more.push(layer);
    }
    let text = fs::read_to_string(into)?;
    let sizes = text.lines().next().unwrap_or_default();
    let all = more.iter().chain(&there).map(|layer| format!("{layer}\n"));
    fs::write(into, format!("{sizes}\n{}", all.collect::<String>()))
}

/// What a guest of the simulation is taken to have written into each layer, in bytes.
const WRITTEN: u64 = 64 << 10;
/// In how many places that may be, at most: all are there before a disk has grown, and after.
const PLACES: u64 = 4096;

/// A disk of the simulation: each layer has some bytes that are its own, at a place that its id says.
struct SimDisk {
    bytes: u64,
    /// The lowest first, each with those that it has taken up.
    layers: Vec<Vec<LayerId>>,
}

impl SimDisk {
    fn place(&self, layer: LayerId) -> Range<u64> {
        let places = (self.bytes / WRITTEN).clamp(1, PLACES);
        let at = (layer.0.as_u128() % u128::from(places)) as u64 * WRITTEN;
        at..(at + WRITTEN).min(self.bytes)
    }

    /// What the layers above the lowest have.
    fn written(&self, below: usize) -> Vec<Range<u64>> {
        let above = self.layers.iter().skip(below);
        let mut all: Vec<_> = above.flatten().map(|layer| self.place(*layer)).collect();
        all.sort_by_key(|range| range.start);
        all.dedup();
        all
    }
}

impl vault::Source for SimDisk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn data(&self, offset: u64, end: u64) -> io::Result<Option<Range<u64>>> {
        let mut all = self.written(0).into_iter();
        let found = all.find(|range| range.end > offset && range.start < end);
        Ok(found.map(|range| range.start.max(offset)..range.end.min(end)))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        for layer in self.layers.iter().flatten() {
            let place = self.place(*layer);
            for at in place.start.max(offset)..place.end.min(end) {
                buffer[(at - offset) as usize] = layer.0.as_bytes()[(at % 16) as usize];
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Disks for SimDisks {
    async fn create_blank(&self, layer: &LayerFile, virtual_bytes: u64) -> Result<(), DiskError> {
        Self::make(
            &layer.path,
            LayerInfo {
                virtual_bytes,
                allocated_bytes: EMPTY,
            },
        )
    }

    async fn create_variables(&self, layer: &LayerFile, template: &Path) -> Result<(), DiskError> {
        let size = std::fs::metadata(template)
            .map_err(DiskError::io("look at", template))?
            .len();
        self.create_blank(layer, size).await
    }

    async fn create_overlays(&self, layers: &[LayerFile], backing: &LayerFile) -> Result<(), DiskError> {
        for layer in layers {
            self.create_overlay(layer, backing, None).await?;
        }
        Ok(())
    }

    async fn create_overlay(
        &self,
        layer: &LayerFile,
        backing: &LayerFile,
        virtual_bytes: Option<u64>,
    ) -> Result<(), DiskError> {
        let virtual_bytes = match (virtual_bytes, &backing.shown) {
            (Some(bytes), Some(_)) => bytes,
            (asked, _) => asked.unwrap_or(Self::read(&backing.path)?.virtual_bytes),
        };
        Self::make(
            &layer.path,
            LayerInfo {
                virtual_bytes,
                allocated_bytes: EMPTY,
            },
        )
    }

    async fn grow(&self, layer: &LayerFile, virtual_bytes: u64) -> Result<(), DiskError> {
        let LayerInfo { allocated_bytes, .. } = Self::read(&layer.path)?;
        let taken = taken_up(&layer.path).map_err(DiskError::io("grow", &layer.path))?;
        let taken: String = taken.iter().map(|layer| format!("{layer}\n")).collect();
        let text = format!("{virtual_bytes} {allocated_bytes}\n{taken}");
        fs::write(&layer.path, text).map_err(DiskError::io("grow", &layer.path))
    }

    async fn copy_flat(
        &self,
        chain: &[LayerFile],
        to: &LayerFile,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        let Some(active) = chain.last() else {
            return Err(DiskError::Refused {
                path: to.path.clone(),
                why: "a chain of no layers".into(),
            });
        };
        let virtual_bytes = match active.shown {
            Some(_) => COPY,
            None => Self::read(&active.path)?.virtual_bytes,
        };
        for quarter in 1..=4 {
            progress(COPY / 4 * quarter, COPY);
        }
        Self::make(
            &to.path,
            LayerInfo {
                virtual_bytes,
                allocated_bytes: COPY,
            },
        )
    }

    async fn merge_up(
        &self,
        into: &LayerFile,
        between: &[LayerFile],
        _base: Option<&LayerFile>,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        let between = between.iter().map(|layer| (layer.id, layer.path.clone()));
        take_up(&into.path, between).map_err(DiskError::io("merge layers into", &into.path))?;
        progress(EMPTY, EMPTY);
        Ok(())
    }

    async fn info(&self, layer: &LayerFile) -> Result<LayerInfo, DiskError> {
        Self::read(&layer.path)
    }

    /// A real image is looked at as such; a layer of the simulation is one, too.
    async fn inspect(
        &self,
        from: &Path,
        format: Option<ImageFormat>,
        most: u64,
    ) -> Result<Vec<Found>, DiskError> {
        let virtual_bytes = match Self::read(from) {
            Ok(info) => info.virtual_bytes,
            Err(_) => return image::inspect(from, format, most),
        };
        Ok(vec![Found {
            format: ImageFormat::Raw,
            offset: 0,
            bytes: COPY,
            virtual_bytes,
        }])
    }

    async fn import(
        &self,
        _helper: &Helper,
        from: &Path,
        found: &Found,
        to: &LayerFile,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        fs::metadata(from).map_err(DiskError::io("look at", from))?;
        for quarter in 1..=4 {
            progress(COPY / 4 * quarter, COPY);
        }
        let info = LayerInfo {
            virtual_bytes: found.virtual_bytes,
            allocated_bytes: COPY,
        };
        Self::make(&to.path, info)
    }

    async fn frozen(&self, chain: &[LayerFile], below: Option<usize>) -> Result<FrozenDisk, DiskError> {
        let Some(top) = chain.last() else {
            return Err(DiskError::Refused {
                path: PathBuf::new(),
                why: "a chain of no layers".into(),
            });
        };
        let of = |layer: &LayerFile| {
            let mut all = match layer.shown {
                Some(_) => Vec::new(),
                None => taken_up(&layer.path).map_err(DiskError::io("read", &layer.path))?,
            };
            all.push(layer.id);
            Ok(all)
        };
        let source = SimDisk {
            bytes: Self::read(&top.path)?.virtual_bytes,
            layers: chain.iter().map(of).collect::<Result<_, DiskError>>()?,
        };
        let changed = below.map(|below| source.written(below));
        Ok(FrozenDisk {
            source: Arc::new(source),
            changed,
        })
    }

    async fn written(&self, overlay: &Path) -> Result<FrozenDisk, DiskError> {
        // The simulation adapts nothing.
        Err(DiskError::Refused {
            path: overlay.to_owned(),
            why: "the simulation has no overlays".into(),
        })
    }

    async fn export(
        &self,
        chain: &[LayerFile],
        to: &Path,
        _format: ExportFormat,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        let layer = LayerFile {
            id: LayerId(uuid::Uuid::nil()),
            path: to.to_owned(),
            shown: None,
        };
        self.copy_flat(chain, &layer, progress).await
    }

    async fn renew_seed(
        &self,
        from: &Path,
        to: &Path,
        instance_id: &str,
        hostname: &str,
    ) -> Result<(), DiskError> {
        fs::metadata(from).map_err(DiskError::io("read the seed", from))?;
        fs::write(to, seed::meta_data(instance_id, hostname, None)).map_err(DiskError::io("make", to))
    }

    async fn write_seed(
        &self,
        path: &Path,
        instance_id: &str,
        hostname: &str,
        ci: &CloudInit,
    ) -> Result<(), DiskError> {
        let text = seed::meta_data(instance_id, hostname, ci.meta_data.as_deref());
        fs::write(path, text).map_err(DiskError::io("make", path))
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        remove_file(path)
    }

    async fn space(&self, dir: &Path) -> Result<Space, DiskError> {
        space(dir)
    }
}
