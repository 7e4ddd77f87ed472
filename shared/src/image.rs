//! Images that come from outside, and disks that go there.

use crate::{ExportId, Name, SnapshotId, Status, Timestamp, UploadId, VmId, words};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

words! {
    /// What a file with an image is.
    pub enum ImageFormat {
        /// QEMU's own.
        Qcow2 = "QCOW2",
        /// The disk, byte for byte.
        Raw = "RAW",
        /// VMware's, in one file.
        Vmdk = "VMDK",
        /// Hyper-V's.
        Vhdx = "VHDX",
        /// A tar archive with an OVF and VMDKs.
        Ova = "OVA",
    }

    /// What a disk is exported as.
    pub enum ExportFormat {
        /// QEMU's own.
        Qcow2 = "QCOW2",
        /// The disk, byte for byte; with holes where nothing is.
        Raw = "RAW",
        /// VMware's, compressed, as it is in an OVA.
        Vmdk = "VMDK",
    }
}

impl ExportFormat {
    /// How the names of such files end.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "img",
            Self::Vmdk => "vmdk",
        }
    }
}

/// How long an upload is kept that nothing more arrives for, and a file that was exported, in hours.
pub const KEPT_HOURS: i64 = 24;
/// Longest fingerprint of a file, in bytes.
pub const FINGERPRINT_BYTES: usize = 1024;
/// Longest address that an image is fetched from, in bytes.
pub const URL_BYTES: usize = 4096;

/// A request to upload an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateUpload {
    /// The name that the image gets.
    pub name: Name,
    /// What the file is; what it looks like if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ImageFormat>,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the file is told by where it comes from, such as its name and when it was changed: an upload that broke off is
    /// gone on with only from the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl CreateUpload {
    /// Whether an upload that was begun before is of the same file.
    pub fn goes_on_with(&self, begun: &Upload) -> bool {
        self.name == begun.name
            && self.format == begun.format
            && self.size_bytes == begun.size_bytes
            && self.sha256 == begun.sha256
            && self.fingerprint == begun.fingerprint
            && (self.sha256.is_some() || self.fingerprint.is_some())
    }
}

/// What a file is told by: its name, and when it was changed, in milliseconds.
pub fn fingerprint(file_name: &str, changed_millis: i64) -> String {
    let name: String = file_name.chars().take(FINGERPRINT_BYTES / 8).collect();
    format!("{name} {changed_millis}")
}

/// An image on its way here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// The name that the image gets.
    pub name: Name,
    /// What the file is said to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ImageFormat>,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// How many have arrived: the next part begins here.
    pub received_bytes: u64,
    /// The SHA-256 that it has to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the file is told by where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Who began it.
    pub created_by: String,
    /// When it was begun.
    pub create_time: Timestamp,
    /// When it is thrown away unless more arrives.
    pub expire_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// A request for an image: from exactly one of `url`, `path` and `snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateImage {
    /// Its name.
    pub name: Name,
    /// An address to fetch it from, by http or https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file of the server's host, below one of the directories that are configured as `image_roots`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A disk of a snapshot: nothing is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotDisk>,
    /// What the file is; what it looks like if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ImageFormat>,
    /// Its SHA-256, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Uuid>,
}

/// A disk of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotDisk {
    /// The machine, by name or id.
    pub vm: String,
    /// The snapshot, by name or id.
    pub snapshot: String,
    /// The number of the disk.
    #[serde(default)]
    pub disk: u32,
}

/// What is to change of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchImage {
    /// Its name.
    pub name: Name,
}

/// A request to write a disk of a machine to a file. Without a snapshot the machine must be stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateExport {
    /// What the file is to be.
    pub format: ExportFormat,
    /// The number of the disk.
    #[serde(default)]
    pub disk: u32,
    /// The snapshot, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Take a snapshot now, and export that.
    #[serde(default)]
    pub snapshot_now: bool,
    /// Makes the request idempotent for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Uuid>,
}

