//! When copies are due, and when they may run: cron lines and windows, in time zones.
//!
//! A cron line is about the clocks on the wall. What they jump over is due as they jump, once; what they show twice is due the
//! first time. So whatever is due at one moment of the wall is due once in the world, in the same order.

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::civil::{self, DateTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use shared::policy::check::minute_of_day;
use shared::policy::retain::LocalDate;
use shared::policy::{DayOfWeek, Window};
use shared::{Status, Timestamp};

/// The fields of a cron line, by what an error calls them.
const FIELDS: [&str; 5] = ["minute", "hour", "day of the month", "month", "day of the week"];

/// An hour, in microseconds.
const HOUR_MICROS: i64 = 3_600_000_000;

/// Words in place of a cron line.
const WORDS: [(&str, &str); 4] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
];

/// The time zone of this name, such as Europe/Berlin; INVALID_ARGUMENT for the field if there is none.
pub fn zone(field: &str, name: &str) -> Result<TimeZone, Status> {
    let known = TimeZone::get(name).ok().filter(|zone| !zone.is_unknown());
    known.ok_or_else(|| {
        Status::invalid(
            field,
            format_args!("there is no time zone {name:?}: name one like Europe/Berlin, or UTC"),
        )
    })
}

/// What the clocks of a time zone show, for [`retain`](shared::policy::retain::retain).
pub fn local(zone: &TimeZone, time: Timestamp) -> LocalDate {
    let wall = wall(zone, time);
    let week = wall.date().iso_week_date();
    LocalDate {
        year: wall.year(),
        month: wall.month().unsigned_abs(),
        day: wall.day().unsigned_abs(),
        iso_year: week.year(),
        iso_week: week.week().unsigned_abs(),
        hour: wall.hour().unsigned_abs(),
    }
}

/// What the clocks show at a moment.
fn wall(zone: &TimeZone, time: Timestamp) -> DateTime {
    // Only the last day of the year 9999 is beyond it.
    let moment = jiff::Timestamp::from_microsecond(time.micros()).unwrap_or(jiff::Timestamp::MAX);
    zone.to_datetime(moment)
}

/// The first moment at which the clocks show this or have passed it.
fn moment(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    let moment = match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall),
        // Clocks that had not jumped would show it after the jump, which is the last one until then.
        AmbiguousOffset::Gap { before, .. } => before
            .to_timestamp(wall)
            .map(|past| jump(zone, past).unwrap_or(past)),
    };
    Some(Timestamp::from_micros(moment.ok()?.as_microsecond()))
}

/// When the clocks last jumped, at or before this moment.
fn jump(zone: &TimeZone, at: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let after = at.checked_add(jiff::SignedDuration::from_nanos(1)).ok()?;
    zone.preceding(after).next().map(|jump| jump.timestamp())
}

/// A cron line in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// In UTC, which stands for the clocks on the wall.
    line: Crontab,
    zone: TimeZone,
}

impl Schedule {
    /// The schedule; INVALID_ARGUMENT that names `schedule.cron` or `schedule.timeZone`, and the part that is wrong.
    pub fn parse(schedule: &shared::policy::Schedule) -> Result<Self, Status> {
        let zone = zone("schedule.timeZone", &schedule.time_zone)?;
        let line = parse(&schedule.cron).map_err(|why| Status::invalid("schedule.cron", why))?;
        Ok(Self { line, zone })
    }

    /// The first moment after this one that it is due; none if that is years away.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let mut shown = wall(&self.zone, time);
        loop {
            shown = next(&self.line, shown)?;
            let due = moment(&self.zone, shown)?;
            // It was due before where the clocks have gone back and show it again.
            if due > time {
                return Some(due);
            }
        }
    }

    /// All moments after the one that it is due, until the other, that included.
    pub fn between(&self, after: Timestamp, until: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |due| self.next_after(*due))
            .take_while(move |due| *due <= until)
    }

    /// The last moment after the one that it is due, until the other, that included.
    pub fn newest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        // What is due every minute is not gone through for years, nor what is due once a year missed.
        for hours in [1, 24, 24 * 8, 24 * 32, 24 * 366, i64::MAX / HOUR_MICROS] {
            let from = after.max(until.plus_micros(-hours * HOUR_MICROS));
            let newest = self.between(from, until).last();
            if newest.is_some() || from == after {
                return newest;
            }
        }
        None
    }

    /// What the clocks of its time zone show.
    pub fn local(&self, time: Timestamp) -> LocalDate {
        local(&self.zone, time)
    }
}

/// What the clocks show next, after this, of what a line asks for; none if that is more than four years away.
fn next(line: &Crontab, shown: DateTime) -> Option<DateTime> {
    // It looks four years ahead, and panics where there are none.
    if shown.year() > 9990 {
        return None;
    }
    let shown = Offset::UTC.to_timestamp(shown).ok()?;
    Some(line.find_next(MakeTimestamp(shown)).ok()?.datetime())
}

