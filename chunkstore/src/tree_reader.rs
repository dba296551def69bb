//! Reads the trees of revisions: which files they have, and what is in them.
//!
//! Invariant: every byte that is given out was hashed after it was read from the store. Memory is one page of the tree at a time.

use std::ops::Range;
use std::vec;

use crate::chunk_reader::ChunkReader;
use crate::error::{Error, ObjectName, Result};
use crate::format::{
    FormatError, ObjectKind, PageEntry, RevisionKind, SessionKind, TreeEntry, TreePageRef,
    TreePath, TreeRoot,
};
use crate::id::RevisionId;
use crate::revision::Revision;
use crate::session::Session;
use crate::store::Store;

/// An open revision of a tree. It pins what it reads: `forget` and `purge` may run, the reader reads on.
#[derive(Debug)]
pub struct TreeReader {
    store: Store,
    revision: Revision,
    root: TreeRoot,
    /// Keeps purge away from the chunks.
    _session: Option<Session>,
}

impl TreeReader {
    /// Opens a revision. Reads its root only.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchRevision`], also if it was forgotten at this moment.
    /// - [`Error::InvalidOption`] if it is the revision of an image.
    /// - [`Error::Damaged`] or [`Error::Missing`] if its record or root is.
    pub fn open(store: &Store, id: &RevisionId) -> Result<Self> {
        let revision = store.revision(id)?;
        if revision.record.kind != RevisionKind::Tree {
            let what = format!("revision {id} is an image, not a tree of files");
            return Err(Error::InvalidOption { what });
        }
        let pins = vec![revision.record.root];
        let session = store.begin_reading_session(SessionKind::Restore, pins)?;
        // Purge reads revisions first and pins second. If the record is still there now, one of the two
        // is seen by every purge; if not, a purge may be ahead of the pin.
        store.revision(id)?;
        let root = ChunkReader::new(store).read_tree_root(&revision.record.root)?;
        if root.content_len() != revision.record.size {
            let object = ObjectName::Revision { source: revision.record.source, id: *id };
            let source = FormatError::Inconsistent { what: "its root is of another size" };
            return Err(Error::Damaged { object, source });
        }
        Ok(Self { store: store.clone(), revision, root, _session: session })
    }

    /// Returns the revision that is read.
    #[must_use]
    pub const fn revision(&self) -> &Revision {
        &self.revision
    }

    /// Returns how many files it has.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.root.entry_count()
    }

    /// Returns all files, in the order of their paths.
    #[must_use]
    pub fn entries(&self) -> TreeEntries {
        TreeEntries::new(&self.store, &self.root)
    }

    /// Returns the file with this path, if there is one. Reads about as many pages as their number has binary digits.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`] or [`Error::Missing`], naming the page.
    /// - [`Error::Storage`] if the store cannot be read.
    pub fn entry(&self, path: &TreePath) -> Result<Option<TreeEntry>> {
        let mut reader = ChunkReader::new(&self.store);
        let mut pages: Range<usize> = 0..self.root.pages.len();
        while !pages.is_empty() {
            let middle = pages.start + pages.len() / 2;
            let mut entries = read_page(&mut reader, &self.root.pages[middle])?;
            let bounds = entries.first().zip(entries.last());
            let Some((first, last)) = bounds else { return Ok(None) };
            if *path < first.path {
                pages.end = middle;
            } else if last.path < *path {
                pages.start = middle + 1;
            } else {
                let found = entries.binary_search_by(|entry| entry.path.cmp(path));
                return Ok(found.ok().map(|index| entries.swap_remove(index)));
            }
        }
        Ok(None)
    }

    /// Returns the files that have bytes in some ranges of the content, which are given by offset and length, ascending: damage is told so.
    /// At most `count_max` files. What lies in a page that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`] if the store cannot be read.
    pub fn files_at(&self, ranges: &[(u64, u64)], count_max: usize) -> Result<Vec<TreePath>> {
        let mut reader = ChunkReader::new(&self.store);
        let is_hit = |place: &Range<u64>| {
            ranges.iter().any(|(start, len)| *start < place.end && place.start < start + len)
        };
        let mut found = Vec::new();
        for (place, page) in self.root.places().filter(|(place, _)| is_hit(place)) {
            let entries = match read_page(&mut reader, page) {
                Ok(entries) => entries,
                Err(error) if error.is_damage() => continue,
                Err(other) => return Err(other),
            };
            let mut start = place.start;
            for entry in entries {
                let end = start + entry.len();
                if is_hit(&(start..end)) {
                    if count_max <= found.len() {
                        return Ok(found);
                    }
                    found.push(entry.path);
                }
                start = end;
            }
        }
        Ok(found)
    }

    /// Returns the bytes of a file of this revision.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`] or [`Error::Missing`], naming the chunk.
    /// - [`Error::InvalidOption`] if the file is too long for memory.
    /// - [`Error::Storage`] if the store cannot be read.
    pub fn read(&self, entry: &TreeEntry) -> Result<Vec<u8>> {
        let too_long = || Error::InvalidOption { what: format!("{} is too long", entry.path) };
        let mut bytes = Vec::new();
        let len = usize::try_from(entry.len()).map_err(|_| too_long())?;
        bytes.try_reserve_exact(len).map_err(|_| too_long())?;
        let mut reader = ChunkReader::new(&self.store);
        let mut plain = Vec::new();
        for part in &entry.content {
            match part {
                PageEntry::Zero { len } => {
                    let len = usize::try_from(*len).map_err(|_| too_long())?;
                    bytes.resize(bytes.len() + len, 0);
                }
                PageEntry::Data { id, len } => {
                    reader.read(ObjectKind::Data, id, None, &mut plain)?;
                    check_len(id, *len, plain.len())?;
                    bytes.extend_from_slice(&plain);
                }
            }
        }
        Ok(bytes)
    }
}

/// Checks that a chunk is as long as the list says.
pub(crate) fn check_len(id: &crate::id::ChunkId, len: u32, found: usize) -> Result<()> {
    if u32::try_from(found) == Ok(len) {
        return Ok(());
    }
    let source =
        FormatError::Inconsistent { what: "a chunk has another length than its list says" };
    Err(Error::Damaged { object: ObjectName::Chunk { id: *id, pack: None }, source })
}

/// The files of a tree, page by page. After an error the rest can still be had: the iterator goes on with the next page.
#[derive(Debug)]
pub struct TreeEntries {
    reader: ChunkReader,
    pages: vec::IntoIter<TreePageRef>,
    entries: vec::IntoIter<TreeEntry>,
}

impl TreeEntries {
    pub(crate) fn new(store: &Store, root: &TreeRoot) -> Self {
        Self {
            reader: ChunkReader::new(store),
            pages: root.pages.clone().into_iter(),
            entries: Vec::new().into_iter(),
        }
    }
}

impl Iterator for TreeEntries {
    type Item = Result<TreeEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            match read_page(&mut self.reader, &self.pages.next()?) {
                Ok(entries) => self.entries = entries.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

pub(crate) fn read_page(reader: &mut ChunkReader, page: &TreePageRef) -> Result<Vec<TreeEntry>> {
    let entries = reader.read_tree_page(&page.id, None, page.content_len)?.entries;
    if u32::try_from(entries.len()) == Ok(page.entry_count) {
        return Ok(entries);
    }
    let source = FormatError::Inconsistent { what: "a tree page has another number of files" };
    Err(Error::Damaged { object: ObjectName::Chunk { id: page.id, pack: None }, source })
}
