//! Divides the memory of a tree's restore. The sum does not depend on the tree.
//!
//! | part | how often | bytes |
//! |---|---|---|
//! | cache of the index | once: lookups take turns | its constant |
//! | reader of chunks that are not where they were expected | each thread | one chunk, plain and stored |
//! | window | each thread | its files, what is read at once, one file copied and one of the target with what filling takes, chunks in the plan |
//!
//! Windows keep their memory for the next one. A file that is too long for one takes memory of its own; for that the
//! memory of windows that nobody works on is given up, and no new window begins before it has got enough. Whoever waits holds nothing, so
//! nobody waits for ever.

use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::budget::too_little_memory;
use crate::chunking::ChunkingParams;
use crate::compression::stored_len_max;
use crate::error::Result;
use crate::index;
use crate::ops::restore::plan::READ_LEN;

/// Memory for each chunk of a window: entry, place in the index, place in the plan.
const CHUNK_LEN: usize = 256;

/// How much more memory than the file itself takes filling its gaps may need, with the mode that needs most.
pub(super) const BACKFILL_FACTOR: usize = 4;

/// Bytes that are read at once.
fn read_len(chunking: &ChunkingParams) -> usize {
    let read = usize::try_from(READ_LEN).expect("it is a few megabytes");
    read.max(stored_len_max(chunking.max() as usize))
}

/// The memory of a window.
#[derive(Debug, Default)]
pub(super) struct WindowMemory {
    /// The plain bytes of its files.
    pub(super) arena: Vec<u8>,
    /// Stored bytes of neighbouring chunks.
    pub(super) stored: Vec<u8>,
}

/// The memory of all threads.
pub(super) struct Memory {
    total: usize,
    threads: NonZero<usize>,
    window: usize,
    read: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: usize,
    /// Of windows that are done; their memory is not free.
    spare: Vec<WindowMemory>,
    /// Somebody waits for more than a window.
    is_wanted: bool,
}

impl Memory {
    /// Bytes of the files of a window.
    pub(super) const WINDOW_LEN: usize = 16 << 20;

    /// Chunks and zero entries in a window.
    pub(super) const WINDOW_CHUNKS_MAX: usize = 8192;

    /// Files in a window.
    pub(super) const WINDOW_FILES_MAX: usize = 1024;

    /// Bytes of the longest file in a window, and of the longest one in the target that is read then.
    pub(super) const FILE_LEN_MAX: usize = 2 << 20;

    /// Returns as many threads as there is memory for.
    pub(super) fn divide(
        total: usize,
        threads: Option<NonZero<usize>>,
        chunking: &ChunkingParams,
    ) -> Result<Self> {
        let chunk = chunking.max() as usize;
        let read = read_len(chunking);
        let reader = chunk + stored_len_max(chunk);
        let window = Self::WINDOW_LEN
            + read
            + Self::FILE_LEN_MAX * (1 + BACKFILL_FACTOR)
            + Self::WINDOW_CHUNKS_MAX * CHUNK_LEN;
        let wanted = threads.or_else(|| thread::available_parallelism().ok());
        let left = total.saturating_sub(index::CACHE_LEN);
        let threads = (left / (reader + window)).min(wanted.map_or(1, NonZero::get));
        let needed = index::CACHE_LEN + reader + window;
        let threads = NonZero::new(threads).ok_or_else(|| too_little_memory(total, needed))?;
        let free = left - threads.get() * reader;
        let state = State { free, spare: Vec::new(), is_wanted: false };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Ok(Self { total: free, threads, window, read, state, changed })
    }

    pub(super) const fn threads(&self) -> NonZero<usize> {
        self.threads
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the memory of a window. Waits while somebody wants more than that.
    pub(super) fn take(&self) -> Buffers<'_> {
        let waits = |state: &mut State| {
            state.is_wanted || state.spare.is_empty() && state.free < self.window
        };
        let state = self.changed.wait_while(self.state(), waits);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let memory = match state.spare.pop() {
            Some(memory) => memory,
            None => {
                state.free -= self.window;
                drop(state);
                WindowMemory { arena: vec![0; Self::WINDOW_LEN], stored: Vec::new() }
            }
        };
        Buffers { owner: self, memory, len: None }
    }

    /// Returns memory for a file of `len` bytes in `chunk_count` chunks, and for `existing` bytes because of the one in the target. `None` if
    /// there is not as much in all.
    pub(super) fn take_for(
        &self,
        len: u64,
        existing: u64,
        chunk_count: usize,
    ) -> Option<Buffers<'_>> {
        let arena = usize::try_from(len).ok()?;
        let needed = arena
            .checked_add(usize::try_from(existing).ok()?)?
            .checked_add(chunk_count.checked_mul(CHUNK_LEN)?)?
            .checked_add(self.read)?;
        if self.total < needed {
            return None;
        }
        let waited = self.changed.wait_while(self.state(), |state| state.is_wanted);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_wanted = true;
        let lacks = |state: &mut State| {
            while state.free < needed && state.spare.pop().is_some() {
                state.free += self.window;
            }
            state.free < needed
        };
        let waited = self.changed.wait_while(state, lacks);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.free -= needed;
        state.is_wanted = false;
        drop(state);
        self.changed.notify_all();
        let memory = WindowMemory { arena: vec![0; arena], stored: Vec::new() };
        Some(Buffers { owner: self, memory, len: Some(needed) })
    }
}

/// Memory that is in use. Given back when it is dropped.
pub(super) struct Buffers<'a> {
    owner: &'a Memory,
    memory: WindowMemory,
    /// Bytes, if it is not the memory of a window.
    len: Option<usize>,
}

impl Deref for Buffers<'_> {
    type Target = WindowMemory;

    fn deref(&self) -> &WindowMemory {
        &self.memory
    }
}

impl DerefMut for Buffers<'_> {
    fn deref_mut(&mut self) -> &mut WindowMemory {
        &mut self.memory
    }
}

impl Drop for Buffers<'_> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if let Some(len) = self.len {
            drop(memory);
            self.owner.state().free += len;
        } else {
            self.owner.state().spare.push(memory);
        }
        self.owner.changed.notify_all();
    }
}
