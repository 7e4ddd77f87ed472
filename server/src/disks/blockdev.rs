//! Layers as QEMU's block layer is told of them: formats and backing files are given, never probed.

use super::image::Found;
use super::{LayerFile, Shown};
use serde_json::{Value, json};
use shared::LayerId;
use shared::image::ImageFormat;
use std::path::Path;

/// The node of a layer in QEMU. A node's name has at most 31 characters, so the UUID goes without the two digits that
/// tell its kind.
pub fn node_name(layer: LayerId) -> String {
    let hex = layer.0.simple().to_string();
    format!("l{}{}{}", &hex[..12], &hex[13..16], &hex[17..])
}

/// How long QEMU tries to open a disk that is shown, in seconds: its process may be started anew at that moment.
const OPENS: u32 = 10;

/// A disk that is shown. Whoever reads it waits for its process for as long as it takes.
fn shown(shown: &Shown) -> Value {
    json!({
        "driver": "nbd",
        "read-only": true,
        "server": { "type": "unix", "path": shown.socket.to_string_lossy() },
        "export": shown.disk,
        "open-timeout": OPENS,
        "reconnect-delay": u32::MAX,
    })
}

/// How the file `above` names the layer that it stands on, and the format of that. Beside each other they may be moved
/// together.
pub fn backing_name(layer: &LayerFile, above: &Path) -> (String, &'static str) {
    if let Some(disk) = &layer.shown {
        return (format!("json:{}", shown(disk)), "nbd");
    }
    let beside = layer.path.parent() == above.parent();
    let name = layer.path.file_name().filter(|_| beside);
    let name = name.unwrap_or(layer.path.as_os_str());
    (name.to_string_lossy().into_owned(), "qcow2")
}

/// A layer that stands on `backing`: a node's name, a node, or null for nothing. One that is shown stands on nothing.
pub fn layer(layer: &LayerFile, backing: Value, writable: bool) -> Value {
    if let Some(disk) = &layer.shown {
        let mut node = shown(disk);
        node["node-name"] = node_name(layer.id).into();
        return node;
    }
    json!({
        "driver": "qcow2",
        "node-name": node_name(layer.id),
        "read-only": !writable,
        "discard": "unmap",
        "backing": backing,
        "file": {
            "driver": "file",
            "filename": layer.path.to_string_lossy(),
            "read-only": !writable,
            // A layer that is frozen later is then no longer held for writing.
            "auto-read-only": writable,
            "discard": "unmap",
            // A fork stays on this host: flushing each layer and forgetting what is cached of it would only hold the guest up.
            "drop-cache": false,
        },
    })
}

/// A whole chain, the base first, to be read only.
pub fn chain(layers: &[LayerFile]) -> Value {
    layers
        .iter()
        .fold(Value::Null, |backing, l| layer(l, backing, false))
}

/// A disk found in a file that came from outside, to be read only: its format is given, and it may open no other file.
pub fn found(path: &str, found: &Found) -> Value {
    let mut file = json!({"driver": "file", "filename": path, "read-only": true});
    if found.offset > 0 {
        let bytes = found.bytes.next_multiple_of(512);
        file = json!({
            "driver": "raw", "offset": found.offset, "size": bytes, "read-only": true, "file": file,
        });
    }
    let mut node = json!({
        "driver": found.format.word().to_ascii_lowercase(), "read-only": true, "file": file,
    });
    if matches!(found.format, ImageFormat::Qcow2 | ImageFormat::Vmdk) {
        node["backing"] = Value::Null;
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn node_names_fit_and_differ() {
        let (a, b) = (LayerId(Uuid::now_v7()), LayerId(Uuid::now_v7()));
        assert_eq!(node_name(a).len(), 31);
        assert_ne!(node_name(a), node_name(b));
    }

    #[test]
    fn a_chain_ends_at_its_base() {
        let file = |n: &str| LayerFile {
            id: LayerId(Uuid::now_v7()),
            path: n.into(),
            shown: None,
        };
        let v = chain(&[file("base"), file("active")]);
        assert_eq!(v["file"]["filename"], "active");
        assert_eq!(v["backing"]["file"]["filename"], "base");
        assert_eq!(v["backing"]["backing"], Value::Null);
    }

    #[test]
    fn a_disk_that_is_shown_is_read_over_its_socket() {
        let copy = LayerFile {
            id: LayerId(Uuid::now_v7()),
            path: "copy.qcow2".into(),
            shown: Some(Shown {
                socket: "/run/nbd".into(),
                disk: "disk0".into(),
            }),
        };
        let overlay = LayerFile {
            id: LayerId(Uuid::now_v7()),
            path: "overlay.qcow2".into(),
            shown: None,
        };
        let v = chain(&[copy.clone(), overlay]);
        assert_eq!(v["backing"]["driver"], "nbd");
        assert_eq!(v["backing"]["server"]["path"], "/run/nbd");
        assert_eq!(v["backing"]["node-name"], node_name(copy.id));
        let (name, format) = backing_name(&copy, Path::new("overlay.qcow2"));
        assert!(name.starts_with("json:{") && !name.contains("node-name") && format == "nbd");
    }
}
