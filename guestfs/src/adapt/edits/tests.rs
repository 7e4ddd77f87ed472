use super::*;
use proptest::prelude::*;

fn uuid(device: &str) -> Option<String> {
    let part = device.strip_prefix("/dev/sda").filter(|p| p.len() == 1)?;
    Some(format!("UUID=aaaa-{part}"))
}

const FSTAB: &str = "\
# /dev/sda1 was the root\n\
/dev/sda1\t/        ext4  errors=remount-ro 0 1\n\
  /dev/sda2   none  swap sw 0 0\r\n\
UUID=b /data ext4 defaults 0 2\n\
/dev/mapper/vg-home /home xfs defaults 0 0\n\
nonsense";

#[test]
fn fstab_names_what_is_on_the_devices() {
    let edited = table(FSTAB, 0, |device, _| uuid(device));
    assert_eq!(
        edited,
        "\
# /dev/sda1 was the root\n\
UUID=aaaa-1\t/        ext4  errors=remount-ro 0 1\n\
  UUID=aaaa-2   none  swap sw 0 0\r\n\
UUID=b /data ext4 defaults 0 2\n\
/dev/mapper/vg-home /home xfs defaults 0 0\n\
nonsense"
    );
}

#[test]
fn fstab_tells_the_type() {
    let seen = std::cell::RefCell::new(Vec::new());
    table(FSTAB, 0, |_, kind| {
        seen.borrow_mut().push(kind.map(str::to_owned));
        None
    });
    assert_eq!(
        seen.borrow()[..2],
        [Some("ext4".to_owned()), Some("swap".to_owned())]
    );
}

#[test]
fn crypttab_names_its_device_second() {
    let edited = table("swap /dev/sda2 /dev/urandom swap\n", 1, |device, _| uuid(device));
    assert_eq!(edited, "swap UUID=aaaa-2 /dev/urandom swap\n");
}

#[test]
fn words_for_the_kernel() {
    let edited = kernel_line(
        "linux /vmlinuz root=/dev/sda1 ro resume=/dev/sda2 noroot=/dev/sda1",
        uuid,
    );
    assert_eq!(
        edited,
        "linux /vmlinuz root=UUID=aaaa-1 ro resume=UUID=aaaa-2 noroot=/dev/sda1"
    );
    assert_eq!(kernel_line("RESUME=/dev/sda2\n", uuid), "RESUME=UUID=aaaa-2\n");
    assert_eq!(kernel_line("root=LABEL=x", uuid), "root=LABEL=x");
}

#[test]
fn a_serial_console_in_every_way_to_write_it() {
    let edit = |text| grub_default(text, true, uuid);
    for (before, after) in [
        ("", "GRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200n8\"\n"),
        (
            "GRUB_CMDLINE_LINUX=\n",
            "GRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200n8\"\n",
        ),
        (
            "GRUB_CMDLINE_LINUX='quiet root=/dev/sda1'\n",
            "GRUB_CMDLINE_LINUX='quiet root=UUID=aaaa-1 console=tty0 console=ttyS0,115200n8'\n",
        ),
        (
            "GRUB_CMDLINE_LINUX=\"console=tty1\"\n",
            "GRUB_CMDLINE_LINUX=\"console=tty1 console=ttyS0,115200n8\"\n",
        ),
        (
            "GRUB_CMDLINE_LINUX=\"console=ttyS0\"\n",
            "GRUB_CMDLINE_LINUX=\"console=ttyS0\"\n",
        ),
        (
            "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n",
            "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200n8\"\n",
        ),
    ] {
        assert_eq!(edit(before), after);
        assert_eq!(edit(after), after);
    }
}

#[test]
fn modules_are_added_once() {
    let all = ["virtio_pci", "virtio_blk"];
    assert_eq!(
        modules("# none\nvirtio_pci force=1", &all),
        "# none\nvirtio_pci force=1\nvirtio_blk\n"
    );
    assert_eq!(modules_mode("#MODULES=dep\nMODULES=list\n"), Some("list"));
    assert_eq!(modules_mode("# MODULES\n"), None);
}

