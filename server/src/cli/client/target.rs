//! `offshoot target …`: places that copies go to.

mod asked;

use super::table::{Table, bytes};
use super::{Api, Failure, List, Wait};
use asked::{AddArgs, EditArgs};
use clap::Subcommand;
use shared::api::{
    CheckTarget, DeleteTarget, GetTarget, ListTargets, PostTarget, PruneTarget, UpdateTarget, VerifyTargetNow,
};
use shared::target::{Checked, Found, Target, VaultOutcome, VerifyTarget};

/// `offshoot target …`
#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one is made, once")]
pub enum TargetCommand {
    /// Lists targets.
    List(#[command(flatten)] List),
    /// Shows one, with what trying it has shown.
    Show {
        /// Its name or id.
        target: String,
    },
    /// Adds one: makes a vault there, or takes the one that is there with --attach.
    Add(AddArgs),
    /// Changes one; what is not given stays.
    Edit(EditArgs),
    /// Tries it again, and reads which copies are there.
    Check {
        /// Its name or id.
        target: String,
    },
    /// Reads what is there, and names what is damaged; with --wait it fails if anything is.
    Verify {
        /// Its name or id.
        target: String,
        /// How many percent of the packs to read: a sample, another each time.
        #[arg(long, default_value_t = 100)]
        percent: u32,
        #[command(flatten)]
        wait: Wait,
    },
    /// Takes out what no copy needs any more: marks it first, and removes it a day later.
    Prune {
        /// Its name or id.
        target: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Forgets it here. What is there stays, and can be attached again.
    Detach {
        /// Its name or id.
        target: String,
    },
}

impl TargetCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListTargets { query }, |page| {
                    let mut table = Table::new(["NAME", "KIND", "PLACE", "COPIES", "STORED", "STATE"]);
                    for target in &page.targets {
                        table.row([
                            target.name.to_string(),
                            target.kind.to_string(),
                            target.place.line(),
                            target.copies.to_string(),
                            bytes(target.stored_bytes),
                            state(target),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Show { target } => api.show(&GetTarget { target }, |t| shown(&t)).await,
            Self::Add(args) => {
                let request = args.request()?;
                api.show(&PostTarget { request }, |t| shown(&t)).await
            }
            Self::Edit(args) => {
                let (target, request) = args.request(api).await?;
                api.show(&UpdateTarget { target, request }, |t| shown(&t)).await
            }
            Self::Check { target } => api.show(&CheckTarget { target }, |t| shown(&t)).await,
            Self::Verify {
                target,
                percent,
                wait,
            } => {
                let request = VerifyTarget { percent };
                api.begin(&VerifyTargetNow { target, request }, wait).await
            }
            Self::Prune { target, wait } => api.begin(&PruneTarget { target }, wait).await,
            Self::Detach { target } => {
                let told = format!("{target} is detached; what is there stays");
                api.show(&DeleteTarget { target }, |()| told).await
            }
        }
    }
}

/// How a target is, in a few words.
fn state(target: &Target) -> String {
    match (&target.away, &target.checked) {
        (Some(_), _) => "away".to_owned(),
        (None, Some(checked)) if checked.damaged > 0 => "damaged".to_owned(),
        _ => "ok".to_owned(),
    }
}

fn shown(target: &Target) -> String {
    let mut lines = vec![
        format!("name     {}", target.name),
        format!("id       {}", target.id),
        format!("kind     {}", target.kind),
        format!("place    {}", target.place.line()),
    ];
    if let Some(s3) = &target.place.s3 {
        let endpoint = s3.endpoint.as_deref().unwrap_or("Amazon's");
        lines.push(format!("store    {endpoint}, key {}", s3.access_key_id));
    }
    lines.push(format!("vault    {}", target.vault));
    lines.push(format!(
        "copies   {}, {} stored",
        target.copies,
        bytes(target.stored_bytes)
    ));
    let limit = target.bytes_per_second;
    let limit = limit.map_or_else(|| "none".to_owned(), |rate| format!("{}/s", bytes(rate)));
    lines.push(format!("limit    {limit}, {} copies at once", target.at_once));
    lines.push(format!("tried    {}", tried(&target.found)));
    if let Some(why) = &target.away {
        let since = target.away_since.map(|time| format!(" since {time}"));
        lines.push(format!("away    {}: {why}", since.unwrap_or_default()));
    }
    if let Some(checked) = &target.checked {
        lines.push(format!("checked  {}", looked(checked)));
    }
    lines.push(format!("added    {}", target.create_time));
    lines.join("\n")
}

/// What trying it has shown.
fn tried(found: &Found) -> String {
    let put = match found.conditional_put {
        true => "a second write of a name is refused",
        false => "a second write of a name is not refused: copies are safe without, and carry a warning",
    };
    let millis = |micros: u64| micros as f64 / 1000.0;
    format!(
        "{}: written in {:.1} ms, read in {:.1} ms; {put}",
        found.time,
        millis(found.write_micros),
        millis(found.read_micros)
    )
}

fn looked(checked: &Checked) -> String {
    let found = match checked.damaged {
        0 => "nothing is damaged".to_owned(),
        n => hurt(n, checked.hurt_copies),
    };
    format!(
        "{}: {} % was read, {found} (job {})",
        checked.time, checked.percent, checked.job
    )
}

/// How much is damaged.
pub fn hurt(objects: u64, copies: u64) -> String {
    let many = |n, one: &str, more: &str| format!("{n} {}", if n == 1 { one } else { more });
    format!(
        "{} damaged, which hurts {}",
        many(objects, "object is", "objects are"),
        many(copies, "copy", "copies")
    )
}

/// What a job found in a vault, or took out of it.
pub fn outcome(vault: &VaultOutcome) -> String {
    let mut text = String::new();
    if vault.packs > 0 {
        text.push_str(&format!(
            "; {} packs were read, {}",
            vault.packs,
            bytes(vault.read_bytes)
        ));
    }
    if vault.freed_bytes > 0 || vault.marked_packs > 0 {
        text.push_str(&format!(
            "; {} freed, {} packs marked to go",
            bytes(vault.freed_bytes),
            vault.marked_packs
        ));
    }
    if vault.healed > 0 {
        text.push_str(&format!(
            "; {} damaged objects are needed by no copy any more",
            vault.healed
        ));
    }
    for damage in &vault.damage {
        let copies = super::joined(&damage.copies);
        text.push_str(&format!("\n{}: {}; hurts {copies}", damage.object, damage.why));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_counted() {
        assert_eq!(hurt(1, 1), "1 object is damaged, which hurts 1 copy");
        assert_eq!(hurt(3, 0), "3 objects are damaged, which hurts 0 copies");
    }
}
