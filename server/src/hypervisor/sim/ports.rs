//! What can be connected to of a simulated machine: a serial port that echoes, and a small grey screen that turns
//! lighter with each key.

use super::*;
use std::future::Future;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast::Receiver;

/// The screen, in pixels.
const WIDTH: u16 = 64;
const HEIGHT: u16 = 48;
/// How grey it is at first, and how much lighter a key makes it.
const GREY: u8 = 0x40;
const LIGHTER: u8 = 0x10;

/// Serves until the client leaves or the machine ends.
pub fn serve(
    vm: VmId,
    mut events: Receiver<MachineEvent>,
    port: impl Future<Output = io::Result<()>> + Send + 'static,
) {
    tokio::spawn(async move {
        let stopped = async {
            loop {
                match events.recv().await {
                    Ok(event) if event.vm == vm && event.state == RunState::Stopped => return,
                    Err(broadcast::error::RecvError::Closed) => return,
                    Ok(_) | Err(_) => {}
                }
            }
        };
        tokio::select! {
            () = stopped => {}
            // A client that leaves in the midst of something is no fault.
            _ = port => {}
        }
    });
}

/// Says what it is told, in its log as well.
pub async fn serial(mut client: UnixStream, log: PathBuf) -> io::Result<()> {
    use io::Write;

    let mut typed = [0; 1024];
    loop {
        let n = client.read(&mut typed).await?;
        if n == 0 {
            return Ok(());
        }
        let mut said = Vec::with_capacity(n);
        for byte in &typed[..n] {
            match byte {
                b'\r' => said.extend(b"\r\n"),
                byte => said.push(*byte),
            }
        }
        // Not made anew: a machine without a log is off.
        let mut log = fs::File::options().append(true).open(&log)?;
        log.write_all(&said)?;
        client.write_all(&said).await?;
    }
}

/// RFB 3.8 without a password, in raw pixels of 32 bits: all three colours are the same, so their order does not matter.
pub async fn screen(mut client: UnixStream) -> io::Result<()> {
    client.write_all(b"RFB 003.008\n").await?;
    let mut version = [0; 12];
    client.read_exact(&mut version).await?;
    // One kind of security: none.
    client.write_all(&[1, 1]).await?;
    client.read_u8().await?;
    client.write_u32(0).await?;
    // Whether it is shared: it always is.
    client.read_u8().await?;
    let name = b"sim";
    let mut hello = Vec::new();
    hello.extend(WIDTH.to_be_bytes());
    hello.extend(HEIGHT.to_be_bytes());
    hello.extend([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
    hello.extend((name.len() as u32).to_be_bytes());
    hello.extend(name);
    client.write_all(&hello).await?;
    let (mut grey, mut shown, mut asked) = (GREY, None, false);
    loop {
        match client.read_u8().await? {
            // The format of its pixels.
            0 => {
                let mut format = [0; 19];
                client.read_exact(&mut format).await?;
                if format[3] != 32 {
                    return Err(io::Error::other("only pixels of 32 bits are simulated"));
                }
            }
            // The encodings that it knows; all know raw.
            2 => {
                client.read_u8().await?;
                let n = client.read_u16().await?;
                client.read_exact(&mut vec![0; 4 * usize::from(n)]).await?;
            }
            // Wants a picture: the whole one, or when it has changed.
            3 => {
                let whole = client.read_u8().await? == 0;
                client.read_u64().await?;
                asked = true;
                if whole {
                    shown = None;
                }
            }
            // A key that is pressed, or let go.
            4 => {
                let down = client.read_u8().await? == 1;
                client.read_exact(&mut [0; 6]).await?;
                if down {
                    grey = grey.wrapping_add(LIGHTER);
                }
            }
            // The pointer.
            5 => {
                client.read_exact(&mut [0; 5]).await?;
            }
            // Text that was cut elsewhere.
            6 => {
                client.read_exact(&mut [0; 3]).await?;
                let n = client.read_u32().await?;
                tokio::io::copy(&mut (&mut client).take(n.into()), &mut tokio::io::sink()).await?;
            }
            other => return Err(io::Error::other(format!("message {other} is not simulated"))),
        }
        if asked && shown != Some(grey) {
            let mut picture = vec![0, 0, 0, 1, 0, 0, 0, 0];
            picture.extend(WIDTH.to_be_bytes());
            picture.extend(HEIGHT.to_be_bytes());
            picture.extend(0_u32.to_be_bytes());
            let pixels = usize::from(WIDTH) * usize::from(HEIGHT);
            picture.extend(std::iter::repeat_n(grey, 4 * pixels));
            client.write_all(&picture).await?;
            (shown, asked) = (Some(grey), false);
        }
    }
}
