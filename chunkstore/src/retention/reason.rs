//! Why a tag or a revision is kept or dropped, in words.

use std::fmt;
use std::num::NonZeroU64;

use super::buckets::Bucket;
use super::interval::{Age, Interval};

/// Why a tag or a revision is kept or dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The revision is protected.
    Protected,
    /// The revision has no tag to begin with.
    NoTags,
    /// Somebody put the tag there by hand.
    Manual {
        /// The tag.
        tag: String,
    },
    /// The tag is not, or not any more, in the schedule.
    NotInSchedule {
        /// The tag.
        tag: String,
    },
    /// Few newer good revisions have the tag.
    Newest {
        /// The tag.
        tag: String,
        /// How many newer good revisions have it.
        newer: u64,
        /// How many keep it.
        keep: NonZeroU64,
    },
    /// Enough newer ones have the tag, but the revision is too young.
    Young {
        /// The tag.
        tag: String,
        /// How many newer good revisions have it.
        newer: u64,
        /// How old the revision is.
        age: Age,
        /// How many keep it.
        keep: NonZeroU64,
        /// How often the tag is due.
        interval: Interval,
    },
    /// Enough newer ones have the tag, and the revision is old enough.
    Expired {
        /// The tag.
        tag: String,
        /// How many newer good revisions have it.
        newer: u64,
        /// How old the revision is.
        age: Age,
        /// How many keep it.
        keep: NonZeroU64,
        /// How often the tag is due.
        interval: Interval,
    },
    /// The revision is the newest good one of a day, week, month or year.
    NewestOf {
        /// The tag, unless it is the schedule's own rule that keeps the revision.
        tag: Option<String>,
        /// Of what.
        bucket: Bucket,
    },
    /// The calendar alone keeps the tag, and it keeps others.
    NotInCalendar {
        /// The tag.
        tag: String,
    },
}

impl Reason {
    /// Returns the tag that is kept or dropped; `None` if it is about the revision.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Protected | Self::NoTags => None,
            Self::NewestOf { tag, .. } => tag.as_deref(),
            Self::Manual { tag }
            | Self::NotInSchedule { tag }
            | Self::Newest { tag, .. }
            | Self::Young { tag, .. }
            | Self::Expired { tag, .. }
            | Self::NotInCalendar { tag } => Some(tag),
        }
    }

    /// Returns whether it keeps the tag or the revision.
    #[must_use]
    pub const fn keeps(&self) -> bool {
        match self {
            Self::Protected
            | Self::Manual { .. }
            | Self::Newest { .. }
            | Self::Young { .. }
            | Self::NewestOf { .. } => true,
            Self::NoTags
            | Self::NotInSchedule { .. }
            | Self::Expired { .. }
            | Self::NotInCalendar { .. } => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protected => write!(formatter, "protected"),
            Self::NoTags => write!(formatter, "no tags"),
            Self::Manual { tag } => write!(formatter, "{tag}: manual tags never expire"),
            Self::NotInSchedule { tag } => write!(formatter, "schedule has no tag {tag}"),
            Self::Newest { tag, newer: 0, keep } => {
                write!(formatter, "{tag}: newest of {keep}")
            }
            Self::Newest { tag, newer, keep } => {
                let place = newer.saturating_add(1);
                write!(formatter, "{tag}: {place}{} newest of {keep}", ordinal(place))
            }
            Self::Young { tag, newer, age, keep, interval } => {
                write!(formatter, "{tag}: {newer} newer, but age {age} <= {keep}x{interval}")
            }
            Self::Expired { tag, newer, age, keep, interval } => {
                write!(formatter, "{tag}: {newer} newer, age {age} > {keep}x{interval}")
            }
            Self::NewestOf { tag, bucket } => {
                if let Some(tag) = tag {
                    write!(formatter, "{tag}: ")?;
                }
                write!(formatter, "{}: newest of {bucket}", bucket.period.rule())
            }
            Self::NotInCalendar { tag } => write!(formatter, "{tag}: no keep rule needs it"),
        }
    }
}

/// Returns the ending of a number that says a place: 1st, 2nd, 3rd, 4th, 11th.
const fn ordinal(place: u64) -> &'static str {
    match (place % 10, place % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_their_endings() {
        let places = [1, 2, 3, 4, 10, 11, 12, 13, 21, 22, 101, 111, 112];
        let endings =
            ["st", "nd", "rd", "th", "th", "th", "th", "th", "st", "nd", "st", "th", "th"];
        assert_eq!(places.map(ordinal), endings);
    }
}
