//! Puts finished files into pages, in the order of their paths.
//!
//! Invariant: whoever is far ahead waits until the batch that all wait for is there, so only so many entries are in memory. The worker
//! that has this batch never waits here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::file_job::Outcome;
use super::merge::Merge;
use super::{Collected, FileProblem, PROBLEM_COUNT_MAX, TreeCounts};
use crate::error::{Error, Result};
use crate::format::{ObjectKind, TreePage, TreePageRef, TreePages, TreeRoot};
use crate::id::ChunkId;
use crate::limits::IMAGE_LEN_MAX;

/// Batches that may be finished while an earlier one is not.
const AHEAD_COUNT_MAX: usize = 64;

/// Entries of all files, on their way into pages.
#[derive(Default)]
pub(super) struct Collector {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Batches that came too early, by their numbers.
    early: BTreeMap<usize, Vec<Outcome>>,
    next_number: usize,
    pages: TreePages,
    root: TreeRoot,
    counts: TreeCounts,
    problems: Vec<FileProblem>,
}

/// A complete page: its id and its plain bytes.
pub(super) type EncodedPage = (ChunkId, Vec<u8>);

impl Collector {
    /// Adds a batch and returns the pages that are complete by that. Waits while it is too far ahead.
    pub(super) fn add(
        &self,
        number: usize,
        outcomes: Vec<Outcome>,
        is_over: &AtomicBool,
    ) -> Result<Vec<EncodedPage>> {
        let mut state = self.state();
        while state.next_number + AHEAD_COUNT_MAX < number {
            if is_over.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.early.insert(number, outcomes);
        let mut complete = Vec::new();
        while let Some(outcomes) = state.next() {
            for outcome in outcomes {
                state.take(outcome, &mut complete)?;
            }
        }
        self.changed.notify_all();
        complete.iter().map(|page| state.encode(page)).collect()
    }

    /// Wakes all who wait: nobody will add what they wait for.
    pub(super) fn wake(&self) {
        drop(self.state());
        self.changed.notify_all();
    }

    /// Returns the root and all counts. [`Self::last_page`] was taken before.
    pub(super) fn into_collected(self, merge: Merge<'_>) -> Result<Collected> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !state.early.is_empty() {
            return Err(Error::Bug { what: "a batch of files was left out".to_owned() });
        }
        let mut counts = state.counts;
        counts.add(merge.counts);
        let mut problems = merge.problems;
        problems.extend(state.problems);
        problems.truncate(PROBLEM_COUNT_MAX);
        problems.sort_by(|left, right| left.path.cmp(&right.path));
        if IMAGE_LEN_MAX < state.root.content_len() {
            let what = "the files of the tree have more than 2^50 bytes".to_owned();
            return Err(Error::InvalidOption { what });
        }
        Ok(Collected { root: state.root, counts, problems })
    }

    /// Returns the page that is left when all files were added.
    pub(super) fn last_page(&self) -> Result<Option<EncodedPage>> {
        let mut state = self.state();
        state.pages.finish().map(|page| state.encode(&page)).transpose()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the batch that all wait for, if it is there.
    fn next(&mut self) -> Option<Vec<Outcome>> {
        let outcomes = self.early.remove(&self.next_number)?;
        self.next_number += 1;
        Some(outcomes)
    }

    fn take(&mut self, outcome: Outcome, complete: &mut Vec<TreePage>) -> Result<()> {
        self.counts.add(outcome.counts);
        if self.problems.len() < PROBLEM_COUNT_MAX {
            self.problems.extend(outcome.problem);
        }
        let Some(entry) = outcome.entry else { return Ok(()) };
        let path = entry.path.clone();
        self.pages.push(entry, complete).map_err(|_too_long| Error::InvalidOption {
            what: format!("file {path} has more chunks than a tree can list"),
        })
    }

    /// Adds a page to the root and returns it encoded.
    fn encode(&mut self, page: &TreePage) -> Result<EncodedPage> {
        if TreeRoot::PAGE_COUNT_MAX <= self.root.pages.len() {
            let what = "the tree has more files than a revision can list".to_owned();
            return Err(Error::InvalidOption { what });
        }
        let encoded = page.encode();
        let id = ObjectKind::Page.chunk_id(&encoded);
        self.root.pages.push(TreePageRef {
            id,
            entry_count: u32::try_from(page.entries.len()).unwrap_or(u32::MAX),
            content_len: page.content_len(),
        });
        Ok((id, encoded))
    }
}
