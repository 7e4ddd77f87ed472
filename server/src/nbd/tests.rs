//! Clients that speak byte by byte what others would not say. What QEMU says is in `tests/nbd.rs`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::protocol::{
    CHUNK_MAGIC, Fields, LONGEST, NBD_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC, answer, chunk, command, errno, export, option,
};
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// Bytes that count up, a hole behind them, and a place that is broken behind that.
struct Memory {
    /// The first read waits for this.
    gate: Option<Notify>,
}

const DATA: u64 = 100_000;
const HOLE: u64 = 50_000;
const BROKEN: u64 = 10_000;

fn byte(at: u64) -> u8 {
    if at < DATA { (at % 251) as u8 } else { 0 }
}

#[async_trait]
impl Export for Memory {
    fn bytes(&self) -> u64 {
        DATA + HOLE + BROKEN
    }

    async fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(gate) = &self.gate
            && offset == 0
        {
            gate.notified().await;
        }
        if offset + buffer.len() as u64 > DATA + HOLE {
            return Err(io::Error::other("it is broken"));
        }
        (offset..).zip(buffer).for_each(|(at, to)| *to = byte(at));
        Ok(())
    }

    async fn status(&self, offset: u64, bytes: u64) -> io::Result<Vec<Extent>> {
        let mut extents = Vec::new();
        for (range, hole) in [
            (0..DATA, false),
            (DATA..DATA + HOLE, true),
            (DATA + HOLE..self.bytes(), false),
        ] {
            let (from, to) = (range.start.max(offset), range.end.min(offset + bytes));
            if from < to {
                extents.push(Extent {
                    bytes: to - from,
                    hole,
                });
            }
        }
        Ok(extents)
    }
}

struct Client {
    stream: UnixStream,
    server: tokio::task::JoinHandle<io::Result<()>>,
    memory: Arc<Memory>,
}

impl Client {
    async fn connected(gate: Option<Notify>) -> Self {
        let (stream, its) = UnixStream::pair().unwrap();
        let memory = Arc::new(Memory { gate });
        let exports: Exports = vec![("one".into(), memory.clone()), ("two".into(), memory.clone())];
        let server = tokio::spawn(async move { client(its, &exports).await });
        let mut it = Self {
            stream,
            server,
            memory,
        };
        assert_eq!(it.stream.read_u64().await.unwrap(), NBD_MAGIC);
        assert_eq!(it.stream.read_u64().await.unwrap(), OPTION_MAGIC);
        assert_eq!(it.stream.read_u16().await.unwrap(), 3);
        it
    }

    async fn greeted() -> Self {
        let mut it = Self::connected(None).await;
        it.stream.write_u32(3).await.unwrap();
        it
    }

