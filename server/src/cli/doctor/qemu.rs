//! Whether QEMU can do what is asked of it: not only its version, but a machine that is started.

use super::{Check, PATIENCE, output};
use crate::config::AcceleratorChoice;
use crate::hypervisor::qemu::{BINARY, Efi, MACHINE, SANDBOX};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// The oldest QEMU that will do.
const OLDEST: (u32, u32) = (7, 2);
const INSTALL: &str = "sudo apt-get install --no-install-recommends qemu-system-x86 qemu-utils";

pub async fn checks(choice: AcceleratorChoice) -> Vec<Check> {
    let mut checks = Vec::new();
    let qemu = version(BINARY).await;
    checks.push(match qemu.as_deref() {
        None => Check::fail("QEMU", format!("{BINARY} is not installed"), INSTALL),
        Some(v) if number(v) < OLDEST => Check::fail(
            "QEMU",
            format!(
                "version {v} is too old: {}.{} or newer is needed",
                OLDEST.0, OLDEST.1
            ),
            "upgrade to Debian 12, Ubuntu 24.04 or newer",
        ),
        Some(v) => Check::ok("QEMU", format!("version {v}")),
    });
    checks.push(image_tool(qemu.as_deref()).await);
    let accelerator = accelerator(choice);
    let uses_kvm = accelerator.0;
    checks.push(accelerator.1);
    if qemu.as_deref().is_some_and(|v| number(v) >= OLDEST) {
        checks.extend(machine(uses_kvm).await);
    }
    checks.push(firmware(Efi::find()));
    checks
}

/// Whether machines can have an EFI firmware.
fn firmware(found: Option<Efi>) -> Check {
    let name = "EFI firmware";
    match found {
        Some(efi) => Check::ok(name, efi.code.display().to_string()),
        None => Check::warn(
            name,
            "there is none: machines with EFI cannot be made, those with a BIOS can",
            "sudo apt-get install --no-install-recommends ovmf, then start the server again",
        ),
    }
}

/// The version that a program of QEMU's says it has.
async fn version(program: &str) -> Option<String> {
    let text = output(program, &["--version"]).await?;
    let (_, rest) = text.split_once("version ")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Installing Debian's qemu-system-x86 removes a qemu-utils that is newer; and two versions do not agree about locks.
async fn image_tool(qemu: Option<&str>) -> Check {
    let name = "qemu-img";
    match (version(name).await, qemu) {
        (None, _) => Check::fail(name, "it is not installed", fix_image_tool().await),
        (Some(v), Some(q)) if v != q => Check::fail(
            name,
            format!("version {v} beside QEMU {q}"),
            fix_image_tool().await,
        ),
        (Some(v), _) => Check::ok(name, format!("version {v}")),
    }
}

/// Both at the version that there is of QEMU: apt would take a newer qemu-utils by itself.
async fn fix_image_tool() -> String {
    let of = ["-W", "-f", "${Version}", "qemu-system-x86"];
    match output("dpkg-query", &of).await {
        Some(v) if v.starts_with(|c: char| c.is_ascii_digit()) => format!(
            "sudo apt-get install --no-install-recommends --allow-downgrades qemu-system-x86={v} qemu-utils={v}"
        ),
        _ => INSTALL.to_owned(),
    }
}

fn accelerator(choice: AcceleratorChoice) -> (bool, Check) {
    let name = "accelerator";
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let capable = flags
        .lines()
        .filter(|l| l.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|f| f == "vmx" || f == "svm");
    let open = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    let slow = "guests run under TCG, five to twenty times slower";
    let missing = match (capable, open) {
        (true, Ok(_)) => None,
        (false, _) => Some((
            format!("{slow}: the processor shows no virtualization (vmx or svm)"),
            "switch it on in the firmware, or for a virtual machine nested virtualization at its host",
        )),
        (true, Err(e)) if e.kind() == std::io::ErrorKind::PermissionDenied => Some((
            format!("{slow}: /dev/kvm may not be opened"),
            "sudo usermod -aG kvm \"$USER\", then log in again",
        )),
        (true, Err(e)) => Some((
            format!("{slow}: /dev/kvm: {e}"),
            "sudo modprobe -a kvm_intel kvm_amd",
        )),
    };
    match (choice, missing) {
        (AcceleratorChoice::Tcg, _) => (false, Check::ok(name, "TCG, as configured")),
        (_, None) => (true, Check::ok(name, "KVM")),
        (AcceleratorChoice::Kvm, Some((why, fix))) => (true, Check::fail(name, why, fix)),
        (AcceleratorChoice::Auto, Some((why, fix))) => (false, Check::warn(name, why, fix)),
    }
}

/// Starts a machine without a guest, sandboxed, and takes a picture of its screen.
async fn machine(kvm: bool) -> Vec<Check> {
    let sandboxed = probe(kvm, true).await;
    let (sandbox, machine) = match sandboxed {
        Ok(()) => (Ok(()), Ok(())),
        Err(why) => match probe(kvm, false).await {
            // Without the sandbox it works: so that is what is missing.
            Ok(()) => (Err(why), Ok(())),
            Err(why) => (Ok(()), Err(why)),
        },
    };
    let distribution = "take QEMU from the distribution: it is built with seccomp and libpng";
    vec![
        match sandbox {
            Ok(()) => Check::ok("sandbox", "QEMU runs under seccomp"),
            Err(why) => Check::fail(
                "sandbox",
                format!("QEMU does not start with it: {why}"),
                distribution,
            ),
        },
        match machine {
            Ok(()) => Check::ok("machine", "one starts, and its screen is a PNG"),
            Err(why) => Check::fail("machine", why, distribution),
        },
    ]
}

async fn probe(kvm: bool, sandbox: bool) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| format!("no place for a picture: {e}"))?;
    let picture = dir.path().join("screen.png");
    let probing = tokio::time::timeout(PATIENCE, probe_into(&picture, kvm, sandbox)).await;
    let said = probing.unwrap_or_else(|_| Err("QEMU does not answer".into()));
    let bytes = std::fs::read(&picture).unwrap_or_default();
    said?;
    if bytes.starts_with(b"\x89PNG") {
        Ok(())
    } else {
        Err("QEMU wrote a picture that is no PNG".into())
    }
}

