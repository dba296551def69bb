//! Tree page: some files of a tree, in the order of their paths.
//!
//! Byte layout: `docs/format.md`, section "Tree page". A page says nothing about what is before and behind it, and where it ends
//! depends on paths and lengths of its own entries: pages that a run did not change are shared with the revision before.

use crate::format::page::both_zero;
use crate::format::{ByteReader, FormatError, PageEntry, TreePath};
use crate::limits::{IMAGE_LEN_MAX, TREE_PAGE_LEN_MAX};
use crate::time::Timestamp;

/// Digest of "chunkstore tree page v1".
const MAGIC: [u8; 4] = [0xb5, 0x88, 0xb7, 0x34];

const VERSION: u16 = 1;
const HEADER_LEN: usize = 20;
/// Bytes of an entry besides path and content.
const ENTRY_LEN: usize = 60;
/// The shortest entry of a content.
const CONTENT_ENTRY_LEN_MIN: usize = 9;

const FILE_KIND: u8 = 1;

const CARRIED_FLAG: u8 = 1;
const UNSETTLED_FLAG: u8 = 2;

/// Bytes of entries after which a page ends on average.
const PAGE_LEN_AVERAGE: u64 = 64 << 10;

/// What a file system says of a file, as far as it is restored, or tells whether the file has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileMetadata {
    /// Permission bits, with set-user-id and the like: `0..=0o7777`.
    pub mode: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Number of the file in its file system.
    pub inode: u64,
    /// When the content was changed, in nanoseconds since 1970.
    pub modified_nanoseconds: i64,
    /// When content or metadata were changed, in nanoseconds since 1970.
    pub changed_nanoseconds: i64,
}

/// One file of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TreeEntry {
    /// Where it lies.
    pub path: TreePath,
    /// As it was when its content was read.
    pub metadata: FileMetadata,
    /// Since when it has had this content: the time of the first of the consecutive revisions that have it.
    pub since: Timestamp,
    /// The file could not be read, or was not to be read, when the revision was made: content and metadata are those of the revision before.
    pub is_carried: bool,
    /// The file had been changed so shortly before it was read that its times cannot tell whether it was changed again.
    pub is_unsettled: bool,
    /// Its bytes, in order; no two zero entries in a row. Empty for an empty file.
    pub content: Vec<PageEntry>,
}

