use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use time::OffsetDateTime;
use uuid::Uuid;

/// When the clocks of Berlin go back in 2026: 2026-10-25T01:00:00Z.
const BACK: i64 = 1_792_890_000;

fn local(time: Timestamp) -> LocalDate {
    let seconds = time.micros().div_euclid(1_000_000);
    let offset = if seconds < BACK { 7200 } else { 3600 };
    let date = OffsetDateTime::from_unix_timestamp(seconds + offset).unwrap();
    let (iso_year, iso_week, _) = date.to_iso_week_date();
    LocalDate {
        year: date.year() as i16,
        month: date.month().into(),
        day: date.day(),
        iso_year: iso_year as i16,
        iso_week,
        hour: date.hour(),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn held(n: usize, time: Timestamp) -> Held {
    Held {
        id: CopyId(Uuid::from_u128(n as u128)),
        time,
        legal_hold: false,
        needed: false,
    }
}

fn copies(times: &[&str]) -> Vec<Held> {
    times.iter().enumerate().map(|(n, t)| held(n, at(t))).collect()
}

fn words(times: &[&str], rules: &Retention) -> Vec<String> {
    let verdicts = retain(&copies(times), rules, at("2026-11-20T00:00:00Z"), &local);
    let said = |v: &CopyVerdict| {
        assert_eq!(v.keep, !v.reasons.is_empty());
        let reasons: Vec<_> = v.reasons.iter().map(|r| r.word()).collect();
        format!("{} {}", v.time, reasons.join(" "))
    };
    verdicts.iter().map(|v| said(v).trim_end().to_owned()).collect()
}

#[test]
fn each_rule_takes_the_newest_of_its_periods() {
    let times = [
        "2026-11-18T10:05:00Z",
        "2026-11-18T10:50:00Z",
        "2026-11-18T08:30:00Z",
        "2026-11-17T22:00:00Z",
        "2026-11-15T09:00:00Z",
        "2026-10-31T12:00:00Z",
        "2025-12-31T12:00:00Z",
        "2024-06-01T12:00:00Z",
    ];
    let rules = Retention {
        keep_last: Some(1),
        hourly: Some(2),
        daily: Some(2),
        weekly: Some(2),
        monthly: Some(3),
        yearly: Some(2),
        minimum_age_hours: None,
    };
    let expected = [
        "2026-11-18T10:50:00Z LAST HOURLY DAILY WEEKLY MONTHLY YEARLY NEWEST",
        "2026-11-18T10:05:00Z",
        "2026-11-18T08:30:00Z HOURLY",
        "2026-11-17T22:00:00Z DAILY",
        "2026-11-15T09:00:00Z WEEKLY",
        "2026-10-31T12:00:00Z MONTHLY",
        "2025-12-31T12:00:00Z MONTHLY YEARLY",
        "2024-06-01T12:00:00Z",
    ];
    assert_eq!(words(&times, &rules), expected);
}

#[test]
fn without_a_count_everything_stays() {
    let times = ["2026-11-18T10:05:00Z", "2020-01-01T00:00:00Z"];
    let expected = [
        "2026-11-18T10:05:00Z UNLIMITED NEWEST",
        "2020-01-01T00:00:00Z UNLIMITED",
    ];
    assert_eq!(words(&times, &Retention::default()), expected);
    let age = Retention {
        minimum_age_hours: Some(1),
        ..Retention::default()
    };
    assert_eq!(words(&times, &age), expected);
    assert!(retain(&[], &age, at("2026-11-20T00:00:00Z"), &local).is_empty());
}

#[test]
fn a_year_of_weeks_begins_with_its_first_thursday() {
    // 2024-12-30 is in the first week of 2025, which is another than that of 2024-01-01.
    let times = [
        "2025-01-02T12:00:00Z",
        "2024-12-30T12:00:00Z",
        "2024-01-01T12:00:00Z",
    ];
    let rules = Retention {
        weekly: Some(9),
        ..Retention::default()
    };
    let expected = [
        "2025-01-02T12:00:00Z WEEKLY NEWEST",
        "2024-12-30T12:00:00Z",
        "2024-01-01T12:00:00Z WEEKLY",
    ];
    assert_eq!(words(&times, &rules), expected);
}

#[test]
fn days_and_hours_are_those_of_the_clocks_on_the_wall() {
    // 22:30 in UTC is the next day in Berlin, in summer; and 02:30 comes twice when summer ends.
    let times = [
        "2026-10-25T02:30:00Z",
        "2026-10-25T01:30:00Z",
        "2026-10-25T00:30:00Z",
        "2026-10-24T22:30:00Z",
        "2026-10-24T21:30:00Z",
    ];
    let rules = Retention {
        hourly: Some(3),
        daily: Some(2),
        ..Retention::default()
    };
    let expected = [
        "2026-10-25T02:30:00Z HOURLY DAILY NEWEST",
        "2026-10-25T01:30:00Z HOURLY",
        "2026-10-25T00:30:00Z",
        "2026-10-24T22:30:00Z HOURLY",
        "2026-10-24T21:30:00Z DAILY",
    ];
    assert_eq!(words(&times, &rules), expected);
}

#[test]
fn what_must_not_go_stays() {
    let mut all = copies(&[
        "2026-11-19T23:00:00Z",
        "2026-11-19T22:00:00.000001Z",
        "2026-11-19T22:00:00Z",
        "2026-11-01T00:00:00Z",
        "2026-10-01T00:00:00Z",
    ]);
    all[3].legal_hold = true;
    all[4].needed = true;
    let rules = Retention {
        keep_last: Some(1),
        minimum_age_hours: Some(2),
        ..Retention::default()
    };
    let reasons: Vec<_> = retain(&all, &rules, at("2026-11-20T00:00:00Z"), &local)
        .into_iter()
        .map(|v| v.reasons)
        .collect();
    use KeepReason::{Last, LegalHold, MinimumAge, Needed, Newest};
    let expected = [
        vec![Last, MinimumAge, Newest],
        vec![MinimumAge],
        vec![],
        vec![LegalHold],
        vec![Needed],
    ];
    assert_eq!(reasons, expected);
}

const DAY: i64 = 24 * HOUR;

/// Copies around the end of summer: some minutes, some days, some years apart, and some of the same moment.
fn any_copies() -> impl Strategy<Value = Vec<Held>> {
    let back = BACK * 1_000_000;
    let time = prop_oneof![
        (-12..12_i64).prop_map(|n| n * HOUR / 4),
        (-60..10_i64).prop_map(|n| n * DAY + HOUR / 2),
        (-1500..10_i64).prop_map(|n| n * DAY),
    ];
    let copy = (time, prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    prop::collection::vec(copy, 0..40).prop_map(move |all| {
        let copy = |(n, (time, legal_hold, needed)): (usize, (i64, bool, bool))| Held {
            legal_hold,
            needed,
            ..held(n, Timestamp::from_micros(back + time))
        };
        all.into_iter().enumerate().map(copy).collect()
    })
}

fn any_rules() -> impl Strategy<Value = Retention> {
    let count = || prop::option::of(0..8_u32);
    (count(), count(), count(), count(), count(), count(), count()).prop_map(|all| Retention {
        keep_last: all.0,
        hourly: all.1,
        daily: all.2,
        weekly: all.3,
        monthly: all.4,
        yearly: all.5,
        minimum_age_hours: all.6,
    })
}

fn now() -> Timestamp {
    Timestamp::from_micros(BACK * 1_000_000 + 4 * HOUR)
}

fn kept(copies: &[Held], rules: &Retention) -> BTreeSet<CopyId> {
    let verdicts = retain(copies, rules, now(), &local);
    assert_eq!(verdicts.len(), copies.len());
    verdicts.iter().filter(|v| v.keep).map(|v| v.copy).collect()
}

fn pruned(copies: &[Held], rules: &Retention) -> Vec<Held> {
    let kept = kept(copies, rules);
    copies.iter().copied().filter(|c| kept.contains(&c.id)).collect()
}

proptest! {
    #[test]
    fn what_was_pruned_is_not_pruned_further(copies in any_copies(), rules in any_rules()) {
        let once = pruned(&copies, &rules);
        prop_assert_eq!(pruned(&once, &rules), once);
    }

    #[test]
    fn a_greater_count_drops_nothing(copies in any_copies(), rules in any_rules(), which in 0..7_usize) {
        prop_assume!(!rules.keeps_all());
        let mut more = rules;
        let all = [
            &mut more.keep_last,
            &mut more.hourly,
            &mut more.daily,
            &mut more.weekly,
            &mut more.monthly,
            &mut more.yearly,
            &mut more.minimum_age_hours,
        ];
        if let Some(count) = all.into_iter().nth(which) {
            *count = Some(count.unwrap_or(0) + 1);
        }
        prop_assert!(kept(&copies, &rules).is_subset(&kept(&copies, &more)));
    }

    #[test]
    fn the_order_of_copies_is_nothing(
        (copies, mixed) in any_copies().prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle())),
        rules in any_rules(),
    ) {
        prop_assert_eq!(retain(&copies, &rules, now(), &local), retain(&mixed, &rules, now(), &local));
    }

    #[test]
    fn the_newest_and_what_is_held_needed_or_young_stay(copies in any_copies(), rules in any_rules()) {
        let kept = kept(&copies, &rules);
        prop_assert_eq!(kept.is_empty(), copies.is_empty());
        if let Some(newest) = copies.iter().max_by_key(|c| (c.time, c.id)) {
            prop_assert!(kept.contains(&newest.id));
        }
        let young = i64::from(rules.minimum_age_hours.unwrap_or(0)) * HOUR;
        for copy in &copies {
            if copy.legal_hold || copy.needed || (young > 0 && now().since(copy.time) < young) {
                prop_assert!(kept.contains(&copy.id));
            }
        }
    }

    #[test]
    fn no_rule_takes_more_than_its_count(copies in any_copies(), rules in any_rules()) {
        let verdicts = retain(&copies, &rules, now(), &local);
        let took = |rule| verdicts.iter().filter(|v| v.reasons.contains(&rule)).count();
        for (rule, count) in rules.periods() {
            let all: BTreeSet<_> = copies.iter().map(|c| local(c.time).period(rule)).collect();
            prop_assert_eq!(took(rule), all.len().min(count as usize));
        }
        prop_assert_eq!(took(KeepReason::Last), copies.len().min(rules.keep_last.unwrap_or(0) as usize));
    }
}
