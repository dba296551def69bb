//! What files that list packs have in common: magic, version and count before the entries, a checksum behind them.
//!
//! Byte layouts: `docs/format.md`, sections "Condemned list" and "Ledger". The pack ids are strictly ascending, so that the
//! same knowledge has one stored form.

use crate::format::{ByteReader, FormatError};
use crate::id::PackId;

const VERSION: u16 = 1;
const CHECKSUM_LEN: usize = 32;

/// Bytes of a file before its entries or further fields: magic, version, count.
pub(crate) const TABLE_HEAD_LEN: usize = 16;

/// One kind of such a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackTable {
    pub(super) magic: [u8; 8],
    /// Its name for messages, and the same with an article.
    pub(super) structure: &'static str,
    pub(super) a_structure: &'static str,
    /// What is counted.
    pub(super) count_field: &'static str,
    pub(super) count_max: u32,
}

impl PackTable {
    /// Returns the beginning of a file with so many entries.
    pub(super) fn begin(&self, count: usize) -> Vec<u8> {
        let count = u32::try_from(count).expect("a store has fewer packs");
        debug_assert!(count <= self.count_max, "a store has fewer packs");
        let mut out = self.magic.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]); // reserved
        out.extend_from_slice(&count.to_le_bytes());
        out
    }

    /// Ends a file with its checksum.
    pub(super) fn seal(mut out: Vec<u8>) -> Vec<u8> {
        let checksum = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&checksum);
        out
    }

    /// Checks, by its first bytes, that a file is as long as it says, without its checksum.
    pub(super) fn check_len(
        &self,
        head: &[u8; TABLE_HEAD_LEN],
        file_len: u64,
        (fixed_len, entry_len): (u64, usize),
    ) -> Result<(), FormatError> {
        let mut input = ByteReader::new(head);
        input.magic(&self.magic, self.a_structure)?;
        let version = input.u16("version")?;
        if version != VERSION {
            let (found, supported) = (version.into(), VERSION.into());
            return Err(FormatError::Unsupported { structure: self.structure, found, supported });
        }
        input.reserved::<2>()?;
        let count = u64::from(input.u32(self.count_field)?);
        let entry_len = u64::try_from(entry_len).unwrap_or(u64::MAX);
        if count.checked_mul(entry_len).and_then(|len| len.checked_add(fixed_len)) != Some(file_len)
        {
            return Err(FormatError::Inconsistent { what: "it is not as long as its count says" });
        }
        Ok(())
    }

    /// Checks a file and returns what follows the count, without the checksum, and the count.
    pub(super) fn open<'a>(&self, bytes: &'a [u8]) -> Result<(ByteReader<'a>, u32), FormatError> {
        ByteReader::new(bytes).magic(&self.magic, self.a_structure)?;
        let (covered, checksum) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(FormatError::Truncated { field: "checksum" })?;
        let structure = self.structure;
        if blake3::hash(covered).as_bytes() != checksum {
            return Err(FormatError::WrongChecksum { structure });
        }
        let mut input = ByteReader::new(covered);
        input.take(self.magic.len(), "magic")?;
        let version = input.u16("version")?;
        if version != VERSION {
            let (found, supported) = (version.into(), VERSION.into());
            return Err(FormatError::Unsupported { structure, found, supported });
        }
        input.reserved::<2>()?;
        let count = input.u32(self.count_field)?;
        if self.count_max < count {
            return Err(FormatError::out_of_range(self.count_field, count, "at most 2^24"));
        }
        Ok((input, count))
    }
}

/// Takes `count` entries of `entry_len` bytes each, which begin with the id of a pack; `take_rest` takes what follows it.
pub(super) fn take_entries<T>(
    input: &mut ByteReader<'_>,
    count: u32,
    entry_len: usize,
    field: &'static str,
    mut take_rest: impl FnMut(&mut ByteReader<'_>, PackId) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if input.remaining().checked_div(entry_len).is_none_or(|whole| whole < count) {
        return Err(FormatError::Truncated { field });
    }
    let mut entries = Vec::with_capacity(count);
    let mut last = None;
    for _ in 0..count {
        let pack = PackId::from_bytes(input.array("pack id")?);
        if last.is_some_and(|last| pack <= last) {
            return Err(FormatError::Inconsistent { what: "the pack ids are not ascending" });
        }
        last = Some(pack);
        entries.push(take_rest(input, pack)?);
    }
    Ok(entries)
}
