//! `offshoot vm console`: with pipes, and in a terminal.

use crate::Site;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A command that is spoken with while it runs.
struct Talk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talk {
    fn begin(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn send(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    /// Everything up to a line that ends so.
    fn until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        loop {
            let n = self.output.read_until(b'\n', &mut read).unwrap();
            let text = String::from_utf8_lossy(&read);
            if text.trim_end().ends_with(end) {
                return text.into_owned();
            }
            assert!(n > 0, "ended before {end:?}: {text}");
        }
    }

    /// Its exit code, and what it had to say beside.
    fn end(self) -> (Option<i32>, String, String) {
        let Self {
            child,
            input,
            mut output,
        } = self;
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        drop(input);
        let out = child.wait_with_output().unwrap();
        (out.status.code(), rest, String::from_utf8(out.stderr).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_line_is_typed_into_and_left() {
    let site = Site::start().await;
    site.machine("web").await;
    let command = site.command("vm console web");
    let talk = move || {
        let mut talk = Talk::begin(command);
        talk.until("web login:");
        talk.send("hello\r");
        talk.until("hello");
        // What follows the key that leaves goes nowhere.
        talk.send("bye\r\x1dmore");
        talk.end()
    };
    let (code, _, told) = tokio::task::spawn_blocking(talk).await.unwrap();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("Ctrl-] leaves"), "{told}");
    // What was typed last is there when it has ended; nothing was typed of the rest.
    let mut log = String::new();
    while !log.contains("bye") {
        log = site.ok("vm serial web").await;
    }
    assert!(log.ends_with("hello\r\nbye\r\n"), "{log:?}");

    // The end of the machine is the end of the line.
    let command = site.command("vm console web --last 0");
    let talk = tokio::task::spawn_blocking(move || {
        let mut talk = Talk::begin(command);
        talk.send("still here\r");
        talk.until("still here");
        talk
    });
    let talk = talk.await.unwrap();
    site.ok("vm stop web --power-off --wait").await;
    let (code, _, told) = tokio::task::spawn_blocking(move || talk.end()).await.unwrap();
    assert!(code == Some(0) && told.contains("web is off"), "{told}");
    let off = site.run("vm console web").await;
    assert_eq!(off.code, 3);
    assert!(
        off.stderr.contains("web is not running: start it first"),
        "{off:?}"
    );
}

/// `script` gives it a terminal of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_left_as_it_was() {
    let site = Site::start().await;
    site.machine("web").await;
    let console = format!("{} vm console web", env!("CARGO_BIN_EXE_offshoot"));
    let mut script = Command::new("script");
    script.args([
        "-qec",
        &format!("echo before=$(stty -g)=; {console}; echo after=$(stty -g)="),
        "/dev/null",
    ]);
    script.env("OFFSHOOT_URL", format!("http://{}", site.running.address));
    script.env("OFFSHOOT_TOKEN", &site.token);
    let talk = move || {
        let mut talk = Talk::begin(script);
        let mut seen = talk.until("web login:");
        // Ctrl-C is the guest's: it ends nothing here.
        talk.send("\x03typed\r");
        seen.push_str(&talk.until("typed"));
        talk.send("\x1d");
        let (code, rest, _) = talk.end();
        (code, seen + &rest)
    };
    let (code, seen) = tokio::task::spawn_blocking(talk).await.unwrap();
    assert_eq!(code, Some(0), "{seen}");
    let setting = |when: &str| {
        let text = seen.split(&format!("{when}=")).nth(1);
        let text = text.unwrap_or_else(|| panic!("no {when} in {seen}"));
        text.split('=').next().unwrap().to_owned()
    };
    assert!(setting("before").contains(':'), "{seen}");
    assert_eq!(setting("before"), setting("after"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_as_well() {
    let pem = tempfile::tempdir().unwrap();
    let (cert, key) = (pem.path().join("cert.pem"), pem.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let site = Site::start_with(|config| {
        config.tls_cert = Some(cert.clone());
        config.tls_key = Some(key);
    })
    .await;
    let mut command = site.command("vm console none");
    command.env("OFFSHOOT_URL", format!("https://{}", site.running.address));
    command.arg("--tls-ca").arg(&cert);
    let ran = crate::ran(command).await;
    // The server is reached, and says what it has not.
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("none"), "{ran:?}");
}
