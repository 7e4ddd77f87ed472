//! Images on their way here, and disks on their way out.

use crate::db::list::{Listing, Page};
use crate::db::{self, DbError};
use crate::jobs::World;
use shared::api::ListQuery;
use shared::image::{Export, KEPT_HOURS, Upload};
use shared::{ExportId, Status, Timestamp, UploadId};
use std::time::UNIX_EPOCH;

/// How long what nobody touches is kept, in microseconds.
pub const KEPT_MICROS: i64 = KEPT_HOURS * 3600 * 1_000_000;

/// With what its file tells: how much has arrived, and when.
fn with_file(world: &World, mut upload: Upload) -> Upload {
    if let Ok(meta) = std::fs::metadata(world.upload_file(upload.id)) {
        upload.received_bytes = meta.len();
        let arrived = meta
            .modified()
            .ok()
            .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        if let Some(arrived) = arrived {
            upload.expire_time = Timestamp::from_micros(arrived.as_micros() as i64);
        }
    }
    upload.expire_time = upload.expire_time.plus_micros(KEPT_MICROS);
    upload
}

/// The upload with this id.
pub async fn upload(world: &World, id: UploadId) -> Result<Option<Upload>, DbError> {
    let row = db::uploads::by_id(&world.db, id).await?;
    Ok(row.map(|row| with_file(world, row)))
}

/// The upload with this id, as it was typed.
pub async fn upload_named(world: &World, reference: &str) -> Result<Upload, Status> {
    let missing = || Status::not_found("upload", reference);
    let id = reference.parse().map_err(|_| missing())?;
    upload(world, id).await?.ok_or_else(missing)
}

/// A page of uploads.
pub async fn uploads(world: &World, query: &ListQuery) -> Result<Page<Upload>, Status> {
    let listing = Listing::parse(query, db::uploads::FIELDS, "createTime desc")?;
    let page = db::uploads::list(&world.db, &listing).await?;
    let items = page.items.iter().cloned().map(|u| with_file(world, u)).collect();
    Ok(page.with(items))
}

/// The disk that was written to a file under this id.
pub async fn export(world: &World, reference: &str) -> Result<Export, Status> {
    let missing = || Status::not_found("export", reference);
    let id: ExportId = reference.parse().map_err(|_| missing())?;
    db::exports::by_id(&world.db, id).await?.ok_or_else(missing)
}

/// A page of them. `vm` may be a name.
pub async fn exports(world: &World, query: &ListQuery) -> Result<Page<Export>, Status> {
    let query = super::resolve_vm(world, query, "vm=").await?;
    let listing = Listing::parse(&query, db::exports::FIELDS, "createTime desc")?;
    Ok(db::exports::list(&world.db, &listing).await?)
}
