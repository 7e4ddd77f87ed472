//! A Linux: its devices, NICs, name, identity and cloud-init.

use super::guest::Guest;
use super::inspect::{Found, place};
use super::{AdaptError, CloudInit, Refusal, Wanted, boot, edits};
use edits::names;
use std::collections::BTreeMap;

/// Where systemd is told what NICs are called.
const LINKS: &str = "/etc/systemd/network";

pub(super) async fn adapt(guest: &mut Guest, found: &Found, wanted: &Wanted) -> Result<(), AdaptError> {
    if !["x86_64", "i386"].contains(&found.os.arch.as_str()) {
        let arch = found.os.arch.clone();
        return Err(Refusal::Architecture { arch }.into());
    }
    let kernels = boot::kernels(guest).await?;
    // First of all, for what comes in it is told by what is written before.
    let firmware = boot::can_boot(guest, found, wanted).await?;
    let stale = devices(guest, found).await?;
    network(guest, wanted).await?;
    boot::initramfs(guest, &kernels, stale).await?;
    boot::loader(guest, found, wanted).await?;
    boot::firmware(guest, found, firmware).await?;
    if wanted.new_identity {
        identity(guest).await?;
    }
    if let Some(hostname) = &wanted.hostname {
        name(guest, found.os.hostname.as_deref(), hostname).await?;
    }
    cloud_init(guest, wanted).await?;
    others(guest).await?;
    if guest.new_files
        && let Some(selinux) = guest.read("/etc/selinux/config").await?
        && !selinux.lines().any(|l| l.trim() == "SELINUX=disabled")
    {
        guest.write("/.autorelabel", "").await?;
        guest.did("SELinux labels all files anew at the first boot, which then restarts once");
    }
    Ok(())
}

/// Tables that name devices. Whether an initramfs that took them along is out of date.
async fn devices(guest: &mut Guest, found: &Found) -> Result<bool, AdaptError> {
    let resolve = |spec: &str, kind: Option<&str>| found.devices.resolve(spec, kind);
    if guest.edit("/etc/fstab", |t| edits::table(t, 0, resolve)).await? {
        guest.did("/etc/fstab names file systems by their UUIDs");
    }
    if let Some(fstab) = guest.read("/etc/fstab").await? {
        let specs = fstab.lines().filter_map(|l| l.split_whitespace().next());
        let left: Vec<_> = specs
            .filter(|s| place(s).is_some() && (!guest.dry || resolve(s, None).is_none()))
            .map(str::to_owned)
            .collect();
        for spec in left {
            guest.warn(format!(
                "/etc/fstab names {spec}, which may be called otherwise or be missing"
            ));
        }
    }
    let mut stale = false;
    if guest
        .edit("/etc/crypttab", |t| edits::table(t, 1, |s, _| resolve(s, None)))
        .await?
    {
        guest.did("/etc/crypttab names devices by their UUIDs");
        stale = true;
    }
    let resume = "/etc/initramfs-tools/conf.d/resume";
    if guest
        .edit(resume, |t| edits::kernel_line(t, |s| resolve(s, None)))
        .await?
    {
        guest.did("the initramfs resumes from swap by its UUID");
        stale = true;
    }
    Ok(stale)
}

