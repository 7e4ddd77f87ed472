//! A client of NBD that reads: what QEMU shows of a disk while it is backed up, and which parts of it have changed.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use vault::Source;

const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const CHUNK_MAGIC: u32 = 0x668e_33ef;
/// Of both sides: options are answered; no padding.
const FLAGS: u16 = 3;

const OPT_STARTTLS: u32 = 5;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const OPT_SET_META_CONTEXT: u32 = 10;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_META_CONTEXT: u32 = 4;
const REP_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;

const CMD_READ: u16 = 0;
const CMD_DISC: u16 = 2;
const CMD_BLOCK_STATUS: u16 = 7;
const CHUNK_DONE: u16 = 1;
const CHUNK_OFFSET_DATA: u16 = 1;
const CHUNK_OFFSET_HOLE: u16 = 2;
const CHUNK_BLOCK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15;

/// The longest read that is asked for at once, in bytes.
const LONGEST_READ: usize = 16 << 20;
/// How much is asked about at once, in bytes; aligned.
const LONGEST_STATUS: u64 = 1 << 30;
/// The longest message that is believed, beside data.
const LONGEST_MESSAGE: usize = 16 << 20;

/// An extent of `base:allocation` that reads as zeros.
const ZERO: u32 = 1 << 1;
/// An extent of a dirty bitmap that has changed.
const DIRTY: u32 = 1;

/// What carries bytes to a server.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Opens a stream to a server, and has greeted it: as many as are read from at once.
pub type Dial = Box<dyn Fn() -> io::Result<Box<dyn Stream>> + Send + Sync>;

fn broken(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("NBD: {}", what.into()))
}

/// That a stream has ended says nothing of what it was.
fn closed(e: io::Error) -> io::Error {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match e.kind() {
        kind @ (BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) => io::Error::new(
            kind,
            format!("NBD: the other side has closed the connection: {e}"),
        ),
        _ => e,
    }
}

/// A connection that has chosen an export.
struct Client {
    stream: Box<dyn Stream>,
    bytes: u64,
    context: u32,
    cookie: u64,
}

