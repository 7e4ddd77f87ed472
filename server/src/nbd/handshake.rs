//! The handshake: a client asks for options until it has said which disk it wants.

use super::protocol::{
    ALLOCATION, ALLOCATION_ID, FIXED_NEWSTYLE, Fields, LONGEST, NBD_MAGIC, NO_ZEROES, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, answer, export, info, option,
};
use super::{Export, Exports};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The longest that an option's data may be: a name and some queries.
const OPTION: u32 = 64 << 10;

/// What a client and the server have agreed on.
pub struct Agreed {
    pub export: Arc<dyn Export>,
    pub structured: bool,
    /// Whether the client has asked for [`ALLOCATION`] of this disk.
    pub allocation: bool,
}

pub fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

struct Shaking<'a> {
    stream: &'a mut UnixStream,
    exports: &'a Exports,
    no_zeroes: bool,
    structured: bool,
    /// The disk whose [`ALLOCATION`] the client has asked for.
    allocation: Option<Vec<u8>>,
}

/// Answers options; nothing where the client only wanted to know something.
pub async fn shake_hands(stream: &mut UnixStream, exports: &Exports) -> io::Result<Option<Agreed>> {
    let mut hello = [0; 18];
    hello[..8].copy_from_slice(&NBD_MAGIC.to_be_bytes());
    hello[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    hello[16..].copy_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    stream.write_all(&hello).await?;
    let flags = match stream.read_u32().await {
        // It looked whether somebody is here.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        flags => flags?,
    };
    if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
        return Err(broken("the client asks for what was not offered"));
    }
    let mut shaking = Shaking {
        stream,
        exports,
        no_zeroes: flags & u32::from(NO_ZEROES) != 0,
        structured: false,
        allocation: None,
    };
    loop {
        if shaking.stream.read_u64().await? != OPTION_MAGIC {
            return Err(broken("the client says something else than an option"));
        }
        let wanted = shaking.stream.read_u32().await?;
        let length = shaking.stream.read_u32().await?;
        if length > LONGEST {
            return Err(broken("an option is longer than anything"));
        }
        if length > OPTION {
            let mut rest = (&mut *shaking.stream).take(u64::from(length));
            if tokio::io::copy(&mut rest, &mut tokio::io::sink()).await? < u64::from(length) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            shaking.reply(wanted, answer::TOO_BIG, &[]).await?;
            continue;
        }
        let mut data = vec![0; length as usize];
        shaking.stream.read_exact(&mut data).await?;
        match wanted {
            option::EXPORT_NAME => return shaking.export_name(&data).await.map(Some),
            option::ABORT => {
                // It may be gone already.
                _ = shaking.reply(wanted, answer::ACK, &[]).await;
                return Ok(None);
            }
            option::GO => {
                if let Some(agreed) = shaking.info(wanted, &data).await? {
                    return Ok(Some(agreed));
                }
            }
            _ => shaking.answer(wanted, &data).await?,
        }
    }
}

