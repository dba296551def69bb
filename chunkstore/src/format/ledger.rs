//! Ledger: when every pack was last read as a whole and found sound.
//!
//! Byte layout: `docs/format.md`, section "Ledger". The pack ids are strictly ascending, so that the same
//! knowledge has one stored form.

use crate::format::pack_table::{PackTable, take_entries};
use crate::format::{FormatError, TABLE_HEAD_LEN};
use crate::id::PackId;
use crate::limits::LEDGER_COUNT_MAX;
use crate::time::Timestamp;

/// Digest of "chunkstore ledger v1".
const MAGIC: [u8; 8] = [0x59, 0x1a, 0x89, 0x8f, 0xba, 0x9a, 0xe6, 0xe2];

const TABLE: PackTable = PackTable {
    magic: MAGIC,
    structure: "ledger",
    a_structure: "a ledger",
    count_field: "entry count",
    count_max: LEDGER_COUNT_MAX,
};
const ENTRY_LEN: usize = PackId::LEN + 8;

/// One pack, and when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The pack.
    pub pack: PackId,
    /// When reading it began; every byte of it was sound then.
    pub read: Timestamp,
}

/// When packs were last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By pack, strictly ascending. A pack that is not here was never read as a whole, or was damaged.
    pub entries: Vec<LedgerEntry>,
}

impl Ledger {
    /// Longest stored form in bytes.
    pub const LEN_MAX: u64 = 48 + 40 * LEDGER_COUNT_MAX as u64;

    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 entries.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(
            self.entries.is_sorted_by(|one, other| one.pack < other.pack),
            "packs are ascending"
        );
        let mut out = TABLE.begin(self.entries.len());
        for entry in &self.entries {
            out.extend_from_slice(entry.pack.as_bytes());
            out.extend_from_slice(&entry.read.0.to_le_bytes());
        }
        PackTable::seal(out)
    }

    /// Checks, by its first bytes, that a file is as long as it says.
    ///
    /// # Errors
    ///
    /// As [`Self::decode`], but for the checksum.
    pub(crate) fn check_len(head: &[u8; TABLE_HEAD_LEN], len: u64) -> Result<(), FormatError> {
        TABLE.check_len(head, len, (48, ENTRY_LEN))
    }

    /// Reads a ledger from the bytes of its file.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the entries are not as many as the count says.
    /// - [`FormatError::WrongMagic`] if it is not a ledger.
    /// - [`FormatError::WrongChecksum`] if a byte was changed.
    /// - [`FormatError::Unsupported`] if a newer program wrote it.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    /// - [`FormatError::Inconsistent`] if the ids are not ascending.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut input, count) = TABLE.open(bytes)?;
        let entries = take_entries(&mut input, count, ENTRY_LEN, "entries", |input, pack| {
            Ok(LedgerEntry { pack, read: Timestamp(input.i64("time")?) })
        })?;
        input.finish(TABLE.structure)?;
        Ok(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected, assert_magic};

    fn entry(number: u8) -> LedgerEntry {
        let read = Timestamp(1_790_000_000_000_i64.saturating_sub(number.into()));
        LedgerEntry { pack: PackId::from_bytes([number; 32]), read }
    }

    fn example() -> Ledger {
        Ledger { entries: vec![entry(1), entry(2)] }
    }

    /// Returns a ledger with these fields and a checksum that matches.
    fn raw(version: u16, count: u32, entries: &[LedgerEntry]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&count.to_le_bytes());
        for entry in entries {
            out.extend_from_slice(entry.pack.as_bytes());
            out.extend_from_slice(&entry.read.0.to_le_bytes());
        }
        let checksum = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&checksum);
        out
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore ledger v1");
    }

    #[test]
    fn ledger_reads_back() {
        assert_eq!(Ledger::decode(&example().encode()), Ok(example()));
        assert_eq!(Ledger::decode(&Ledger::default().encode()), Ok(Ledger::default()));
    }

    #[test]
    fn damaged_ledger_is_rejected() {
        assert_flips_rejected(&example().encode(), Ledger::decode);
        assert_exact_length(&example().encode(), Ledger::decode);
    }

    #[test]
    fn ledger_of_the_future_is_unsupported() {
        let result = Ledger::decode(&raw(2, 0, &[]));
        assert!(matches!(result, Err(FormatError::Unsupported { .. })), "{result:?}");
    }

    #[test]
    fn packs_must_ascend() {
        assert!(Ledger::decode(&raw(1, 2, &[entry(1), entry(2)])).is_ok());
        assert!(Ledger::decode(&raw(1, 2, &[entry(1), entry(1)])).is_err());
        assert!(Ledger::decode(&raw(1, 2, &[entry(2), entry(1)])).is_err());
    }

    #[test]
    fn count_is_checked_before_memory_is_taken() {
        for count in [1, LEDGER_COUNT_MAX - 1, LEDGER_COUNT_MAX] {
            let result = Ledger::decode(&raw(1, count, &[]));
            assert!(matches!(result, Err(FormatError::Truncated { .. })), "{count}: {result:?}");
        }
        let result = Ledger::decode(&raw(1, LEDGER_COUNT_MAX.saturating_add(1), &[]));
        assert!(matches!(result, Err(FormatError::OutOfRange { .. })), "{result:?}");
    }
}