fn u16_of(stream: &mut dyn Stream) -> io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn u32_of(stream: &mut dyn Stream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn u64_of(stream: &mut dyn Stream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

fn message(stream: &mut dyn Stream, length: u32) -> io::Result<Vec<u8>> {
    let length = length as usize;
    if length > LONGEST_MESSAGE {
        return Err(broken(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The number at this place of a message.
fn number<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    let found = bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
    found.ok_or_else(|| broken("a message that is too short"))
}

/// Greets a server: from then on options may be asked for.
///
/// # Errors
///
/// It is no server of NBD, or an old one, or does not answer.
pub fn greet(stream: &mut dyn Stream) -> io::Result<()> {
    greeted(stream).map_err(closed)
}

fn greeted(stream: &mut dyn Stream) -> io::Result<()> {
    if u64_of(stream)? != NBD_MAGIC || u64_of(stream)? != OPTION_MAGIC {
        return Err(broken("the other side is no server of NBD"));
    }
    let flags = u16_of(stream)?;
    if flags & FLAGS != FLAGS {
        return Err(broken("the server is too old"));
    }
    stream.write_all(&u32::from(FLAGS).to_be_bytes())
}

/// Asks a server that was greeted for TLS: from then on it awaits that.
///
/// # Errors
///
/// It has none, or does not answer.
pub fn start_tls(stream: &mut dyn Stream) -> io::Result<()> {
    option(stream, OPT_STARTTLS, &[]).map(drop)
}

/// Has a server that was greeted answer something.
///
/// # Errors
///
/// It does not.
pub fn probe(stream: &mut dyn Stream) -> io::Result<()> {
    option(stream, OPT_STRUCTURED_REPLY, &[])
        .map(drop)
        .map_err(closed)
}

/// Asks for an option; answers what came until it was granted.
fn option(stream: &mut dyn Stream, option: u32, data: &[u8]) -> io::Result<Vec<(u32, Vec<u8>)>> {
    let mut request = OPTION_MAGIC.to_be_bytes().to_vec();
    request.extend(option.to_be_bytes());
    request.extend((data.len() as u32).to_be_bytes());
    request.extend(data);
    stream.write_all(&request)?;
    stream.flush()?;
    let mut all = Vec::new();
    loop {
        if u64_of(stream)? != OPTION_REPLY_MAGIC || u32_of(stream)? != option {
            return Err(broken("an answer to something else"));
        }
        let (kind, length) = (u32_of(stream)?, u32_of(stream)?);
        let data = message(stream, length)?;
        match kind {
            REP_ACK => return Ok(all),
            kind if kind & REP_ERROR != 0 => {
                let said = String::from_utf8_lossy(&data);
                return Err(broken(format!(
                    "the server refuses option {option} ({}): {said}",
                    kind & !REP_ERROR
                )));
            }
            kind => all.push((kind, data)),
        }
    }
}

fn text(into: &mut Vec<u8>, text: &str) {
    into.extend((text.len() as u32).to_be_bytes());
    into.extend(text.as_bytes());
}

impl Client {
    /// Chooses an export, and what is told of its blocks.
    fn new(mut stream: Box<dyn Stream>, export: &str, context: &str) -> io::Result<Self> {
        let to = &mut *stream;
        option(to, OPT_STRUCTURED_REPLY, &[])?;
        let mut asked = Vec::new();
        text(&mut asked, export);
        asked.extend(1u32.to_be_bytes());
        text(&mut asked, context);
        let granted = option(to, OPT_SET_META_CONTEXT, &asked)?;
        let id = granted.iter().find(|(kind, _)| *kind == REP_META_CONTEXT);
        let (_, id) = id.ok_or_else(|| broken(format!("{export} has no {context}")))?;
        let id = u32::from_be_bytes(number(id, 0)?);
        let mut asked = Vec::new();
        text(&mut asked, export);
        asked.extend(0u16.to_be_bytes());
        let mut bytes = None;
        for (kind, info) in option(to, OPT_GO, &asked)? {
            if kind == REP_INFO && u16::from_be_bytes(number(&info, 0)?) == INFO_EXPORT {
                bytes = Some(u64::from_be_bytes(number(&info, 2)?));
            }
        }
        Ok(Self {
            bytes: bytes.ok_or_else(|| broken(format!("the size of {export} is not told")))?,
            stream,
            context: id,
            cookie: 0,
        })
    }

    fn ask(&mut self, command: u16, offset: u64, length: u32) -> io::Result<()> {
        self.cookie += 1;
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([0, 0]);
        request.extend(command.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        self.stream.write_all(&request)?;
        self.stream.flush()
    }

    /// The head of the next part of an answer: flags, kind and length.
    fn chunk(&mut self) -> io::Result<(u16, u16, u32)> {
        let from = &mut *self.stream;
        if u32_of(from)? != CHUNK_MAGIC {
            return Err(broken("an answer without structure"));
        }
        let (flags, kind, cookie, length) = (u16_of(from)?, u16_of(from)?, u64_of(from)?, u32_of(from)?);
        if cookie != self.cookie {
            return Err(broken("an answer to something else"));
        }
        Ok((flags, kind, length))
    }

    /// What has no place in an answer: an error, or nothing.
    fn other(&mut self, kind: u16, length: u32) -> io::Result<()> {
        let said = message(&mut *self.stream, length)?;
        if kind & CHUNK_ERROR == 0 {
            return if length == 0 {
                Ok(())
            } else {
                Err(broken(format!("a part of kind {kind}")))
            };
        }
        let code = u32::from_be_bytes(number(&said, 0)?);
        let length = usize::from(u16::from_be_bytes(number(&said, 4)?));
        let why = String::from_utf8_lossy(said.get(6..6 + length).unwrap_or_default());
        Err(broken(format!("the server answers with error {code}: {why}")))
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.ask(CMD_READ, offset, buffer.len() as u32)?;
        let mut left = buffer.len();
        // A part of the buffer, by where it is on the disk.
        let place = |at: u64, length: usize| {
            let from = usize::try_from(at.checked_sub(offset)?).ok()?;
            Some(from..from.checked_add(length)?)
        };
        loop {
            let (flags, kind, length) = self.chunk()?;
            let filled = match kind {
                CHUNK_OFFSET_DATA if length >= 8 => {
                    let (at, length) = (u64_of(&mut *self.stream)?, length as usize - 8);
                    let into = place(at, length).and_then(|range| buffer.get_mut(range));
                    let into = into.ok_or_else(|| broken("data that was not asked for"))?;
                    self.stream.read_exact(into)?;
                    length
                }
                CHUNK_OFFSET_HOLE if length == 12 => {
                    let at = u64_of(&mut *self.stream)?;
                    let length = u32_of(&mut *self.stream)? as usize;
                    let into = place(at, length).and_then(|range| buffer.get_mut(range));
                    into.ok_or_else(|| broken("a hole that was not asked for"))?
                        .fill(0);
                    length
                }
                kind => {
                    self.other(kind, length)?;
                    0
                }
            };
            left = left
                .checked_sub(filled)
                .ok_or_else(|| broken("data that comes twice"))?;
            if flags & CHUNK_DONE != 0 {
                return match left {
                    0 => Ok(()),
                    left => Err(broken(format!("{left} bytes are missing"))),
                };
            }
        }
    }

    /// What is told of the blocks from here on: lengths and flags, not necessarily all of what was asked for.
    fn status(&mut self, offset: u64, length: u32) -> io::Result<Vec<(u32, u32)>> {
        self.ask(CMD_BLOCK_STATUS, offset, length)?;
        let mut all = Vec::new();
        loop {
            let (flags, kind, length) = self.chunk()?;
            if kind == CHUNK_BLOCK_STATUS {
                let told = message(&mut *self.stream, length)?;
                if u32::from_be_bytes(number(&told, 0)?) == self.context {
                    for extent in told.get(4..).unwrap_or_default().chunks(8) {
                        let length = u32::from_be_bytes(number(extent, 0)?);
                        all.push((length, u32::from_be_bytes(number(extent, 4)?)));
                    }
                }
            } else {
                self.other(kind, length)?;
            }
            if flags & CHUNK_DONE != 0 {
                return Ok(all);
            }
        }
    }

    /// The first range from `offset` on, and before `end`, whose blocks are `wanted`.
    fn first(&mut self, offset: u64, end: u64, wanted: fn(u32) -> bool) -> io::Result<Option<Range<u64>>> {
        let end = end.min(self.bytes);
        let (mut at, mut found) = (offset, None::<Range<u64>>);
        while at < end {
            let length = (end - at).min(LONGEST_STATUS);
            let extents = self.status(at, length as u32)?;
            let before = at;
            for (length, flags) in extents {
                let next = (at + u64::from(length)).min(end);
                match (wanted(flags), &mut found) {
                    (true, None) => found = Some(at..next),
                    (true, Some(found)) => found.end = next,
                    (false, Some(_)) => return Ok(found),
                    (false, None) => {}
                }
                at = next;
            }
            if at == before {
                return Err(broken("nothing is told of a block"));
            }
        }
        Ok(found)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It is gone either way.
        self.ask(CMD_DISC, 0, 0).ok();
    }
}

/// Which parts of an export have changed, by a bitmap of its.
///
/// # Errors
///
/// The server has no such export or bitmap, or does not answer.
pub fn changed(dial: &Dial, export: &str, bitmap: &str) -> io::Result<Vec<Range<u64>>> {
    let mut client = Client::new(dial()?, export, &format!("qemu:dirty-bitmap:{bitmap}"))?;
    let (mut all, mut at) = (Vec::new(), 0);
    while let Some(range) = client.first(at, client.bytes, |flags| flags & DIRTY != 0)? {
        at = range.end;
        all.push(range);
    }
    Ok(all)
}

/// An export, read by several threads: each has a connection of its own.
pub struct Export {
    dial: Dial,
    name: String,
    bytes: u64,
    idle: Mutex<Vec<Client>>,
}

impl Export {
    /// Opens an export.
    ///
    /// # Errors
    ///
    /// The server has no such export, or does not answer.
    pub fn open(dial: Dial, name: &str) -> io::Result<Self> {
        let first = Client::new(dial()?, name, "base:allocation")?;
        Ok(Self {
            dial,
            name: name.to_owned(),
            bytes: first.bytes,
            idle: Mutex::new(vec![first]),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Client) -> io::Result<T>) -> io::Result<T> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle().pop();
        let mut client = match waiting {
            Some(client) => client,
            None => Client::new((self.dial)()?, &self.name, "base:allocation")?,
        };
        // One that has failed may stand in the middle of an answer: it is not used again.
        let done = work(&mut client).map_err(closed)?;
        idle().push(client);
        Ok(done)
    }
}

impl Source for Export {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn data(&self, offset: u64, end: u64) -> io::Result<Option<Range<u64>>> {
        self.with(|client| client.first(offset, end, |flags| flags & ZERO == 0))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.with(|client| {
            let mut at = offset;
            for part in buffer.chunks_mut(LONGEST_READ) {
                client.read(at, part)?;
                at += part.len() as u64;
            }
            Ok(())
        })
    }
}
