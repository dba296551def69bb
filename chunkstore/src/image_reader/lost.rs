//! What a reader could not read, and marking the revisions that need it.
//!
//! Marking reads the lists of all revisions, so it is done by one thread at once, each time for all that has come together. The
//! first chunks are marked as they are found; where there are many, the next time is when a sixteenth more has come, so that the
//! work is bounded: 16 passes, then as many for each factor of e. The rest is marked at the end.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::ChunkId;
use crate::store::Store;

/// Part of the chunks that were marked before from which on more of them are marked.
const PART: usize = 16;

/// Chunks of one reader whose loss is remembered. Beyond it damage is for a verification.
const COUNT_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Lost {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    marked: HashSet<ChunkId>,
    pending: HashSet<ChunkId>,
    /// Those of `marked` that could not be. They are tried once more at the end.
    failed: HashSet<ChunkId>,
    is_marking: bool,
}

impl Lost {
    /// Notes a chunk that could not be read, once.
    pub(super) fn note(&self, chunk: ChunkId) {
        let mut state = self.state();
        if state.marked.len() + state.pending.len() < COUNT_MAX && !state.marked.contains(&chunk) {
            state.pending.insert(chunk);
        }
    }

    /// Marks what was noted, if that is worth the work and nobody else is at it.
    pub(super) fn mark(&self, store: &Store) {
        while let Some(chunks) = self.begin(|state| state.marked.len() / PART) {
            self.end(store, chunks);
        }
    }

    /// Marks all that was noted. Best effort: who reads has the error, and a verification finds out again what could not
    /// be noted.
    pub(super) fn mark_all(&self, store: &Store) {
        let mut state = self.state();
        let failed = std::mem::take(&mut state.failed);
        state.pending.extend(failed);
        drop(state);
        if let Some(chunks) = self.begin(|_| 0) {
            self.end(store, chunks);
        }
    }

    fn begin(&self, at_most: impl FnOnce(&State) -> usize) -> Option<HashSet<ChunkId>> {
        let mut state = self.state();
        if state.is_marking || state.pending.len() <= at_most(&state) {
            return None;
        }
        state.is_marking = true;
        Some(std::mem::take(&mut state.pending))
    }

    fn end(&self, store: &Store, chunks: HashSet<ChunkId>) {
        let is_marked = store.mark_hit(&chunks).is_ok();
        let mut state = self.state();
        if !is_marked {
            state.failed.extend(&chunks);
        }
        state.marked.extend(chunks);
        state.is_marking = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
