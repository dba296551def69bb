//! Given-up lists: roots and pages that nobody can serve, so that a purge no longer asks what lies below them.
//!
//! Layout: `docs/format.md`, section "Given-up lists". Invariant: the ids are strictly ascending, at least one, at most
//! [`GIVEN_UP_COUNT_MAX`].

use serde::{Deserialize, Serialize};

use crate::format::FormatError;
use crate::format::document::{decode_document, encode_document};
use crate::id::ChunkId;
use crate::limits::GIVEN_UP_COUNT_MAX;
use crate::time::Timestamp;

const MAGIC: &str = "chunkstore given up";
const VERSION: u32 = 1;

/// Roots and pages that were given up together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// When.
    pub time: Timestamp,
    /// Who did it, for people.
    pub command: String,
    /// Ids of the roots and pages, strictly ascending.
    pub lists: Vec<ChunkId>,
}

impl GivenUp {
    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If the document is longer than 1 MiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert_eq!(self.check(), Ok(()));
        encode_document(MAGIC, VERSION, self)
    }

    /// Reads the lists from the bytes of their file.
    ///
    /// # Errors
    ///
    /// - Those of [`decode_document`].
    /// - [`FormatError::OutOfRange`] if there is none, or too many.
    /// - [`FormatError::Inconsistent`] if they are not strictly ascending.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let file: Self = decode_document(MAGIC, VERSION, bytes)?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), FormatError> {
        let count = self.lists.len();
        if count == 0 || GIVEN_UP_COUNT_MAX < count {
            return Err(FormatError::out_of_range("count of lists", count as u64, "1 to 8192"));
        }
        if !self.lists.is_sorted_by(|left, right| left < right) {
            return Err(FormatError::Inconsistent { what: "the lists are not ascending" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected};

    fn id(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; ChunkId::LEN])
    }

    fn example(lists: Vec<ChunkId>) -> GivenUp {
        GivenUp { time: Timestamp(1_790_000_000_123), command: "backy repair".to_owned(), lists }
    }

    #[test]
    fn given_up_lists_read_back_and_damage_is_rejected() {
        let file = example(vec![id(1), id(2)]);
        assert_eq!(GivenUp::decode(&file.encode()), Ok(file.clone()));
        assert_flips_rejected(&file.encode(), GivenUp::decode);
        assert_exact_length(&file.encode(), GivenUp::decode);
    }

    #[test]
    fn order_and_count_are_checked() {
        for lists in [vec![], vec![id(2), id(1)], vec![id(1), id(1)]] {
            let bytes = encode_document(MAGIC, VERSION, &example(lists));
            assert!(GivenUp::decode(&bytes).is_err());
        }
        let count = u32::try_from(GIVEN_UP_COUNT_MAX).unwrap();
        let lists: Vec<ChunkId> = (0..=count)
            .map(|number| {
                let mut bytes = [0; ChunkId::LEN];
                bytes[..4].copy_from_slice(&u32::swap_bytes(number).to_le_bytes());
                ChunkId::from_bytes(bytes)
            })
            .collect();
        let most = example(lists.iter().skip(1).copied().collect());
        assert_eq!(GivenUp::decode(&most.encode()), Ok(most), "a full file can be read");
        let bytes = encode_document(MAGIC, VERSION, &example(lists));
        assert!(matches!(GivenUp::decode(&bytes), Err(FormatError::OutOfRange { .. })));
    }
}
