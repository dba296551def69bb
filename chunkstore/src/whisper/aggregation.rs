//! Aggregation: how the points of a finer archive become one point of a coarser one.

use super::whisper_error::WhisperError;

/// How the points of a finer archive become one point of a coarser one.
///
/// Sums go from the oldest to the newest and are not compensated, as in Python up to 3.11. Comparisons are those of Python: a NaN
/// that comes first stays, a later one is passed over; of equal values the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Sum of the known values, divided by their number.
    Average,
    /// Sum of the known values.
    Sum,
    /// The newest known value.
    Last,
    /// The largest known value.
    Max,
    /// The smallest known value.
    Min,
    /// Sum of the known values, divided by the number of all slots.
    AverageZero,
    /// The value that is farthest from 0.
    AbsoluteMax,
    /// The value that is nearest to 0.
    AbsoluteMin,
}

impl Aggregation {
    /// All of them, in the order of their numbers in files, from 1.
    pub const ALL: [Self; 8] = [
        Self::Average,
        Self::Sum,
        Self::Last,
        Self::Max,
        Self::Min,
        Self::AverageZero,
        Self::AbsoluteMax,
        Self::AbsoluteMin,
    ];

    /// Returns the number that stands for it in a file.
    #[must_use]
    pub fn encode(self) -> u32 {
        match self {
            Self::Average => 1,
            Self::Sum => 2,
            Self::Last => 3,
            Self::Max => 4,
            Self::Min => 5,
            Self::AverageZero => 6,
            Self::AbsoluteMax => 7,
            Self::AbsoluteMin => 8,
        }
    }

    /// Reads the number of a file.
    ///
    /// # Errors
    ///
    /// - [`WhisperError::UnknownAggregation`] if it is none of the eight.
    pub fn decode(found: u32) -> Result<Self, WhisperError> {
        let known = Self::ALL.into_iter().find(|one| one.encode() == found);
        known.ok_or(WhisperError::UnknownAggregation { found })
    }

    /// Returns the name that Graphite's configuration has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Average => "average",
            Self::Sum => "sum",
            Self::Last => "last",
            Self::Max => "max",
            Self::Min => "min",
            Self::AverageZero => "avg_zero",
            Self::AbsoluteMax => "absmax",
            Self::AbsoluteMin => "absmin",
        }
    }
}

/// Aggregates values one after the other, without keeping them.
#[derive(Debug)]
pub(super) struct Aggregator {
    aggregation: Aggregation,
    known_count: u32,
    value: f64,
}

impl Aggregator {
    pub(super) fn new(aggregation: Aggregation) -> Self {
        Self { aggregation, known_count: 0, value: 0.0 }
    }

    /// Adds a known value. The oldest comes first.
    pub(super) fn add(&mut self, value: f64) {
        let is_first = self.known_count == 0;
        self.known_count = self.known_count.saturating_add(1);
        let replaces = match self.aggregation {
            Aggregation::Average | Aggregation::Sum | Aggregation::AverageZero => {
                self.value += value;
                return;
            }
            Aggregation::Last => true,
            Aggregation::Max => self.value < value,
            Aggregation::Min => value < self.value,
            Aggregation::AbsoluteMax => self.value.abs() < value.abs(),
            Aggregation::AbsoluteMin => value.abs() < self.value.abs(),
        };
        if is_first || replaces {
            self.value = value;
        }
    }

    /// Returns the aggregate, if the known values are at least this share of `slot_count` slots, and at least one.
    pub(super) fn finish(self, slot_count: u32, x_files_factor: f32) -> Option<f64> {
        let (known_count, slot_count) = (f64::from(self.known_count), f64::from(slot_count));
        if self.known_count == 0 || known_count / slot_count < f64::from(x_files_factor) {
            return None;
        }
        Some(match self.aggregation {
            Aggregation::Average => self.value / known_count,
            Aggregation::AverageZero => self.value / slot_count,
            _ => self.value,
        })
    }
}
