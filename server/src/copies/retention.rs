//! Which copies of a policy are kept.

use super::schedule::local;
use crate::db::{self, Db, DbError};
use jiff::tz::TimeZone;
use shared::policy::retain::{CopyVerdict, Retention, retain};
use shared::{PolicyId, TargetId, Timestamp, VmId};

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
