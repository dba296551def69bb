//! Decides what leaves a cache that is full: 2Q (Johnson and Shasha, "2Q: A Low Overhead High Performance Buffer Management
//! Replacement Algorithm", VLDB 1994), in bytes, with a clock in place of the LRU list.
//!
//! What is new enters a queue of a quarter of the bytes and leaves it in order, however often it is used there: the many
//! small reads that a scan makes of one chunk are one use. What comes back soon after it has left enters the main queue, which
//! a scan does not reach. Invariant: what is in the queues never adds up to more than the bound.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::Entry;
use crate::id::ChunkId;

/// One part in this many of the bytes is for what was not used before (A1in, 25 % as the paper recommends).
const RECENT_PART: usize = 4;

#[derive(Debug)]
pub(super) struct Queues<V> {
    byte_len_max: usize,
    recent: Queue<V>,
    main: Queue<V>,
    /// What has left `recent`, by [`fingerprint`], the oldest first (A1out). No more than there are entries.
    departed: VecDeque<u64>,
    /// The same, for looking up.
    departed_set: HashSet<u64>,
}

#[derive(Debug)]
struct Queue<V> {
    entries: VecDeque<Arc<Entry<V>>>,
    byte_len: usize,
}

impl<V> Queue<V> {
    const fn new() -> Self {
        Self { entries: VecDeque::new(), byte_len: 0 }
    }

    fn push(&mut self, entry: Arc<Entry<V>>) {
        self.byte_len += entry.byte_len;
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<Arc<Entry<V>>> {
        let entry = self.entries.pop_front()?;
        self.byte_len -= entry.byte_len;
        Some(entry)
    }
}

impl<V> Queues<V> {
    /// Bytes that the queues take for an entry that is in the cache, and for one that was.
    pub(super) const OVERHEAD: usize =
        2 * (size_of::<Arc<Entry<V>>>() + size_of::<u64>() + size_of::<u64>() + 1);

    pub(super) fn new(byte_len_max: usize) -> Self {
        Self {
            byte_len_max,
            recent: Queue::new(),
            main: Queue::new(),
            departed: VecDeque::new(),
            departed_set: HashSet::new(),
        }
    }

    /// Returns the bytes of all entries.
    pub(super) const fn byte_len(&self) -> usize {
        self.recent.byte_len + self.main.byte_len
    }

    /// Takes an entry that is not longer than the bound, and returns what has to leave.
    pub(super) fn insert(&mut self, entry: Arc<Entry<V>>) -> Vec<Arc<Entry<V>>> {
        debug_assert!(entry.byte_len <= self.byte_len_max, "what is longer is not kept");
        let mut leaving = Vec::new();
        while self.byte_len_max - entry.byte_len < self.byte_len() {
            leaving.extend(self.evict());
        }
        if self.departed_set.remove(&fingerprint(&entry.id)) {
            self.main.push(entry);
        } else {
            self.recent.push(entry);
        }
        leaving
    }

    /// Takes one entry out, or gives one in the main queue its second chance.
    fn evict(&mut self) -> Option<Arc<Entry<V>>> {
        let is_recent_full = self.byte_len_max / RECENT_PART < self.recent.byte_len;
        if is_recent_full || self.main.entries.is_empty() {
            let entry = self.recent.pop()?;
            self.remember(fingerprint(&entry.id));
            return Some(entry);
        }
        let entry = self.main.pop()?;
        if entry.take_use() {
            self.main.push(entry);
            return None;
        }
        Some(entry)
    }

    fn remember(&mut self, fingerprint: u64) {
        let count_max = (self.recent.entries.len() + self.main.entries.len()).max(1);
        while count_max <= self.departed.len()
            && let Some(oldest) = self.departed.pop_front()
        {
            self.departed_set.remove(&oldest);
        }
        if self.departed_set.insert(fingerprint) {
            self.departed.push_back(fingerprint);
        }
    }
}

/// Returns some bytes of an id. Two chunks with the same ones only share their history.
pub(super) fn fingerprint(id: &ChunkId) -> u64 {
    let bytes = id.as_bytes()[..8].try_into().expect("an id has more than 8 bytes");
    u64::from_le_bytes(bytes)
}
