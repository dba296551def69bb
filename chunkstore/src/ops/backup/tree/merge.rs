//! Brings the walk and the revision before together: for each path one task.

use std::iter::Peekable;

use super::{BackupError, FileProblem, SourceError, TreeCounts, TreeRun};
use crate::error::Result;
use crate::format::{TreeEntry, TreePath};
use crate::source::{Found, TreeSource};
use crate::tree_reader::TreeEntries;

/// Files that a worker takes at once ...
const BATCH_COUNT_MAX: usize = 32;
/// ... unless their entries in the revision before take more bytes.
const BATCH_LEN_MAX: usize = 256 << 10;

/// What is to be done with one path.
#[derive(Debug)]
pub(super) enum Task {
    /// Look at the file, and read it if it has changed.
    Look {
        path: TreePath,
        /// The entry of the revision before.
        known: Option<TreeEntry>,
    },
    /// Keep what the revision before has.
    Carry(TreeEntry),
}

/// Walk and revision before, both in the order of paths.
pub(super) struct Merge<'a> {
    source: &'a dyn TreeSource,
    walk: Peekable<Box<dyn Iterator<Item = Found> + Send + 'a>>,
    known: Option<Peekable<TreeEntries>>,
    /// The file or directory that could not be looked at last.
    unreadable: Option<Vec<u8>>,
    next_number: usize,
    found: u64,
    included_before: u64,
    pub(super) counts: TreeCounts,
    pub(super) problems: Vec<FileProblem>,
    accept_empty: bool,
}

impl<'a> Merge<'a> {
    pub(super) fn new(run: &TreeRun<'a>) -> std::result::Result<Self, BackupError> {
        let known = run.parent.tree.as_ref();
        Ok(Self {
            source: run.source,
            walk: run.source.walk()?.peekable(),
            known: known.map(|root| TreeEntries::new(run.store, root).peekable()),
            unreadable: None,
            next_number: 0,
            found: 0,
            included_before: 0,
            counts: TreeCounts::default(),
            problems: Vec::new(),
            accept_empty: run.options.accept_empty,
        })
    }

    /// Returns the next tasks with their number, counted from 0; `None` at the end.
    pub(super) fn next_batch(
        &mut self,
    ) -> std::result::Result<Option<(usize, Vec<Task>)>, BackupError> {
        let mut tasks = Vec::new();
        let mut len = 0;
        while tasks.len() < BATCH_COUNT_MAX
            && len < BATCH_LEN_MAX
            && let Some(task) = self.next_task()?
        {
            len += match &task {
                Task::Look { known: Some(entry), .. } | Task::Carry(entry) => entry.encoded_len(),
                Task::Look { known: None, .. } => 0,
            };
            tasks.push(task);
        }
        if tasks.is_empty() {
            if self.found == 0 && self.included_before != 0 && !self.accept_empty {
                let name = self.source.name().to_owned();
                let before = self.included_before;
                return Err(SourceError::Empty { name, before }.into());
            }
            return Ok(None);
        }
        let number = self.next_number;
        self.next_number += 1;
        Ok(Some((number, tasks)))
    }

    fn next_task(&mut self) -> Result<Option<Task>> {
        loop {
            if self.is_known_next()? {
                if let Some(task) = self.take_known()? {
                    return Ok(Some(task));
                }
                continue;
            }
            match self.walk.next() {
                None => return Ok(None),
                Some(Found::Unreadable { path, is_directory, error }) => {
                    self.note(path, is_directory, error)?;
                }
                Some(Found::File(path)) => {
                    let known = match &mut self.known {
                        Some(known) => known.next_if(|entry| is_path(entry, &path)).transpose()?,
                        None => None,
                    };
                    if self.source.includes(&path) {
                        self.found += 1;
                        self.included_before += u64::from(known.is_some());
                        return Ok(Some(Task::Look { path, known }));
                    }
                    if let Some(entry) = known {
                        return Ok(Some(Task::Carry(entry)));
                    }
                }
            }
        }
    }

    /// Returns whether the next path is one that only the revision before has.
    fn is_known_next(&mut self) -> Result<bool> {
        let Some(known) = &mut self.known else { return Ok(false) };
        let entry = match known.peek() {
            None => return Ok(false),
            Some(Err(_)) => {
                // The parent was chosen because its lists can be read: what cannot be now ends the backup.
                return match known.next() {
                    Some(Err(error)) => Err(error),
                    _ => Ok(false),
                };
            }
            Some(Ok(entry)) => entry,
        };
        Ok(match self.walk.peek() {
            None => true,
            Some(Found::File(path)) => entry.path < *path,
            Some(Found::Unreadable { path, is_directory: true, .. }) => {
                // As `path` with `/` behind it, which is how the walk orders it.
                let below = [path.as_slice(), b"/"].concat();
                entry.path.as_bytes() < below.as_slice()
            }
            Some(Found::Unreadable { path, .. }) => entry.path.as_bytes() < path.as_slice(),
        })
    }

    fn take_known(&mut self) -> Result<Option<Task>> {
        let next = self.known.as_mut().and_then(Iterator::next);
        let Some(entry) = next.transpose()? else { return Ok(None) };
        let is_hidden = self.unreadable.as_ref().is_some_and(|unreadable| {
            entry.path.as_bytes() == unreadable.as_slice() || entry.path.is_below(unreadable)
        });
        if is_hidden || !self.source.includes(&entry.path) {
            return Ok(Some(Task::Carry(entry)));
        }
        self.included_before += 1;
        self.counts.gone += 1;
        Ok(None)
    }

    /// Notes what cannot be looked at. What the revision before has of it is kept.
    fn note(
        &mut self,
        path: Vec<u8>,
        is_directory: bool,
        error: crate::source::FileError,
    ) -> Result<()> {
        self.counts.problems += 1;
        let is_carried = match &mut self.known {
            Some(known) => match known.peek() {
                Some(Ok(entry)) if is_directory => entry.path.is_below(&path),
                Some(Ok(entry)) => entry.path.as_bytes() == path.as_slice(),
                _ => false,
            },
            None => false,
        };
        let text = String::from_utf8_lossy(&path).escape_debug().to_string();
        if self.problems.len() < super::PROBLEM_COUNT_MAX {
            self.problems.push(FileProblem { path: text, error, is_carried });
        }
        self.unreadable = Some(path);
        Ok(())
    }
}

fn is_path(entry: &Result<TreeEntry>, path: &TreePath) -> bool {
    entry.as_ref().is_ok_and(|entry| entry.path == *path)
}
