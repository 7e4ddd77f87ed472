//! NoCloud seeds: a small FAT disk labelled CIDATA, as cloud-init looks for it.

use super::{DiskError, part};
use serde_json::{Map, Value};
use shared::vm::CloudInit;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// What a user-data of nothing says.
const NO_USER_DATA: &str = "#cloud-config\n{}\n";

/// Writes the seed disk. Blocks.
pub fn write(path: &Path, instance_id: &str, hostname: &str, ci: &CloudInit) -> Result<(), DiskError> {
    let meta_data = meta_data(instance_id, hostname, ci.meta_data.as_deref());
    let mut files = vec![
        ("meta-data", meta_data.as_str()),
        ("user-data", ci.user_data.as_deref().unwrap_or(NO_USER_DATA)),
    ];
    if let Some(network) = &ci.network_config {
        files.push(("network-config", network));
    }
    let part = part(path);
    fill(&part, &files, 0).map_err(DiskError::io("make the seed", path))?;
    std::fs::rename(&part, path).map_err(DiskError::io("make the seed", path))
}

/// Writes a seed that says what `from` says, of another instance. Blocks.
pub fn renew(from: &Path, path: &Path, instance_id: &str, hostname: &str) -> Result<(), DiskError> {
    let read = read(from).map_err(DiskError::io("read the seed", from))?;
    let part = part(path);
    let made = (|| {
        let files: Vec<(&str, String)> = read
            .iter()
            .map(|(name, text)| match *name {
                "meta-data" => (*name, meta_data(instance_id, hostname, Some(&nobodys(text)))),
                _ => (*name, text.clone()),
            })
            .collect();
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        // Whoever knows the disk already knows its size.
        fill(&part, &files, std::fs::metadata(from)?.len())
    })();
    made.map_err(DiskError::io("make the seed", path))?;
    std::fs::rename(&part, path).map_err(DiskError::io("make the seed", path))
}