#[expect(clippy::len_without_is_empty, reason = "an entry without bytes is one like any other")]
impl TreeEntry {
    /// Returns the length of the file in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.content.iter().fold(0, |sum, entry| sum.saturating_add(entry.len()))
    }

    /// Returns how many bytes the entry takes in a page.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let content =
            self.content.iter().map(PageEntry::encoded_len).fold(0, usize::saturating_add);
        content.saturating_add(self.path.as_bytes().len()).saturating_add(ENTRY_LEN)
    }

    /// Returns whether a page ends behind this entry: with a probability proportional to its length, determined by its path.
    #[must_use]
    pub fn ends_page(&self) -> bool {
        let digest = blake3::hash(self.path.as_bytes());
        let number = ByteReader::new(digest.as_bytes()).u32("digest").unwrap_or_default();
        let len = u64::try_from(self.encoded_len()).unwrap_or(u64::MAX);
        // number / 2^32 < len / average
        u64::from(number).saturating_mul(PAGE_LEN_AVERAGE) < len.saturating_mul(1 << 32)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let path = self.path.as_bytes();
        let path_len = u16::try_from(path.len()).expect("a path has at most 4096 bytes");
        let content_count = u32::try_from(self.content.len()).expect("a page is shorter than 2^32");
        out.extend_from_slice(&path_len.to_le_bytes());
        out.extend_from_slice(path);
        out.push(FILE_KIND);
        let carried = if self.is_carried { CARRIED_FLAG } else { 0 };
        out.push(if self.is_unsettled { carried | UNSETTLED_FLAG } else { carried });
        let metadata = &self.metadata;
        for number in [metadata.mode, metadata.user, metadata.group] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&metadata.inode.to_le_bytes());
        out.extend_from_slice(&metadata.modified_nanoseconds.to_le_bytes());
        out.extend_from_slice(&metadata.changed_nanoseconds.to_le_bytes());
        out.extend_from_slice(&self.since.0.to_le_bytes());
        out.extend_from_slice(&self.len().to_le_bytes());
        out.extend_from_slice(&content_count.to_le_bytes());
        self.content.iter().for_each(|entry| entry.encode(out));
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, FormatError> {
        let path_len = usize::from(input.u16("path length")?);
        let path = TreePath::new(input.take(path_len, "path")?)?;
        let kind = input.u8("file kind")?;
        if kind != FILE_KIND {
            return Err(FormatError::out_of_range("file kind", kind, "1"));
        }
        let flags = input.u8("file flags")?;
        if CARRIED_FLAG | UNSETTLED_FLAG < flags {
            return Err(FormatError::out_of_range("file flags", flags, "0 to 3"));
        }
        let mode = input.u32("mode")?;
        if 0o7777 < mode {
            return Err(FormatError::out_of_range("mode", mode, "at most 0o7777"));
        }
        let metadata = FileMetadata {
            mode,
            user: input.u32("user")?,
            group: input.u32("group")?,
            inode: input.u64("inode")?,
            modified_nanoseconds: input.i64("modified")?,
            changed_nanoseconds: input.i64("changed")?,
        };
        let since = Timestamp(input.i64("since")?);
        let len = input.u64("file length")?;
        let content = decode_content(input, len)?;
        let (is_carried, is_unsettled) = (flags & CARRIED_FLAG != 0, flags & UNSETTLED_FLAG != 0);
        Ok(Self { path, metadata, since, is_carried, is_unsettled, content })
    }
}

/// Some files of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TreePage {
    /// At least one entry, in the order of their paths as bytes, each path once.
    pub entries: Vec<TreeEntry>,
}

impl TreePage {
    /// Returns how many bytes a page takes besides its entries.
    pub const HEADER_LEN: usize = HEADER_LEN;

    /// Returns the plain bytes of the page object.
    ///
    /// # Panics
    ///
    /// If an entry is longer than a page can be.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(!self.entries.is_empty(), "a page has entries");
        debug_assert!(is_sorted(&self.entries), "entries are in the order of their paths");
        let entry_count = u32::try_from(self.entries.len()).expect("a page is shorter than 2^32");
        let len =
            self.entries.iter().map(TreeEntry::encoded_len).fold(HEADER_LEN, usize::saturating_add);
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]); // reserved
        out.extend_from_slice(&self.content_len().to_le_bytes());
        out.extend_from_slice(&entry_count.to_le_bytes());
        self.entries.iter().for_each(|entry| entry.encode(&mut out));
        out
    }

    /// Reads a page from all of its plain bytes. Their id was checked before, so that an error means a faulty or newer writer, not a damaged
    /// medium.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the entries are not as many as the count says.
    /// - [`FormatError::WrongMagic`] if it is not a tree page.
    /// - [`FormatError::Unsupported`] if a newer program wrote it.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    /// - [`FormatError::Inconsistent`] if a path leads out of the tree, if paths are out of order, or if lengths do not agree.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if TREE_PAGE_LEN_MAX < bytes.len() {
            let len = bytes.len() as u64;
            return Err(FormatError::out_of_range("length of a tree page", len, "at most 8 MiB"));
        }
        let mut input = ByteReader::new(bytes);
        input.magic(&MAGIC, "a tree page")?;
        let version = input.u16("version")?;
        if version != VERSION {
            let (found, supported) = (version.into(), VERSION.into());
            return Err(FormatError::Unsupported { structure: "tree page", found, supported });
        }
        input.reserved::<2>()?;
        let content_len = input.u64("content length")?;
        let entry_count = input.u32("entry count")?;
        if entry_count == 0 {
            return Err(FormatError::out_of_range("entry count", entry_count, "1 or more"));
        }
        let room = input.remaining() / ENTRY_LEN;
        let mut entries =
            Vec::with_capacity(usize::try_from(entry_count).unwrap_or(usize::MAX).min(room));
        for _ in 0..entry_count {
            entries.push(TreeEntry::decode(&mut input)?);
        }
        input.finish("tree page")?;
        if !is_sorted(&entries) {
            return Err(FormatError::Inconsistent {
                what: "paths of a tree page are out of order",
            });
        }
        let page = Self { entries };
        if page.content_len() != content_len {
            return Err(FormatError::Inconsistent {
                what: "a tree page has another content length",
            });
        }
        Ok(page)
    }

    /// Returns the sum of the lengths of its files in bytes.
    #[must_use]
    pub fn content_len(&self) -> u64 {
        self.entries.iter().map(TreeEntry::len).fold(0, u64::saturating_add)
    }
}

