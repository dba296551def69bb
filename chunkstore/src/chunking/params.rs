//! Parameters of the cutter. They are part of the format: a store keeps them for its whole life.
//!
//! Document: `docs/format.md`, section "Chunking". Invariant of [`ChunkingParams`]: every bound that the cutter
//! only asserts in debug builds holds, and no chunk is longer than
//! [`CHUNK_LEN_MAX`](crate::limits::CHUNK_LEN_MAX).

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

const MIN_RANGE: RangeInclusive<u32> = 64..=1 << 20;
const AVERAGE_RANGE: RangeInclusive<u32> = 256..=4 << 20;
const MAX_RANGE: RangeInclusive<u32> = 1 << 10..=16 << 20;

/// Why three lengths are no parameters for the cutter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkingError {
    /// A length is outside of what the cutter can work with.
    #[error("{name} chunk length is {found} bytes, expected {first} to {last}")]
    OutOfRange {
        /// Which of the lengths.
        name: &'static str,
        /// What was given.
        found: u32,
        /// Smallest permitted value.
        first: u32,
        /// Largest permitted value.
        last: u32,
    },
    /// The cutter looks at two bytes at a time, so an odd bound would be another bound.
    #[error("{name} chunk length is {found} bytes, which is odd")]
    Odd {
        /// Which of the lengths.
        name: &'static str,
        /// What was given.
        found: u32,
    },
    /// The cutter selects its masks by the logarithm of the average.
    #[error("average chunk length is {found} bytes, which is not a power of two")]
    NotAPowerOfTwo {
        /// What was given.
        found: u32,
    },
    /// The three lengths are not in ascending order.
    #[error("chunk lengths {min}, {average}, {max} are not in strictly ascending order")]
    NotAscending {
        /// Minimum length.
        min: u32,
        /// Average length.
        average: u32,
        /// Maximum length.
        max: u32,
    },
}

/// Lengths in bytes that the cutter aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct ChunkingParams {
    min: u32,
    average: u32,
    max: u32,
}

/// [`ChunkingParams`] as read, before they are checked.
#[derive(Deserialize)]
struct Unchecked {
    min: u32,
    average: u32,
    max: u32,
}

impl ChunkingParams {
    /// For disk images: 16 KiB, 64 KiB, 256 KiB.
    pub const IMAGE: Self = Self { min: 16 << 10, average: 64 << 10, max: 256 << 10 };

    /// Checks the lengths and returns the parameters.
    ///
    /// # Errors
    ///
    /// - [`ChunkingError::OutOfRange`] if the minimum is outside of 64 B to 1 MiB, the average of 256 B to
    ///   4 MiB, or the maximum of 1 KiB to 16 MiB.
    /// - [`ChunkingError::Odd`] if a length is odd.
    /// - [`ChunkingError::NotAPowerOfTwo`] if the average is not a power of two.
    /// - [`ChunkingError::NotAscending`] unless minimum < average < maximum.
    pub fn new(min: u32, average: u32, max: u32) -> Result<Self, ChunkingError> {
        let lengths = [
            ("minimum", min, MIN_RANGE),
            ("average", average, AVERAGE_RANGE),
            ("maximum", max, MAX_RANGE),
        ];
        for (name, found, range) in lengths {
            if !range.contains(&found) {
                let (first, last) = range.into_inner();
                return Err(ChunkingError::OutOfRange { name, found, first, last });
            }
            if found % 2 != 0 {
                return Err(ChunkingError::Odd { name, found });
            }
        }
        if !average.is_power_of_two() {
            return Err(ChunkingError::NotAPowerOfTwo { found: average });
        }
        if min >= average || average >= max {
            return Err(ChunkingError::NotAscending { min, average, max });
        }
        Ok(Self { min, average, max })
    }

    /// Returns the length in bytes below which a chunk is cut only by the end of its run.
    #[must_use]
    pub const fn min(&self) -> u32 {
        self.min
    }

    /// Returns the length in bytes around which chunks are cut.
    #[must_use]
    pub const fn average(&self) -> u32 {
        self.average
    }

    /// Returns the length in bytes above which there is no chunk.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.max
    }
}

impl TryFrom<Unchecked> for ChunkingParams {
    type Error = ChunkingError;

    fn try_from(unchecked: Unchecked) -> Result<Self, ChunkingError> {
        Self::new(unchecked.min, unchecked.average, unchecked.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_parameters_pass_their_own_check() {
        let image = ChunkingParams::IMAGE;
        assert_eq!(ChunkingParams::new(image.min, image.average, image.max), Ok(image));
    }

    #[test]
    fn lengths_are_checked_at_their_limits() {
        let accepted = |min, average, max| ChunkingParams::new(min, average, max).is_ok();
        assert!(accepted(64, 256, 1 << 10));
        assert!(!accepted(62, 256, 1 << 10));
        assert!(!accepted(64, 128, 1 << 10));
        assert!(!accepted(64, 256, 1022));
        assert!(accepted(1 << 20, 4 << 20, 16 << 20));
        assert!(!accepted((1 << 20) + 2, 4 << 20, 16 << 20));
        assert!(!accepted(1 << 20, 8 << 20, 16 << 20));
        assert!(!accepted(1 << 20, 4 << 20, (16 << 20) + 2));
    }

    #[test]
    fn odd_unordered_and_uneven_lengths_are_rejected() {
        let error = |min, average, max| ChunkingParams::new(min, average, max).unwrap_err();
        assert!(matches!(error(65, 256, 1024), ChunkingError::Odd { name: "minimum", .. }));
        assert!(matches!(error(64, 256, 1025), ChunkingError::Odd { name: "maximum", .. }));
        assert!(matches!(error(64, 300, 1024), ChunkingError::NotAPowerOfTwo { found: 300 }));
        assert!(matches!(error(256, 256, 1024), ChunkingError::NotAscending { .. }));
        assert!(matches!(error(64, 1024, 1024), ChunkingError::NotAscending { .. }));
    }

    #[test]
    fn stored_parameters_are_checked_when_read() {
        let image = serde_json::to_string(&ChunkingParams::IMAGE).unwrap();
        assert_eq!(image, r#"{"min":16384,"average":65536,"max":262144}"#);
        assert_eq!(serde_json::from_str::<ChunkingParams>(&image).unwrap(), ChunkingParams::IMAGE);
        let odd = r#"{"min":65,"average":256,"max":1024}"#;
        assert!(serde_json::from_str::<ChunkingParams>(odd).is_err());
    }
}
