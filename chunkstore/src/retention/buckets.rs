//! Periods of the calendar, and which revision is kept of each.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU64;

use jiff::tz::TimeZone;

use crate::time::Timestamp;

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// An ISO week: it begins on Monday, and belongs to the year of its Thursday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Year];

    /// Returns the name of the rule for this period.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Day => "keep-daily",
            Self::Week => "keep-weekly",
            Self::Month => "keep-monthly",
            Self::Year => "keep-yearly",
        }
    }

    /// Returns the period that a rule is for.
    #[must_use]
    pub fn of_rule(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.rule() == name)
    }

    /// Returns the bucket that an instant is in: which day, week, month or year it is in that time zone.
    #[must_use]
    pub fn bucket(self, time: Timestamp, timezone: &TimeZone) -> Bucket {
        // Times beyond the calendar's years count as its ends.
        let end = if time.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        let instant = jiff::Timestamp::from_millisecond(time.0).unwrap_or(end);
        let date = timezone.to_datetime(instant).date();
        let week = date.iso_week_date();
        match self {
            Self::Day => {
                Bucket { period: self, year: date.year(), month: date.month(), part: date.day() }
            }
            Self::Week => Bucket { period: self, year: week.year(), month: 0, part: week.week() },
            Self::Month => Bucket { period: self, year: date.year(), month: date.month(), part: 0 },
            Self::Year => Bucket { period: self, year: date.year(), month: 0, part: 0 },
        }
    }
}

/// One day, week, month or year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// What it is.
    pub period: Period,
    year: i16,
    month: i8,
    part: i8,
}

impl fmt::Display for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, part, .. } = self;
        match self.period {
            Period::Day => write!(formatter, "{year:04}-{month:02}-{part:02}"),
            Period::Week => write!(formatter, "{year:04}-W{part:02}"),
            Period::Month => write!(formatter, "{year:04}-{month:02}"),
            Period::Year => write!(formatter, "{year:04}"),
        }
    }
}

/// Returns the places in `revisions`, and the buckets, of those that are kept: of the `count` newest buckets that have
/// good revisions the newest good one. A bucket among these without a good one keeps its newest all the same, and does not count.
///
/// `revisions` are the newest first: the bucket of each, and whether it is good.
pub(super) fn kept(revisions: &[(Bucket, bool)], count: NonZeroU64) -> Vec<(usize, Bucket)> {
    let good: HashSet<Bucket> =
        revisions.iter().filter(|(_, is_good)| *is_good).map(|(bucket, _)| *bucket).collect();
    let mut filled = HashSet::new();
    let mut filled_good = 0;
    let mut kept = Vec::new();
    for (place, (bucket, is_good)) in revisions.iter().enumerate() {
        let waits_for_good = !is_good && good.contains(bucket);
        if filled_good == count.get() || waits_for_good || !filled.insert(*bucket) {
            continue;
        }
        filled_good += u64::from(*is_good);
        kept.push((place, *bucket));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(period: Period, time: &str, timezone: &TimeZone) -> String {
        period.bucket(time.parse().unwrap(), timezone).to_string()
    }

    #[test]
    fn buckets_are_those_of_the_calendar() {
        let names = |time| Period::ALL.map(|period| bucket(period, time, &TimeZone::UTC));
        assert_eq!(names("2026-11-20T12:00:00Z"), ["2026-11-20", "2026-W47", "2026-11", "2026"]);
        assert_eq!(names("2027-01-01T00:00:00Z"), ["2027-01-01", "2026-W53", "2027-01", "2027"]);
        assert_eq!(names("2024-12-30T00:00:00Z"), ["2024-12-30", "2025-W01", "2024-12", "2024"]);
    }

    #[test]
    fn buckets_are_local() {
        let east = TimeZone::fixed(jiff::tz::offset(3));
        let time = "2026-12-31T22:00:00Z";
        assert_eq!(bucket(Period::Day, time, &east), "2027-01-01");
        assert_eq!(bucket(Period::Year, time, &TimeZone::UTC), "2026");
        assert_eq!(bucket(Period::Year, time, &east), "2027");
    }

    #[test]
    fn times_beyond_the_calendar_have_buckets() {
        for time in [i64::MIN, i64::MAX] {
            let first = Period::Day.bucket(Timestamp(time), &TimeZone::UTC);
            assert_eq!(first, Period::Day.bucket(Timestamp(time), &TimeZone::UTC));
        }
    }

    #[test]
    fn newest_good_revision_of_a_bucket_is_kept() {
        let days = |list: &[(i8, bool)]| -> Vec<(Bucket, bool)> {
            let day = |part| Bucket { period: Period::Day, year: 2026, month: 1, part };
            list.iter().map(|(part, is_good)| (day(*part), *is_good)).collect()
        };
        let kept = |list: &[(i8, bool)], count| -> Vec<usize> {
            let count = NonZeroU64::new(count).unwrap();
            kept(&days(list), count).into_iter().map(|(place, _)| place).collect()
        };
        let all_good = [(9, true), (9, true), (8, true), (5, true), (5, true)];
        assert_eq!(kept(&all_good, 2), [0, 2]);
        assert_eq!(kept(&all_good, 9), [0, 2, 3]);
        // The newest of day 9 is damaged, and day 8 has nothing good: it takes none of the two places.
        let some_damaged = [(9, false), (9, true), (8, false), (8, false), (7, true), (6, true)];
        assert_eq!(kept(&some_damaged, 2), [1, 2, 4]);
        assert_eq!(kept(&[(9, false), (8, false)], 1), [0, 1]);
        assert_eq!(kept(&[], 1), [0; 0]);
    }
}
