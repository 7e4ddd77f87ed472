//! Screens and serial lines, live, over WebSockets.

use super::of_machine;
use crate::access::Caller;
use crate::consoles::{Line, Said};
use crate::http::Server;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::{Path, Query};
use crate::http::route::Api;
use crate::hypervisor::Port;
use crate::inventory;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use shared::access::Privilege;
use shared::console::{Note, OFF, SIGNED_OUT};
use shared::feed::ALIVE_SECONDS;
use shared::{Status, VmId};
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use utoipa_axum::routes;

/// The largest message that a viewer sends, in bytes.
const MESSAGE: usize = 64 << 10;
/// How much of a picture travels at once, in bytes.
const PIECE: usize = 64 << 10;
/// How much of the log a viewer of a serial line sees first, in bytes, if it does not say.
const BACKLOG: u64 = 64 << 10;
/// How often a viewer is asked whether it is there.
const ALIVE: Duration = Duration::from_secs(ALIVE_SECONDS);
/// One that has said nothing for so long, not even that it is there, is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) fn routes(api: Api) -> Api {
    api.route(Privilege::VmConsole, routes!(open_vm_screen))
        .route(Privilege::VmConsole, routes!(open_vm_serial))
}

/// How a viewer of a serial line begins.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// How many bytes of what was said before come first, 524288 at most; 65536 if not given.
    #[serde(default)]
    last: Option<u64>,
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

fn upgrade(upgrade: Upgrade) -> ApiResult<WebSocketUpgrade> {
    let upgrade = upgrade.map_err(|e| {
        let why = format!("this is a WebSocket: connect with ws:// ({e})");
        ApiError(Status::invalid("Upgrade", why))
    })?;
    // noVNC asks for this protocol.
    Ok(upgrade.max_message_size(MESSAGE).protocols(["binary"]))
}

/// The screen, the keyboard and the pointer, live: RFB in binary messages, for several viewers at once.
///
/// A close says why: 4000 the machine is off, 4001 the session or token has ended, 1001 the server stops.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/vnc", tag = "vms",
    responses((status = 101, description = "A WebSocket")),
    params(("vm" = String, Path, description = "Name or id")))]
async fn open_vm_screen(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    socket: Upgrade,
) -> ApiResult<Response> {
    let socket = upgrade(socket)?;
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let screen = server.world().hypervisor.dial(vm.id, Port::Screen).await;
    let screen = screen.map_err(|e| of_machine(&vm.name, &e))?;
    let viewers = server.consoles.viewers.clone();
    Ok(socket.on_upgrade(move |socket| {
        viewers.track_future(async move {
            let (mut viewer, from) = Viewer::new(socket);
            let over = tokio::select! {
                over = dismissed(&server, &caller, vm.id) => over,
                over = see(&mut viewer, from, screen) => over,
            };
            viewer.goodbye(over).await;
        })
    }))
}

/// The serial line, live, both ways, for several viewers at once.
///
/// What the guest says comes in binary messages; messages of the viewer, of either kind, are typed. A text message is a note:
/// `{"backlog":n}` comes first and tells how many bytes follow that were said before, `{"skipped":n}` that the viewer was too slow and that
/// so many bytes are left out, `{"cut":{}}` that the log was cut here. A close says why: 4000 the machine is off, 4001 the session or token has
/// ended, 1001 the server stops.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/console", tag = "vms",
    responses((status = 101, description = "A WebSocket")),
    params(("vm" = String, Path, description = "Name or id"), Begin))]
async fn open_vm_serial(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Query(begin): Query<Begin>,
    socket: Upgrade,
) -> ApiResult<Response> {
    let socket = upgrade(socket)?;
    let vm = inventory::vm_row(server.world(), &vm).await?;
    let line = server.consoles.line(vm.id).await;
    let line = line.map_err(|e| of_machine(&vm.name, &e))?;
    let last = begin.last.unwrap_or(BACKLOG);
    let viewers = server.consoles.viewers.clone();
    Ok(socket.on_upgrade(move |socket| {
        viewers.track_future(async move {
            let (mut viewer, from) = Viewer::new(socket);
            let over = tokio::select! {
                over = dismissed(&server, &caller, vm.id) => over,
                over = read(&mut viewer, from, &line, last) => over,
            };
            viewer.goodbye(over).await;
        })
    }))
}