async fn probe_into(picture: &Path, kvm: bool, sandbox: bool) -> Result<(), String> {
    let accelerator = if kvm { "kvm" } else { "tcg" };
    let mut command = Command::new(BINARY);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-S",
        "-m",
        "64M",
    ]);
    command.args([
        "-machine",
        &format!("{MACHINE},accel={accelerator}"),
        "-device",
        "VGA",
        "-qmp",
        "stdio",
    ]);
    if sandbox {
        command.args(["-sandbox", SANDBOX]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| e.to_string())?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("QEMU has no standard input".into());
    };
    let mut answers = BufReader::new(stdout).lines();
    let commands = [
        json!({ "execute": "qmp_capabilities" }),
        json!({ "execute": "screendump", "arguments": { "filename": picture, "format": "png" } }),
        json!({ "execute": "quit" }),
    ];
    let mut said = None;
    for command in commands {
        // If QEMU has ended, its last words say why.
        if stdin.write_all(format!("{command}\n").as_bytes()).await.is_err() {
            break;
        }
        loop {
            let Ok(Some(line)) = answers.next_line().await else {
                break;
            };
            let answer: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(error) = answer.pointer("/error/desc").and_then(Value::as_str) {
                said.get_or_insert_with(|| error.to_owned());
            }
            if answer.get("return").is_some() || answer.get("error").is_some() {
                break;
            }
        }
    }
    let mut words = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What is not text is nothing to tell.
        _ = stderr.read_to_string(&mut words).await;
    }
    let ended = child.wait().await.map_err(|e| e.to_string())?;
    match said {
        Some(error) => Err(error),
        None if ended.success() => Ok(()),
        None => Err(words.lines().last().unwrap_or("QEMU ends at once").to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(number("10.0.2") > OLDEST && number("7.2.22") >= OLDEST && number("7.10") > OLDEST);
        assert!(number("7.1.90") < OLDEST && number("6.2.0") < OLDEST && number("") < OLDEST);
    }

    #[test]
    fn without_an_efi_firmware_the_package_is_named() {
        let none = firmware(None);
        assert_eq!(none.level, Level::Warn);
        assert!(none.fix.is_some_and(|fix| fix.contains("ovmf")));
        let efi = Efi {
            code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            variables: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
        };
        let found = firmware(Some(efi));
        assert_eq!(
            (found.level, &*found.found),
            (Level::Ok, "/usr/share/OVMF/OVMF_CODE_4M.fd")
        );
    }
}
