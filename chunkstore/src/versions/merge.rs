//! Merges the trees of many revisions in the order of paths.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::vec;

use super::{FileVersions, ListProblem, Occurrence};
use crate::chunk_reader::ChunkReader;
use crate::error::{Error, ObjectName, Result};
use crate::format::{FormatError, TreeEntry, TreePageRef, TreePath};
use crate::id::{ChunkId, RevisionId};
use crate::revision::Revision;
use crate::store::Store;
use crate::time::Timestamp;
use crate::tree_reader::read_page;

/// The entries of a page, for all revisions that have it.
type SharedPage = Arc<Vec<Arc<TreeEntry>>>;

/// The trees, each at its next file.
#[derive(Debug)]
pub(super) struct Merge {
    reader: ChunkReader,
    trees: Vec<Tree>,
    /// The pages that some tree is in.
    open: HashMap<ChunkId, Weak<Vec<Arc<TreeEntry>>>>,
    /// Why pages cannot be read.
    unreadable: HashMap<ChunkId, Error>,
    pub(super) problems: Vec<ListProblem>,
    /// Chunks and revisions of which an error was given out or is about to be.
    told: HashSet<ChunkId>,
    pending: VecDeque<Error>,
}

/// One tree and how far it was read.
#[derive(Debug)]
struct Tree {
    revision: RevisionId,
    pages: vec::IntoIter<TreePageRef>,
    page: SharedPage,
    /// Place of the next entry in the page.
    next: usize,
    /// The last path of the page before.
    last: Option<TreePath>,
}

impl Tree {
    fn peek(&self) -> Option<&Arc<TreeEntry>> {
        self.page.get(self.next)
    }
}

impl Merge {
    /// Reads the roots.
    pub(super) fn open(store: &Store, revisions: &[Revision]) -> Result<Self> {
        let mut merge = Self {
            reader: ChunkReader::new(store),
            trees: Vec::with_capacity(revisions.len()),
            open: HashMap::new(),
            unreadable: HashMap::new(),
            problems: Vec::new(),
            told: HashSet::new(),
            pending: VecDeque::new(),
        };
        for Revision { record, .. } in revisions {
            let pages = match merge.reader.read_tree_root(&record.root) {
                Ok(root) => root.pages,
                Err(error) if error.is_damage() => {
                    merge.add_problem(record.id, error);
                    Vec::new()
                }
                Err(other) => return Err(other),
            };
            merge.trees.push(Tree {
                revision: record.id,
                pages: pages.into_iter(),
                page: SharedPage::default(),
                next: 0,
                last: None,
            });
        }
        Ok(merge)
    }

    /// Notes what cannot be read of a revision, and tells of it with the next file.
    pub(super) fn add_problem(&mut self, revision: RevisionId, error: Error) {
        let is_news = match &error {
            Error::Damaged { object: ObjectName::Chunk { id, .. }, .. }
            | Error::Missing { object: ObjectName::Chunk { id, .. } } => self.told.insert(*id),
            _ => true,
        };
        if is_news {
            self.pending.push_back(error.again());
        }
        self.problems.push(ListProblem { revision, error });
    }

    /// Returns the next file.
    pub(super) fn next(&mut self, times: &Arc<[Timestamp]>) -> Option<Result<FileVersions>> {
        for index in 0..self.trees.len() {
            self.turn_page(index);
        }
        if let Some(error) = self.pending.pop_front() {
            return Some(Err(error));
        }
        let first = self.trees.iter().filter_map(Tree::peek).map(|entry| &entry.path).min()?;
        let path = first.clone();
        let mut occurrences = Vec::with_capacity(self.trees.len());
        for (revision, tree) in self.trees.iter_mut().enumerate().rev() {
            if let Some(entry) = tree.page.get(tree.next).filter(|entry| entry.path == path) {
                occurrences.push(Occurrence { revision, entry: Arc::clone(entry) });
                tree.next += 1;
            }
        }
        Some(Ok(FileVersions { path, occurrences, times: Arc::clone(times) }))
    }

    /// Reads the next page of a tree that has come to the end of one. A page that cannot be read is passed over.
    fn turn_page(&mut self, index: usize) {
        while self.trees[index].peek().is_none() {
            let tree = &mut self.trees[index];
            let Some(page) = tree.pages.next() else { return };
            if let Some(last) = tree.page.last() {
                tree.last = Some(last.path.clone());
            }
            tree.page = SharedPage::default();
            tree.next = 0;
            let read = self.read(&page);
            let tree = &mut self.trees[index];
            match read {
                Ok(entries) => {
                    let is_behind = entries.first().zip(tree.last.as_ref());
                    if is_behind.is_none_or(|(first, last)| *last < first.path) {
                        tree.page = entries;
                    } else {
                        let what = "the pages of a tree are out of order";
                        let object = ObjectName::Chunk { id: page.id, pack: None };
                        let source = FormatError::Inconsistent { what };
                        let revision = tree.revision;
                        self.add_problem(revision, Error::Damaged { object, source });
                    }
                }
                Err(error) => {
                    let revision = tree.revision;
                    self.add_problem(revision, error);
                }
            }
        }
    }

    fn read(&mut self, page: &TreePageRef) -> Result<SharedPage> {
        if let Some(open) = self.open.get(&page.id).and_then(Weak::upgrade) {
            return Ok(open);
        }
        if let Some(error) = self.unreadable.get(&page.id) {
            return Err(error.again());
        }
        let entries = read_page(&mut self.reader, page).inspect_err(|error| {
            self.unreadable.insert(page.id, error.again());
        })?;
        let shared = SharedPage::new(entries.into_iter().map(Arc::new).collect());
        self.open.retain(|_, page| page.strong_count() != 0);
        self.open.insert(page.id, Arc::downgrade(&shared));
        Ok(shared)
    }
}