    async fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut said = OPTION_MAGIC.to_be_bytes().to_vec();
        said.extend(option.to_be_bytes());
        said.extend((data.len() as u32).to_be_bytes());
        said.extend(data);
        self.stream.write_all(&said).await.unwrap();
        let mut all = Vec::new();
        loop {
            assert_eq!(self.stream.read_u64().await.unwrap(), OPTION_REPLY_MAGIC);
            assert_eq!(self.stream.read_u32().await.unwrap(), option);
            let kind = self.stream.read_u32().await.unwrap();
            let mut data = vec![0; self.stream.read_u32().await.unwrap() as usize];
            self.stream.read_exact(&mut data).await.unwrap();
            all.push((kind, data));
            if kind == answer::ACK || kind >> 31 == 1 {
                return all;
            }
        }
    }

    async fn only(&mut self, option: u32, data: &[u8]) -> u32 {
        let said = self.option(option, data).await;
        assert_eq!(said.len(), 1, "{said:?}");
        said[0].0
    }

    /// Goes on to requests for the first disk.
    async fn going(structured: bool, gate: Option<Notify>) -> Self {
        let mut it = Self::connected(gate).await;
        it.stream.write_u32(3).await.unwrap();
        if structured {
            assert_eq!(it.only(option::STRUCTURED_REPLY, &[]).await, answer::ACK);
            let said = it.option(option::SET_META_CONTEXT, &context("one")).await;
            assert_eq!(said[0].0, answer::META_CONTEXT);
        }
        let said = it.option(option::GO, &go("one")).await;
        assert_eq!(said.last().unwrap().0, answer::ACK);
        it
    }

    async fn ask(&mut self, command: u16, cookie: u64, offset: u64, length: u32) {
        self.ask_with(0, command, cookie, offset, length).await;
    }

    async fn ask_with(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, length: u32) {
        let mut said = REQUEST_MAGIC.to_be_bytes().to_vec();
        said.extend(flags.to_be_bytes());
        said.extend(command.to_be_bytes());
        said.extend(cookie.to_be_bytes());
        said.extend(offset.to_be_bytes());
        said.extend(length.to_be_bytes());
        self.stream.write_all(&said).await.unwrap();
    }

    /// The error and the cookie of a simple reply.
    async fn simple(&mut self) -> (u32, u64) {
        assert_eq!(self.stream.read_u32().await.unwrap(), SIMPLE_REPLY_MAGIC);
        let error = self.stream.read_u32().await.unwrap();
        (error, self.stream.read_u64().await.unwrap())
    }

    /// The kind, the cookie and the data of a chunk, which is the only one of its reply.
    async fn chunk(&mut self) -> (u16, u64, Vec<u8>) {
        assert_eq!(self.stream.read_u32().await.unwrap(), CHUNK_MAGIC);
        assert_eq!(self.stream.read_u16().await.unwrap(), chunk::DONE);
        let kind = self.stream.read_u16().await.unwrap();
        let cookie = self.stream.read_u64().await.unwrap();
        let mut data = vec![0; self.stream.read_u32().await.unwrap() as usize];
        self.stream.read_exact(&mut data).await.unwrap();
        (kind, cookie, data)
    }

    async fn ends(self) -> io::Result<()> {
        let Self { stream, server, .. } = self;
        drop(stream);
        server.await.unwrap()
    }
}

fn go(name: &str) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.bytes());
    data.extend([0, 1, 0, 3]);
    data
}

fn context(name: &str) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.bytes());
    data.extend([0, 0, 0, 1, 0, 0, 0, 15]);
    data.extend(b"base:allocation");
    data
}

fn expected(offset: u64, length: u64) -> Vec<u8> {
    (offset..offset + length).map(byte).collect()
}

#[tokio::test]
async fn options_are_answered_as_the_specification_says() {
    let mut it = Client::greeted().await;
    let listed = it.option(option::LIST, &[]).await;
    let names: Vec<_> = listed.iter().map(|(kind, data)| (*kind, &data[..])).collect();
    assert_eq!(
        names,
        [
            (answer::SERVER, &b"\0\0\0\x03one"[..]),
            (answer::SERVER, b"\0\0\0\x03two"),
            (answer::ACK, b"")
        ]
    );
    assert_eq!(it.only(option::LIST, b"x").await, answer::INVALID);
    assert_eq!(it.only(4242, b"what?").await, answer::UNSUPPORTED);
    assert_eq!(it.only(5, &[]).await, answer::UNSUPPORTED, "TLS");
    assert_eq!(it.only(option::GO, &go("none")).await, answer::UNKNOWN);
    assert_eq!(it.only(option::GO, b"\xff\xff\xff\xff").await, answer::INVALID);
    assert_eq!(it.only(option::INFO, &[]).await, answer::INVALID);
    let before = it.only(option::SET_META_CONTEXT, &context("one")).await;
    assert_eq!(before, answer::INVALID, "structured replies come first");
    let info = it.option(option::INFO, &go("one")).await;
    assert_eq!(info[0].1[2..10], (DATA + HOLE + BROKEN).to_be_bytes());
    let flags = |told: &[u8]| Fields(&told[10..]).u16().unwrap();
    assert_eq!(
        flags(&info[0].1),
        export::HAS_FLAGS | export::READ_ONLY | export::CAN_MULTI_CONN | export::SEND_CACHE
    );
    assert_eq!(it.only(option::STRUCTURED_REPLY, b"x").await, answer::INVALID);
    assert_eq!(it.only(option::STRUCTURED_REPLY, &[]).await, answer::ACK);
    let info = it.option(option::INFO, &go("two")).await;
    assert!(flags(&info[0].1) & export::SEND_DF != 0);
    let all = it
        .option(option::LIST_META_CONTEXT, b"\0\0\0\x03one\0\0\0\0")
        .await;
    assert_eq!(&all[0].1[4..], b"base:allocation");
    let none = it
        .option(
            option::SET_META_CONTEXT,
            b"\0\0\0\x03one\0\0\0\x01\0\0\0\x05qemu:",
        )
        .await;
    assert_eq!(none[0].0, answer::ACK);
    assert_eq!(
        it.only(option::SET_META_CONTEXT, &context("none")).await,
        answer::UNKNOWN
    );
    let long = vec![0; 1 << 20];
    assert_eq!(it.only(option::LIST, &long).await, answer::TOO_BIG);
    assert_eq!(it.only(option::ABORT, &[]).await, answer::ACK);
    it.ends().await.unwrap();
}

