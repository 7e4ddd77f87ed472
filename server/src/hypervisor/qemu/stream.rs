//! A migration's stream, taken apart as it comes: the pages of the guest's memory go to their places in a file, all else goes
//! on as it is. What goes on is a stream, too: a QEMU that has the file mapped as its memory loads it.
//!
//! The format is that of QEMU's migration/savevm.c and migration/ram.c, as scripts/analyze-migration.py there reads it.
//! Whatever is not known is refused: better no fork than one with a page amiss.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::path::PathBuf;

/// What QEMU calls the guest's memory, for every machine that is started here.
pub const MEMORY: &str = "pc.ram";

const PAGE: usize = 4096;
const MAGIC: u32 = 0x5145_564d;
const VERSION: u32 = 3;
const RAM_VERSION: u32 = 4;

/// Kinds of sections.
const START: u8 = 1;
const PART: u8 = 2;
const END: u8 = 3;
const CONFIGURATION: u8 = 7;
const FOOTER: u8 = 0x7e;

/// Flags of a page, in the low bits of its offset.
const ZERO: u64 = 0x02;
const SIZES: u64 = 0x04;
const WHOLE: u64 = 0x08;
const END_OF_PART: u64 = 0x10;
const SAME_BLOCK: u64 = 0x20;

/// How much is read at once, in bytes.
const CHUNK: usize = 1 << 20;
/// How many pages are written at once: the most that the kernel takes is 1024.
const RUN: usize = 256;

/// Why a stream could not be taken apart.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Its sender has gone, or says no more.
    #[error("read a migration")]
    Read(#[source] io::Error),
    /// A page, or the rest, could not be written.
    #[error("write {path}")]
    Write {
        /// Where to.
        path: PathBuf,
        #[source]
        /// Why.
        source: io::Error,
    },
    /// It has something that is not known.
    #[error("the stream of a migration is not understood: {0}")]
    Unknown(String),
}

/// Where it goes: files, with their names for what is told of them.
pub struct Target<'a> {
    /// As long as the guest's memory, and all holes.
    pub memory: (&'a File, PathBuf),
    /// What a fork loads.
    pub state: (&'a File, PathBuf),
}

/// Takes a stream apart until it ends. It is whole if its sender says so: the end of a device's state cannot be told.
pub fn split(from: impl Read, to: &Target<'_>) -> Result<(), StreamError> {
    let size = to.memory.0.metadata().map(|m| m.len());
    let mut split = Split {
        from,
        to,
        size: size.map_err(|e| to.failed(&to.memory.1)(e))?,
        buffer: vec![0; CHUNK],
        at: 0,
        end: 0,
        rest: Vec::new(),
        run: Vec::new(),
        run_at: 0,
        there: Vec::new(),
        guests: None,
    };
    split.whole()
}

impl Target<'_> {
    fn failed(&self, path: &std::path::Path) -> impl FnOnce(io::Error) -> StreamError {
        let path = path.to_owned();
        move |source| StreamError::Write { path, source }
    }
}

struct Split<'a, R> {
    from: R,
    to: &'a Target<'a>,
    /// Of the guest's memory, in bytes.
    size: u64,
    /// What has been read; from `at` to `end` it is yet to be looked at.
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    /// What goes on.
    rest: Vec<u8>,
    /// Pages that follow each other in the memory: where they begin in the buffer.
    run: Vec<usize>,
    run_at: u64,
    /// Which pages have been written, a bit for each.
    there: Vec<u64>,
    /// Whether the block of the page before is the guest's memory.
    guests: Option<bool>,
}

