//! Root: one reference for each span of an image.
//!
//! Byte layout: `docs/format.md`, section "Root". A root that decodes has exactly the references that an
//! image of its length needs.

use std::ops::Range;

use crate::format::{ByteReader, FormatError};
use crate::id::ChunkId;
use crate::limits::{IMAGE_LEN_MAX, ROOT_SPAN_COUNT_MAX, SPAN_LEN_MIN};

/// Digest of "chunkstore root v1".
const MAGIC: [u8; 4] = [0x73, 0x60, 0xfd, 0xb2];

const VERSION: u16 = 1;
const HEADER_LEN: usize = 28;
const ZERO_TAG: u8 = 0;
const PAGE_TAG: u8 = 1;
const PAGE_REF_LEN: usize = 33;

/// What one span of an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanRef {
    /// Only zeros.
    Zero,
    /// What the page with this id lists.
    Page(ChunkId),
}

/// The top of a chunk list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// Length of the image in bytes.
    pub image_len: u64,
    /// Length in bytes of every span but the last.
    pub span_len: u64,
    /// One reference for each span.
    pub spans: Vec<SpanRef>,
}

impl Root {
    /// Returns the span length for an image of `image_len` bytes: the smallest power of two, from
    /// 64 MiB on, that needs at most [`ROOT_SPAN_COUNT_MAX`] spans.
    #[must_use]
    pub fn span_len_for(image_len: u64) -> u64 {
        image_len.div_ceil(u64::from(ROOT_SPAN_COUNT_MAX)).next_power_of_two().max(SPAN_LEN_MIN)
    }

    /// Returns which bytes of the image the span with this index covers; an empty range behind
    /// the image if there is no such span.
    #[must_use]
    pub fn span_range(&self, index: usize) -> Range<u64> {
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let start = index.saturating_mul(self.span_len).min(self.image_len);
        start..start.saturating_add(self.span_len).min(self.image_len)
    }

    /// Returns the plain bytes of the root object.
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 references.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let span_count = u32::try_from(self.spans.len()).expect("a root has at most 2^18 spans");
        debug_assert_eq!(check_lens(self.image_len, self.span_len, span_count), Ok(()));
        let mut out = Vec::with_capacity(
            self.spans.len().saturating_mul(PAGE_REF_LEN).saturating_add(HEADER_LEN),
        );
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]); // reserved
        out.extend_from_slice(&self.image_len.to_le_bytes());
        out.extend_from_slice(&self.span_len.to_le_bytes());
        out.extend_from_slice(&span_count.to_le_bytes());
        for span in &self.spans {
            match span {
                SpanRef::Zero => out.push(ZERO_TAG),
                SpanRef::Page(id) => {
                    out.push(PAGE_TAG);
                    out.extend_from_slice(id.as_bytes());
                }
            }
        }
        out
    }

    /// Reads a root from all of its plain bytes. Their id was checked before, so that an error means a
    /// faulty or newer writer, not a damaged medium.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the references are not as many as the count says.
    /// - [`FormatError::WrongMagic`] if it is not a root.
    /// - [`FormatError::Unsupported`] if a newer program wrote it.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    /// - [`FormatError::Inconsistent`] if an image of that length has another number of spans.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut input = ByteReader::new(bytes);
        input.magic(&MAGIC, "a root")?;
        let version = input.u16("version")?;
        if version != VERSION {
            let (found, supported) = (version.into(), VERSION.into());
            return Err(FormatError::Unsupported { structure: "root", found, supported });
        }
        input.reserved::<2>()?;
        let image_len = input.u64("image length")?;
        let span_len = input.u64("span length")?;
        let span_count = input.u32("span count")?;
        check_lens(image_len, span_len, span_count)?;
        // A reference takes at least one byte.
        let capacity = usize::try_from(span_count).unwrap_or(usize::MAX).min(input.remaining());
        let mut spans = Vec::with_capacity(capacity);
        for _ in 0..span_count {
            spans.push(match input.u8("span tag")? {
                ZERO_TAG => SpanRef::Zero,
                PAGE_TAG => SpanRef::Page(ChunkId::from_bytes(input.array("page id")?)),
                tag => return Err(FormatError::out_of_range("span tag", tag, "0 or 1")),
            });
        }
        input.finish("root")?;
        Ok(Self { image_len, span_len, spans })
    }
}

