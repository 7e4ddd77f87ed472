//! The NICs that a guest's files speak of, by name.

/// Whether it is what udev or the kernel calls an Ethernet card; bridges, bonds and the like keep their names anyway.
pub(in crate::adapt) fn is_card(name: &str) -> bool {
    let numbered = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let kinds = ["eth", "ens", "eno", "enp", "enP", "enc", "em"];
    let known = kinds.iter().any(|k| name.strip_prefix(k).is_some_and(numbered))
        || name.strip_prefix("enx").is_some_and(|r| r.len() == 12);
    // Red Hat's `p1p2`.
    let slot = name.strip_prefix('p').and_then(|r| r.split_once('p'));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let slot = slot.is_some_and(|(slot, port)| number(slot) && number(port));
    let whole = name.bytes().all(|b| b.is_ascii_alphanumeric());
    whole && name.len() <= 15 && (known || slot)
}

/// `/etc/network/interfaces`
pub(in crate::adapt) fn interfaces(text: &str) -> Vec<String> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("iface")).then(|| words.next()).flatten()
    });
    cards(named)
}

/// A file of netplan: the keys below `ethernets`.
pub(in crate::adapt) fn netplan(text: &str) -> Vec<String> {
    let mut within: Option<usize> = None;
    let mut keys: Option<usize> = None;
    let mut named = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let indent = line.len() - trimmed.len();
        if trimmed.trim_end() == "ethernets:" {
            (within, keys) = (Some(indent), None);
        } else if within.is_some_and(|at| indent <= at) {
            within = None;
        } else if within.is_some() {
            let key = trimmed.split(':').next().unwrap_or_default();
            if indent <= *keys.get_or_insert(indent) {
                named.push(key.trim_matches(['"', '\'']));
            }
        }
    }
    cards(named.into_iter())
}

/// A file of NetworkManager's.
pub(in crate::adapt) fn keyfile(text: &str) -> Vec<String> {
    cards(values(text, &["interface-name"]))
}

/// A file `ifcfg-…`
pub(in crate::adapt) fn ifcfg(text: &str) -> Vec<String> {
    cards(values(text, &["DEVICE"]))
}

/// A file of systemd-networkd: what `[Match]` names, and no pattern.
pub(in crate::adapt) fn networkd(text: &str) -> Vec<String> {
    let mut matching = false;
    let lines = text.lines().filter(|line| {
        let line = line.trim();
        if line.starts_with('[') {
            matching = line == "[Match]";
        }
        matching
    });
    let lines: Vec<_> = lines.collect();
    let lines = lines.join("\n");
    cards(values(&lines, &["Name"]).flat_map(str::split_whitespace))
}

fn values<'a>(text: &'a str, keys: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().filter_map(|line| line.trim().split_once('='));
    let found = lines.filter(|(key, _)| keys.contains(&key.trim()));
    found.map(|(_, value)| value.trim().trim_matches(['"', '\'']))
}

fn cards<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names.filter(|name| is_card(name)) {
        if !all.iter().any(|n| n == name) {
            all.push(name.to_owned());
        }
    }
    all
}
