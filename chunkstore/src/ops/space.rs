//! Space: what each revision needs of the store, and how much of it nothing else needs.
//!
//! Revisions are walked source by source in their order. From one to the next only the pages that differ are read: what they no
//! longer have leaves, what they have anew enters. A record that entered with one revision, left with the next and never
//! came back is exclusive to it. So time grows with the differences, not with the number of revisions.
//!
//! Memory is 8 bytes for each record that revisions need: 128 MiB for each TiB of chunks of 64 KiB.

use std::collections::HashMap;

use crate::chunk_list::{ListPage, ListRoot};
use crate::chunk_reader::{ChunkReader, to_usize};
use crate::error::{Error, ObjectName, Result};
use crate::format::{PageEntry, RecordHeader, RevisionKind};
use crate::id::{ChunkId, PackId, RevisionId};
use crate::index::Location;
use crate::pinned::Pinned;
use crate::progress::{Phase, Progress};
use crate::revision::Revision;
use crate::store::Store;

/// Chunks that are looked up together.
const LOOKUP_COUNT: usize = 1 << 16;

/// Pages that are looked up together: they are then read, so less would be done on an old answer.
const PAGE_LOOKUP_COUNT: usize = 1024;

/// How often the walk begins again because the index was made anew meanwhile.
const ATTEMPTS: u32 = 3;

/// Stored bytes of one revision: records with their headers, those of its chunk list included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionSpace {
    /// The revision.
    pub id: RevisionId,
    /// What its backup stored.
    pub new_bytes: u64,
    /// What it needs and another revision needs, too.
    pub shared_bytes: u64,
    /// What no other revision of the store needs: once it is forgotten, a purge may free this. Packs are freed as a whole,
    /// so it takes until nothing else in them is needed.
    pub exclusive_bytes: u64,
}

/// Returns the space of all revisions of the store, in no particular order.
///
/// # Errors
///
/// - [`Error::Damaged`] or [`Error::Missing`] if a record, root or page cannot be read: what it needs is unknown, so it is
///   unknown what the others share with it. Data chunks are not read, and those that are missing take no space.
/// - [`Error::Storage`], [`Error::Cancelled`].
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::ops::{self, BackupOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// for _ in 0..2 {
///     ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?;
/// }
/// let spaces = ops::space(&store, &NoProgress)?;
/// assert!(spaces.iter().all(|space| space.exclusive_bytes == 0 && 0 < space.shared_bytes));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn space(store: &Store, progress: &dyn Progress) -> Result<Vec<RevisionSpace>> {
    store.index().reconcile()?;
    let history = store.history(None)?;
    let is_record =
        |damage: &Error| !matches!(damage, Error::Damaged { object: ObjectName::State { .. }, .. });
    if let Some(damage) = history.damaged.into_iter().find(is_record) {
        return Err(damage);
    }
    let ids: Vec<RevisionId> =
        history.revisions.iter().map(|revision| revision.record.id).collect();
    let mut pinned = Pinned::of_those_left(store, &ids)?;
    pinned.revisions.sort_by(|one, other| {
        let key = |revision: &Revision| (revision.record.source.clone(), revision.record.sequence);
        key(one).cmp(&key(other))
    });
    progress.begin(Phase::Mark, None);
    let mut attempt = 1;
    let spaces = loop {
        let mut walk = Walk::new(store, progress);
        let spaces = walk.run(&pinned.revisions)?;
        if !walk.is_disturbed {
            break spaces;
        }
        if ATTEMPTS <= attempt {
            progress
                .note("the index is being made anew again and again: sizes may be a little off");
            break spaces;
        }
        attempt += 1;
    };
    progress.end();
    Ok(spaces)
}

/// What is known of one record.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// How often the current revision refers to it.
    count: u32,
    /// 0 if no revision had it yet, [`SHARED`], or the number of the revision that it entered with, from 1.
    entered: u32,
}

const SHARED: u32 = u32::MAX;

/// Whether a chunk comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Enter,
    Leave,
}

struct Walk<'a> {
    store: &'a Store,
    progress: &'a dyn Progress,
    reader: ChunkReader,
    cells: HashMap<PackId, Vec<Cell>>,
    /// Number of the current revision, from 1.
    number: u32,
    /// Bytes of all records that the current revision needs.
    needed: u64,
    /// By number of the revision, less 1.
    exclusive: Vec<u64>,
    /// Chunks that are looked up together.
    pending: Vec<(ChunkId, Step)>,
    /// Whether something left that had not entered: the index leads to other places than before.
    is_disturbed: bool,
}

impl<'a> Walk<'a> {
    fn new(store: &'a Store, progress: &'a dyn Progress) -> Self {
        Self {
            store,
            progress,
            reader: ChunkReader::new(store),
            cells: HashMap::new(),
            number: 0,
            needed: 0,
            exclusive: Vec::new(),
            pending: Vec::new(),
            is_disturbed: false,
        }
    }

