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

/// Returns up to how many chunks are not worth a pass.
fn too_few(state: &State) -> usize {
    state.marked.len() / PART
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
        while let Some(chunks) = self.begin(too_few) {
            let is_marked = store.mark_hit(&chunks).is_ok();
            self.end(chunks, is_marked);
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
            let is_marked = store.mark_hit(&chunks).is_ok();
            self.end(chunks, is_marked);
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

    fn end(&self, chunks: HashSet<ChunkId>, is_marked: bool) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> ChunkId {
        ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn first_losses_are_marked_at_once_and_many_in_few_passes() {
        let lost = Lost::default();
        let (mut passes, mut marked) = (0, 0);
        for number in 0..5000 {
            lost.note(id(number));
            lost.note(id(number / 2));
            if let Some(chunks) = lost.begin(too_few) {
                passes += 1;
                marked += chunks.len();
                lost.note(id(number));
                assert!(lost.begin(too_few).is_none(), "one at once");
                lost.end(chunks, true);
            }
            assert!(number >= 16 || passes == number + 1, "{passes} after {number}");
        }
        assert!((90..150).contains(&passes), "{passes}");
        let rest = lost.begin(|_| 0).map_or(0, |chunks| chunks.len());
        assert!(5000 * 15 / 16 <= marked && marked + rest >= 5000, "{marked} {rest}");
    }

    #[test]
    fn what_cannot_be_marked_is_tried_again_at_the_end_only() {
        let lost = Lost::default();
        lost.note(id(1));
        let chunks = lost.begin(too_few).unwrap();
        lost.end(chunks, false);
        lost.note(id(1));
        assert!(lost.begin(too_few).is_none());
        assert_eq!(lost.state().failed.len(), 1);
    }
}