impl<R: Read> Split<'_, R> {
    fn whole(&mut self) -> Result<(), StreamError> {
        let words = usize::try_from(self.size / PAGE as u64 / 64 + 1);
        self.there = vec![0; words.map_err(|_| unknown("the memory is too large"))?];
        if (self.be32()?, self.be32()?) != (MAGIC, VERSION) {
            return Err(unknown("it does not begin as one"));
        }
        let mut ram = None;
        loop {
            let kind = self.byte()?;
            match kind {
                CONFIGURATION => {
                    let n = self.be32()? as usize;
                    self.pass(n)?;
                }
                START => {
                    let (id, name) = (self.be32()?, self.name()?);
                    let (_, version) = (self.be32()?, self.be32()?);
                    if name != b"ram" || version != RAM_VERSION || ram.replace(id).is_some() {
                        let name = String::from_utf8_lossy(&name).into_owned();
                        return Err(unknown(format!("section {name}, version {version}")));
                    }
                    self.pages(id)?;
                }
                PART | END => {
                    let id = self.be32()?;
                    if ram != Some(id) {
                        return Err(unknown(format!("a part of section {id}")));
                    }
                    self.pages(id)?;
                    if kind == END {
                        break;
                    }
                }
                _ => return Err(unknown(format!("a section of kind {kind}"))),
            }
        }
        // The devices.
        self.write_run()?;
        self.rest.extend_from_slice(&self.buffer[self.at..self.end]);
        loop {
            self.write_rest()?;
            match self.from.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.rest.extend_from_slice(&self.buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(StreamError::Read(e)),
            }
        }
    }

    /// One part of the memory's section, with its footer.
    fn pages(&mut self, id: u32) -> Result<(), StreamError> {
        loop {
            let head = self.peek_be64()?;
            let (at, flags) = (head & !(PAGE as u64 - 1), head & (PAGE as u64 - 1));
            match flags {
                SIZES => {
                    self.pass(8)?;
                    self.sizes(at)?;
                }
                END_OF_PART => {
                    self.pass(8)?;
                    if (self.byte()?, self.be32()?) != (FOOTER, id) {
                        return Err(unknown("a part without an end"));
                    }
                    return Ok(());
                }
                _ if flags & !SAME_BLOCK == WHOLE => self.page(at, flags, PAGE)?,
                _ if flags & !SAME_BLOCK == ZERO => self.page(at, flags, 1)?,
                _ => return Err(unknown(format!("a page with the flags {flags:#x}"))),
            }
        }
    }

    /// Which blocks there are.
    fn sizes(&mut self, mut total: u64) -> Result<(), StreamError> {
        while total > 0 {
            let (name, size) = (self.name()?, self.be64()?);
            if name == MEMORY.as_bytes() && size != self.size {
                return Err(unknown(format!("a memory of {size} bytes")));
            }
            total = total
                .checked_sub(size)
                .ok_or_else(|| unknown("blocks that are more than all of them"))?;
        }
        Ok(())
    }

    /// A page, of which so many bytes follow.
    fn page(&mut self, at: u64, flags: u64, bytes: usize) -> Result<(), StreamError> {
        let mut head = 8;
        if flags & SAME_BLOCK == 0 {
            let n = usize::from(self.peek(9)?[8]);
            head = 9 + n;
            let is = self.peek(head)?[9..] == *MEMORY.as_bytes();
            self.guests = Some(is);
        }
        match self.guests {
            None => Err(unknown("a page of no block")),
            Some(false) => self.pass(head + bytes).map(drop),
            Some(true) => {
                self.peek(head + bytes)?;
                self.at += head + bytes;
                self.place(at, self.at - bytes, bytes)
            }
        }
    }

    /// Puts a page of the guest's, which begins there in the buffer, to its place.
    fn place(&mut self, at: u64, begins: usize, bytes: usize) -> Result<(), StreamError> {
        if at + PAGE as u64 > self.size {
            return Err(unknown("a page behind the end of the memory"));
        }
        let page = usize::try_from(at / PAGE as u64).map_err(|_| unknown("the memory is too large"))?;
        let (word, bit) = (page / 64, 1 << (page % 64));
        if bytes == 1 {
            if self.buffer[begins] != 0 {
                return Err(unknown("a page of one byte that is not zero"));
            }
            if self.there[word] & bit != 0 {
                // It was written, and is zero now.
                self.write_run()?;
                self.write_at(at, &[IoSlice::new(&[0; PAGE])])?;
            }
            return Ok(());
        }
        self.there[word] |= bit;
        if self.run.len() == RUN || at != self.run_at + (self.run.len() * PAGE) as u64 {
            self.write_run()?;
            self.run_at = at;
        }
        self.run.push(begins);
        Ok(())
    }

    fn write_run(&mut self) -> Result<(), StreamError> {
        let slices: Vec<_> = self
            .run
            .iter()
            .map(|&at| IoSlice::new(&self.buffer[at..at + PAGE]))
            .collect();
        if !slices.is_empty() {
            self.write_at(self.run_at, &slices)?;
        }
        self.run.clear();
        Ok(())
    }

    fn write_at(&self, mut at: u64, mut slices: &[IoSlice<'_>]) -> Result<(), StreamError> {
        let (file, path) = &self.to.memory;
        let mut skip = 0;
        while let Some(first) = slices.first() {
            // Of one that was written in part, the rest by itself.
            let wrote = match skip {
                0 => rustix::io::pwritev(file, slices, at),
                skip => rustix::io::pwrite(file, &first[skip..], at),
            };
            let wrote = match wrote {
                Ok(0) => return Err(self.to.failed(path)(io::ErrorKind::WriteZero.into())),
                Ok(n) => n,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(self.to.failed(path)(e.into())),
            };
            at += wrote as u64;
            let done = skip + wrote;
            (slices, skip) = (&slices[done / PAGE..], done % PAGE);
        }
        Ok(())
    }

    fn write_rest(&mut self) -> Result<(), StreamError> {
        let (mut file, path) = (self.to.state.0, &self.to.state.1);
        let written = file.write_all(&self.rest);
        written.map_err(|e| self.to.failed(path)(e))?;
        self.rest.clear();
        Ok(())
    }

    /// The next so many bytes, which are not taken yet.
    fn peek(&mut self, n: usize) -> Result<&[u8], StreamError> {
        while self.end - self.at < n {
            // The pages of the run are in the buffer.
            self.write_run()?;
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
            match self.from.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(StreamError::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.end += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(StreamError::Read(e)),
            }
        }
        Ok(&self.buffer[self.at..self.at + n])
    }

    /// Takes so many bytes, which go on.
    fn pass(&mut self, n: usize) -> Result<&[u8], StreamError> {
        if n > CHUNK / 2 {
            return Err(unknown(format!("a field of {n} bytes")));
        }
        self.peek(n)?;
        let taken = self.at..self.at + n;
        self.at += n;
        if self.rest.len() > CHUNK {
            self.write_rest()?;
        }
        self.rest.extend_from_slice(&self.buffer[taken.clone()]);
        Ok(&self.buffer[taken])
    }

    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        array
    }

    fn byte(&mut self) -> Result<u8, StreamError> {
        Ok(self.pass(1)?[0])
    }

    fn be32(&mut self) -> Result<u32, StreamError> {
        self.pass(4).map(|b| u32::from_be_bytes(Self::array(b)))
    }

    fn be64(&mut self) -> Result<u64, StreamError> {
        self.pass(8).map(|b| u64::from_be_bytes(Self::array(b)))
    }

    fn peek_be64(&mut self) -> Result<u64, StreamError> {
        self.peek(8).map(|b| u64::from_be_bytes(Self::array(b)))
    }

    /// A name, with its length before it.
    fn name(&mut self) -> Result<Vec<u8>, StreamError> {
        let n = usize::from(self.byte()?);
        self.pass(n).map(<[u8]>::to_vec)
    }
}

