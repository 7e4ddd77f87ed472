//! With a real guest: a shell on its serial line, and its screen.

use super::{Viewer, machine};
use crate::site::name;
use crate::support::{Dir, PATIENCE, dir, guest};
use server::cli::serve::Running;
use server::config::{Config, ImageSource};
use server::hypervisor::{Control, Port};
use shared::console::OFF;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncReadExt;

struct Real {
    running: Running,
    token: String,
    // Ends what is left, last.
    _dir: Dir,
}

impl Real {
    async fn start(variant: &str) -> Self {
        let dir = dir();
        let image = ImageSource {
            name: name("demo"),
            path: guest(variant),
        };
        let config = Config {
            sim: false,
            images: vec![image],
            program: Some(PathBuf::from(env!("CARGO_BIN_EXE_offshoot"))),
            ..Config::simulated(dir.path())
        };
        let running = Running::start(config).await.unwrap();
        let token = running
            .server
            .access
            .token_for(&name("admin"), name("test"))
            .await
            .unwrap();
        let real = Self {
            running,
            token: token.secret,
            _dir: dir,
        };
        machine(&real.running, &real.token, "web", Some("demo")).await;
        real
    }

    async fn open(&self, path: &str) -> Viewer {
        Viewer::open(&self.running, &self.token, path).await
    }

    async fn vm(&self) -> shared::VmId {
        let world = self.running.server.world();
        server::db::vms::find(&world.db, "web").await.unwrap().unwrap().id
    }
}

/// Wakes the shell on the serial line and silences the ticks between what is typed.
async fn shell(viewer: &mut Viewer) {
    viewer.until("tick=5 ").await;
    viewer.send(b"\r").await;
    viewer.until("# ").await;
    viewer.send(b"killall -STOP ticker; echo si''lent\r").await;
    viewer.until("silent\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_is_answered_and_all_see_it() {
    let real = Real::start("demo").await;
    let mut one = real.open("web/console").await;
    shell(&mut one).await;
    let mut two = real.open("web/console?last=0").await;
    one.send(b"echo hel''lo from $((6 * 7))\r").await;
    for viewer in [&mut one, &mut two] {
        viewer.until("hello from 42\r\n").await;
    }
    two.send(b"echo back a''gain\r").await;
    for viewer in [&mut one, &mut two] {
        viewer.until("back again\r\n").await;
    }
    // A new one reads the same from the log.
    real.open("web/console").await.until("back again\r\n").await;
    let hypervisor = &real.running.server.world().hypervisor;
    hypervisor.kill(real.vm().await).await.unwrap();
    assert_eq!(one.closed().await.0.unwrap().0, OFF);
    assert_eq!(two.closed().await.0.unwrap().0, OFF);
    real.running.stop().await.unwrap();
}

/// The last that was typed reaches a guest though nobody stays to see it, also one that stands still just then.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_last_is_not_lost() {
    let real = Real::start("demo").await;
    let mut one = real.open("web/console").await;
    shell(&mut one).await;
    let hypervisor = &real.running.server.world().hypervisor;
    let vm = real.vm().await;
    hypervisor.control(vm, Control::Pause).await.unwrap();
    one.send(b"echo par''ting words\r").await;
    drop(one);
    hypervisor.control(vm, Control::Resume).await.unwrap();
    real.open("web/console").await.until("parting words\r\n").await;
    hypervisor.kill(vm).await.unwrap();
    real.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_see_the_screen_also_beside_one_who_wants_it_alone() {
    let real = Real::start("menu").await;
    let (mut one, mut two) = (real.open("web/vnc").await, real.open("web/vnc").await);
    let size = one.rfb(true).await;
    assert!(size.0 >= 640 && size.1 >= 400, "{size:?}");
    assert_eq!(two.rfb(false).await, size);
    // On a busy host the boot loader comes to its prompt after the viewers.
    let prompt = async {
        for viewer in [&mut one, &mut two] {
            while viewer.picture().await.into_iter().filter(|b| *b != 0).count() < 1000 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), prompt).await;
    seen.expect("the boot loader's prompt is seen");
    let hypervisor = &real.running.server.world().hypervisor;
    let vm = real.vm().await;
    // A third that connects beside the server, and never reads, is nobody's trouble either.
    let _idle = hypervisor.dial(vm, Port::Screen).await.unwrap();
    one.picture().await;
    hypervisor.kill(vm).await.unwrap();
    assert_eq!(one.closed().await.0.unwrap().0, OFF);
    real.running.stop().await.unwrap();
}

/// Who reads the port itself, as the benchmark does, has it while nobody types.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_is_free_until_somebody_types() {
    let real = Real::start("demo").await;
    let mut viewer = real.open("web/console").await;
    viewer.until("tick=5 ").await;
    let world = real.running.server.world();
    let vm = real.vm().await;
    let mut port = world.hypervisor.dial(vm, Port::Serial).await.unwrap();
    let mut byte = [0];
    tokio::time::timeout(PATIENCE, port.read_exact(&mut byte))
        .await
        .expect("the port says what the guest says")
        .unwrap();
    world.hypervisor.kill(vm).await.unwrap();
    real.running.stop().await.unwrap();
}
