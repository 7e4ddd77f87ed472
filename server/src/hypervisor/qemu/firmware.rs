//! EFI firmware of this host, as QEMU's own descriptions name it.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where packages put a description of each firmware that they bring; docs/interop/firmware.json of QEMU says what is in it.
const DESCRIPTIONS: [&str; 2] = ["/etc/qemu/firmware", "/usr/share/qemu/firmware"];
/// What our machines cannot have, or what would keep systems out that are not signed.
const NOT_OURS: [&str; 3] = ["requires-smm", "enrolled-keys", "secure-boot"];

/// An EFI firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Efi {
    /// Its code, which nobody writes.
    pub code: PathBuf,
    /// What it remembers at first.
    pub variables: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Description {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    features: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "device", rename_all = "lowercase")]
enum Mapping {
    #[serde(rename_all = "kebab-case")]
    Flash {
        executable: File,
        nvram_template: Option<File>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct File {
    filename: PathBuf,
    format: String,
}

#[derive(Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

impl Description {
    fn efi(self) -> Option<Efi> {
        let uefi = self.interface_types.iter().any(|t| t == "uefi");
        let plain = !self.features.iter().any(|f| NOT_OURS.contains(&f.as_str()));
        let pc = |m: &String| super::args::MACHINE.starts_with(m.trim_end_matches('*'));
        let ours = |t: &Target| t.architecture == "x86_64" && t.machines.iter().any(pc);
        if !(uefi && plain && self.targets.iter().any(ours)) {
            return None;
        }
        let Mapping::Flash {
            executable,
            nvram_template: Some(variables),
        } = self.mapping
        else {
            return None;
        };
        let raw = executable.format == "raw" && variables.format == "raw";
        let efi = Efi {
            code: executable.filename,
            variables: variables.filename,
        };
        (raw && efi.code.exists() && efi.variables.exists()).then_some(efi)
    }
}

impl Efi {
    /// The first that our machines can have; none if none is installed.
    pub fn find() -> Option<Self> {
        Self::find_in(DESCRIPTIONS.iter().map(Path::new))
    }

    /// Directories before others come first, and names in their order, as QEMU has it; a name hides those behind.
    fn find_in<'a>(dirs: impl Iterator<Item = &'a Path>) -> Option<Self> {
        let mut all: Vec<PathBuf> = Vec::new();
        for dir in dirs {
            let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
            for path in found.map(|entry| entry.path()) {
                if all.iter().all(|known| known.file_name() != path.file_name()) {
                    all.push(path);
                }
            }
        }
        all.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
        // What is empty, or not understood, describes nothing.
        let read = |path: PathBuf| serde_json::from_slice::<Description>(&std::fs::read(path).ok()?).ok();
        all.into_iter().filter_map(read).find_map(Description::efi)
    }

    /// One for machines that are simulated.
    pub fn simulated(dir: &Path) -> std::io::Result<Self> {
        let variables = dir.join("efi-variables");
        std::fs::File::create(&variables)?.set_len(540_672)?;
        Ok(Self {
            code: variables.clone(),
            variables,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (first, then) = (dir.path().join("etc"), dir.path().join("usr"));
        std::fs::create_dir(&first).unwrap();
        std::fs::create_dir(&then).unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let describe = |at: &Path, name: &str, code: &Path, features: &str| {
            let variables = file("vars");
            let text = format!(
                r#"{{"description": "x", "interface-types": ["uefi"], "mapping": {{"device": "flash",
                "executable": {{"filename": {code:?}, "format": "raw"}},
                "nvram-template": {{"filename": {variables:?}, "format": "raw"}}}},
                "targets": [{{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}}],
                "features": [{features}], "tags": []}}"#
            );
            std::fs::write(at.join(name), text).unwrap();
        };
        let find = || Efi::find_in([first.as_path(), then.as_path()].into_iter()).map(|efi| efi.code);
        assert_eq!(find(), None);
        describe(
            &then,
            "40-secure.json",
            &file("secure"),
            r#""secure-boot", "requires-smm""#,
        );
        describe(&then, "50-gone.json", &dir.path().join("gone"), "");
        describe(&then, "60-plain.json", &file("plain"), r#""acpi-s3""#);
        describe(&then, "70-late.json", &file("late"), "");
        assert_eq!(find(), Some(dir.path().join("plain")));
        // An empty file of the same name hides it.
        std::fs::write(first.join("60-plain.json"), "").unwrap();
        assert_eq!(find(), Some(dir.path().join("late")));
    }
}
