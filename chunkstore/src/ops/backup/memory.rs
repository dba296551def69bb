//! Divides the memory of a backup among its parts, before any of them starts.
//!
//! The sum does not depend on the image, and not on how many threads are wanted: as many workers are started as there is
//! memory for. Each part states the most that it takes; what then is left is for chunks on their way from the workers to
//! the packs. Why nobody waits for ever: header of [`crate::budget`].
//!
//! | part | how often | bytes |
//! |---|---|---|
//! | pack buffers, record tables, claims | packs that are open, waiting or being sealed | 2 MiB and 128 for each record |
//! | cache of the index | once: lookups of a backup take turns, and a change excludes them | its constant |
//! | window of a span | each worker | twice the longest chunk and what is read at once |
//! | batch | each worker | 8 MiB |
//! | one chunk, compressed and expanded again | each worker | twice the longest chunk, and the compressors' own |
//! | entries of a span, predicted and new | each worker | as many as a span of such chunks can have |
//! | parcel in the making | each worker | 1 MiB |

use std::num::NonZero;
use std::thread;

use super::batch::{BATCH_COUNT_MAX, BATCH_LEN};
use super::chunk_writer::PARCEL_LEN;
use super::pack_pipeline::PACK_COUNT_MAX;
use super::span::WINDOW_LEN;
use crate::budget::{Budget, Share, too_little_memory};
use crate::chunking::ChunkingParams;
use crate::compression::{Compressor, denser_level, stored_len_max};
use crate::error::Result;
use crate::index;
use crate::ops::page_bounds::{ENTRY_LEN, PageBounds};
use crate::pack::{PACK_RECORD_COUNT_TARGET, WRITE_BUFFER_LEN};

/// Memory for each record of a pack that is not indexed yet: its row in the table, in the encoded table, its claim.
const RECORD_MEMORY: usize = 128;

/// Memory for each chunk of a batch: its id and range, its place in the index.
const BATCH_ENTRY_MEMORY: usize = 256;

/// Memory of a backup, divided.
#[derive(Debug)]
pub(super) struct Memory {
    /// What is left is for chunks on their way to the packs.
    pub(super) budget: Budget,
    pub(super) worker_count: NonZero<usize>,
    _shares: Vec<Share>,
}

impl Memory {
    /// Divides `total` bytes among at most `threads` workers; as many as there are processors if `None`. Each worker takes `more` bytes
    /// besides what is in the table above.
    pub(super) fn divide(
        total: usize,
        threads: Option<NonZero<usize>>,
        chunking: &ChunkingParams,
        level: i32,
        page: PageBounds,
        more: usize,
    ) -> Result<Self> {
        let budget = Budget::new(total);
        let worker = worker_memory(chunking, level, page) + more;
        let queue = queue_memory(chunking);
        let needed = pack_memory() + index::CACHE_LEN + queue + worker;
        let too_little = || too_little_memory(total, needed);
        let mut shares = vec![
            budget.try_take(pack_memory()).ok_or_else(too_little)?,
            budget.try_take(index::CACHE_LEN).ok_or_else(too_little)?,
        ];
        let wanted = threads.or_else(|| thread::available_parallelism().ok());
        let mut worker_count = 0;
        // More than one worker leaves an eighth to what the allocator does not give back at once.
        let slack = |worker_count| if worker_count == 0 { 0 } else { total / 8 };
        while worker_count < wanted.map_or(1, NonZero::get)
            && worker + queue + slack(worker_count) <= budget.left()
            && let Some(share) = budget.try_take(worker)
        {
            shares.push(share);
            worker_count += 1;
        }
        let worker_count = NonZero::new(worker_count).ok_or_else(too_little)?;
        Ok(Self { budget, worker_count, _shares: shares })
    }
}

/// The packs that are not sealed yet, and what the index does not have yet.
const fn pack_memory() -> usize {
    PACK_COUNT_MAX * (WRITE_BUFFER_LEN + PACK_RECORD_COUNT_TARGET * RECORD_MEMORY)
}

/// Room for one parcel on its way and one that is being made.
fn queue_memory(chunking: &ChunkingParams) -> usize {
    2 * PARCEL_LEN + stored_len_max(chunking.max() as usize)
}

fn worker_memory(chunking: &ChunkingParams, level: i32, page: PageBounds) -> usize {
    let chunk = chunking.max() as usize;
    let batch = BATCH_LEN + BATCH_COUNT_MAX * BATCH_ENTRY_MEMORY;
    let longest = chunk.max(page.len_max);
    let denser = denser_level(level);
    let denser = if denser == level { 0 } else { Compressor::memory(denser, longest) };
    let compressors = Compressor::memory(level, longest) + denser;
    // While a span is cut: its window, one chunk compressed and expanded again, the predicted entries and the new ones.
    let entries = 2 * page.entry_count_max * ENTRY_LEN;
    let cutting = 2 * (chunk + WINDOW_LEN) + stored_len_max(chunk) + chunk + entries;
    // Then its page: the entries encoded; these compressed and expanded again.
    let listing = 2 * page.len_max + stored_len_max(page.len_max);
    batch + PARCEL_LEN + compressors + cutting.max(listing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SPAN_LEN_MIN;
    use crate::ops::MEMORY_DEFAULT;

    fn divide(total: usize, threads: usize, lengths: [u32; 3], level: i32) -> Result<Memory> {
        let chunking = ChunkingParams::new(lengths[0], lengths[1], lengths[2]).unwrap();
        let page = PageBounds::new(&chunking, SPAN_LEN_MIN);
        Memory::divide(total, NonZero::new(threads), &chunking, level, page, 0)
    }

    const EXTREMES: [[u32; 3]; 4] = [
        [64, 256, 1 << 10],
        [64, 256, 16 << 20],
        [16 << 10, 64 << 10, 256 << 10],
        [1 << 20, 4 << 20, 16 << 20],
    ];

    #[test]
    fn default_suffices_for_all_chunks_and_levels_and_bounds_the_workers() {
        for lengths in EXTREMES {
            for level in [-7, 1, 12] {
                for threads in [1, 2, 1000] {
                    let memory = divide(MEMORY_DEFAULT, threads, lengths, level).unwrap();
                    assert!((1..=threads.min(16)).contains(&memory.worker_count.get()));
                    assert!(memory.budget.peak() < MEMORY_DEFAULT);
                    let longest = stored_len_max(lengths[2] as usize);
                    assert!(longest < memory.budget.left(), "{lengths:?} at level {level}");
                }
            }
        }
    }

    #[test]
    fn usual_chunks_are_worked_on_by_all_of_few_processors() {
        for threads in [1, 2, 4] {
            let memory = divide(MEMORY_DEFAULT, threads, EXTREMES[2], 1).unwrap();
            assert_eq!(memory.worker_count.get(), threads);
        }
    }

    #[test]
    fn too_little_memory_is_refused_with_what_is_needed() {
        let error = divide(1 << 20, 1, EXTREMES[2], 1).unwrap_err();
        let text = error.to_string();
        let needed = text.rsplit(' ').find_map(|word| word.parse().ok());
        let needed = needed.expect("the message says how much");
        assert_eq!(divide(needed, 9, EXTREMES[2], 1).unwrap().worker_count.get(), 1);
        assert!(divide(needed - 1, 9, EXTREMES[2], 1).is_err());
    }
}