fn read(path: &Path) -> io::Result<Vec<(&'static str, String)>> {
    use std::io::Read;
    let disk = OpenOptions::new().read(true).write(true).open(path)?;
    let volume = fatfs::FileSystem::new(&disk, fatfs::FsOptions::new())?;
    let mut files = Vec::new();
    for name in ["meta-data", "user-data", "network-config"] {
        let mut text = String::new();
        match volume.root_dir().open_file(name) {
            Ok(mut file) => file.read_to_string(&mut text)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        files.push((name, text));
    }
    Ok(files)
}

/// Meta-data without what says whose they are.
fn nobodys(given: &str) -> String {
    const WHOSE: [&str; 2] = ["instance-id", "local-hostname"];
    if let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(given) {
        fields.retain(|key, _| !WHOSE.contains(&key.as_str()));
        return Value::Object(fields).to_string();
    }
    let whose = |line: &str| WHOSE.iter().any(|key| is_key(line, key));
    given.split_inclusive('\n').filter(|line| !whose(line)).collect()
}

/// Whether a line of YAML at the left margin is this key's.
fn is_key(line: &str, key: &str) -> bool {
    let line = line.trim_end().trim_start_matches(['"', '\'']);
    line.strip_prefix(key)
        .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
}

fn fill(path: &Path, files: &[(&str, &str)], least: u64) -> io::Result<()> {
    let data: u64 = files.iter().map(|(_, text)| text.len() as u64).sum();
    let disk: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    // A MiB has room for the tables, the directory and the last clusters.
    disk.set_len((data.next_multiple_of(512) + (1 << 20)).max(least))?;
    let label = fatfs::FormatVolumeOptions::new().volume_label(*b"CIDATA     ");
    fatfs::format_volume(&disk, label)?;
    {
        let volume = fatfs::FileSystem::new(&disk, fatfs::FsOptions::new())?;
        for (name, text) in files {
            volume.root_dir().create_file(name)?.write_all(text.as_bytes())?;
        }
        volume.unmount()?;
    }
    disk.sync_all()
}

/// The meta-data with `instance-id` and `local-hostname`, added where they are missing: to YAML as lines at its top,
/// to JSON as fields.
pub fn meta_data(instance_id: &str, hostname: &str, given: Option<&str>) -> String {
    let given = given.unwrap_or("");
    let wanted = [("instance-id", instance_id), ("local-hostname", hostname)];
    if let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(given) {
        for (key, value) in wanted {
            fields.entry(key).or_insert_with(|| value.into());
        }
        return Value::Object(fields).to_string();
    }
    let has = |key: &str| given.lines().any(|line| is_key(line, key));
    let added: String = wanted
        .iter()
        .filter(|(key, _)| !has(key))
        // A JSON string is a YAML string.
        .map(|(key, value)| format!("{key}: {}\n", Value::from(*value)))
        .collect();
    // Before a line of `---` they would be a document of their own.
    let mut at = 0;
    for line in given.split_inclusive('\n') {
        let text = line.trim_end();
        if text == "---" {
            at += line.len();
            break;
        }
        if !text.is_empty() && !text.starts_with(['#', '%']) {
            at = 0;
            break;
        }
        at += line.len();
    }
    let (head, body) = given.split_at(at);
    let head_end = if head.is_empty() || head.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{head}{head_end}{added}{body}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn adds_what_is_missing_and_only_that() {
        let both = "instance-id: \"i-1\"\nlocal-hostname: \"web\"\n";
        assert_eq!(meta_data("i-1", "web", None), both);
        assert_eq!(meta_data("i-1", "web", Some("a: 1\n")), format!("{both}a: 1\n"));
        assert_eq!(
            meta_data("i-1", "web", Some("instance-id: mine\n")),
            "local-hostname: \"web\"\ninstance-id: mine\n"
        );
        assert_eq!(
            meta_data("i-1", "web", Some("# by hand\n---\na: 1")),
            format!("# by hand\n---\n{both}a: 1")
        );
        assert_eq!(
            meta_data("i-1", "web", Some("nested:\n  instance-id: x\n")),
            format!("{both}nested:\n  instance-id: x\n")
        );
        let json: Value =
            serde_json::from_str(&meta_data("i-1", "web", Some(r#"{"local-hostname":"mine"}"#))).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"instance-id": "i-1", "local-hostname": "mine"})
        );
    }

    #[test]
    fn a_seed_becomes_anothers_and_says_the_same_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("seed"), dir.path().join("other"));
        for given in ["instance-id: mine\na: 1\n", r#"{"local-hostname":"mine","a":1}"#] {
            let ci = CloudInit {
                user_data: Some("#cloud-config\n# x\n".into()),
                meta_data: Some(given.into()),
                network_config: None,
            };
            write(&path, "i-1", "web", &ci).unwrap();
            renew(&path, &other, "i-2", "a-fork-of-web-with-a-longer-name").unwrap();
            let files = read(&other).unwrap();
            let [("meta-data", meta), ("user-data", user)] = &files[..] else {
                panic!("{files:?}")
            };
            assert!(meta.contains("i-2") && meta.contains("a-fork-of-web"), "{meta}");
            assert!(
                !meta.contains("mine") && !meta.contains("i-1") && meta.contains('a'),
                "{meta}"
            );
            assert_eq!(user, "#cloud-config\n# x\n");
        }
    }

    #[test]
    fn a_seed_can_be_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        let long = format!("#cloud-config\n# {}\n", "x".repeat(300_000));
        let ci = CloudInit {
            user_data: Some(long.clone()),
            meta_data: None,
            network_config: Some("version: 2\n".into()),
        };
        for _ in 0..2 {
            write(&path, "i-1", "web", &ci).unwrap();
        }
        let disk = File::options().read(true).write(true).open(&path).unwrap();
        let volume = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "CIDATA");
        assert_eq!(
            volume.read_volume_label_from_root_dir().unwrap().as_deref(),
            Some("CIDATA")
        );
        let read = |name: &str| {
            let mut text = String::new();
            volume
                .root_dir()
                .open_file(name)
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            text
        };
        assert_eq!(read("user-data"), long);
        assert_eq!(read("network-config"), "version: 2\n");
        assert!(read("meta-data").contains("local-hostname: \"web\""));
    }
}