/// Why a viewer ends.
enum Over {
    /// With these words.
    Close(u16, &'static str),
    /// It has left.
    Left,
}

const MACHINE_OFF: Over = Over::Close(OFF, "the machine is off");

type Incoming = SplitStream<WebSocket>;

/// The way to somebody who looks.
struct Viewer {
    to: SplitSink<WebSocket, Message>,
    alive: Interval,
}

impl Viewer {
    fn new(socket: WebSocket) -> (Self, Incoming) {
        let (to, from) = socket.split();
        let mut alive = interval_at(Instant::now() + ALIVE, ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        (Self { to, alive }, from)
    }

    async fn send(&mut self, message: Message) -> Result<(), Over> {
        self.to.send(message).await.map_err(|_| Over::Left)
    }

    /// Asks whether it is there, whenever it is time for that.
    async fn ask(&mut self) -> Result<(), Over> {
        self.send(Message::Ping(Bytes::new())).await
    }

    /// Says why it ends.
    async fn goodbye(mut self, over: Over) {
        let Over::Close(code, reason) = over else { return };
        let reason = Utf8Bytes::from_static(reason);
        let close = self.to.send(Message::Close(Some(CloseFrame { code, reason })));
        // One that does not read is cut off.
        let _ = timeout(GOODBYE, close).await;
    }
}

/// Returns when the server stops, or the caller's session, token or right to look at the machine has ended.
async fn dismissed(server: &Server, caller: &Caller, vm: VmId) -> Over {
    loop {
        tokio::select! {
            () = server.stop.cancelled() => return Over::Close(close_code::AWAY, "the server stops"),
            () = tokio::time::sleep(ALIVE) => {}
        }
        match server.access.again(caller).await {
            Ok(Some(now)) if now.rights.has(Privilege::VmConsole, Some(vm)) => {}
            Ok(_) => {
                return Over::Close(
                    SIGNED_OUT,
                    "the session, the token or the right to look has ended",
                );
            }
            Err(e) => {
                let _: Status = e.into();
                return Over::Close(close_code::ERROR, "a fault of the server");
            }
        }
    }
}

/// The next that a viewer sends; none when it has left.
async fn given(from: &mut Incoming) -> Option<Bytes> {
    loop {
        match timeout(SILENCE, from.next()).await.ok()??.ok()? {
            Message::Binary(bytes) => return Some(bytes),
            Message::Text(text) => return Some(text.into()),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}

/// Carries a screen. A viewer asks for each picture, and QEMU leaves out what a slow one does not ask for.
async fn see(viewer: &mut Viewer, mut from: Incoming, screen: UnixStream) -> Over {
    let (mut shows, mut takes) = screen.into_split();
    let shown = async {
        let mut piece = vec![0; PIECE];
        loop {
            let read = tokio::select! {
                read = shows.read(&mut piece) => read,
                _ = viewer.alive.tick() => {
                    viewer.ask().await?;
                    continue;
                }
            };
            match read {
                Ok(0) | Err(_) => return Err(MACHINE_OFF),
                Ok(n) => {
                    viewer
                        .send(Message::Binary(Bytes::copy_from_slice(&piece[..n])))
                        .await?
                }
            }
        }
    };
    let taken = async {
        while let Some(bytes) = given(&mut from).await {
            if takes.write_all(&bytes).await.is_err() {
                return MACHINE_OFF;
            }
        }
        Over::Left
    };
    ended(shown, taken).await
}

/// Carries a serial line.
async fn read(viewer: &mut Viewer, mut from: Incoming, line: &Line, last: u64) -> Over {
    let said = async {
        let mut view = line.view(last).map_err(unreadable)?;
        loop {
            let said = tokio::select! {
                said = view.next() => said,
                _ = viewer.alive.tick() => {
                    viewer.ask().await?;
                    continue;
                }
            };
            let message = match said.map_err(unreadable)? {
                Some(Said::Bytes(bytes)) => Message::Binary(bytes.into()),
                Some(Said::Note(note)) => Message::Text(note_text(note).into()),
                None => return Err(MACHINE_OFF),
            };
            viewer.send(message).await?;
        }
    };
    let typed = async {
        while let Some(bytes) = given(&mut from).await {
            if line.input.send(bytes).await.is_err() {
                return MACHINE_OFF;
            }
        }
        Over::Left
    };
    ended(said, typed).await
}

async fn ended(
    shown: impl Future<Output = Result<Infallible, Over>>,
    taken: impl Future<Output = Over>,
) -> Over {
    tokio::select! {
        shown = shown => match shown {
            Err(over) => over,
            Ok(never) => match never {},
        },
        over = taken => over,
    }
}

fn note_text(note: Note) -> String {
    // A number or nothing: it always serialises.
    serde_json::to_string(&note).unwrap_or_default()
}

fn unreadable(e: std::io::Error) -> Over {
    tracing::warn!(error = %e, "read the log of a serial line");
    Over::Close(close_code::ERROR, "the log of the serial line cannot be read")
}