/// Puts entries of a tree into pages: the same entries always give the same pages.
#[derive(Debug, Default)]
pub struct TreePages {
    page: TreePage,
    len: usize,
}

impl TreePages {
    /// Adds an entry, whose path must come behind those before, and appends the pages that are complete by that to `complete`: at most two.
    ///
    /// # Errors
    ///
    /// - [`FormatError::OutOfRange`] if the entry is too long for any page; it is not added.
    pub fn push(
        &mut self,
        entry: TreeEntry,
        complete: &mut Vec<TreePage>,
    ) -> Result<(), FormatError> {
        let len = entry.encoded_len();
        if TREE_PAGE_LEN_MAX < len.saturating_add(HEADER_LEN) {
            let expected = "an entry that fits into a page";
            return Err(FormatError::out_of_range("length of a tree entry", len as u64, expected));
        }
        if TREE_PAGE_LEN_MAX < self.len.saturating_add(len).saturating_add(HEADER_LEN) {
            complete.extend(self.finish());
        }
        let ends_page = entry.ends_page();
        self.len = self.len.saturating_add(len);
        self.page.entries.push(entry);
        if ends_page {
            complete.extend(self.finish());
        }
        Ok(())
    }

    /// Returns what is left at the end.
    pub fn finish(&mut self) -> Option<TreePage> {
        self.len = 0;
        let page = std::mem::take(&mut self.page);
        (!page.entries.is_empty()).then_some(page)
    }
}

fn decode_content(input: &mut ByteReader<'_>, len: u64) -> Result<Vec<PageEntry>, FormatError> {
    if IMAGE_LEN_MAX < len {
        return Err(FormatError::out_of_range("file length", len, "at most 2^50"));
    }
    let count = usize::try_from(input.u32("content count")?).unwrap_or(usize::MAX);
    if input.remaining() / CONTENT_ENTRY_LEN_MIN < count {
        return Err(FormatError::Truncated { field: "content of a file" });
    }
    let mut content: Vec<PageEntry> = Vec::with_capacity(count);
    let mut rest = len;
    for _ in 0..count {
        let entry = PageEntry::decode(input)?;
        if content.last().is_some_and(|last| both_zero((last, &entry))) {
            return Err(FormatError::Inconsistent { what: "two zero entries follow each other" });
        }
        rest = rest
            .checked_sub(entry.len())
            .ok_or(FormatError::Inconsistent { what: "a content is longer than its file" })?;
        content.push(entry);
    }
    if rest != 0 {
        return Err(FormatError::Inconsistent { what: "a content is shorter than its file" });
    }
    Ok(content)
}

fn is_sorted(entries: &[TreeEntry]) -> bool {
    entries.is_sorted_by(|left, right| left.path < right.path)
}

#[cfg(test)]
mod tests;
