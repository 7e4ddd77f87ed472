//! Sizes, times and counts as people read them, in their language.

use crate::words::{put, w};
use shared::Timestamp;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A number, 0 at least, with so many digits behind the language's decimal mark. What Rust has for that is as large as a page.
fn fixed(n: f64, digits: u32) -> String {
    let one = 10_u64.pow(digits);
    let all = (n * one as f64 + 0.5) as u64;
    match digits {
        0 => all.to_string(),
        _ => format!(
            "{}{}{:0width$}",
            all / one,
            w().decimal,
            all % one,
            width = digits as usize
        ),
    }
}

/// The unit in which a size reads well: its name and its bytes.
fn unit(bytes: u64) -> (&'static str, u64) {
    match bytes {
        0..0x400 => ("B", 1),
        0x400..0x10_0000 => ("KiB", 1 << 10),
        0x10_0000..0x4000_0000 => ("MiB", 1 << 20),
        0x4000_0000..0x100_0000_0000 => ("GiB", 1 << 30),
        _ => ("TiB", 1 << 40),
    }
}

/// Three digits that tell: 1.31, 15.2, 412. Whole numbers stay whole if `trim`.
fn three(bytes: u64, unit: u64, trim: bool) -> String {
    let n = bytes as f64 / unit as f64;
    let digits = if unit == 1 || n >= 99.95 || (trim && bytes.is_multiple_of(unit)) {
        0
    } else if n >= 9.995 {
        1
    } else {
        2
    };
    fixed(n, digits)
}

/// A size: `2.10 GiB`.
pub fn bytes(n: u64) -> String {
    let (name, size) = unit(n);
    format!("{} {name}", three(n, size, true))
}

/// A part and its whole in the whole's unit: `1.31`, `2.10 GiB`.
pub fn bytes_of(done: u64, total: u64) -> (String, String) {
    let (name, size) = unit(total);
    (
        three(done, size, false),
        format!("{} {name}", three(total, size, false)),
    )
}

/// A size in MiB: `512 MiB`, `1 GiB`.
pub fn mib(n: u64) -> String {
    bytes(n << 20)
}

/// Bytes in a second, in the decimal units that disks are sold by: `412 MB/s`.
pub fn rate(bytes_per_second: f64) -> (String, &'static str) {
    let (n, unit) = if bytes_per_second >= 1e9 {
        (bytes_per_second / 1e9, "GB/s")
    } else if bytes_per_second >= 1e6 {
        (bytes_per_second / 1e6, "MB/s")
    } else {
        (bytes_per_second / 1e3, "kB/s")
    };
    (fixed(n, if n >= 99.5 { 0 } else { 1 }), unit)
}

/// How long something took, number and unit apart: `420`, `ms`.
pub fn duration_parts(micros: i64) -> (String, &'static str) {
    let micros = micros.max(0);
    let n = micros as f64;
    match micros {
        0..1000 => (micros.to_string(), "µs"),
        1000..10_000 => (fixed(n / 1e3, 1), "ms"),
        10_000..SECOND => (fixed(n / 1e3, 0), "ms"),
        SECOND..10_000_000 => (fixed(n / 1e6, 1), "s"),
        10_000_000..MINUTE => ((micros / SECOND).to_string(), "s"),
        MINUTE..HOUR => {
            let s = micros % MINUTE / SECOND;
            (format!("{} min {s}", micros / MINUTE), "s")
        }
        HOUR..DAY => (format!("{} h {}", micros / HOUR, micros % HOUR / MINUTE), "min"),
        _ => (format!("{} d {}", micros / DAY, micros % DAY / HOUR), "h"),
    }
}

/// How long something took: `420 ms`, `6 min 4 s`, `3 d 4 h`.
pub fn duration(micros: i64) -> String {
    let (n, unit) = duration_parts(micros);
    format!("{n} {unit}")
}

/// How long something has been going on, in whole seconds, so that the digits do not run: `12 s`.
pub fn elapsed(micros: i64) -> String {
    match micros {
        ..MINUTE => format!("{} s", micros.max(0) / SECOND),
        _ => duration(micros),
    }
}

/// How long ago: `12 s ago`; a date when it is more than a week.
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    let micros = now.since(then);
    let (one, unit) = match micros {
        ..2_000_000 => return w().just_now.to_owned(),
        2_000_000..MINUTE => (SECOND, "s"),
        MINUTE..HOUR => (MINUTE, "min"),
        HOUR..DAY => (HOUR, "h"),
        DAY..604_800_000_000 => (DAY, "d"),
        _ => return date(now, then),
    };
    put(w().time_ago, &[&(micros / one).to_string(), unit])
}

