//! Page: the chunk list of one span of an image.
//!
//! Byte layout: `docs/format.md`, section "Page". Entries cover the span in order and without gap, so an
//! entry's place in the image is the sum of the lengths before it. Zero entries are maximal: two in a
//! row are never written, because the same bytes must always give the same page.

use crate::format::{ByteReader, FormatError};
use crate::id::ChunkId;
use crate::limits::{CHUNK_LEN_MAX, IMAGE_LEN_MAX};
use crate::planted::{Bug, has};

/// Digest of "chunkstore page v1".
const MAGIC: [u8; 4] = [0x44, 0x40, 0xfc, 0x08];

const VERSION: u16 = 1;
const HEADER_LEN: usize = 20;
const ZERO_TAG: u8 = 0;
const DATA_TAG: u8 = 1;
const ZERO_LEN: usize = 9;
const DATA_LEN: usize = 37;

/// Some bytes of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageEntry {
    /// The bytes of one chunk.
    Data {
        /// Length in bytes, `1..=CHUNK_LEN_MAX`.
        len: u32,
        /// The chunk.
        id: ChunkId,
    },
    /// Zeros, stored or not.
    Zero {
        /// Length in bytes, not 0.
        len: u64,
    },
}

#[expect(clippy::len_without_is_empty, reason = "an entry is never empty")]
impl PageEntry {
    /// Returns how many bytes of the image the entry covers.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Data { len, .. } => *len as u64,
            Self::Zero { len } => *len,
        }
    }

    /// Returns how many bytes the entry takes in a page.
    pub(super) const fn encoded_len(&self) -> usize {
        match self {
            Self::Data { .. } => DATA_LEN,
            Self::Zero { .. } => ZERO_LEN,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Data { len, id } => {
                out.push(DATA_TAG);
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(id.as_bytes());
            }
            Self::Zero { len } => {
                out.push(ZERO_TAG);
                out.extend_from_slice(&len.to_le_bytes());
            }
        }
    }

    pub(super) fn decode(input: &mut ByteReader<'_>) -> Result<Self, FormatError> {
        match input.u8("entry tag")? {
            DATA_TAG => {
                let len = input.u32("chunk length")?;
                if len == 0 || CHUNK_LEN_MAX < len {
                    return Err(FormatError::out_of_range("chunk length", len, "1 byte to 16 MiB"));
                }
                Ok(Self::Data { len, id: ChunkId::from_bytes(input.array("chunk id")?) })
            }
            ZERO_TAG => {
                let len = input.u64("zero length")?;
                if len == 0 || IMAGE_LEN_MAX < len || has(Bug::ZerosTakenForDamage) {
                    return Err(FormatError::out_of_range("zero length", len, "1 byte to 2^50"));
                }
                Ok(Self::Zero { len })
            }
            tag => Err(FormatError::out_of_range("entry tag", tag, "0 or 1")),
        }
    }
}

/// The chunk list of one span.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Page {
    /// At least one entry; no two zero entries in a row.
    pub entries: Vec<PageEntry>,
}

impl Page {
    /// Returns the plain bytes of the page object.
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 entries, which no span has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(!self.entries.is_empty(), "a page has entries");
        debug_assert!(
            !self.entries.iter().zip(self.entries.iter().skip(1)).any(both_zero),
            "zero entries are merged"
        );
        let entry_count = u32::try_from(self.entries.len()).expect("a span has fewer entries");
        let mut out = Vec::with_capacity(
            self.entries.len().saturating_mul(DATA_LEN).saturating_add(HEADER_LEN),
        );
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]); // reserved
        out.extend_from_slice(&self.span_len().to_le_bytes());
        out.extend_from_slice(&entry_count.to_le_bytes());
        self.entries.iter().for_each(|entry| entry.encode(&mut out));
        out
    }

    /// Reads a page from all of its plain bytes. Their id was checked before, so that an error means a
    /// faulty or newer writer, not a damaged medium.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the entries are not as many as the count says.
    /// - [`FormatError::WrongMagic`] if it is not a page.
    /// - [`FormatError::Unsupported`] if a newer program wrote it.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    /// - [`FormatError::Inconsistent`] if the entries do not cover the span exactly, or if two
    ///   zero entries follow each other.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut input = ByteReader::new(bytes);
        input.magic(&MAGIC, "a page")?;
        let version = input.u16("version")?;
        if version != VERSION {
            let (found, supported) = (version.into(), VERSION.into());
            return Err(FormatError::Unsupported { structure: "page", found, supported });
        }
        input.reserved::<2>()?;
        let span_len = input.u64("span length")?;
        if span_len == 0 || IMAGE_LEN_MAX < span_len {
            return Err(FormatError::out_of_range("span length", span_len, "1 byte to 2^50"));
        }
        let entry_count = usize::try_from(input.u32("entry count")?).unwrap_or(usize::MAX);
        // The count must fit into what is left even if all entries are of the shorter kind.
        if input.remaining() / ZERO_LEN < entry_count {
            return Err(FormatError::Truncated { field: "entry table" });
        }
        let entries = decode_entries(&mut input, entry_count, span_len)?;
        input.finish("page")?;
        Ok(Self { entries })
    }

    /// Returns how many bytes of the image the entries cover.
    #[must_use]
    pub fn span_len(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.len()))
    }
}