fn check_lens(image_len: u64, span_len: u64, span_count: u32) -> Result<(), FormatError> {
    if IMAGE_LEN_MAX < image_len {
        return Err(FormatError::out_of_range("image length", image_len, "at most 2^50"));
    }
    if !span_len.is_power_of_two() || !(SPAN_LEN_MIN..=IMAGE_LEN_MAX).contains(&span_len) {
        let expected = "a power of two, 64 MiB to 2^50";
        return Err(FormatError::out_of_range("span length", span_len, expected));
    }
    if ROOT_SPAN_COUNT_MAX < span_count {
        return Err(FormatError::out_of_range("span count", span_count, "at most 2^18"));
    }
    if image_len.div_ceil(span_len) != u64::from(span_count) {
        return Err(FormatError::Inconsistent {
            what: "an image of this length has another number of spans",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_noticed, assert_magic};

    fn example() -> Root {
        Root {
            image_len: 2 * SPAN_LEN_MIN + 5,
            span_len: SPAN_LEN_MIN,
            spans: vec![
                SpanRef::Page(ChunkId::from_bytes([3; 32])),
                SpanRef::Zero,
                SpanRef::Page(ChunkId::from_bytes([4; 32])),
            ],
        }
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore root v1");
    }

    #[test]
    fn root_reads_back() {
        assert_eq!(Root::decode(&example().encode()), Ok(example()));
        let empty = Root { image_len: 0, span_len: SPAN_LEN_MIN, spans: Vec::new() };
        assert_eq!(Root::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn changed_root_is_noticed() {
        assert_flips_noticed(&example().encode(), Root::decode);
        assert_exact_length(&example().encode(), Root::decode);
    }

    #[test]
    fn spans_cover_the_image() {
        let root = example();
        assert_eq!(root.span_range(0), 0..SPAN_LEN_MIN);
        assert_eq!(root.span_range(1), SPAN_LEN_MIN..2 * SPAN_LEN_MIN);
        assert_eq!(root.span_range(2), 2 * SPAN_LEN_MIN..root.image_len);
        assert!(root.span_range(3).is_empty());
        assert!(root.span_range(usize::MAX).is_empty());
    }

    #[test]
    fn span_length_grows_with_the_image() {
        let largest = SPAN_LEN_MIN * u64::from(ROOT_SPAN_COUNT_MAX);
        assert_eq!(Root::span_len_for(0), SPAN_LEN_MIN);
        assert_eq!(Root::span_len_for(largest), SPAN_LEN_MIN);
        assert_eq!(Root::span_len_for(largest + 1), 2 * SPAN_LEN_MIN);
        assert_eq!(Root::span_len_for(IMAGE_LEN_MAX), 1 << 32);
        assert_eq!(Root::span_len_for(u64::MAX), 1 << 46);
    }

    #[test]
    fn lengths_and_count_are_checked_at_their_limits() {
        assert!(check_lens(IMAGE_LEN_MAX - 1, 1 << 32, ROOT_SPAN_COUNT_MAX).is_ok());
        assert!(check_lens(IMAGE_LEN_MAX, 1 << 32, ROOT_SPAN_COUNT_MAX).is_ok());
        assert!(check_lens(IMAGE_LEN_MAX + 1, 1 << 33, (1 << 17) + 1).is_err());
        assert!(check_lens(IMAGE_LEN_MAX, 1 << 31, ROOT_SPAN_COUNT_MAX + 1).is_err());
        assert!(check_lens(1, SPAN_LEN_MIN, 1).is_ok());
        assert!(check_lens(1, SPAN_LEN_MIN - 1, 1).is_err());
        assert!(check_lens(1, SPAN_LEN_MIN + 1, 1).is_err());
        assert!(check_lens(1, SPAN_LEN_MIN / 2, 1).is_err());
        assert!(check_lens(1, IMAGE_LEN_MAX, 1).is_ok());
        assert!(check_lens(1, IMAGE_LEN_MAX * 2, 1).is_err());
    }

    #[test]
    fn wrong_number_of_spans_is_rejected() {
        assert!(check_lens(2 * SPAN_LEN_MIN, SPAN_LEN_MIN, 1).is_err());
        assert!(check_lens(2 * SPAN_LEN_MIN, SPAN_LEN_MIN, 2).is_ok());
        assert!(check_lens(2 * SPAN_LEN_MIN, SPAN_LEN_MIN, 3).is_err());
        assert!(check_lens(2 * SPAN_LEN_MIN + 1, SPAN_LEN_MIN, 3).is_ok());
        assert!(check_lens(0, SPAN_LEN_MIN, 1).is_err());
    }
}
