use super::*;
use proptest::prelude::*;

const ZONES: [&str; 6] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    // Its clocks jump by half an hour, and in 2011 those of the other by a day.
    "Australia/Lord_Howe",
    "Pacific/Apia",
];

fn line(cron: &str, zone: &str) -> shared::policy::Schedule {
    shared::policy::Schedule {
        cron: cron.to_owned(),
        time_zone: zone.to_owned(),
    }
}

fn schedule(cron: &str, zone: &str) -> Schedule {
    Schedule::parse(&line(cron, zone)).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn due(cron: &str, zone: &str, after: &str, until: &str) -> Vec<String> {
    let all = schedule(cron, zone);
    all.between(at(after), at(until)).map(|t| t.to_string()).collect()
}

#[test]
fn a_day_is_that_of_the_zone() {
    let day = |zone| {
        schedule("30 2 * * *", zone)
            .next_after(at("2026-07-01T12:00:00Z"))
            .unwrap()
    };
    assert_eq!(day("UTC"), at("2026-07-02T02:30:00Z"));
    assert_eq!(day("Europe/Berlin"), at("2026-07-02T00:30:00Z"));
    assert_eq!(day("America/New_York"), at("2026-07-02T06:30:00Z"));
    assert_eq!(day("Asia/Kolkata"), at("2026-07-01T21:00:00Z"));
}

#[test]
fn words_stand_for_lines() {
    let from = ("2026-01-31T10:00:00Z", "2026-02-01T10:00:00Z");
    assert_eq!(due("@hourly", "Asia/Kolkata", from.0, from.1).len(), 24);
    assert_eq!(
        due("@hourly", "Asia/Kolkata", from.0, from.1)[0],
        "2026-01-31T10:30:00Z"
    );
    // The first of February was a Sunday.
    for word in ["@daily", "@weekly", "@MONTHLY"] {
        assert_eq!(
            due(word, "Europe/Berlin", from.0, from.1),
            ["2026-01-31T23:00:00Z"]
        );
    }
}

#[test]
fn what_the_clocks_jump_over_is_due_as_they_jump_once() {
    let night = ("2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
    let expected = ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
    assert_eq!(due("30 2 * * *", "Europe/Berlin", night.0, night.1), expected);
    // Also asked in the middle of what is jumped over, and however much of it there is.
    let few = due(
        "*/20 2-3 * * *",
        "Europe/Berlin",
        "2026-03-29T00:59:59Z",
        "2026-03-29T02:00:00Z",
    );
    let expected = [
        "2026-03-29T01:00:00Z",
        "2026-03-29T01:20:00Z",
        "2026-03-29T01:40:00Z",
    ];
    assert_eq!(few, expected);
    let expected = ["2026-03-08T07:00:00Z", "2026-03-09T06:15:00Z"];
    assert_eq!(
        due(
            "15 2 * * *",
            "America/New_York",
            "2026-03-08T00:00:00Z",
            "2026-03-09T12:00:00Z"
        ),
        expected
    );
}

#[test]
fn what_the_clocks_show_twice_is_due_the_first_time() {
    let night = ("2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
    let expected = ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
    assert_eq!(due("30 2 * * *", "Europe/Berlin", night.0, night.1), expected);
    // Asked between the two.
    let later = schedule("30 2 * * *", "Europe/Berlin").next_after(at("2026-10-25T01:10:00Z"));
    assert_eq!(later, Some(at("2026-10-26T01:30:00Z")));
    let hours = due(
        "0 * * * *",
        "America/New_York",
        "2026-11-01T04:30:00Z",
        "2026-11-01T07:00:00Z",
    );
    assert_eq!(hours, ["2026-11-01T05:00:00Z", "2026-11-01T07:00:00Z"]);
}

#[test]
fn what_was_missed_is_found() {
    let missed = due(
        "0 */6 * * *",
        "UTC",
        "2026-05-01T06:00:00Z",
        "2026-05-02T00:00:00Z",
    );
    assert_eq!(
        missed,
        [
            "2026-05-01T12:00:00Z",
            "2026-05-01T18:00:00Z",
            "2026-05-02T00:00:00Z"
        ]
    );
    assert!(due("0 0 * * *", "UTC", "2026-05-02T00:00:00Z", "2026-05-02T23:59:59Z").is_empty());
    assert!(due("0 0 * * *", "UTC", "2026-05-03T00:00:00Z", "2026-05-01T00:00:00Z").is_empty());
}

#[test]
fn a_leap_day_is_waited_for_and_the_end_of_time_is_the_end() {
    let leap = schedule("0 12 29 2 *", "UTC");
    assert_eq!(
        leap.next_after(at("2024-02-29T12:00:00Z")),
        Some(at("2028-02-29T12:00:00Z"))
    );
    let always = schedule("* * * * *", "America/New_York");
    assert_eq!(always.next_after(Timestamp::from_micros(i64::MAX)), None);
    assert!(always.next_after(Timestamp::from_micros(i64::MIN)).is_some());
}

#[test]
fn an_error_names_the_field_and_what_is_wrong() {
    for (cron, zone, field, says) in [
        (
            "",
            "UTC",
            "schedule.cron",
            "it has 0 fields, and needs these five: minute, hour",
        ),
        (
            "0 0 * * * *",
            "UTC",
            "schedule.cron",
            "6 fields, and needs these five: minute, hour, day of the month, month, day of the week; there are no seconds",
        ),
        ("0 0 * * * UTC", "UTC", "schedule.cron", "6 fields"),
        (
            "60 * * * *",
            "UTC",
            "schedule.cron",
            "the minute \"60\": value must be in range 0..=59; found 60",
        ),
        ("0 24 * * *", "UTC", "schedule.cron", "the hour \"24\": "),
        (
            "0 0 0 * *",
            "UTC",
            "schedule.cron",
            "the day of the month \"0\": ",
        ),
        ("0 0 * foo *", "UTC", "schedule.cron", "the month \"foo\": "),
        ("0 0 * * 8", "UTC", "schedule.cron", "the day of the week \"8\": "),
        ("*/0 * * * *", "UTC", "schedule.cron", "the minute \"*/0\": "),
        ("H * * * *", "UTC", "schedule.cron", "the minute \"H\": "),
        ("9-5 * * * *", "UTC", "schedule.cron", "found 9-5"),
        ("0 0 30 2 *", "UTC", "schedule.cron", "not due once in four years"),
        (
            "@reboot",
            "UTC",
            "schedule.cron",
            "\"@reboot\" is none of @hourly, @daily, @weekly, @monthly",
        ),
        (
            "@daily",
            "Europe/Bärlin",
            "schedule.timeZone",
            "there is no time zone \"Europe/Bärlin\"",
        ),
        ("@daily", "", "schedule.timeZone", "there is no time zone"),
        (
            "@daily",
            "../../../etc/localtime",
            "schedule.timeZone",
            "there is no time zone",
        ),
    ] {
        let wrong = Schedule::parse(&line(cron, zone)).unwrap_err();
        assert_eq!(wrong.field(), Some(field), "{cron} {zone}");
        assert!(wrong.message.contains(says), "{cron} {zone}: {wrong}");
        assert!(!wrong.message.contains('\n'), "{wrong}");
    }
}

#[test]
fn the_clocks_on_the_wall() {
    let local = schedule("@daily", "Asia/Kolkata").local(at("2024-12-29T20:00:00Z"));
    let expected = LocalDate {
        year: 2024,
        month: 12,
        day: 30,
        iso_year: 2025,
        iso_week: 1,
        hour: 1,
    };
    assert_eq!(local, expected);
}

fn windows(all: &[(&[DayOfWeek], &str, &str)], zone: &str) -> Windows {
    let window = |(days, from, to): &(&[DayOfWeek], &str, &str)| Window {
        days: days.to_vec(),
        from: (*from).to_owned(),
        to: (*to).to_owned(),
        time_zone: zone.to_owned(),
    };
    Windows::parse(&all.iter().map(window).collect::<Vec<_>>()).unwrap()
}

fn open(until: &str) -> Gate {
    let until = Some(at(until));
    Gate::Open { until }
}

fn closed(until: &str) -> Gate {
    let until = at(until);
    Gate::Closed { until }
}

#[test]
fn windows_open_and_close() {
    use DayOfWeek::{Friday, Saturday, Sunday};
    let always = Gate::Open { until: None };
    let now = at("2026-07-01T12:00:00Z");
    assert_eq!(Windows::default().open_at(now), always);
    assert_eq!(windows(&[(&[], "03:00", "03:00")], "UTC").open_at(now), always);
    assert_eq!(
        windows(&[(&[], "00:00", "12:00"), (&[], "12:00", "00:00")], "UTC").open_at(now),
        always
    );

    // From Friday evening on until Saturday morning, and again on Sunday.
    let all = [
        (&[Friday][..], "22:00", "06:00"),
        (&[Saturday], "05:00", "08:00"),
        (&[Sunday], "10:00", "11:00"),
    ];
    let weekend = windows(&all, "Europe/Berlin");
    for (now, gate) in [
        ("2026-07-01T12:00:00Z", closed("2026-07-03T20:00:00Z")),
        ("2026-07-03T19:59:59.999999Z", closed("2026-07-03T20:00:00Z")),
        ("2026-07-03T20:00:00Z", open("2026-07-04T06:00:00Z")),
        ("2026-07-04T03:30:00Z", open("2026-07-04T06:00:00Z")),
        ("2026-07-04T06:00:00Z", closed("2026-07-05T08:00:00Z")),
        ("2026-07-05T08:30:00Z", open("2026-07-05T09:00:00Z")),
        ("2026-07-05T09:00:00Z", closed("2026-07-10T20:00:00Z")),
    ] {
        assert_eq!(weekend.open_at(at(now)), gate, "{now}");
    }
}

#[test]
fn windows_follow_the_clocks() {
    // All of it is jumped over on that night; it is cut short; it is longer.
    let short = windows(&[(&[], "02:10", "02:50")], "Europe/Berlin");
    assert_eq!(
        short.open_at(at("2026-03-29T00:59:59Z")),
        closed("2026-03-30T00:10:00Z")
    );
    let night = windows(&[(&[], "01:30", "04:00")], "Europe/Berlin");
    assert_eq!(
        night.open_at(at("2026-03-29T00:30:00Z")),
        open("2026-03-29T02:00:00Z")
    );
    assert_eq!(
        night.open_at(at("2026-10-24T23:30:00Z")),
        open("2026-10-25T03:00:00Z")
    );
    let sunday = windows(&[(&[DayOfWeek::Sunday], "02:10", "02:50")], "Europe/Berlin");
    assert_eq!(
        sunday.open_at(at("2026-03-23T12:00:00Z")),
        closed("2026-04-05T00:10:00Z")
    );
}

#[test]
fn a_window_that_is_none_is_refused() {
    let window = |from: &str, zone: &str| Window {
        days: vec![],
        from: from.to_owned(),
        to: "06:00".to_owned(),
        time_zone: zone.to_owned(),
    };
    let field = |window| {
        Windows::parse(&[window])
            .unwrap_err()
            .field()
            .map(ToOwned::to_owned)
    };
    assert_eq!(field(window("25:00", "UTC")).as_deref(), Some("window.from"));
    assert_eq!(
        field(window("05:00", "Mars/Olympus")).as_deref(),
        Some("window.timeZone")
    );
}

/// A moment within a century, mostly near the change of some clocks.
fn any_moment() -> impl Strategy<Value = Timestamp> {
    let changes = [
        "2026-03-29T01:00:00Z",
        "2026-10-25T01:00:00Z",
        "2026-03-08T07:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-04-04T15:00:00Z",
        "2026-10-03T15:30:00Z",
        "2011-12-30T10:00:00Z",
    ];
    let near = (
        prop::sample::select(changes.to_vec()),
        -180 * 60_000_000..180 * 60_000_000_i64,
    )
        .prop_map(|(change, off)| at(change).plus_micros(off));
    let far = (0..4_000_000_000_000_000_i64).prop_map(Timestamp::from_micros);
    prop_oneof![3 => near, 1 => far]
}

fn any_line() -> impl Strategy<Value = &'static str> {
    let lines = [
        "* * * * *",
        "*/7 * * * *",
        "0 * * * *",
        "30 2 * * *",
        "15,45 1-3 * * *",
        "0 0 * * *",
        "0 */5 * * *",
        "59 23 * * 6",
        "0 12 L * *",
        "30 1 1W * *",
        "20 2 * MAR,OCT SUN#5",
        "0 0 13 * 5",
    ];
    prop::sample::select(lines.to_vec())
}

proptest! {
    #[test]
    fn any_text_is_a_line_or_an_error(text in "([0-9*/,#LWH?@a-zA-Zé-]{0,6} ?){0,6}") {
        if let Err(wrong) = Schedule::parse(&line(&text, "UTC")) {
            prop_assert_eq!(wrong.field(), Some("schedule.cron"));
            prop_assert!(!wrong.message.contains('\n'), "{wrong}");
        }
    }

    #[test]
    fn each_is_after_the_one_before(line in any_line(), zone in prop::sample::select(&ZONES[..]), from in any_moment()) {
        let schedule = schedule(line, zone);
        let mut time = from;
        for _ in 0..20 {
            let next = schedule.next_after(time).unwrap();
            prop_assert!(next > time, "{line} {zone}: {time} {next}");
            // Nothing is between.
            let middle = time.plus_micros(next.since(time) / 2);
            prop_assert_eq!(schedule.next_after(middle), Some(next));
            time = next;
        }
    }

    #[test]
    fn it_is_due_when_the_clocks_show_it_or_jump(zone in prop::sample::select(&ZONES[..]), from in any_moment()) {
        let due = schedule("30 2 * * *", zone).next_after(from).unwrap();
        let before = local(&super::zone("", zone).unwrap(), due.plus_micros(-1));
        let date = local(&super::zone("", zone).unwrap(), due);
        let shown = date.hour == 2 && before.hour == 2;
        let jumped = (before.day, before.hour) != (date.day, date.hour);
        prop_assert!(shown || jumped, "{zone} {due} {before:?} {date:?}");
    }

    #[test]
    fn a_gate_says_when_it_turns(
        hours in prop::collection::vec((0..7_usize, 0..24_u8, 0..60_u8, 0..24_u8), 1..4),
        zone in prop::sample::select(&ZONES[..]),
        now in any_moment(),
    ) {
        let texts: Vec<_> = hours.iter().map(|h| (format!("{:02}:{:02}", h.1, h.2), format!("{:02}:00", h.3))).collect();
        let all: Vec<_> = hours.iter().zip(&texts).map(|(h, (from, to))| (&DayOfWeek::ALL[h.0..=h.0], from.as_str(), to.as_str())).collect();
        let windows = windows(&all, zone);
        let (until, was_open) = match windows.open_at(now) {
            Gate::Open { until: Some(until) } => (until, true),
            Gate::Open { until: None } => return Err(TestCaseError::fail("open for two weeks")),
            Gate::Closed { until } => (until, false),
        };
        let opens = |time| matches!(windows.open_at(time), Gate::Open { .. });
        prop_assert!(until > now);
        prop_assert_eq!(opens(until.plus_micros(-1)), was_open);
        prop_assert_ne!(opens(until), was_open);
    }
}

#[test]
fn the_newest_moment_is_the_last_of_all() {
    let (from, until) = (at("2020-03-01T00:00:00Z"), at("2026-07-01T12:00:30Z"));
    for (cron, newest) in [
        ("* * * * *", "2026-07-01T12:00:00Z"),
        ("0 2 * * *", "2026-07-01T02:00:00Z"),
        ("0 0 * * 0", "2026-06-28T00:00:00Z"),
        ("0 0 1 1 *", "2026-01-01T00:00:00Z"),
        ("0 0 29 2 *", "2024-02-29T00:00:00Z"),
    ] {
        let schedule = schedule(cron, "UTC");
        assert_eq!(schedule.newest(from, until), Some(at(newest)), "{cron}");
        // What is dealt with is not due again.
        assert_eq!(schedule.newest(at(newest), until), None, "{cron}");
        assert_eq!(schedule.newest(until, from), None, "{cron}");
    }
}