fn unknown(what: impl Into<String>) -> StreamError {
    StreamError::Unknown(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// Four pages.
    const SIZE: u64 = 4 * PAGE as u64;

    #[derive(Default)]
    struct Made(Vec<u8>);

    impl Made {
        fn be32(mut self, n: u32) -> Self {
            self.0.extend(n.to_be_bytes());
            self
        }
        fn be64(mut self, n: u64) -> Self {
            self.0.extend(n.to_be_bytes());
            self
        }
        fn byte(mut self, n: u8) -> Self {
            self.0.push(n);
            self
        }
        fn raw(mut self, bytes: &[u8]) -> Self {
            self.0.extend(bytes);
            self
        }
        fn name(self, name: &str) -> Self {
            self.byte(name.len() as u8).raw(name.as_bytes())
        }
        fn begin() -> Self {
            let made = Self::default().be32(MAGIC).be32(VERSION);
            let made = made.byte(CONFIGURATION).be32(2).raw(b"pc");
            let made = made.byte(START).be32(2).name("ram").be32(0).be32(RAM_VERSION);
            let made = made.be64((SIZE + PAGE as u64) | SIZES);
            let made = made.name(MEMORY).be64(SIZE).name("rom").be64(PAGE as u64);
            made.be64(END_OF_PART).footer()
        }
        fn footer(self) -> Self {
            self.byte(FOOTER).be32(2)
        }
        fn page(self, n: u64, name: Option<&str>, fill: u8) -> Self {
            let at = n * PAGE as u64;
            match name {
                Some(name) => self.be64(at | WHOLE).name(name),
                None => self.be64(at | WHOLE | SAME_BLOCK),
            }
            .raw(&[fill; PAGE])
        }
        fn zero(self, n: u64) -> Self {
            self.be64((n * PAGE as u64) | ZERO | SAME_BLOCK).byte(0)
        }
        fn part(self, kind: u8) -> Self {
            self.byte(kind).be32(2)
        }
        fn end_part(self) -> Self {
            self.be64(END_OF_PART).footer()
        }
    }

    fn taken(stream: &[u8]) -> (Result<(), StreamError>, Vec<u8>, Vec<u8>) {
        let (memory, state) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        memory.set_len(SIZE).unwrap();
        let target = Target {
            memory: (&memory, "memory".into()),
            state: (&state, "state".into()),
        };
        // A byte at a time at first: nothing may depend on what arrives together.
        let done = split(stream.take(100).chain(&stream[stream.len().min(100)..]), &target);
        let read = |file: &File| {
            let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        (done, read(&memory), read(&state))
    }

    fn whole() -> Made {
        Made::begin()
            .part(PART)
            .page(0, Some(MEMORY), 1)
            .page(1, None, 2)
            .zero(2)
            .page(3, None, 4)
            .page(0, Some("rom"), 9)
            .end_part()
            .part(END)
            .page(1, Some(MEMORY), 5)
            .zero(3)
            .end_part()
            .raw(b"\x04devices\0the end")
    }

    #[test]
    fn pages_go_to_their_places_and_all_else_goes_on() {
        let (done, memory, state) = taken(&whole().0);
        done.unwrap();
        let expected: Vec<u8> = [1, 5, 0, 0].iter().flat_map(|fill| [*fill; PAGE]).collect();
        assert_eq!(memory, expected);
        let left = Made::begin()
            .part(PART)
            .page(0, Some("rom"), 9)
            .end_part()
            .part(END)
            .end_part()
            .raw(b"\x04devices\0the end");
        assert_eq!(state, left.0);
    }

    #[test]
    fn one_that_is_cut_off_anywhere_in_its_pages_is_refused() {
        let whole = whole().0;
        let devices = whole.len() - b"\x04devices\0the end".len();
        for n in (0..devices).step_by(7).chain(devices - 8..devices) {
            let (done, ..) = taken(&whole[..n]);
            assert!(matches!(done, Err(StreamError::Read(_))), "{n}: {done:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = [
            Made::default().be32(MAGIC).be32(2),
            Made::begin().byte(4),
            Made::begin().part(PART).page(0, None, 1),
            Made::begin().part(PART).page(4, Some(MEMORY), 1),
            Made::begin().part(PART).be64(0x100),
            Made::begin().part(PART).be64(WHOLE | ZERO).name(MEMORY),
            Made::begin().part(PART).be64(ZERO).name(MEMORY).byte(7),
            Made::begin().part(PART).be64(END_OF_PART).byte(FOOTER).be32(3),
            Made::begin().byte(PART).be32(3),
            Made::begin().byte(START).be32(3).name("vfio").be32(0).be32(1),
        ];
        for (n, made) in refused.into_iter().enumerate() {
            let (done, ..) = taken(&made.0);
            assert!(matches!(done, Err(StreamError::Unknown(_))), "{n}: {done:?}");
        }
    }
}
