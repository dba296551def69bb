//! Time between two revisions, as a configuration has it: `10m`, `1h`, `1d`, `1w`, or seconds.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units from the longest, each a multiple of the next.
const UNITS: [(char, u64); 5] =
    [('w', 7 * 24 * 3600), ('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1)];

/// Whole seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    seconds: u64,
}

/// A text is not an interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an interval such as 10m, 1h, 1d, 1w, or a number of seconds above 0: {text:?}")]
pub struct ParseIntervalError {
    text: String,
}

impl Interval {
    /// Returns an interval; `None` for 0.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Option<Self> {
        if seconds == 0 { None } else { Some(Self { seconds }) }
    }

    /// Returns its length in seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.seconds
    }

    /// Returns its length in milliseconds.
    #[must_use]
    pub const fn milliseconds(self) -> u128 {
        self.seconds as u128 * 1000
    }
}

impl FromStr for Interval {
    type Err = ParseIntervalError;

    fn from_str(text: &str) -> Result<Self, ParseIntervalError> {
        let unit = UNITS.iter().find_map(|(unit, len)| Some((text.strip_suffix(*unit)?, *len)));
        let (number, len) = unit.unwrap_or((text, 1));
        let is_number = !number.is_empty() && number.bytes().all(|symbol| symbol.is_ascii_digit());
        let count = if is_number { number.parse::<u64>().ok() } else { None };
        count
            .and_then(|count| count.checked_mul(len))
            .and_then(Self::from_seconds)
            .ok_or_else(|| ParseIntervalError { text: text.chars().take(80).collect() })
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, len): &&(char, u64)| self.seconds.is_multiple_of(*len);
        let (unit, len) = UNITS.iter().find(fits).expect("seconds are multiples of one second");
        write!(formatter, "{}{unit}", self.seconds / len)
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntervalVisitor)
    }
}

struct IntervalVisitor;

impl Visitor<'_> for IntervalVisitor {
    type Value = Interval;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an interval such as 10m, 1h, 1d, 1w, or a number of seconds above 0")
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Interval, E> {
        self.visit_str(&seconds.to_string())
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Interval, E> {
        self.visit_str(&seconds.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Interval, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// An age in its two largest units, rounded down: "9d", "4d 2h", "45s".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// Its length in milliseconds.
    pub milliseconds: u64,
}

impl fmt::Display for Age {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.milliseconds / 1000;
        // Weeks would make ages harder to compare.
        let units = &UNITS[1..];
        let first = units.iter().position(|(_, len)| *len <= seconds).unwrap_or(units.len() - 1);
        let (unit, len) = units[first];
        write!(formatter, "{}{unit}", seconds / len)?;
        match units.get(first + 1) {
            Some((unit, smaller)) if *smaller <= seconds % len => {
                write!(formatter, " {}{unit}", seconds % len / smaller)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_ancestor_are_read() {
        for (text, expected) in [
            ("1w", Some(604_800)),
            ("1d", Some(86_400)),
            ("2d", Some(172_800)),
            ("1h", Some(3600)),
            ("3h", Some(10_800)),
            ("10m", Some(600)),
            ("25m", Some(1500)),
            ("10s", Some(10)),
            ("5", Some(5)),
            ("0", None),
            ("0d", None),
            ("", None),
            ("d", None),
            ("+1d", None),
            ("-1d", None),
            ("1y", None),
            ("1.5h", None),
            ("1dd", None),
            ("99999999999999999999w", None),
            ("18446744073709551615w", None),
            ("1\u{e4}", None),
        ] {
            let found = text.parse::<Interval>().ok().map(Interval::seconds);
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn interval_prints_in_its_longest_whole_unit_and_reads_back() {
        for text in ["1w", "9d", "36h", "90m", "61s", "18446744073709551615s"] {
            let interval: Interval = text.parse().unwrap();
            assert_eq!(interval.to_string(), text);
        }
        assert_eq!("48h".parse::<Interval>().unwrap().to_string(), "2d");
    }

    #[test]
    fn age_prints_in_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3 * 3600 + 61, "3h 1m"),
            (9 * 86_400, "9d"),
            (9 * 86_400 + 7300, "9d 2h"),
            (9 * 86_400 + 59, "9d"),
            (400 * 86_400, "400d"),
        ] {
            assert_eq!(Age { milliseconds: seconds * 1000 + 999 }.to_string(), text);
        }
    }
}