/// `12 Nov`, or `12 Nov 2025` in another year than `now`.
fn date(now: Timestamp, t: Timestamp) -> String {
    let (now, text) = (now.to_string(), t.to_string());
    let number = |from, to| text.get(from..to).and_then(|n| n.parse::<usize>().ok());
    let (Some(month), Some(day)) = (number(5, 7), number(8, 10)) else {
        return text;
    };
    let month = w().months.split(' ').nth(month.wrapping_sub(1));
    let date = put(w().day_of_month, &[&day.to_string(), month.unwrap_or_default()]);
    match text.get(..4) {
        year if year == now.get(..4) => date,
        year => format!("{date} {}", year.unwrap_or_default()),
    }
}

/// The whole moment, `zone` minutes east of UTC: `2026-11-20 02:14:07 +01:00`.
pub fn absolute(t: Timestamp, zone: i32) -> String {
    let text = local(t, zone);
    let (day, time) = (
        text.get(..10).unwrap_or(&text),
        text.get(11..19).unwrap_or_default(),
    );
    if zone == 0 {
        return format!("{day} {time} UTC");
    }
    let (sign, z) = if zone < 0 { ('-', -zone) } else { ('+', zone) };
    format!("{day} {time} {sign}{:02}:{:02}", z / 60, z % 60)
}

/// The time of day to the millisecond, as a log shows it: `02:14:07.113`.
pub fn time_of_day(t: Timestamp, zone: i32) -> String {
    // Down to the millisecond, and never without its fraction.
    let micros = t.micros().rem_euclid(SECOND);
    let text = local(t.plus_micros(-micros), zone);
    format!("{}.{:03}", text.get(11..19).unwrap_or_default(), micros / 1000)
}

fn local(t: Timestamp, zone: i32) -> String {
    t.plus_micros(i64::from(zone) * MINUTE).to_string()
}

/// A count with its thousands apart: `10,000`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, c) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push_str(w().thousands);
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Language, speaking};

    #[test]
    fn sizes_keep_three_digits() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 30, "1 GiB"),
            (2_254_857_830, "2.10 GiB"),
            (38 << 20, "38 MiB"),
            (16_000_000, "15.3 MiB"),
            (432_013_312, "412 MiB"),
            (3 << 40, "3 TiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(bytes_of(1 << 30, 2 << 30), ("1.00".into(), "2.00 GiB".into()));
        assert_eq!(mib(512), "512 MiB");
        assert_eq!(rate(412e6), ("412".into(), "MB/s"));
    }

    #[test]
    fn durations_read_well_at_every_length() {
        for (micros, text) in [
            (340, "340 µs"),
            (3_100, "3.1 ms"),
            (420_000, "420 ms"),
            (2_300_000, "2.3 s"),
            (12_000_000, "12 s"),
            (364_000_000, "6 min 4 s"),
            (4 * HOUR + 2 * MINUTE, "4 h 2 min"),
            (3 * DAY + 4 * HOUR, "3 d 4 h"),
            (-5, "0 µs"),
        ] {
            assert_eq!(duration(micros), text);
        }
        assert_eq!(elapsed(420_000), "0 s");
    }

    #[test]
    fn moments_are_relative_first_and_whole_on_demand() {
        let now: Timestamp = "2026-11-20T02:14:07.113Z".parse().unwrap();
        assert_eq!(ago(now, now.plus_micros(5)), "just now");
        assert_eq!(ago(now, now.plus_micros(-12 * SECOND)), "12 s ago");
        assert_eq!(ago(now, now.plus_micros(-8 * DAY)), "12 Nov");
        assert_eq!(ago(now, now.plus_micros(-365 * DAY)), "20 Nov 2025");
        assert_eq!(absolute(now, 0), "2026-11-20 02:14:07 UTC");
        assert_eq!(absolute(now, -90), "2026-11-20 00:44:07 -01:30");
        assert_eq!(time_of_day(now, 60), "03:14:07.113");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
    }

    #[test]
    fn numbers_and_moments_are_said_in_the_language() {
        speaking(Language::German, || {
            let now: Timestamp = "2026-11-20T02:14:07.113Z".parse().unwrap();
            assert_eq!(bytes(2_254_857_830), "2,10 GiB");
            assert_eq!(rate(1.26e6), ("1,3".into(), "MB/s"));
            assert_eq!(duration(3_100), "3,1 ms");
            assert_eq!(duration(2_300_000), "2,3 s");
            assert_eq!(count(1_234_567), "1.234.567");
            assert_eq!(ago(now, now.plus_micros(-12 * SECOND)), "vor 12 s");
            assert_eq!(ago(now, now.plus_micros(-8 * DAY)), "12. Nov.");
            assert_eq!(ago(now, "2025-03-01T00:00:00Z".parse().unwrap()), "1. März 2025");
        });
    }
}