#[tokio::test]
async fn old_clients_name_a_disk_and_read() {
    let mut it = Client::connected(None).await;
    // With the padding that they count on.
    it.stream.write_u32(1).await.unwrap();
    let mut said = OPTION_MAGIC.to_be_bytes().to_vec();
    said.extend(b"\0\0\0\x01\0\0\0\x03two");
    it.stream.write_all(&said).await.unwrap();
    assert_eq!(it.stream.read_u64().await.unwrap(), DATA + HOLE + BROKEN);
    let mut rest = [0; 126];
    it.stream.read_exact(&mut rest).await.unwrap();
    it.ask(command::READ, 7, 99_990, 20).await;
    assert_eq!(it.simple().await, (0, 7));
    let mut data = [0; 20];
    it.stream.read_exact(&mut data).await.unwrap();
    assert_eq!(data[..], expected(99_990, 20));
    it.ask(command::READ, 8, DATA + HOLE, 1).await;
    assert_eq!(it.simple().await, (errno::IO, 8));
    it.ask(command::BLOCK_STATUS, 9, 0, 10).await;
    assert_eq!(it.simple().await, (errno::INVAL, 9));
    it.ask(command::DISC, 0, 0, 0).await;
    it.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_are_answered_and_wrong_ones_refused() {
    let mut it = Client::going(true, None).await;
    it.ask(command::READ, 1, 10, 1000).await;
    let (kind, cookie, data) = it.chunk().await;
    assert_eq!((kind, cookie), (chunk::OFFSET_DATA, 1));
    assert_eq!(data[8..], expected(10, 1000));
    it.ask(command::READ, 2, DATA + 5, 500).await;
    let (kind, _, data) = it.chunk().await;
    assert_eq!(kind, chunk::OFFSET_HOLE);
    assert_eq!(data[8..], 500_u32.to_be_bytes());
    it.ask(command::BLOCK_STATUS, 3, DATA - 3, 10).await;
    let (kind, _, data) = it.chunk().await;
    assert_eq!(kind, chunk::BLOCK_STATUS);
    assert_eq!(data, [1, 3, 0, 7, 3].map(u32::to_be_bytes).concat());
    it.ask_with(command::REQ_ONE, command::BLOCK_STATUS, 4, DATA - 3, 10)
        .await;
    assert_eq!(it.chunk().await.2, [1, 3, 0].map(u32::to_be_bytes).concat());
    let end = DATA + HOLE + BROKEN;
    for (offset, length, error) in [
        (end - 1, 2, errno::INVAL),
        (u64::MAX, 1, errno::INVAL),
        (0, 0, errno::INVAL),
        (0, u32::MAX, errno::INVAL),
        (0, LONGEST + 1, errno::INVAL),
        (end - 1, 1, errno::IO),
    ] {
        it.ask(command::READ, 5, offset, length).await;
        let (kind, cookie, data) = it.chunk().await;
        assert_eq!((kind, cookie), (chunk::ERROR, 5));
        assert_eq!(data[..4], error.to_be_bytes(), "{offset} {length}");
    }
    it.ask(command::WRITE, 6, 0, 4).await;
    it.stream.write_all(b"evil").await.unwrap();
    assert_eq!(it.simple().await, (errno::PERM, 6));
    it.ask(command::TRIM, 7, 0, u32::MAX).await;
    assert_eq!(it.simple().await, (errno::PERM, 7));
    it.ask(command::WRITE_ZEROES, 8, 0, 1).await;
    assert_eq!(it.simple().await, (errno::PERM, 8));
    it.ask(command::CACHE, 9, 0, 4096).await;
    assert_eq!(it.simple().await, (0, 9));
    it.ask(command::FLUSH, 10, 0, 0).await;
    assert_eq!(it.simple().await, (0, 10));
    it.ask(99, 11, 0, 0).await;
    assert_eq!(it.simple().await, (errno::INVAL, 11));
    it.ends().await.unwrap();
}

#[tokio::test]
async fn a_request_that_waits_holds_no_other_up() {
    let mut it = Client::going(true, Some(Notify::new())).await;
    it.ask(command::READ, 1, 0, 10).await;
    for cookie in 2..100 {
        it.ask(command::READ, cookie, 100, 10).await;
    }
    let mut seen = Vec::new();
    for _ in 2..100 {
        let (_, cookie, data) = it.chunk().await;
        assert_eq!(data[8..], expected(100, 10));
        seen.push(cookie);
    }
    seen.sort_unstable();
    assert_eq!(seen, (2..100).collect::<Vec<_>>());
    it.memory.gate.as_ref().unwrap().notify_one();
    assert_eq!(it.chunk().await.1, 1);
    // One that never ends does not keep the connection of a client that goes.
    it.ask(command::READ, 1, 0, 10).await;
    it.ask(command::DISC, 0, 0, 0).await;
    it.ends().await.unwrap();
}

#[tokio::test]
async fn a_client_that_asks_for_all_at_once_waits_for_its_answers() {
    let it = Client::going(true, Some(Notify::new())).await;
    let (mut reader, mut writer) = it.stream.into_split();
    let asks = tokio::spawn(async move {
        for cookie in 0..2000_u64 {
            let mut said = REQUEST_MAGIC.to_be_bytes().to_vec();
            said.extend([0; 4]);
            said.extend(cookie.to_be_bytes());
            said.extend(0_u64.to_be_bytes());
            said.extend(100_u32.to_be_bytes());
            writer.write_all(&said).await.unwrap();
        }
        writer
    });
    for _ in 0..2000 {
        it.memory.gate.as_ref().unwrap().notify_one();
        let mut reply = [0; 20 + 8 + 100];
        reader.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[28..], expected(0, 100));
    }
    drop((reader, asks.await.unwrap()));
    it.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn noise_ends_a_connection_and_nothing_else() {
    let mut seed = 0x5eed_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..400 {
        let structured = round % 2 == 0;
        let mut it = match round % 4 {
            0 => Client::connected(None).await,
            1 => Client::greeted().await,
            _ => Client::going(structured, None).await,
        };
        let mut said = Vec::new();
        for _ in 0..random() % 8 {
            // What begins as it should is read on.
            match random() % 4 {
                0 => said.extend(OPTION_MAGIC.to_be_bytes()),
                1 => said.extend(REQUEST_MAGIC.to_be_bytes()),
                _ => {}
            }
            for _ in 0..random() % 16 {
                said.extend(((random() % 12) as u32).to_be_bytes());
            }
            said.extend(random().to_be_bytes());
        }
        // It may have hung up before the end.
        _ = it.stream.write_all(&said).await;
        _ = it.stream.shutdown().await;
        let mut rest = Vec::new();
        _ = it.stream.read_to_end(&mut rest).await;
        // An error, or none; a panic would be one of the task.
        _ = it.server.await.unwrap();
    }
}