#[test]
fn hosts_know_the_new_name() {
    let before =
        "127.0.0.1\tlocalhost\n127.0.1.1\told.example.org\told # me: old\n10.0.0.1 old\n::1 localhost old\n";
    let after =
        "127.0.0.1\tlocalhost\n127.0.1.1\tnew.example.org\tnew # me: old\n10.0.0.1 old\n::1 localhost new\n";
    assert_eq!(hosts(before, Some("old.example.org"), "new.example.org"), after);
    assert_eq!(hosts(after, Some("new.example.org"), "new.example.org"), after);
    assert_eq!(
        hosts("127.0.0.1 localhost", Some("localhost"), "new"),
        "127.0.0.1 localhost\n127.0.1.1\tnew\n"
    );
}

#[test]
fn names_of_cards() {
    for name in [
        "ens192",
        "eth0",
        "enp0s3",
        "eno1",
        "enp0s31f6",
        "em1",
        "p1p2",
        "enx001122334455",
    ] {
        assert!(names::is_card(name), "{name}");
    }
    for name in [
        "lo",
        "bond0",
        "br0",
        "docker0",
        "wlan0",
        "eth0.5",
        "en*",
        "ens",
        "ethernets",
        "eth0:1",
        "$(x)",
    ] {
        assert!(!names::is_card(name), "{name}");
    }
    assert_eq!(
        names::interfaces(
            "auto lo ens192\niface lo inet loopback\niface ens192 inet dhcp\n  iface ens192 inet6 auto\n"
        ),
        ["ens192"]
    );
    let netplan = "network:\n  version: 2\n  ethernets:\n    ens160:\n      dhcp4: true\n      match:\n        macaddress: 00:50:56:aa:bb:cc\n    # other\n    ens192: {dhcp4: true}\n  bonds:\n    eth9: {}\n";
    assert_eq!(names::netplan(netplan), ["ens160", "ens192"]);
    assert_eq!(
        names::keyfile("[connection]\nid=x\ninterface-name=ens192\n"),
        ["ens192"]
    );
    assert_eq!(names::ifcfg("DEVICE=\"eth0\"\nONBOOT=yes\n"), ["eth0"]);
    assert_eq!(
        names::networkd("[Match]\nName=en* eth0\n[Network]\nName=eth7\n"),
        ["eth0"]
    );
}

#[test]
fn addresses_that_are_no_more() {
    let keep = ["52:54:00:00:00:01".to_owned()];
    let netplan_ = "    ens160:\n      match:\n        macaddress: \"00:50:56:aa:bb:cc\"\n      macaddress: 02:00:00:00:00:01\n";
    assert_eq!(
        netplan(netplan_, &keep),
        "    ens160:\n      match:\n        driver: virtio_net\n      macaddress: 02:00:00:00:00:01\n"
    );
    let known = "match:\n  macaddress: 52:54:00:00:00:01\n";
    assert_eq!(netplan(known, &keep), known);
    assert_eq!(
        networkd(
            "[Match]\nMACAddress=00:50:56:aa:bb:cc\n[Link]\nMACAddress=02:00:00:00:00:01\n",
            &keep
        ),
        "[Match]\nDriver=virtio_net\n[Link]\nMACAddress=02:00:00:00:00:01\n"
    );
    assert_eq!(
        hardware_address("HWADDR=00:50:56:AA:BB:CC\nDEVICE=eth0\n", &keep),
        "# offshoot: HWADDR=00:50:56:AA:BB:CC\nDEVICE=eth0\n"
    );
    assert_eq!(
        hardware_address("mac-address=52:54:00:00:00:01\n", &keep),
        "mac-address=52:54:00:00:00:01\n"
    );
    let rule = "SUBSYSTEM==\"net\", ACTION==\"add\", ATTR{address}==\"00:50:56:aa:bb:cc\", NAME=\"eth0\"\n";
    assert_eq!(persistent_net(rule), format!("# offshoot: {rule}"));
}

