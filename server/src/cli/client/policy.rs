//! `offshoot policy …`: when copies are made, of what, where they go, and which are kept.

mod asked;

use super::copy::task;
use super::table::Table;
use super::{Api, Failure, List, joined};
use asked::{AddArgs, EditArgs, Rules};
use clap::Subcommand;
use shared::api::{
    DeletePolicy, GetPolicy, ListPolicies, PostPolicy, PreviewPolicy, RunPolicy, UpdatePolicy,
};
use shared::policy::Policy;
use shared::policy::retain::{PreviewRetention, Retention, RetentionPreview};

/// `offshoot policy …`
#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one is made, once")]
pub enum PolicyCommand {
    /// Lists policies.
    List(#[command(flatten)] List),
    /// Shows one.
    Show {
        /// Its name or id.
        policy: String,
    },
    /// Makes one.
    Add(AddArgs),
    /// Changes one; what is not given stays.
    Edit(EditArgs),
    /// Shows which copies it would keep now, and which it would remove. Nothing is done.
    Preview {
        /// Its name or id.
        policy: String,
        /// Rules to try in place of its own.
        #[command(flatten)]
        rules: Rules,
    },
    /// Copies now what it names.
    Run {
        /// Its name or id.
        policy: String,
    },
    /// Removes it. The copies that it made stay.
    Remove {
        /// Its name or id.
        policy: String,
    },
}

impl PolicyCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListPolicies { query }, |page| {
                    let mut table = Table::new(["NAME", "WHEN", "NEXT", "TARGETS", "KEEPS"]);
                    for policy in &page.policies {
                        table.row([
                            policy.name.to_string(),
                            when(policy),
                            policy.next_time.map(|time| time.to_string()).unwrap_or_default(),
                            joined(&policy.targets),
                            keeps(&policy.retention),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Show { policy } => api.show(&GetPolicy { policy }, |p| shown(&p)).await,
            Self::Add(args) => {
                let request = args.request();
                api.show(&PostPolicy { request }, |p| shown(&p)).await
            }
            Self::Edit(args) => {
                let (policy, request) = args.request(api).await?;
                api.show(&UpdatePolicy { policy, request }, |p| shown(&p)).await
            }
            Self::Preview { policy, rules } => {
                let asked = GetPolicy {
                    policy: policy.clone(),
                };
                let found = api.client()?.call(&asked).await?;
                let request = PreviewRetention {
                    retention: rules.onto(found.retention),
                    time_zone: found.time_zone().to_owned(),
                    vms: found.vms.iter().map(ToString::to_string).collect(),
                    label: found.label,
                    targets: found.targets,
                };
                api.show(&PreviewPolicy { policy, request }, |p| previewed(&p))
                    .await
            }
            Self::Run { policy } => {
                let none = format!("{policy} names no machine that is there");
                api.show(&RunPolicy { policy }, |run| {
                    let tasks = run.tasks.iter().map(task::line).collect::<Vec<_>>();
                    if tasks.is_empty() { none } else { tasks.join("\n") }
                })
                .await
            }
            Self::Remove { policy } => {
                let told = format!("policy {policy} is removed; its copies stay");
                api.show(&DeletePolicy { policy }, |()| told).await
            }
        }
    }
}

fn when(policy: &Policy) -> String {
    let when = policy.schedule.as_ref().map_or_else(
        || "when asked".to_owned(),
        |schedule| format!("{} {}", schedule.cron, schedule.time_zone),
    );
    match policy.enabled {
        true => when,
        false => format!("{when} (switched off)"),
    }
}

/// Which copies stay, in a few words.
fn keeps(rules: &Retention) -> String {
    if rules.keeps_all() {
        return "all".to_owned();
    }
    let all = [
        (rules.keep_last, "last"),
        (rules.hourly, "hourly"),
        (rules.daily, "daily"),
        (rules.weekly, "weekly"),
        (rules.monthly, "monthly"),
        (rules.yearly, "yearly"),
    ];
    let counts = all
        .into_iter()
        .filter_map(|(n, word)| n.filter(|n| *n > 0).map(|n| format!("{n} {word}")));
    let age = rules
        .minimum_age_hours
        .map(|hours| format!("what is younger than {hours} h"));
    joined(counts.chain(age))
}

fn shown(policy: &Policy) -> String {
    let mut lines = vec![
        format!("name      {}", policy.name),
        format!("id        {}", policy.id),
        format!("when      {}", when(policy)),
    ];
    if let Some(next) = policy.next_time {
        lines.push(format!("next      {next}"));
    }
    for window in &policy.window {
        let days = match window.days.is_empty() {
            true => "every day".to_owned(),
            false => joined(&window.days),
        };
        lines.push(format!(
            "window    {days} {} to {} {}",
            window.from, window.to, window.time_zone
        ));
    }
    if !policy.vms.is_empty() {
        lines.push(format!("machines  {}", joined(&policy.vms)));
    }
    if let Some(label) = &policy.label {
        lines.push(format!("label     {label}"));
    }
    let how = [(policy.memory, "with memory"), (policy.quiesce, "quiesced")];
    let how = joined(how.into_iter().filter(|(so, _)| *so).map(|(_, word)| word));
    let how = if how.is_empty() { how } else { format!(", {how}") };
    lines.push(format!("targets   {}{how}", joined(&policy.targets)));
    lines.push(format!("keeps     {}", keeps(&policy.retention)));
    lines.push(match policy.verify {
        None => "boots     none".to_owned(),
        Some(rule) => format!("boots     one in {} copies of a machine", rule.boot_every),
    });
    lines.push(format!("made      {}", policy.create_time));
    lines.join("\n")
}

fn previewed(preview: &RetentionPreview) -> String {
    let mut table = Table::new(["VM", "TARGET", "MOMENT", "COPY", "STAYS", "WHY"]);
    for group in &preview.groups {
        for copy in &group.copies {
            table.row([
                group.vm.to_string(),
                group.target.to_string(),
                copy.time.to_string(),
                copy.copy.to_string(),
                if copy.keep { "yes" } else { "no" }.to_owned(),
                joined(&copy.reasons),
            ]);
        }
    }
    format!("{table}\n{} would stay, {} would go", preview.keep, preview.drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_said_in_a_few_words() {
        let rules = Retention {
            keep_last: Some(3),
            hourly: Some(0),
            daily: Some(7),
            minimum_age_hours: Some(24),
            ..Retention::default()
        };
        assert_eq!(keeps(&rules), "3 last, 7 daily, what is younger than 24 h");
        assert_eq!(keeps(&Retention::default()), "all");
    }
}
