//! Where machines go, as forms ask for it: storages, networks, images; and their turn when the host has restarted.

use super::field::{Fields, Line};
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::can::limit;
use shared::place::{Image, Network, NetworkKind, Storage};
use shared::vm::Firmware;

pub fn kind(kind: NetworkKind) -> &'static str {
    match kind {
        NetworkKind::User => w().net_user,
        NetworkKind::Bridge => w().net_bridge,
        NetworkKind::Isolated => w().net_isolated,
    }
}

/// Networks with their words.
pub fn networks(all: &[Network]) -> Vec<(String, String)> {
    let word = |n: &Network| match kind(n.kind) {
        kind if kind == n.name.as_str() => kind.to_owned(),
        kind => format!("{} · {kind}", n.name),
    };
    all.iter().map(|n| (n.name.to_string(), word(n))).collect()
}

/// Images with their words.
pub fn images(all: &[Image]) -> Vec<(String, String)> {
    let word = |i: &Image| format!("{} · {}", i.name, format::bytes(i.virtual_bytes));
    all.iter().map(|i| (i.name.to_string(), word(i))).collect()
}

/// What is free in a storage, or why that is not known.
pub fn room(storage: &Storage) -> String {
    match &storage.away {
        Some(why) => format!("{}: {why}", w().out_of_reach),
        None => {
            let (free, whole) = format::bytes_of(storage.free_bytes, storage.total_bytes);
            put(w().free_of, &[&free, &whole])
        }
    }
}

/// A choice of storages; nothing where there is but one.
pub fn storage(fields: &Fields, all: &[Storage], none: &'static str) -> Option<AnyView> {
    storage_now(fields, all, none, "")
}

/// As [`storage`], where one may be chosen already.
pub fn storage_now(fields: &Fields, all: &[Storage], none: &'static str, now: &str) -> Option<AnyView> {
    let word = |s: &Storage| match s.away {
        Some(_) => format!("{} · {}", s.name, w().out_of_reach),
        None => format!("{} · {}", s.name, put(w().free, &[&format::bytes(s.free_bytes)])),
    };
    let mut options = vec![(String::new(), none.to_owned())];
    options.extend(all.iter().map(|s| (s.name.to_string(), word(s))));
    (all.len() > 1).then(|| fields.choice("storage", w().storage, String::new(), options, now))
}

/// BIOS or EFI.
pub fn firmware(fields: &Fields, now: Firmware, hint: &str) -> AnyView {
    let word = |f: &Firmware| (f.word().to_owned(), f.word().to_owned());
    let all = Firmware::ALL.iter().map(word).collect();
    let hint = [w().firmware_hint, hint].join(" ");
    fields.choice("firmware", w().firmware, hint, all, now.word())
}

/// Whether it is started with its host.
pub fn autostart(fields: &Fields, now: Option<u32>) -> AnyView {
    fields.line(Line {
        name: "autostart",
        label: w().autostart,
        kind: "number",
        min: Some(0),
        max: Some(limit::TURN),
        value: now.map(|n| n.to_string()).unwrap_or_default(),
        hint: w().autostart_hint.to_owned(),
        ..Line::default()
    })
}