#[test]
fn names_of_machines() {
    for name in ["a", "web-1", "web-1.example.org", "1a"] {
        assert!(is_hostname(name), "{name}");
    }
    for name in ["", ".", "a.", "-a", "a_b", "a b", "ä", &"a".repeat(64)] {
        assert!(!is_hostname(name), "{name}");
    }
}

/// Lines as they are in such files, and lines that are not.
fn text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("/dev/sda1 / ext4 defaults 0 1".to_owned()),
        Just("GRUB_CMDLINE_LINUX=\"quiet root=/dev/sda1\"".to_owned()),
        Just("GRUB_CMDLINE_LINUX=$(x) \"y".to_owned()),
        Just("GRUB_CMDLINE_LINUX=''".to_owned()),
        Just("127.0.1.1 old.example.org old".to_owned()),
        Just("127.0.0.1 localhost # old".to_owned()),
        Just("HWADDR=00:50:56:aa:bb:cc".to_owned()),
        Just("      match:".to_owned()),
        Just("        macaddress: 00:50:56:aa:bb:cc".to_owned()),
        Just("[Match]".to_owned()),
        Just("MACAddress=00:50:56:aa:bb:cc".to_owned()),
        Just("iface eth0 inet dhcp".to_owned()),
        "[ -~ä\t]{0,40}",
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n")];
    (prop::collection::vec((line, end), 0..12), any::<bool>()).prop_map(|(lines, open)| {
        let mut text: String = lines
            .into_iter()
            .flat_map(|(line, end)| [line, end.to_owned()])
            .collect();
        if open {
            text.truncate(text.trim_end().len());
        }
        text
    })
}

/// What an edit leaves is what it was given, line by line, but for those that it knows, and lines that it adds at the end.
fn holds(edit: impl Fn(&str) -> String, knows: impl Fn(&str) -> bool, before: &str) {
    let after = edit(before);
    assert_eq!(edit(&after), after, "the second time");
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    assert!(new.len() >= old.len(), "{before:?} is {after:?}");
    for (old, new) in old.iter().zip(&new) {
        assert!(old == new || knows(old), "{old:?} is {new:?}");
    }
}

proptest! {
    #[test]
    fn edits_change_what_they_know_and_only_once(text in text()) {
        holds(|t| table(t, 0, |d, _| uuid(d)), |l| l.contains("/dev/sda"), &text);
        holds(|t| table(t, 1, |d, _| uuid(d)), |l| l.contains("/dev/sda"), &text);
        holds(|t| kernel_line(t, uuid), |l| l.contains("=/dev/sda"), &text);
        holds(|t| grub_default(t, true, uuid), |l| l.contains("GRUB_CMDLINE_LINUX"), &text);
        holds(|t| grub_default(t, false, uuid), |l| l.contains("GRUB_CMDLINE_LINUX"), &text);
        holds(|t| modules(t, &["virtio_pci", "virtio_blk"]), |_| false, &text);
        holds(|t| hosts(t, Some("old.example.org"), "new.example.org"), |l| l.contains("old"), &text);
        holds(|t| hosts(t, Some("old"), "new"), |l| l.contains("old"), &text);
        holds(persistent_net, |l| l.contains("NAME="), &text);
        holds(|t| hardware_address(t, &[]), |l| l.contains("HWADDR") || l.contains("mac-address"), &text);
        holds(|t| networkd(t, &[]), |l| l.contains("MACAddress"), &text);
        holds(|t| netplan(t, &[]), |l| l.contains("macaddress:"), &text);
    }

    #[test]
    fn names_of_cards_are_safe_in_any_file(text in text(), line in "[ -~]{0,30}") {
        let text = format!("{text}\niface {line} inet dhcp\n");
        for name in names::interfaces(&text) {
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}");
        }
    }
}
