//! Requests and replies, behind the handshake. Requests are served side by side, and answered as they are done.

use super::handshake::{Agreed, broken};
use super::protocol::{
    ALLOCATION_ID, CHUNK_MAGIC, HOLE, LONGEST, REQUEST, Request, SIMPLE_REPLY_MAGIC, chunk, command, errno,
};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// How much a client may have asked for and not have read yet, in units of a KiB: the least that counts.
const IN_FLIGHT: u32 = 2 * (LONGEST >> 10);
/// What each request counts for besides, in the same: so there are at most 512.
const EACH: u32 = IN_FLIGHT / 512;
/// How many extents are told at once.
const EXTENTS: usize = 1024;

struct Serving {
    agreed: Agreed,
    replies: Mutex<OwnedWriteHalf>,
}

/// Serves requests until the client goes.
pub async fn transmit(stream: UnixStream, agreed: Agreed) -> io::Result<()> {
    let (mut requests, replies) = stream.into_split();
    let serving = Arc::new(Serving {
        agreed,
        replies: Mutex::new(replies),
    });
    let room = Arc::new(Semaphore::new(IN_FLIGHT as usize));
    // Dropped with the connection: nobody waits for what nobody reads.
    let mut under_way = JoinSet::new();
    let mut bytes = [0; REQUEST];
    loop {
        match requests.read_exact(&mut bytes).await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        };
        let request =
            Request::parse(&bytes).ok_or_else(|| broken("the client says something else than a request"))?;
        match request.command {
            command::DISC => {
                let answered = async { while under_way.join_next().await.is_some() {} };
                let gone = async { while matches!(requests.read(&mut bytes).await, Ok(1..)) {} };
                tokio::select! { () = answered => {}, () = gone => {} }
                return Ok(());
            }
            command::WRITE => {
                if request.length > LONGEST {
                    return Err(broken("a write is longer than anything"));
                }
                let length = u64::from(request.length);
                let mut payload = (&mut requests).take(length);
                if tokio::io::copy(&mut payload, &mut tokio::io::sink()).await? < length {
                    return Ok(());
                }
            }
            _ => {}
        }
        let takes = EACH + if reads(&request) { request.length >> 10 } else { 0 };
        let permit = room.clone().acquire_many_owned(takes).await;
        let permit = permit.map_err(io::Error::other)?;
        while let Some(done) = under_way.try_join_next() {
            // A request that ended early is never answered: better that the client connects anew.
            done.map_err(io::Error::other)??;
        }
        under_way.spawn(answer(serving.clone(), request, permit));
    }
}

/// Whether it takes memory.
fn reads(request: &Request) -> bool {
    request.command == command::READ && request.length <= LONGEST
}

async fn answer(serving: Arc<Serving>, request: Request, _room: OwnedSemaphorePermit) -> io::Result<()> {
    let Request { offset, length, .. } = request;
    let end = offset.checked_add(u64::from(length));
    let within = length > 0 && end.is_some_and(|end| end <= serving.agreed.export.bytes());
    let wrong = match request.command {
        command::READ if within && length <= LONGEST => return serving.read(request).await,
        command::BLOCK_STATUS if within && serving.agreed.allocation => return serving.status(request).await,
        command::CACHE if within => 0,
        command::FLUSH => 0,
        command::WRITE | command::TRIM | command::WRITE_ZEROES => errno::PERM,
        _ => errno::INVAL,
    };
    serving.say(request, wrong).await
}

impl Serving {
    async fn read(&self, request: Request) -> io::Result<()> {
        let mut offset = request.offset.to_be_bytes().to_vec();
        if self.agreed.structured && self.is_hole(&request).await {
            offset.extend(request.length.to_be_bytes());
            return self.chunk(request, chunk::OFFSET_HOLE, &offset, &[]).await;
        }
        let mut data = vec![0; request.length as usize];
        if let Err(e) = self.agreed.export.read(request.offset, &mut data).await {
            return self.failed(request, &e).await;
        }
        if self.agreed.structured {
            return self.chunk(request, chunk::OFFSET_DATA, &offset, &data).await;
        }
        self.simple(request, 0, &data).await
    }

    async fn is_hole(&self, request: &Request) -> bool {
        let bytes = u64::from(request.length);
        let extents = self.agreed.export.status(request.offset, bytes).await;
        extents.is_ok_and(|all| {
            all.first()
                .is_some_and(|first| first.hole && first.bytes >= bytes)
        })
    }

    async fn status(&self, request: Request) -> io::Result<()> {
        let length = u64::from(request.length);
        let extents = match self.agreed.export.status(request.offset, length).await {
            Ok(extents) => extents,
            Err(e) => return self.failed(request, &e).await,
        };
        let most = if request.flags & command::REQ_ONE != 0 {
            1
        } else {
            EXTENTS
        };
        let mut told = ALLOCATION_ID.to_be_bytes().to_vec();
        for extent in extents.iter().take(most) {
            let bytes = extent.bytes.min(length) as u32;
            let flags = if extent.hole { HOLE } else { 0 };
            told.extend(bytes.to_be_bytes());
            told.extend(flags.to_be_bytes());
        }
        self.chunk(request, chunk::BLOCK_STATUS, &told, &[]).await
    }

    async fn failed(&self, request: Request, e: &io::Error) -> io::Result<()> {
        tracing::error!(offset = request.offset, length = request.length, error = %e, "a read fails");
        self.say(request, errno::IO).await
    }

    /// Answers without data.
    async fn say(&self, request: Request, error: u32) -> io::Result<()> {
        let needs_chunk = matches!(request.command, command::READ | command::BLOCK_STATUS);
        if !self.agreed.structured || !needs_chunk {
            return self.simple(request, error, &[]).await;
        }
        let mut told = error.to_be_bytes().to_vec();
        // No words.
        told.extend([0; 2]);
        self.chunk(request, chunk::ERROR, &told, &[]).await
    }

    async fn simple(&self, request: Request, error: u32, data: &[u8]) -> io::Result<()> {
        let mut head = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
        head.extend(error.to_be_bytes());
        head.extend(request.cookie.to_be_bytes());
        self.send(&head, data).await
    }

    /// A reply of one chunk.
    async fn chunk(&self, request: Request, kind: u16, begin: &[u8], data: &[u8]) -> io::Result<()> {
        let mut head = CHUNK_MAGIC.to_be_bytes().to_vec();
        head.extend(chunk::DONE.to_be_bytes());
        head.extend(kind.to_be_bytes());
        head.extend(request.cookie.to_be_bytes());
        head.extend(((begin.len() + data.len()) as u32).to_be_bytes());
        head.extend(begin);
        self.send(&head, data).await
    }

    async fn send(&self, head: &[u8], data: &[u8]) -> io::Result<()> {
        let mut replies = self.replies.lock().await;
        replies.write_all(head).await?;
        replies.write_all(data).await
    }
}
