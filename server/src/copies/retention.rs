//! Which copies of a policy, and which uploads of a migration, are kept.

use super::schedule::local;
use crate::db::{self, Db, DbError};
use jiff::tz::TimeZone;
use shared::policy::retain::{CopyVerdict, Retention, retain};
use shared::{MigratingVmId, PolicyId, TargetId, Timestamp, VmId};

/// Which copies of a policy, of one machine at one target, such rules keep, the newest first. What is damaged is not among them.
pub async fn verdicts(
    db: &Db,
    policy: PolicyId,
    (vm, target): (VmId, TargetId),
    rules: &Retention,
    (zone, now): (&TimeZone, Timestamp),
) -> Result<Vec<CopyVerdict>, DbError> {
    let held = db::retention::held(db, policy, vm, target).await?;
    Ok(retain(&held, rules, now, &|time| local(zone, time)))
}

/// Which uploads of a migration stay when so many of the last are kept, the newest first.
pub async fn uploads(
    db: &Db,
    migration: MigratingVmId,
    keep_last: u32,
    now: Timestamp,
) -> Result<Vec<CopyVerdict>, DbError> {
    let rules = Retention {
        keep_last: Some(keep_last),
        ..Retention::default()
    };
    let held = db::retention::uploads(db, migration).await?;
    Ok(retain(&held, &rules, now, &|time| local(&TimeZone::UTC, time)))
}