    fn run(&mut self, revisions: &[Revision]) -> Result<Vec<RevisionSpace>> {
        let mut needed = Vec::new();
        let mut current: Option<(ChunkId, ListRoot)> = None;
        for revision in revisions {
            let id = revision.record.root;
            let is_same = current.as_ref().is_some_and(|(current, _)| *current == id);
            let next = if is_same { None } else { Some((id, self.reader.read_list_root(&id)?)) };
            self.number += 1;
            self.exclusive.push(0);
            if let Some(next) = next {
                self.change(current.as_ref(), Some(&next))?;
                current = Some(next);
            }
            needed.push(self.needed);
        }
        self.number = self.number.saturating_add(1);
        self.change(current.as_ref(), None)?;
        let spaces = revisions.iter().zip(needed).zip(&self.exclusive);
        let space = |((revision, needed), exclusive): ((&Revision, u64), &u64)| RevisionSpace {
            id: revision.record.id,
            new_bytes: revision.record.statistics.stored_bytes,
            shared_bytes: needed.saturating_sub(*exclusive),
            exclusive_bytes: *exclusive,
        };
        Ok(spaces.map(space).collect())
    }

    /// Goes from one revision to the next.
    fn change(
        &mut self,
        old: Option<&(ChunkId, ListRoot)>,
        new: Option<&(ChunkId, ListRoot)>,
    ) -> Result<()> {
        // What comes is counted before what goes, so that a chunk which only moves does neither.
        for (of, other, step) in [(new, old, Step::Enter), (old, new, Step::Leave)] {
            let Some((id, root)) = of else { continue };
            self.pending.push((*id, step));
            let pages = pages_only_in(root, other.map(|(_, root)| root));
            for pages in pages.chunks(PAGE_LOOKUP_COUNT) {
                let ids: Vec<ChunkId> = pages.iter().map(|page| page.id).collect();
                let locations = self.store.index().view(|view| view.locate(&ids))?;
                for (page, location) in pages.iter().zip(locations) {
                    self.walk_page(root.kind(), page, location, step)?;
                }
            }
            self.settle()?;
        }
        Ok(())
    }

    fn walk_page(
        &mut self,
        kind: RevisionKind,
        page: &ListPage,
        location: Option<Location>,
        step: Step,
    ) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.pending.push((page.id, step));
        let entries = self.reader.read_list_entries(kind, page, location)?;
        self.pending.extend(entries.iter().filter_map(|entry| match entry {
            PageEntry::Data { id, .. } => Some((*id, step)),
            PageEntry::Zero { .. } => None,
        }));
        if LOOKUP_COUNT <= self.pending.len() { self.settle() } else { Ok(()) }
    }

    /// Looks the pending chunks up and counts them.
    fn settle(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        for part in pending.chunks(LOOKUP_COUNT) {
            let ids: Vec<ChunkId> = part.iter().map(|(id, _)| *id).collect();
            let locate = || self.store.index().view(|view| view.locate(&ids));
            let mut locations = locate()?;
            if locations.iter().any(Option::is_none) {
                // A pack may have it all the same: the index is not the truth.
                self.store.index().renew_once()?;
                locations = locate()?;
            }
            for ((_, step), location) in part.iter().zip(locations) {
                if let Some(location) = location.filter(|location| !location.is_missing) {
                    self.count(&location, *step);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, location: &Location, step: Step) {
        let len = RecordHeader::LEN as u64 + u64::from(location.stored_len);
        let cells = self.cells.entry(location.pack).or_default();
        let index = to_usize(location.record_index);
        if cells.len() <= index {
            cells.resize(index + 1, Cell::default());
        }
        let cell = &mut cells[index];
        match step {
            Step::Enter => {
                cell.count = cell.count.saturating_add(1);
                if cell.count == 1 {
                    self.needed += len;
                    if cell.entered != 0 && cell.entered != SHARED {
                        // Another revision had it, and it only.
                        let exclusive = &mut self.exclusive[to_usize(cell.entered - 1)];
                        *exclusive = exclusive.saturating_sub(len);
                    }
                    cell.entered = if cell.entered == 0 { self.number } else { SHARED };
                }
            }
            Step::Leave if cell.count == 0 => self.is_disturbed = true,
            Step::Leave => {
                cell.count -= 1;
                if cell.count == 0 {
                    self.needed = self.needed.saturating_sub(len);
                    if cell.entered != SHARED && cell.entered + 1 == self.number {
                        self.exclusive[to_usize(cell.entered - 1)] += len;
                    } else {
                        cell.entered = SHARED;
                    }
                }
            }
        }
    }
}

/// Returns the pages of a revision that another one does not have as often.
fn pages_only_in(root: &ListRoot, other: Option<&ListRoot>) -> Vec<ListPage> {
    let mut counts: HashMap<ChunkId, u64> = HashMap::new();
    for page in other.iter().flat_map(|other| other.pages()) {
        *counts.entry(page.id).or_default() += 1;
    }
    let mut pages = root.pages();
    pages.retain(|page| match counts.get_mut(&page.id) {
        Some(count) if *count != 0 => {
            *count -= 1;
            false
        }
        _ => true,
    });
    pages
}
