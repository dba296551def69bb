//! The schedule of a source: which tags exist, and what keeps them.
//!
//! As a document, in YAML:
//!
//! ```text
//! daily: {interval: 1d, keep: 9}             a tag that is kept by count and age
//! nightly: {keep-daily: 7, keep-weekly: 4}   a tag that is kept by the calendar
//! keep-monthly: 12                           revisions that are kept by the calendar, whatever their tags
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::buckets::Period;
use super::interval::Interval;
use crate::revision_spec::is_tag_word;

/// Tags that begin like this belong to no schedule and never expire.
pub const MANUAL_PREFIX: &str = "manual:";

/// Keys that begin like this are rules, never tags.
const RULE_PREFIX: &str = "keep-";

/// Returns whether a tag is one that people put on a revision by hand, and that never expires.
#[must_use]
pub fn is_manual(tag: &str) -> bool {
    tag.strip_prefix(MANUAL_PREFIX).is_some_and(|rest| !rest.is_empty())
}

/// What keeps revisions of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    tags: BTreeMap<String, TagRule>,
    calendar: Calendar,
}

/// What keeps one tag on a revision: any of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TagDocument")]
pub struct TagRule {
    /// How often the tag is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// The newest revisions with the tag, as many as this, keep it; older ones until they are older than as many intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<NonZeroU64>,
    /// Among the revisions with the tag, the newest of each day, week, month or year.
    #[serde(flatten)]
    pub calendar: Calendar,
}

/// For each period of the calendar, of how many of them the newest revision is kept. Periods without a revision do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calendar {
    /// Days.
    #[serde(rename = "keep-daily", skip_serializing_if = "Option::is_none")]
    pub daily: Option<NonZeroU64>,
    /// ISO weeks, which begin on Monday.
    #[serde(rename = "keep-weekly", skip_serializing_if = "Option::is_none")]
    pub weekly: Option<NonZeroU64>,
    /// Months.
    #[serde(rename = "keep-monthly", skip_serializing_if = "Option::is_none")]
    pub monthly: Option<NonZeroU64>,
    /// Years.
    #[serde(rename = "keep-yearly", skip_serializing_if = "Option::is_none")]
    pub yearly: Option<NonZeroU64>,
}

/// A schedule makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// No revision could have such a tag, or nobody could name it.
    #[error("not a tag: {tag:?}")]
    NotATag {
        /// The tag.
        tag: String,
    },
    /// A rule for a tag that never expires.
    #[error("tag {tag:?} needs no rule: tags that begin with {MANUAL_PREFIX:?} never expire")]
    ManualTag {
        /// The tag.
        tag: String,
    },
    /// The key looks like a rule and is none.
    #[error("unknown rule {key:?}: there are keep-daily, keep-weekly, keep-monthly, keep-yearly")]
    UnknownRule {
        /// The key.
        key: String,
    },
    /// Two entries have the same key.
    #[error("{key:?} occurs twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A count without the time that it is multiplied with.
    #[error("keep needs interval")]
    KeepWithoutInterval,
    /// Nothing says how long a tag is kept.
    #[error(
        "nothing says what is kept: keep, keep-daily, keep-weekly, keep-monthly or keep-yearly"
    )]
    KeepsNothing,
}

impl Schedule {
    /// Adds a tag, or replaces its rule.
    ///
    /// # Errors
    ///
    /// - [`ScheduleError`] if the tag or the rule makes no sense.
    pub fn with_tag(mut self, tag: &str, rule: TagRule) -> Result<Self, ScheduleError> {
        check_tag(tag)?;
        rule.check()?;
        self.tags.insert(tag.to_owned(), rule);
        Ok(self)
    }

    /// Replaces what keeps revisions whatever their tags.
    #[must_use]
    pub fn with_calendar(self, calendar: Calendar) -> Self {
        Self { calendar, ..self }
    }

    /// Returns what keeps a tag; `None` if the schedule does not have it.
    #[must_use]
    pub fn rule(&self, tag: &str) -> Option<&TagRule> {
        self.tags.get(tag)
    }

    /// Returns what keeps revisions whatever their tags.
    #[must_use]
    pub const fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// Returns the names of its tags.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.keys().map(String::as_str)
    }

    /// Returns whether a revision may get this tag without being forced: it is in the schedule, or manual.
    #[must_use]
    pub fn permits(&self, tag: &str) -> bool {
        self.tags.contains_key(tag) || is_manual(tag)
    }

    /// Returns how often the most frequent tag is due.
    #[must_use]
    pub fn shortest_interval(&self) -> Option<Interval> {
        self.tags.values().filter_map(|rule| rule.interval).min()
    }

    /// Returns tags by how often they are due; those that are never due by themselves come first. Equal ones stay in order.
    #[must_use]
    pub fn sorted(&self, tags: &[String]) -> Vec<String> {
        let mut sorted = tags.to_vec();
        sorted.sort_by_key(|tag| self.rule(tag).and_then(|rule| rule.interval));
        sorted
    }
}

