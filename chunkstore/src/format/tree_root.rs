//! Tree root: the pages of a tree, in order.
//!
//! Byte layout: `docs/format.md`, section "Tree root". Contents of all files, one after another in the order of their paths, are the *content* of the
//! tree: a place in it names a byte of a file, as an offset names a byte of an image.

use std::ops::Range;

use crate::format::{ByteReader, FormatError};
use crate::id::ChunkId;
use crate::limits::IMAGE_LEN_MAX;

/// Digest of "chunkstore tree root v1".
const MAGIC: [u8; 4] = [0x3e, 0x05, 0x4c, 0xe2];

const VERSION: u16 = 1;
const HEADER_LEN: usize = 28;
const PAGE_REF_LEN: usize = 44;

/// What a tree root says of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreePageRef {
    /// The page.
    pub id: ChunkId,
    /// Files in it, 1 or more.
    pub entry_count: u32,
    /// Bytes of these files.
    pub content_len: u64,
}

/// The top of the list of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TreeRoot {
    /// The pages, in the order of the paths in them.
    pub pages: Vec<TreePageRef>,
}

impl TreeRoot {
    /// Most pages that a root can have, because it is a chunk itself.
    pub const PAGE_COUNT_MAX: usize =
        (crate::limits::CHUNK_LEN_MAX as usize - HEADER_LEN) / PAGE_REF_LEN;

    /// Returns whether bytes begin as a tree root does.
    #[must_use]
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Returns how many files there are.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.pages.iter().map(|page| u64::from(page.entry_count)).fold(0, u64::saturating_add)
    }

    /// Returns how many bytes all files have.
    #[must_use]
    pub fn content_len(&self) -> u64 {
        self.pages.iter().map(|page| page.content_len).fold(0, u64::saturating_add)
    }

    /// Returns for each page its place in the content, and its reference.
    pub fn places(&self) -> impl Iterator<Item = (Range<u64>, &TreePageRef)> {
        self.pages.iter().scan(0_u64, |end, page| {
            let start = *end;
            *end = start.saturating_add(page.content_len);
            Some((start..*end, page))
        })
    }

    /// Returns the plain bytes of the root object.
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 pages.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let page_count = u32::try_from(self.pages.len()).expect("a root is shorter than 2^32");
        let capacity = self.pages.len().saturating_mul(PAGE_REF_LEN).saturating_add(HEADER_LEN);
        let mut out = Vec::with_capacity(capacity);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]); // reserved
        out.extend_from_slice(&self.content_len().to_le_bytes());
        out.extend_from_slice(&self.entry_count().to_le_bytes());
        out.extend_from_slice(&page_count.to_le_bytes());
        for page in &self.pages {
            out.extend_from_slice(page.id.as_bytes());
            out.extend_from_slice(&page.entry_count.to_le_bytes());
            out.extend_from_slice(&page.content_len.to_le_bytes());
        }
        out
    }

    /// Reads a root from all of its plain bytes. Their id was checked before, so that an error means a faulty or newer writer, not a damaged
    /// medium.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the pages are not as many as the count says.
    /// - [`FormatError::WrongMagic`] if it is not a tree root.
    /// - [`FormatError::Unsupported`] if a newer program wrote it.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    /// - [`FormatError::Inconsistent`] if the sums are not those of the pages.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut input = ByteReader::new(bytes);
        input.magic(&MAGIC, "a tree root")?;
        let version = input.u16("version")?;
        if version != VERSION {
            let (found, supported) = (version.into(), VERSION.into());
            return Err(FormatError::Unsupported { structure: "tree root", found, supported });
        }
        input.reserved::<2>()?;
        let content_len = input.u64("content length")?;
        let entry_count = input.u64("entry count")?;
        let page_count = usize::try_from(input.u32("page count")?).unwrap_or(usize::MAX);
        if input.remaining() / PAGE_REF_LEN < page_count {
            return Err(FormatError::Truncated { field: "table of pages" });
        }
        let mut pages = Vec::with_capacity(page_count);
        for _ in 0..page_count {
            let id = ChunkId::from_bytes(input.array("page id")?);
            let entry_count = input.u32("entry count of a page")?;
            let content_len = input.u64("content length of a page")?;
            if entry_count == 0 {
                let field = "entry count of a page";
                return Err(FormatError::out_of_range(field, entry_count, "1 or more"));
            }
            pages.push(TreePageRef { id, entry_count, content_len });
        }
        input.finish("tree root")?;
        let root = Self { pages };
        if IMAGE_LEN_MAX < root.content_len() {
            let found = root.content_len();
            return Err(FormatError::out_of_range("content length", found, "at most 2^50"));
        }
        if root.content_len() != content_len || root.entry_count() != entry_count {
            return Err(FormatError::Inconsistent { what: "the pages of a tree have other sums" });
        }
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_noticed, assert_magic};

    fn example() -> TreeRoot {
        let page = |byte, entry_count, content_len| TreePageRef {
            id: ChunkId::from_bytes([byte; 32]),
            entry_count,
            content_len,
        };
        TreeRoot { pages: vec![page(1, 3, 100), page(2, 1, 0), page(1, 3, 100)] }
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore tree root v1");
    }

    #[test]
    fn root_reads_back() {
        for root in [example(), TreeRoot::default()] {
            assert_eq!(TreeRoot::decode(&root.encode()), Ok(root.clone()));
            assert!(TreeRoot::begins(&root.encode()));
        }
        assert_eq!((example().entry_count(), example().content_len()), (7, 200));
        let places: Vec<Range<u64>> = example().places().map(|(place, _)| place).collect();
        assert_eq!(places, [0..100, 100..100, 100..200]);
    }

    #[test]
    fn changed_root_is_noticed() {
        assert_flips_noticed(&example().encode(), TreeRoot::decode);
        assert_exact_length(&example().encode(), TreeRoot::decode);
    }

    #[test]
    fn sums_are_checked() {
        for place in [8, 16] {
            let mut root = example().encode();
            if let Some(byte) = root.get_mut(place) {
                *byte ^= 1;
            }
            let result = TreeRoot::decode(&root);
            assert!(matches!(result, Err(FormatError::Inconsistent { .. })), "{result:?}");
        }
    }

    #[test]
    fn page_without_files_and_huge_count_are_rejected() {
        let mut root = example();
        root.pages.iter_mut().take(1).for_each(|page| page.entry_count = 0);
        assert!(TreeRoot::decode(&root.encode()).is_err());
        let mut root = example().encode();
        root.splice(24..28, u32::MAX.to_le_bytes());
        assert!(matches!(TreeRoot::decode(&root), Err(FormatError::Truncated { .. })));
    }

    #[test]
    fn content_length_is_checked_at_its_limit() {
        let root = |content_len| {
            let id = ChunkId::from_bytes([1; 32]);
            TreeRoot { pages: vec![TreePageRef { id, entry_count: 1, content_len }] }
        };
        assert!(TreeRoot::decode(&root(IMAGE_LEN_MAX).encode()).is_ok());
        assert!(TreeRoot::decode(&root(IMAGE_LEN_MAX + 1).encode()).is_err());
        assert!(TreeRoot::decode(&root(u64::MAX).encode()).is_err());
    }

    #[test]
    fn root_with_most_pages_is_a_chunk() {
        let len = HEADER_LEN + TreeRoot::PAGE_COUNT_MAX * PAGE_REF_LEN;
        let len_max = usize::try_from(crate::limits::CHUNK_LEN_MAX).unwrap();
        assert!(len <= len_max && len_max < len + PAGE_REF_LEN);
    }
}