/// NICs are called what the guest's files call them, whatever the bus says.
async fn network(guest: &mut Guest, wanted: &Wanted) -> Result<(), AdaptError> {
    let macs = &wanted.macs;
    let rules = "/etc/udev/rules.d/70-persistent-net.rules";
    if guest.edit(rules, edits::persistent_net).await? {
        guest.did("udev names no NIC by an address that it had");
    }
    let mut cards: Vec<String> = Vec::new();
    let mut add = |found: Vec<String>| {
        for name in found {
            if !cards.contains(&name) {
                cards.push(name);
            }
        }
    };
    let mut files = vec!["/etc/network/interfaces".to_owned()];
    files.extend(in_dir(guest, "/etc/network/interfaces.d", "").await?);
    for file in files {
        add(names::interfaces(&guest.read(&file).await?.unwrap_or_default()));
    }
    for file in in_dir(guest, "/etc/netplan", ".yaml").await? {
        add(names::netplan(&guest.read(&file).await?.unwrap_or_default()));
        if guest.edit(&file, |t| edits::netplan(t, macs)).await? {
            guest.did(format!("{file} finds NICs by their driver"));
        }
    }
    for file in in_dir(guest, LINKS, ".network").await? {
        add(names::networkd(&guest.read(&file).await?.unwrap_or_default()));
        if guest.edit(&file, |t| edits::networkd(t, macs)).await? {
            guest.did(format!("{file} finds NICs by their driver"));
        }
    }
    let mut files = in_dir(guest, "/etc/NetworkManager/system-connections", "").await?;
    files.extend(in_dir(guest, "/etc/sysconfig/network-scripts", "").await?);
    files.extend(in_dir(guest, "/etc/sysconfig/network", "").await?);
    for file in files {
        let last = file.rsplit('/').next().unwrap_or_default();
        if !(file.contains("system-connections") || last.starts_with("ifcfg-")) || last == "ifcfg-lo" {
            continue;
        }
        let text = guest.read(&file).await?.unwrap_or_default();
        let mut found = names::keyfile(&text);
        found.extend(names::ifcfg(&text));
        // SUSE says it by the file's name alone.
        let by_name = last.strip_prefix("ifcfg-").filter(|n| names::is_card(n));
        found.extend(by_name.map(str::to_owned));
        add(found);
        if guest.edit(&file, |t| edits::hardware_address(t, macs)).await? {
            guest.did(format!("{file} asks for no address that a NIC had"));
        }
    }
    links(guest, &cards, macs).await
}

async fn in_dir(guest: &mut Guest, dir: &str, ending: &str) -> Result<Vec<String>, AdaptError> {
    let names = guest.names(dir, ending).await?;
    Ok(names.into_iter().map(|n| format!("{dir}/{n}")).collect())
}

async fn links(guest: &mut Guest, cards: &[String], macs: &[String]) -> Result<(), AdaptError> {
    if cards.is_empty() {
        return Ok(());
    }
    if !guest.is_dir("/usr/lib/systemd").await? && !guest.is_dir("/lib/systemd").await? {
        guest.warn(format!(
            "NICs may be called otherwise than {}: there is no systemd to be told",
            cards.join(", ")
        ));
        return Ok(());
    }
    let matches: Vec<String> = match (cards, macs) {
        ([_], []) => vec!["Driver=virtio_net".to_owned()],
        (_, []) => {
            let names = cards.join(", ");
            guest.warn(format!(
                "NICs may be called otherwise than {names}: their addresses in the new machine were not said"
            ));
            return Ok(());
        }
        _ => macs.iter().map(|mac| format!("MACAddress={mac}")).collect(),
    };
    if cards.len() > matches.len() {
        let names = cards[matches.len()..].join(", ");
        guest.warn(format!("the new machine has no NIC for {names}"));
    }
    if !guest.is_dir(LINKS).await? {
        guest.act("make a directory", &["mkdir-p", LINKS]).await?;
    }
    for (card, by) in cards.iter().zip(&matches) {
        let path = format!("{LINKS}/10-offshoot-{card}.link");
        let text = format!(
            "# What the guest's files call it, whatever bus it is on.\n[Match]\n{by}\n\n[Link]\nName={card}\n"
        );
        if guest.read(&path).await?.as_deref() != Some(&text) {
            guest.write(&path, &text).await?;
            guest.did(format!("the NIC keeps the name {card}, by {path}"));
        }
    }
    Ok(())
}

/// An id and keys that no other machine has.
async fn identity(guest: &mut Guest) -> Result<(), AdaptError> {
    let id = "/etc/machine-id";
    if guest.read(id).await?.is_some_and(|id| !id.is_empty()) {
        // Empty, it is made at the first boot, without all that belongs to a first boot.
        guest.write(id, "").await?;
        guest.did("the machine id is made anew at the first boot");
    }
    let dbus = "/var/lib/dbus/machine-id";
    if guest.maybe(&["is-file", dbus]).await?.as_deref() == Some("true") {
        guest.act("remove", &["rm", dbus]).await?;
        guest.act("make a link", &["ln-s", id, dbus]).await?;
        guest.did("D-Bus takes the machine id, too");
    }
    for file in [
        "/var/lib/systemd/random-seed",
        "/var/lib/systemd/credential.secret",
    ] {
        if guest.exists(file).await? {
            guest.act("remove", &["rm-f", file]).await?;
        }
    }
    guest
        .program(
            "forget DHCP leases",
            "rm -f /var/lib/dhcp/*.leases /var/lib/NetworkManager/*.lease",
        )
        .await?;
    let keys = guest.look("ls /etc/ssh/ssh_host_*_key").await?;
    if keys.trim().is_empty() {
        return Ok(());
    }
    guest
        .program(
            "remove the SSH host keys",
            "rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub",
        )
        .await?;
    let units = guest
        .look("ls /usr/lib/systemd/system /lib/systemd/system | grep '^sshd-keygen'")
        .await?;
    if units.trim().is_empty() {
        guest.program("make SSH host keys", "ssh-keygen -A").await?;
        guest.did("the SSH host keys are new");
    } else {
        guest.did("the SSH host keys are made anew at the first boot");
    }
    Ok(())
}

