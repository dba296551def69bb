//! Chunks on their way from a span to the store, and how workers without a span help those that have one.
//!
//! Spans differ in how much data they have, so at the end of an image one worker may still have much to do. What it has
//! cut is then compressed by those that wait.
//!
//! Invariants: a batch is offered only if somebody waits who has none, so no more batches exist than workers; and
//! whoever waits is woken when the last worker has no more spans.

use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::format::ObjectKind;
use crate::id::ChunkId;

/// Plain bytes that a worker collects before it asks the index, and chunks. A longer chunk is a batch of its
/// own, and not collected.
pub(super) const BATCH_LEN: usize = 8 << 20;
pub(super) const BATCH_COUNT_MAX: usize = 8 << 10;

/// Plain bytes that are collected while somebody waits for them.
const BATCH_LEN_WHEN_AWAITED: usize = 2 << 20;

/// A chunk, and where it lies in the bytes.
#[derive(Clone, Debug)]
pub(super) struct BatchChunk {
    pub(super) kind: ObjectKind,
    pub(super) id: ChunkId,
    /// Whether it consists of points.
    pub(super) is_points: bool,
    pub(super) range: Range<usize>,
}

/// Chunks that are looked up together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) chunks: Vec<BatchChunk>,
    pub(super) plain: Vec<u8>,
}

impl Batch {
    /// Adds a chunk of at most [`BATCH_LEN`] bytes.
    pub(super) fn push(&mut self, kind: ObjectKind, id: ChunkId, is_points: bool, plain: &[u8]) {
        let start = self.plain.len();
        self.plain.reserve_exact(BATCH_LEN.saturating_sub(start));
        self.plain.extend_from_slice(plain);
        let range = start..self.plain.len();
        self.chunks.push(BatchChunk { kind, id, is_points, range });
    }

    /// Returns whether the batch is to be worked on before another `len` bytes come.
    pub(super) fn is_full_for(&self, len: usize, is_awaited: bool) -> bool {
        let len_max = if is_awaited { BATCH_LEN_WHEN_AWAITED } else { BATCH_LEN };
        !self.chunks.is_empty()
            && (len_max < self.plain.len() + len || BATCH_COUNT_MAX <= self.chunks.len())
    }

    /// Empties it and keeps its buffers.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.plain.clear();
    }
}

/// Where workers that have no more spans wait for batches of those that have.
#[derive(Debug, Default)]
pub(super) struct Helpers {
    state: Mutex<State>,
    changed: Condvar,
    /// How many wait and have got nothing yet; to look at without the lock.
    free: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    cutting: usize,
    offered: Vec<Batch>,
}

impl Helpers {
    /// Says that a worker cuts spans, until what is returned is dropped.
    pub(super) fn cutting(&self) -> Cutting<'_> {
        self.state().cutting += 1;
        Cutting(self)
    }

    /// Returns whether somebody waits for a batch.
    pub(super) fn is_anybody_free(&self) -> bool {
        self.free.load(Ordering::Relaxed) != 0
    }

    /// Gives `batch` to somebody who waits, and leaves an empty one; or returns false and leaves it as it is.
    pub(super) fn offer(&self, batch: &mut Batch) -> bool {
        let mut state = self.state();
        if self.free.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.free.fetch_sub(1, Ordering::Relaxed);
        state.offered.push(mem::take(batch));
        self.changed.notify_one();
        true
    }

    /// Waits for a batch; `None` when no worker cuts spans any more.
    pub(super) fn wait(&self) -> Option<Batch> {
        let mut state = self.state();
        self.free.fetch_add(1, Ordering::Relaxed);
        loop {
            if let Some(batch) = state.offered.pop() {
                return Some(batch);
            }
            if state.cutting == 0 {
                self.free.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that cuts spans.
#[derive(Debug)]
pub(super) struct Cutting<'a>(&'a Helpers);

impl Drop for Cutting<'_> {
    fn drop(&mut self) {
        self.0.state().cutting -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn batch_of(bytes: &[u8]) -> Batch {
        let mut batch = Batch::default();
        batch.push(ObjectKind::Data, ObjectKind::Data.chunk_id(bytes), false, bytes);
        batch
    }

    #[test]
    fn batch_stays_with_its_worker_when_nobody_waits() {
        let helpers = Helpers::default();
        let _cutting = helpers.cutting();
        let mut batch = batch_of(b"mine");
        assert!(!helpers.offer(&mut batch));
        assert_eq!(batch.plain, b"mine");
    }

    #[test]
    fn who_waits_gets_one_batch_after_the_other_and_then_the_end() {
        let helpers = Helpers::default();
        let cutting = helpers.cutting();
        thread::scope(|scope| {
            let (sender, received) = mpsc::channel();
            let waiting = &helpers;
            scope.spawn(move || {
                while let Some(batch) = waiting.wait() {
                    sender.send(batch.plain).unwrap();
                }
            });
            for text in ["first", "second"] {
                let mut batch = batch_of(text.as_bytes());
                while !helpers.offer(&mut batch) {
                    thread::yield_now();
                }
                assert!(batch.chunks.is_empty() && batch.plain.is_empty());
                assert_eq!(received.recv().unwrap(), text.as_bytes());
            }
            drop(cutting);
            assert!(received.recv().is_err(), "the thread has ended");
        });
        assert!(!helpers.is_anybody_free());
    }

    #[test]
    fn no_more_batches_are_offered_than_workers_wait() {
        let helpers = Helpers::default();
        let cutting = helpers.cutting();
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| std::iter::from_fn(|| helpers.wait()).count()))
                .collect();
            while helpers.free.load(Ordering::Relaxed) != 2 {
                thread::yield_now();
            }
            // Whoever waits cannot take anything meanwhile.
            let state = helpers.state();
            helpers.free.store(0, Ordering::Relaxed);
            drop(state);
            assert!(!helpers.offer(&mut batch_of(b"third")));
            helpers.free.store(2, Ordering::Relaxed);
            drop(cutting);
            let counts: Vec<usize> =
                waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert_eq!(counts, [0, 0]);
        });
    }

    #[test]
    fn batch_is_full_by_bytes_and_by_chunks_and_earlier_if_it_is_awaited() {
        let batch = batch_of(&vec![1; BATCH_LEN_WHEN_AWAITED]);
        assert!(!batch.is_full_for(BATCH_LEN - BATCH_LEN_WHEN_AWAITED, false));
        assert!(batch.is_full_for(BATCH_LEN - BATCH_LEN_WHEN_AWAITED + 1, false));
        assert!(batch.is_full_for(1, true));
        assert!(!Batch::default().is_full_for(BATCH_LEN + 1, true), "there is nothing in it");
        let mut many = Batch::default();
        for _ in 0..BATCH_COUNT_MAX {
            assert!(!many.is_full_for(1, false));
            many.push(ObjectKind::Data, ChunkId::from_bytes([0; ChunkId::LEN]), false, b"x");
        }
        assert!(many.is_full_for(1, false));
    }
}
