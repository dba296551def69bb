//! Days of the calendar, as people name them when they mean revisions of a time.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::time::Timestamp;

/// A stretch of days; both ends belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Days {
    /// The first one, if there is one.
    pub from: Option<Date>,
    /// The last one, if there is one.
    pub until: Option<Date>,
}

impl Days {
    /// Reads a day: `2026-01-31`. `None` if it is none.
    #[must_use]
    pub fn parse_day(text: &str) -> Option<Date> {
        // Other forms of a date would be read too, and a time of the day be ignored.
        let is_plain =
            text.len() == 10 && text.bytes().all(|symbol| b"0123456789-".contains(&symbol));
        if is_plain { text.parse().ok() } else { None }
    }

    /// Returns whether no day can be in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from.zip(self.until).is_some_and(|(from, until)| until < from)
    }

    /// Returns whether an instant is on one of the days, by the calendar of `timezone`.
    #[must_use]
    pub fn contain(&self, time: Timestamp, timezone: &TimeZone) -> bool {
        let Ok(instant) = jiff::Timestamp::from_millisecond(time.0) else {
            return self.from.is_none() && self.until.is_none();
        };
        let day = timezone.to_datetime(instant).date();
        self.from.is_none_or(|from| from <= day) && self.until.is_none_or(|until| day <= until)
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz;

    use super::*;

    fn days(from: &str, until: &str) -> Days {
        Days { from: Days::parse_day(from), until: Days::parse_day(until) }
    }

    #[test]
    fn both_days_belong_to_it_from_midnight_to_midnight_of_the_zone() {
        let berlin = TimeZone::fixed(tz::offset(2));
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let two_days = days("2015-08-29", "2015-08-30");
        for (text, is_inside) in [
            ("2015-08-28T21:59:59.999Z", false),
            ("2015-08-28T22:00:00.000Z", true),
            ("2015-08-30T21:59:59.999Z", true),
            ("2015-08-30T22:00:00.000Z", false),
        ] {
            assert_eq!(two_days.contain(time(text), &berlin), is_inside, "{text}");
        }
        let instant = time("2015-08-29T12:00:00.000Z");
        for (from, until, is_inside) in [
            ("2015-08-29", "2015-08-29", true),
            ("2015-08-29", "", true),
            ("", "2015-08-29", true),
            ("2015-08-30", "", false),
            ("", "2015-08-28", false),
            ("", "", true),
        ] {
            assert_eq!(days(from, until).contain(instant, &berlin), is_inside, "{from}, {until}");
        }
    }

    #[test]
    fn instant_beyond_the_calendar_is_on_no_day() {
        let far = Timestamp(i64::MAX);
        assert!(!days("2015-08-29", "").contain(far, &TimeZone::UTC));
        assert!(Days::default().contain(far, &TimeZone::UTC));
    }

    #[test]
    fn day_is_year_month_and_day_and_nothing_else() {
        assert_eq!(Days::parse_day("2015-08-29"), Some(jiff::civil::date(2015, 8, 29)));
        for text in
            ["", "2015-8-29", "2015-02-29", "20150829", "2015-08-29T00", "tomorrow", "-015-08-29"]
        {
            assert_eq!(Days::parse_day(text), None, "{text:?}");
        }
    }

    #[test]
    fn days_that_end_before_they_begin_are_empty() {
        assert!(days("2015-08-30", "2015-08-29").is_empty());
        assert!(!days("2015-08-30", "2015-08-30").is_empty());
        assert!(!days("2015-08-30", "").is_empty());
    }
}