/// A disk that was written to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// Its id.
    pub id: ExportId,
    /// The file's name, such as `web-1-first-0.qcow2`.
    pub name: String,
    /// The machine.
    pub vm: VmId,
    /// Its name at the time.
    pub vm_name: Name,
    /// The snapshot's name; nothing where the stopped machine's disk was written as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_name: Option<Name>,
    /// The number of the disk.
    pub disk: u32,
    /// What the file is.
    pub format: ExportFormat,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// When it was written.
    pub create_time: Timestamp,
    /// When it is removed.
    pub expire_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// Bring an image in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ImportSpec {
    /// The name that it gets.
    pub name: Name,
    /// What the file is said to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ImageFormat>,
    /// The SHA-256 that it has to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where it comes from.
    pub from: ImportFrom,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ImportFrom {
    /// It was uploaded.
    Upload(UploadId),
    /// It is fetched.
    Url(String),
    /// It is a file of the host.
    Path(String),
}

/// Make an image of a snapshot's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SnapshotImageSpec {
    /// The machine.
    pub vm: VmId,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The number of the disk.
    pub disk: u32,
    /// The name that the image gets.
    pub name: Name,
}

/// Write a disk to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ExportSpec {
    /// The machine.
    pub vm: VmId,
    /// The snapshot, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// What was asked.
    pub request: CreateExport,
}

/// Delete an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeleteImageSpec {
    /// The image.
    pub image: crate::ImageId,
}

/// A SHA-256 as it is compared: 64 small hexadecimal digits.
pub fn checksum(field: &str, typed: &str) -> Result<String, Status> {
    let text = typed.trim().to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err(Status::invalid(field, "a SHA-256 has 64 hexadecimal digits"))
    }
}

/// An address that an image may be fetched from, as far as it can be told by its text.
pub fn address(field: &str, url: &str) -> Result<(), Status> {
    crate::can::limit::length(field, url, URL_BYTES)?;
    if url.starts_with("http://") || url.starts_with("https://") {
        Ok(())
    } else {
        Err(Status::invalid(
            field,
            "an image is fetched by http:// or https://",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_64_digits() {
        let digits = "AB".repeat(32);
        assert_eq!(
            checksum("sha256", &format!(" {digits}\n")).unwrap(),
            "ab".repeat(32)
        );
        for bad in ["", "ab", &"xy".repeat(32), &"a".repeat(65)] {
            assert_eq!(
                checksum("sha256", bad).unwrap_err().field(),
                Some("sha256"),
                "{bad}"
            );
        }
    }

    #[test]
    fn only_the_same_file_is_gone_on_with() {
        let asked = CreateUpload {
            name: "a".parse().unwrap(),
            format: None,
            size_bytes: 10,
            sha256: None,
            fingerprint: Some(fingerprint("a.img", 1)),
        };
        let begun = |fingerprint: Option<&str>| Upload {
            id: UploadId(Uuid::nil()),
            name: asked.name.clone(),
            format: None,
            size_bytes: 10,
            received_bytes: 5,
            sha256: None,
            fingerprint: fingerprint.map(str::to_owned),
            created_by: "admin".into(),
            create_time: Timestamp::from_micros(1),
            expire_time: Timestamp::from_micros(2),
            generation: 0,
        };
        assert!(asked.goes_on_with(&begun(Some("a.img 1"))));
        // Built anew in between: of the same size, and another.
        assert!(!asked.goes_on_with(&begun(Some("a.img 2"))));
        let unknown = CreateUpload {
            fingerprint: None,
            ..asked.clone()
        };
        assert!(
            !unknown.goes_on_with(&begun(None)),
            "nothing tells that it is the same"
        );
    }

    #[test]
    fn only_the_web_is_fetched_from() {
        assert!(address("url", "https://example.org/a.qcow2").is_ok());
        for bad in ["file:///etc/passwd", "ftp://a", "a.qcow2", ""] {
            assert!(address("url", bad).is_err(), "{bad}");
        }
    }
}