async fn name(guest: &mut Guest, old: Option<&str>, new: &str) -> Result<(), AdaptError> {
    let mut changed = false;
    if guest
        .read("/etc/hostname")
        .await?
        .is_none_or(|name| name.trim() != new)
    {
        guest.write("/etc/hostname", &format!("{new}\n")).await?;
        changed = true;
    }
    changed |= guest.edit("/etc/hosts", |t| edits::hosts(t, old, new)).await?;
    if changed {
        guest.did(format!("the machine is called {new}"));
    }
    Ok(())
}

async fn cloud_init(guest: &mut Guest, wanted: &Wanted) -> Result<(), AdaptError> {
    let said = wanted.cloud_init.is_some() || !wanted.metadata.is_empty();
    if guest.which("cloud-init").await?.is_none() {
        if said {
            guest.warn("user-data and metadata are not told to the guest: cloud-init is not installed there");
        }
        return Ok(());
    }
    if !said && !wanted.new_identity {
        return Ok(());
    }
    let forget =
        "rm -rf /var/lib/cloud/instance /var/lib/cloud/instances /var/lib/cloud/data /run/cloud-init";
    guest.program("let cloud-init forget", forget).await?;
    guest.did("cloud-init takes it for a new machine");
    if !said {
        return Ok(());
    }
    let CloudInit {
        instance_id,
        user_data,
        network_config,
    } = wanted.cloud_init.clone().unwrap_or_default();
    let mut meta: BTreeMap<_, _> = wanted.metadata.clone();
    let id = instance_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    meta.insert("instance-id".into(), id);
    if let Some(hostname) = &wanted.hostname {
        meta.insert("local-hostname".into(), hostname.clone());
    }
    let seed = "/var/lib/cloud/seed/nocloud";
    guest.act("make a directory", &["mkdir-p", seed]).await?;
    // JSON is YAML. Maps of texts are always JSON.
    let meta = serde_json::to_string(&meta).unwrap_or_default();
    guest
        .write(&format!("{seed}/meta-data"), &format!("{meta}\n"))
        .await?;
    guest
        .write(&format!("{seed}/user-data"), &user_data.unwrap_or_default())
        .await?;
    if let Some(network) = network_config {
        guest.write(&format!("{seed}/network-config"), &network).await?;
    }
    // User-data may hold secrets.
    guest
        .act("set the mode", &["chmod", "0600", &format!("{seed}/user-data")])
        .await?;
    // The image may have been made for one cloud alone.
    let sources = "datasource_list: [ NoCloud, None ]\n";
    guest
        .write("/etc/cloud/cloud.cfg.d/99-offshoot.cfg", sources)
        .await?;
    guest.did("cloud-init is told user-data and metadata by a NoCloud seed");
    Ok(())
}

/// Programs of where it was, and those that should be there.
async fn others(guest: &mut Guest) -> Result<(), AdaptError> {
    let agents = [
        ("vmtoolsd", "VMware's tools are"),
        ("VBoxService", "VirtualBox's additions are"),
        ("waagent", "Azure's agent is"),
        ("google_guest_agent", "Google's agent is"),
        ("amazon-ssm-agent", "Amazon's agent is"),
        ("xe-daemon", "Xen's tools are"),
    ];
    for (program, what) in agents {
        if guest.which(program).await?.is_some() {
            guest.warn(format!("{what} still installed, and of no use here"));
        }
    }
    if guest.which("qemu-ga").await?.is_none() {
        guest.warn("qemu-guest-agent is not installed: snapshots are as after a power failure, and it is shut down by its power button");
    }
    Ok(())
}
