//! OS adaptation: what an upload needs so that its operating system runs where it goes.

use crate::vm::Firmware;
use crate::{CopyId, JobId, MigratingVmId, Name, Status, TargetId, words};
use serde::{Deserialize, Serialize};

words! {
    /// Under whose licence an operating system runs where it goes.
    pub enum LicenceType {
        /// It needs none.
        None = "NONE",
        /// That of its owner, which is brought along.
        Byol = "BYOL",
        /// That is not known.
        Unknown = "UNKNOWN",
    }
}

/// The operating system that was found on an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GuestOs {
    /// `linux`, `windows`, …
    pub kind: String,
    /// `debian`, `rhel`, …
    pub distribution: String,
    /// Its version.
    pub version: String,
    /// How it calls itself.
    pub product: String,
    /// For which processor it is made.
    pub architecture: String,
    /// How the machine calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// The licence that was found, and is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AppliedLicence {
    /// Whose.
    #[serde(rename = "type")]
    pub kind: LicenceType,
    /// Of what.
    pub os_license: String,
}

/// What an adaptation found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Adapted {
    /// The operating system; none on the simulation, which has no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<GuestOs>,
    /// Its licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_license: Option<AppliedLicence>,
    /// What was changed, or would be, a sentence each.
    pub done: Vec<String>,
    /// What a person must know.
    pub warnings: Vec<String>,
    /// How much of the disks was written, in bytes.
    pub written_bytes: u64,
}

/// What the system of a machine is to be where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AdaptWanted {
    /// How it is to call itself; as before if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The firmware that it is to boot with; the one that it had if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Whether it keeps its machine id and its SSH host keys.
    #[serde(default)]
    pub keep_identity: bool,
}

/// Adapt an upload, or look whether and how it would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AdaptSpec {
    /// The migration.
    pub migrating_vm: MigratingVmId,
    /// Its name at the time.
    pub name: Name,
    /// The target that it is uploaded to.
    pub target: TargetId,
    /// The upload.
    pub upload: CopyId,
    /// What it is to be.
    pub wanted: AdaptWanted,
    /// Whether it is only looked what would be changed, or why it would be refused: nothing is written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
}

/// The last adaptation of a migration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LastAdaptation {
    /// Its job, whose outcome says what was found and done; none where it could not begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The upload that is adapted.
    pub upload: CopyId,
    /// Whether it is over.
    pub over: bool,
    /// Why it failed: what it is that cannot be adapted, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Status>,
}

/// An upload that is adapted: what machines are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AdaptedUpload {
    /// The upload.
    pub upload: CopyId,
    /// The copy that is adapted, which stands on it.
    pub copy: CopyId,
}
