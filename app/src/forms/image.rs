//! The forms that speak of images, and of disks that are written to files.

use super::EXPORT_NOW;
use super::parse::Form;
use crate::words::w;
use shared::Status;
use shared::api::{
    Call, DeleteExport, DeleteImage, DeleteUpload, PostExport, PostImage, RawCall, UpdateImage,
};
use shared::image::{self, CreateExport, CreateImage, PatchImage, SnapshotDisk};

pub fn act(parts: &[&str], form: Form<'_>) -> Result<RawCall, Status> {
    let id = |id: &str| id.to_owned();
    Ok(match *parts {
        ["images", "import"] => {
            let request = import(form)?;
            PostImage { request }.raw()
        }
        ["images", image, "rename"] => {
            let request = PatchImage {
                name: form.need("name")?,
            };
            let image = id(image);
            UpdateImage { image, request }.raw()
        }
        ["images", image, "delete"] => DeleteImage { image: id(image) }.raw(),
        ["uploads", upload, "delete"] => DeleteUpload { id: id(upload) }.raw(),
        ["exports", export, "delete"] => DeleteExport { id: id(export) }.raw(),
        _ => return Err(Status::not_found("form", parts.join("/"))),
    })
}

fn import(form: Form<'_>) -> Result<CreateImage, Status> {
    let url: Option<String> = form.parse("url")?;
    if let Some(url) = &url {
        image::address("url", url)?;
    }
    // Of the two forms each has one of these.
    let path: Option<String> = form.parse("path")?;
    if url.is_none() && path.is_none() {
        let field = if form.0.iter().any(|(name, _)| name == "path") {
            "path"
        } else {
            "url"
        };
        return Err(Status::invalid(field, w().field_missing));
    }
    Ok(CreateImage {
        name: form.need("name")?,
        url,
        path,
        snapshot: None,
        format: form.parse("format")?,
        sha256: form
            .get("sha256")
            .map(|text| image::checksum("sha256", text))
            .transpose()?,
        request_id: form.parse("requestId")?,
    })
}

/// An image of a snapshot of this machine.
pub fn of_snapshot(vm: &str, form: Form<'_>) -> Result<RawCall, Status> {
    let request = CreateImage {
        name: form.need("name")?,
        url: None,
        path: None,
        snapshot: Some(SnapshotDisk {
            vm: vm.to_owned(),
            snapshot: form.need("snapshot")?,
            disk: form.parse("disk")?.unwrap_or(0),
        }),
        format: None,
        sha256: None,
        request_id: form.parse("requestId")?,
    };
    Ok(PostImage { request }.raw())
}

/// A disk of this machine, written to a file.
pub fn export(vm: &str, form: Form<'_>) -> Result<RawCall, Status> {
    let of = form.get("of");
    let request = CreateExport {
        format: form.need("format")?,
        disk: form.parse("disk")?.unwrap_or(0),
        snapshot: of.filter(|of| *of != EXPORT_NOW).map(str::to_owned),
        snapshot_now: of == Some(EXPORT_NOW),
        request_id: form.parse("requestId")?,
    };
    let vm = vm.to_owned();
    Ok(PostExport { vm, request }.raw())
}

/// What a page says when it was accepted.
pub fn done(parts: &[&str]) -> &'static str {
    match *parts {
        ["images", "import"] => w().flash_import,
        ["images", _, "rename"] => w().flash_image_renamed,
        ["uploads", ..] => w().flash_upload_gone,
        ["exports", ..] => w().flash_export_gone,
        _ => w().flash_image_deleted,
    }
}
