//! Keeps what was read and checked, by chunk id, in a bounded number of bytes; several threads share it.
//!
//! A hit takes the lock of one of several shards for a look into a hash table. Which entry leaves is decided under a lock of
//! its own, by those only who bring a new one, which takes them far longer. Each value is loaded once, however many threads need it
//! at the same time. Invariants: what is kept never takes more than the bound, entries and tables included; nobody holds two of
//! these locks, or one of them while loading, copying or waiting.

mod flight;
mod queues;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use self::flight::Duty;

use self::flight::Flight;
use self::queues::Queues;
use crate::error::Result;
use crate::id::ChunkId;

/// Parts of the table with a lock of their own.
const SHARD_COUNT: usize = 16;

/// Bytes that an allocator takes besides what it is asked for.
const ALLOCATION_OVERHEAD: usize = 16;

/// Values by chunk id.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    shards: [Mutex<Shard<V>>; SHARD_COUNT],
    queues: Mutex<Queues<V>>,
    byte_len_max: usize,
}

type Shard<V> = HashMap<ChunkId, Slot<V>, BuildHasherDefault<IdHasher>>;

#[derive(Debug)]
enum Slot<V> {
    Kept(Arc<Entry<V>>),
    Loading(Arc<Flight<V>>),
}

/// A value that is or was in a cache.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    pub(crate) value: V,
    id: ChunkId,
    /// What it takes in the cache, all included.
    byte_len: usize,
    /// Whether it was used since the clock last came by.
    is_used: AtomicBool,
}

impl<V> Entry<V> {
    /// Bytes that an entry takes besides its value. A hash table is filled to between 7/16 and 7/8.
    const OVERHEAD: usize = size_of::<Self>()
        + 2 * ALLOCATION_OVERHEAD
        + 2 * (size_of::<(ChunkId, Slot<V>)>() + 1)
        + Queues::<V>::OVERHEAD;

    fn new(id: ChunkId, value: V, value_len: usize) -> Self {
        let byte_len = Self::OVERHEAD.saturating_add(value_len);
        Self { value, id, byte_len, is_used: AtomicBool::new(false) }
    }

    /// Notes a use. Whoever finds it noted leaves the cache line to all others.
    fn note_use(&self) {
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }

    fn take_use(&self) -> bool {
        self.is_used.swap(false, Ordering::Relaxed)
    }
}

/// What is to be done about a value.
#[derive(Debug)]
enum Claim<'a, V> {
    Kept(Arc<Entry<V>>),
    WaitFor(Arc<Flight<V>>),
    Load(Duty<'a, V>),
}

impl<V> Cache<V> {
    pub(crate) fn new(byte_len_max: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            queues: Mutex::new(Queues::new(byte_len_max)),
            byte_len_max,
        }
    }

    /// Returns the bytes that may be kept.
    pub(crate) const fn byte_len_max(&self) -> usize {
        self.byte_len_max
    }

    /// Returns the bytes that are kept.
    pub(crate) fn byte_len(&self) -> usize {
        self.queues().byte_len()
    }

    /// Returns a value that is at hand.
    pub(crate) fn get(&self, id: &ChunkId) -> Option<Arc<Entry<V>>> {
        let entry = match self.shard(id).get(id)? {
            Slot::Kept(entry) => Arc::clone(entry),
            Slot::Loading(_) => return None,
        };
        entry.note_use();
        Some(entry)
    }

    /// Returns a value from here, or from another thread that is loading it, or from `load`, which also says how many
    /// bytes it takes.
    pub(crate) fn get_or_load(
        &self,
        id: &ChunkId,
        load: impl FnOnce() -> Result<(V, usize)>,
    ) -> Result<Arc<Entry<V>>> {
        loop {
            match self.claim(id) {
                Claim::Kept(entry) => return Ok(entry),
                Claim::WaitFor(flight) => {
                    if let Some(landed) = flight.wait() {
                        return landed;
                    }
                }
                Claim::Load(duty) => return duty.fulfil(load()),
            }
        }
    }

    /// Returns the duty to load a value, unless it is at hand or being loaded.
    pub(crate) fn claim_absent(&self, id: &ChunkId) -> Option<Duty<'_, V>> {
        match self.claim(id) {
            Claim::Load(duty) => Some(duty),
            Claim::Kept(_) | Claim::WaitFor(_) => None,
        }
    }

    fn claim(&self, id: &ChunkId) -> Claim<'_, V> {
        let mut shard = self.shard(id);
        match shard.get(id) {
            Some(Slot::Kept(entry)) => {
                let entry = Arc::clone(entry);
                drop(shard);
                entry.note_use();
                Claim::Kept(entry)
            }
            Some(Slot::Loading(flight)) => Claim::WaitFor(Arc::clone(flight)),
            None => {
                let flight = Arc::new(Flight::new());
                shard.insert(*id, Slot::Loading(Arc::clone(&flight)));
                Claim::Load(Duty { cache: self, id: *id, flight })
            }
        }
    }

    /// Keeps what a flight has brought, if there can be room for it.
    fn keep(&self, entry: &Arc<Entry<V>>, flight: &Arc<Flight<V>>) {
        if self.byte_len_max < entry.byte_len {
            self.forget(&entry.id, flight);
            return;
        }
        // What enters the queues is in the table before, and what leaves them leaves it after: so no id is in the queues twice,
        // and nothing is in the table only. Memory is given back at the end of this function, when no lock is held.
        self.shard(&entry.id).insert(entry.id, Slot::Kept(Arc::clone(entry)));
        let leaving = self.queues().insert(Arc::clone(entry));
        for entry in &leaving {
            let mut shard = self.shard(&entry.id);
            if matches!(shard.get(&entry.id), Some(Slot::Kept(kept)) if Arc::ptr_eq(kept, entry)) {
                shard.remove(&entry.id);
            }
        }
    }

    /// Ends a flight that has brought nothing to be kept.
    fn forget(&self, id: &ChunkId, flight: &Arc<Flight<V>>) {
        let mut shard = self.shard(id);
        if matches!(shard.get(id), Some(Slot::Loading(known)) if Arc::ptr_eq(known, flight)) {
            shard.remove(id);
        }
    }

    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, Shard<V>> {
        // Other bits than those that the table looks at.
        let index = usize::from(id.as_bytes()[ChunkId::LEN - 1]) % SHARD_COUNT;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queues(&self) -> MutexGuard<'_, Queues<V>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the hash from the id, which is a digest. Who wants many ids with the same first bytes has to find them by trying.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length of an id says nothing.
    fn write_usize(&mut self, _len: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