fn decode_entries(
    input: &mut ByteReader<'_>,
    entry_count: usize,
    span_len: u64,
) -> Result<Vec<PageEntry>, FormatError> {
    let mut entries: Vec<PageEntry> =
        Vec::with_capacity(entry_count.min(input.remaining() / ZERO_LEN));
    let mut rest = span_len;
    for _ in 0..entry_count {
        let entry = PageEntry::decode(input)?;
        if entries.last().is_some_and(|last| both_zero((last, &entry))) {
            return Err(FormatError::Inconsistent { what: "two zero entries follow each other" });
        }
        rest = rest
            .checked_sub(entry.len())
            .ok_or(FormatError::Inconsistent { what: "the entries cover more than the span" })?;
        entries.push(entry);
    }
    if rest != 0 {
        return Err(FormatError::Inconsistent { what: "the entries cover less than the span" });
    }
    Ok(entries)
}

pub(super) const fn both_zero(pair: (&PageEntry, &PageEntry)) -> bool {
    matches!(pair, (PageEntry::Zero { .. }, PageEntry::Zero { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_noticed, assert_magic};

    fn data(len: u32) -> PageEntry {
        PageEntry::Data { len, id: ChunkId::from_bytes([5; 32]) }
    }

    fn example() -> Page {
        Page { entries: vec![data(1000), PageEntry::Zero { len: 65536 }, data(1), data(2)] }
    }

    /// Encodes without the checks of `encode`.
    fn raw(span_len: u64, entry_count: u32, entries: &[PageEntry]) -> Vec<u8> {
        let mut out = [&MAGIC[..], &[1, 0, 0, 0]].concat();
        out.extend_from_slice(&span_len.to_le_bytes());
        out.extend_from_slice(&entry_count.to_le_bytes());
        entries.iter().for_each(|entry| entry.encode(&mut out));
        out
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore page v1");
    }

    #[test]
    fn page_reads_back() {
        assert_eq!(Page::decode(&example().encode()), Ok(example()));
        assert_eq!(example().encode().len(), HEADER_LEN + 3 * DATA_LEN + ZERO_LEN);
        assert_eq!(example().span_len(), 66539);
    }

    #[test]
    fn changed_page_is_noticed() {
        assert_flips_noticed(&example().encode(), Page::decode);
        assert_exact_length(&example().encode(), Page::decode);
    }

    #[test]
    fn entries_must_cover_the_span_exactly() {
        assert!(Page::decode(&raw(10, 1, &[data(10)])).is_ok());
        assert!(Page::decode(&raw(9, 1, &[data(10)])).is_err());
        assert!(Page::decode(&raw(11, 1, &[data(10)])).is_err());
        assert!(Page::decode(&raw(0, 0, &[])).is_err());
        assert!(Page::decode(&raw(1, 0, &[])).is_err());
    }

    #[test]
    fn zero_entries_in_a_row_are_rejected() {
        let zero = PageEntry::Zero { len: 5 };
        assert!(Page::decode(&raw(10, 2, &[zero, zero])).is_err());
        assert!(Page::decode(&raw(11, 3, &[zero, data(1), zero])).is_ok());
    }

    #[test]
    fn huge_count_takes_no_memory() {
        for entry_count in [2, 1 << 20, u32::MAX] {
            let result = Page::decode(&raw(10, entry_count, &[data(10)]));
            assert!(matches!(result, Err(FormatError::Truncated { .. })), "{result:?}");
        }
    }

    #[test]
    fn chunk_length_is_checked_at_its_limits() {
        for (len, accepted) in [
            (0, false),
            (1, true),
            (CHUNK_LEN_MAX - 1, true),
            (CHUNK_LEN_MAX, true),
            (CHUNK_LEN_MAX + 1, false),
        ] {
            let result = Page::decode(&raw(u64::from(len), 1, &[data(len)]));
            assert_eq!(result.is_ok(), accepted, "{len}");
        }
    }

    #[test]
    fn span_length_is_checked_at_its_limits() {
        for (len, accepted) in [
            (0, false),
            (1, true),
            (IMAGE_LEN_MAX - 1, true),
            (IMAGE_LEN_MAX, true),
            (IMAGE_LEN_MAX + 1, false),
            (u64::MAX, false),
        ] {
            let result = Page::decode(&raw(len, 1, &[PageEntry::Zero { len }]));
            assert_eq!(result.is_ok(), accepted, "{len}");
        }
    }
}