fn parse(cron: &str) -> Result<Crontab, String> {
    let cron = cron.trim();
    if cron.starts_with('@') {
        let known = WORDS.iter().find(|(word, _)| cron.eq_ignore_ascii_case(word));
        let words = || WORDS.map(|(word, _)| word).join(", ");
        let (_, line) = known.ok_or_else(|| format!("{cron:?} is none of {}", words()))?;
        return whole(line);
    }
    let fields: Vec<_> = cron.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let seconds = if fields.len() == 6 {
            "; there are no seconds"
        } else {
            ""
        };
        return Err(format!(
            "it has {} fields, and needs these five: {}{seconds}",
            fields.len(),
            FIELDS.join(", ")
        ));
    }
    for (n, field) in fields.iter().enumerate() {
        let mut alone = ["*"; FIELDS.len()];
        alone[n] = field;
        whole(&alone.join(" ")).map_err(|why| format!("the {} {field:?}: {why}", FIELDS[n]))?;
    }
    let line = whole(&fields.join(" "))?;
    // From the year of a leap day on, for there may be eight years from one to the next.
    next(&line, civil::datetime(2024, 1, 1, 0, 0, 0, 0))
        .ok_or_else(|| format!("{cron:?} is not due once in four years"))?;
    Ok(line)
}

fn whole(line: &str) -> Result<Crontab, String> {
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    cronexpr::parse_crontab_with(line, options).map_err(|wrong| {
        // It draws a caret below the line, and says why behind that.
        let text = wrong.to_string();
        let why = text.rsplit_once("^ ").map_or(text.as_str(), |(_, why)| why);
        why.to_owned()
    })
}

/// Whether copies may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They may.
    Open {
        /// When they may no more; none if that is more than two weeks away, or never.
        until: Option<Timestamp>,
    },
    /// They may not.
    Closed {
        /// When they may, or when to ask again.
        until: Timestamp,
    },
}

/// Hours in which copies may run.
#[derive(Clone, Debug, Default)]
pub struct Windows(Vec<Hours>);

#[derive(Clone, Debug)]
struct Hours {
    days: Vec<DayOfWeek>,
    from: civil::Time,
    to: civil::Time,
    zone: TimeZone,
}

/// How far ahead it is looked for hours, in days: clocks can jump over those of one week, and not over those of the next as well.
const AHEAD: i64 = 15;

impl Windows {
    /// The windows; INVALID_ARGUMENT that names the field of `window` that is wrong.
    pub fn parse(windows: &[Window]) -> Result<Self, Status> {
        let hours = |window: &Window| {
            shared::policy::check::window(window)?;
            let time = |text| {
                let minute = minute_of_day(text).unwrap_or_default();
                civil::Time::midnight() + jiff::SignedDuration::from_mins(minute.into())
            };
            Ok(Hours {
                days: window.days.clone(),
                from: time(&window.from),
                to: time(&window.to),
                zone: zone("window.timeZone", &window.time_zone)?,
            })
        };
        windows.iter().map(hours).collect::<Result<_, _>>().map(Self)
    }

    /// Whether copies may run at a moment, and until when that is so. With no window at all they always may.
    pub fn open_at(&self, now: Timestamp) -> Gate {
        if self.0.is_empty() {
            return Gate::Open { until: None };
        }
        let mut spans: Vec<_> = self.0.iter().flat_map(|hours| hours.around(now)).collect();
        spans.sort_unstable();
        // One that begins before another has ended goes on with it.
        let mut open: Option<Timestamp> = None;
        for (from, to) in spans {
            let reached = open.unwrap_or(now);
            if from > reached {
                match open {
                    Some(_) => break,
                    None => return Gate::Closed { until: from },
                }
            }
            if to > reached {
                open = Some(to);
            }
        }
        let ahead = now.plus_micros((AHEAD - 1) * 24 * 3_600_000_000);
        match open {
            None => Gate::Closed { until: ahead },
            Some(until) => Gate::Open {
                until: (until < ahead).then_some(until),
            },
        }
    }
}

impl Hours {
    /// When it opens and closes, from the day before a moment on.
    fn around(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = wall(&self.zone, now).date();
        (-1..=AHEAD).filter_map(move |n| {
            let day = today.checked_add(jiff::SignedDuration::from_hours(24 * n)).ok()?;
            let of_week = DayOfWeek::ALL[usize::from(day.weekday().to_monday_zero_offset().unsigned_abs())];
            if !self.days.is_empty() && !self.days.contains(&of_week) {
                return None;
            }
            let end = if self.to > self.from {
                day
            } else {
                day.tomorrow().ok()?
            };
            let span = (
                moment(&self.zone, day.to_datetime(self.from))?,
                moment(&self.zone, end.to_datetime(self.to))?,
            );
            // The clocks may jump over all of it.
            (span.0 < span.1).then_some(span)
        })
    }
}

#[cfg(test)]
mod tests;
