//! Condemned list: the packs that a purge has taken out of use and will remove.
//!
//! Byte layout: `docs/format.md`, section "Condemned list". The pack ids are strictly ascending, so that the
//! same set has one stored form.

use crate::format::pack_table::{PackTable, take_entries};
use crate::format::{FormatError, TABLE_HEAD_LEN};
use crate::id::PackId;
use crate::limits::CONDEMNED_COUNT_MAX;
use crate::time::Timestamp;

/// Digest of "chunkstore condemned v1".
const MAGIC: [u8; 8] = [0x3e, 0xb0, 0xde, 0xfb, 0xd2, 0xe2, 0x79, 0x65];

const TABLE: PackTable = PackTable {
    magic: MAGIC,
    structure: "condemned list",
    a_structure: "a condemned list",
    count_field: "pack count",
    count_max: CONDEMNED_COUNT_MAX,
};

/// Packs that no new revision may refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CondemnedList {
    /// Generation of the store that the condemnation began; also the name of the file.
    pub generation: u64,
    /// When it was written; the grace is counted from here.
    pub condemned_at: Timestamp,
    /// The packs, strictly ascending. Empty once all are gone or reprieved: the list with the highest
    /// generation stays, because it is the counter.
    pub packs: Vec<PackId>,
}

impl CondemnedList {
    /// Longest stored form in bytes.
    pub const LEN_MAX: u64 = 64 + 32 * CONDEMNED_COUNT_MAX as u64;

    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 packs.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.packs.is_sorted_by(|one, other| one < other), "packs are ascending");
        let mut out = TABLE.begin(self.packs.len());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.condemned_at.0.to_le_bytes());
        self.packs.iter().for_each(|pack| out.extend_from_slice(pack.as_bytes()));
        PackTable::seal(out)
    }

    /// Checks, by its first bytes, that a file is as long as it says.
    ///
    /// # Errors
    ///
    /// As [`Self::decode`], but for the checksum.
    pub(crate) fn check_len(head: &[u8; TABLE_HEAD_LEN], len: u64) -> Result<(), FormatError> {
        TABLE.check_len(head, len, (64, PackId::LEN))
    }

    /// Reads a list from the bytes of its file.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the ids are not as many as the count says.
    /// - [`FormatError::WrongMagic`] if it is not a condemned list.
    /// - [`FormatError::WrongChecksum`] if a byte was changed.
    /// - [`FormatError::Unsupported`] if a newer program wrote it.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    /// - [`FormatError::Inconsistent`] if the ids are not ascending.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut input, count) = TABLE.open(bytes)?;
        let generation = input.u64("generation")?;
        let condemned_at = Timestamp(input.i64("condemnation time")?);
        let packs = take_entries(&mut input, count, PackId::LEN, "pack ids", |_, pack| Ok(pack))?;
        input.finish(TABLE.structure)?;
        Ok(Self { generation, condemned_at, packs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected, assert_magic};

    fn example() -> CondemnedList {
        CondemnedList {
            generation: 7,
            condemned_at: Timestamp(1_790_000_000_000),
            packs: vec![PackId::from_bytes([1; 32]), PackId::from_bytes([2; 32])],
        }
    }

    /// Returns a list with these fields and a checksum that matches.
    fn raw(version: u16, pack_count: u32, packs: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&pack_count.to_le_bytes());
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(packs);
        let checksum = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&checksum);
        out
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore condemned v1");
    }

    #[test]
    fn list_reads_back() {
        assert_eq!(CondemnedList::decode(&example().encode()), Ok(example()));
        let empty = CondemnedList { packs: Vec::new(), ..example() };
        assert_eq!(CondemnedList::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn damaged_list_is_rejected() {
        assert_flips_rejected(&example().encode(), CondemnedList::decode);
        assert_exact_length(&example().encode(), CondemnedList::decode);
    }

    #[test]
    fn list_of_the_future_is_unsupported() {
        let result = CondemnedList::decode(&raw(2, 0, &[]));
        assert!(matches!(result, Err(FormatError::Unsupported { .. })), "{result:?}");
    }

    #[test]
    fn ids_must_ascend() {
        let ids = |first: u8, second: u8| [[first; 32], [second; 32]].concat();
        assert!(CondemnedList::decode(&raw(1, 2, &ids(1, 2))).is_ok());
        assert!(CondemnedList::decode(&raw(1, 2, &ids(1, 1))).is_err());
        assert!(CondemnedList::decode(&raw(1, 2, &ids(2, 1))).is_err());
    }

    #[test]
    fn count_is_checked_before_memory_is_taken() {
        for count in [1, CONDEMNED_COUNT_MAX - 1, CONDEMNED_COUNT_MAX] {
            let result = CondemnedList::decode(&raw(1, count, &[]));
            assert!(matches!(result, Err(FormatError::Truncated { .. })), "{count}: {result:?}");
        }
        let result = CondemnedList::decode(&raw(1, CONDEMNED_COUNT_MAX.saturating_add(1), &[]));
        assert!(matches!(result, Err(FormatError::OutOfRange { .. })), "{result:?}");
    }
}