impl Shaking<'_> {
    async fn answer(&mut self, wanted: u32, data: &[u8]) -> io::Result<()> {
        match wanted {
            option::INFO => self.info(wanted, data).await.map(drop),
            option::LIST if data.is_empty() => {
                for (name, _) in self.exports {
                    let mut server = (name.len() as u32).to_be_bytes().to_vec();
                    server.extend(name.bytes());
                    self.reply(wanted, answer::SERVER, &server).await?;
                }
                self.reply(wanted, answer::ACK, &[]).await
            }
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                self.reply(wanted, answer::ACK, &[]).await
            }
            option::LIST | option::STRUCTURED_REPLY => self.reply(wanted, answer::INVALID, &[]).await,
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(wanted, data).await,
            _ => self.reply(wanted, answer::UNSUPPORTED, &[]).await,
        }
    }

    async fn reply(&mut self, wanted: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut reply = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
        for number in [wanted, kind, data.len() as u32] {
            reply.extend(number.to_be_bytes());
        }
        reply.extend(data);
        self.stream.write_all(&reply).await
    }

    fn find(&self, name: &[u8]) -> Option<Arc<dyn Export>> {
        let mut all = self.exports.iter();
        all.find(|(own, _)| own.as_bytes() == name)
            .map(|(_, export)| export.clone())
    }

    fn flags(&self) -> u16 {
        let structured = if self.structured { export::SEND_DF } else { 0 };
        export::HAS_FLAGS | export::READ_ONLY | export::CAN_MULTI_CONN | export::SEND_CACHE | structured
    }

    fn agreed(&self, export: Arc<dyn Export>, name: &[u8]) -> Agreed {
        Agreed {
            export,
            structured: self.structured,
            allocation: self.allocation.as_deref() == Some(name),
        }
    }

    async fn export_name(&mut self, name: &[u8]) -> io::Result<Agreed> {
        // There is no way to say no.
        let export = self
            .find(name)
            .ok_or_else(|| broken("the client asks for a disk that is not here"))?;
        let mut told = export.bytes().to_be_bytes().to_vec();
        told.extend(self.flags().to_be_bytes());
        if !self.no_zeroes {
            told.extend([0; 124]);
        }
        self.stream.write_all(&told).await?;
        Ok(self.agreed(export, name))
    }

    /// Tells of a disk; answers what was agreed on where there is such a disk.
    async fn info(&mut self, wanted: u32, data: &[u8]) -> io::Result<Option<Agreed>> {
        let mut fields = Fields(data);
        let asked = (|| {
            let name = fields.text()?;
            let number = fields.u16()?;
            (fields.0.len() == usize::from(number) * 2).then_some(name)
        })();
        let Some(name) = asked else {
            self.reply(wanted, answer::INVALID, &[]).await?;
            return Ok(None);
        };
        let Some(export) = self.find(name) else {
            self.reply(wanted, answer::UNKNOWN, b"there is no such disk")
                .await?;
            return Ok(None);
        };
        let mut told = info::EXPORT.to_be_bytes().to_vec();
        told.extend(export.bytes().to_be_bytes());
        told.extend(self.flags().to_be_bytes());
        self.reply(wanted, answer::INFO, &told).await?;
        let mut told = info::BLOCK_SIZE.to_be_bytes().to_vec();
        for bytes in [1, 4096, LONGEST] {
            told.extend(bytes.to_be_bytes());
        }
        self.reply(wanted, answer::INFO, &told).await?;
        self.reply(wanted, answer::ACK, &[]).await?;
        Ok(Some(self.agreed(export, name)))
    }

    async fn contexts(&mut self, wanted: u32, data: &[u8]) -> io::Result<()> {
        let set = wanted == option::SET_META_CONTEXT;
        if set {
            self.allocation = None;
        }
        let mut fields = Fields(data);
        let asked = (|| {
            let name = fields.text()?;
            let number = fields.u32()?;
            let mut wants = number == 0 && !set;
            for _ in 0..number {
                let query = fields.text()?;
                wants |= query == ALLOCATION.as_bytes() || (query == b"base:" && !set);
            }
            fields.0.is_empty().then_some((name, wants))
        })();
        let Some((name, wants)) = asked.filter(|_| self.structured) else {
            return self.reply(wanted, answer::INVALID, &[]).await;
        };
        if self.find(name).is_none() {
            return self.reply(wanted, answer::UNKNOWN, &[]).await;
        }
        if wants {
            let mut context = ALLOCATION_ID.to_be_bytes().to_vec();
            context.extend(ALLOCATION.bytes());
            self.reply(wanted, answer::META_CONTEXT, &context).await?;
            if set {
                self.allocation = Some(name.to_vec());
            }
        }
        self.reply(wanted, answer::ACK, &[]).await
    }
}
