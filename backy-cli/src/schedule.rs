//! The schedule of a configuration: which tags exist, how often they are due, how many are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::human;
use crate::tags;

/// Tags and how they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Schedule(BTreeMap<String, Rule>);

/// How one tag is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// How often the tag is due.
    pub(crate) interval: Interval,
    /// How many revisions keep the tag at least.
    pub(crate) keep: NonZeroU64,
}

/// Time between two revisions, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Duration);

impl Schedule {
    /// Returns whether the schedule has this tag.
    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.0.contains_key(tag)
    }

    /// Returns whether the schedule has no tags.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rules = BTreeMap::<String, Rule>::deserialize(deserializer)?;
        match rules.keys().find(|tag| !tags::is_tag(tag)) {
            Some(tag) => Err(D::Error::custom(format_args!("not a tag: {tag:?}"))),
            None => Ok(Self(rules)),
        }
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.as_secs())
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
        human::parse_interval(text)
            .map(Interval)
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}
