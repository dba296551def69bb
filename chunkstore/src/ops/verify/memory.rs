//! Divides the memory of a verification: the cache of the index, then for each thread what is read at once and one
//! plain chunk. What is left, at least a quarter, is for the tables of the packs that are being checked.

use std::num::NonZero;
use std::thread;

use super::VerifyOptions;
use super::pack_check::READ_LEN;
use crate::budget::{Budget, Share, too_little_memory};
use crate::chunk_reader::to_usize;
use crate::chunking::ChunkingParams;
use crate::compression::stored_len_max;
use crate::error::Result;
use crate::format::FooterRecord;
use crate::index::CACHE_LEN;

/// Memory for each record of a pack whose table is read: encoded and decoded.
const RECORD_MEMORY: usize = 48 + size_of::<FooterRecord>();

#[derive(Debug)]
pub(in crate::ops) struct Memory {
    pub(in crate::ops) threads: NonZero<usize>,
    tables: Budget,
}

impl Memory {
    pub(in crate::ops) fn divide(
        options: &VerifyOptions,
        chunking: &ChunkingParams,
    ) -> Result<Self> {
        let chunk = to_usize(chunking.max());
        let worker = to_usize(READ_LEN).max(stored_len_max(chunk)) + chunk;
        let left = options.memory.saturating_sub(CACHE_LEN);
        let wanted = options.threads.or_else(|| thread::available_parallelism().ok());
        let threads = (left / 4 * 3 / worker).min(wanted.map_or(1, NonZero::get));
        let needed = CACHE_LEN + worker.div_ceil(3) * 4 + 4;
        let threads =
            NonZero::new(threads).ok_or_else(|| too_little_memory(options.memory, needed))?;
        Ok(Self { threads, tables: Budget::new(left - threads.get() * worker) })
    }

    /// Waits until there is memory for the table of a pack. Whoever has it waits for nobody else.
    pub(in crate::ops) fn take_table(&self, record_count: u32) -> Option<Share> {
        self.tables.take(to_usize(record_count) * RECORD_MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divide(memory: usize, threads: usize, lengths: [u32; 3]) -> Result<Memory> {
        let [min, average, max] = lengths;
        let chunking = ChunkingParams::new(min, average, max).unwrap();
        Memory::divide(
            &VerifyOptions { threads: NonZero::new(threads), memory, ..VerifyOptions::default() },
            &chunking,
        )
    }

    #[test]
    fn memory_bounds_the_threads_and_leaves_some_for_tables() {
        let total = VerifyOptions::default().memory;
        for (lengths, most) in [
            ([64, 256, 1 << 10], 32),
            ([16 << 10, 64 << 10, 256 << 10], 31),
            ([1 << 20, 4 << 20, 16 << 20], 4),
        ] {
            for threads in [1, 2, 1000] {
                let memory = divide(total, threads, lengths).unwrap();
                assert_eq!(memory.threads.get(), threads.min(most), "{lengths:?}");
                assert!((total - CACHE_LEN) / 4 <= memory.tables.left());
            }
        }
    }

    #[test]
    fn too_little_memory_is_refused_with_what_is_needed() {
        let lengths = [1 << 20, 4 << 20, 16 << 20];
        let text = divide(1 << 20, 1, lengths).unwrap_err().to_string();
        let needed = text.rsplit(' ').find_map(|word| word.parse().ok()).expect("it says how much");
        assert_eq!(divide(needed, 9, lengths).unwrap().threads.get(), 1);
        assert!(divide(needed - 8, 9, lengths).is_err());
    }

    #[test]
    fn table_that_is_longer_than_what_is_left_waits_until_it_is_alone() {
        let memory = divide(64 << 20, 1, [16 << 10, 64 << 10, 256 << 10]).unwrap();
        let all = memory.take_table(u32::MAX);
        assert_eq!(memory.tables.left(), 0);
        drop(all);
        assert!(memory.take_table(1000).is_some());
    }
}