impl TagRule {
    /// Returns the rule of count and age.
    #[must_use]
    pub fn count(interval: Interval, keep: NonZeroU64) -> Self {
        Self { interval: Some(interval), keep: Some(keep), calendar: Calendar::default() }
    }

    /// Returns the rule of count and age, if it has one.
    #[must_use]
    pub fn interval_and_keep(&self) -> Option<(Interval, NonZeroU64)> {
        self.interval.zip(self.keep)
    }

    fn check(&self) -> Result<(), ScheduleError> {
        match (self.interval, self.keep) {
            (None, Some(_)) => Err(ScheduleError::KeepWithoutInterval),
            (_, None) if self.calendar.is_empty() => Err(ScheduleError::KeepsNothing),
            _ => Ok(()),
        }
    }
}

impl Calendar {
    /// Returns whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules().next().is_none()
    }

    /// Returns the rules that there are, from days to years.
    pub fn rules(&self) -> impl Iterator<Item = (Period, NonZeroU64)> {
        Period::ALL.into_iter().filter_map(|period| Some((period, self.count(period)?)))
    }

    const fn count(&self, period: Period) -> Option<NonZeroU64> {
        match period {
            Period::Day => self.daily,
            Period::Week => self.weekly,
            Period::Month => self.monthly,
            Period::Year => self.yearly,
        }
    }

    const fn count_mut(&mut self, period: Period) -> &mut Option<NonZeroU64> {
        match period {
            Period::Day => &mut self.daily,
            Period::Week => &mut self.weekly,
            Period::Month => &mut self.monthly,
            Period::Year => &mut self.yearly,
        }
    }
}

fn check_tag(tag: &str) -> Result<(), ScheduleError> {
    if tag.starts_with(RULE_PREFIX) {
        return Err(ScheduleError::UnknownRule { key: tag.to_owned() });
    }
    if !is_tag_word(tag) {
        return Err(ScheduleError::NotATag { tag: tag.chars().take(80).collect() });
    }
    if is_manual(tag) {
        return Err(ScheduleError::ManualTag { tag: tag.to_owned() });
    }
    Ok(())
}

/// A [`TagRule`] that nobody has checked yet. The rules of the calendar are named one by one: of flattened
/// ones unknown keys would not be noticed.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct TagDocument {
    interval: Option<Interval>,
    keep: Option<Count>,
    keep_daily: Option<Count>,
    keep_weekly: Option<Count>,
    keep_monthly: Option<Count>,
    keep_yearly: Option<Count>,
}

impl TryFrom<TagDocument> for TagRule {
    type Error = ScheduleError;

    fn try_from(document: TagDocument) -> Result<Self, ScheduleError> {
        let number = |count: Option<Count>| count.map(|Count(number)| number);
        let rule = Self {
            interval: document.interval,
            keep: number(document.keep),
            calendar: Calendar {
                daily: number(document.keep_daily),
                weekly: number(document.keep_weekly),
                monthly: number(document.keep_monthly),
                yearly: number(document.keep_yearly),
            },
        };
        rule.check().map(|()| rule)
    }
}

/// How many are kept.
struct Count(NonZeroU64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        let number = NonZeroU64::new(number);
        number.map(Self).ok_or_else(|| D::Error::custom("what is kept is at least 1, not 0"))
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (tag, rule) in &self.tags {
            map.serialize_entry(tag, rule)?;
        }
        for (period, count) in self.calendar.rules() {
            map.serialize_entry(period.rule(), &count)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ScheduleVisitor)
    }
}

struct ScheduleVisitor;

impl<'de> Visitor<'de> for ScheduleVisitor {
    type Value = Schedule;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("tags with their rules, as in daily: {interval: 1d, keep: 9}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Schedule, A::Error> {
        let mut schedule = Schedule::default();
        while let Some(key) = map.next_key::<String>()? {
            let is_new = match Period::of_rule(&key) {
                Some(period) => {
                    let Count(count) = map.next_value()?;
                    schedule.calendar.count_mut(period).replace(count).is_none()
                }
                None => {
                    check_tag(&key).map_err(A::Error::custom)?;
                    schedule.tags.insert(key.clone(), map.next_value()?).is_none()
                }
            };
            if !is_new {
                return Err(A::Error::custom(ScheduleError::Twice { key }));
            }
        }
        Ok(schedule)
    }
}
