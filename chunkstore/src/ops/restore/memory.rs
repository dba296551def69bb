//! Divides the memory of a restore among its parts, before any of them starts.
//!
//! The sum does not depend on the image, and not on how many threads are wanted: as many are started as there is memory for.
//! Spans are surveyed before chunks are read, so the two share the same memory.
//!
//! | part | how often | bytes |
//! |---|---|---|
//! | cache of the index | once: lookups take turns | its constant |
//! | plan | once | 56 for each chunk of a full plan, and for those of the spans that filled it |
//! | survey of a span | each thread | its page, encoded and decoded, and what a lookup finds |
//! | reading and writing | each thread | what is read at once, what is written at once, one chunk twice |
//! | window of a stream | each thread | what is written at once, one chunk twice |

use std::num::NonZero;
use std::thread;

use super::in_order::WINDOW_LEN;
use super::plan::{PLACEMENT_LEN, PLAN_LEN, READ_LEN};
use super::run_buffer::RUN_LEN;
use super::survey::LOOKUP_LEN;
use crate::budget::too_little_memory;
use crate::chunking::ChunkingParams;
use crate::compression::stored_len_max;
use crate::error::Result;
use crate::format::PageEntry;
use crate::index;
use crate::ops::page_bounds::PageBounds;
use crate::target::BLOCK_LEN;

/// Memory for each chunk of a lookup: its id, its entry, its place in the index.
const LOOKUP_ENTRY_LEN: usize = 256;

/// How many threads there is memory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Threads {
    /// Threads that survey spans.
    pub(super) survey: NonZero<usize>,
    /// Threads that read chunks and write them.
    pub(super) write: NonZero<usize>,
}

/// What one thread of each kind takes.
struct Needs {
    survey: usize,
    /// What the chunks of one span take in a plan.
    span: usize,
    write: usize,
    window: usize,
}

impl Needs {
    fn of(chunking: &ChunkingParams, page: PageBounds) -> Self {
        let chunk = chunking.max() as usize;
        let stored = stored_len_max(chunk);
        let entries =
            page.entry_count_max * (size_of::<PageEntry>() + size_of::<(u64, PageEntry)>());
        let read = usize::try_from(READ_LEN).expect("it is a few megabytes").max(stored);
        Self {
            survey: page.len_max
                + stored_len_max(page.len_max)
                + entries
                + LOOKUP_LEN * LOOKUP_ENTRY_LEN
                + chunk,
            span: page.entry_count_max * PLACEMENT_LEN,
            write: read + RUN_LEN.max(chunk) + BLOCK_LEN + chunk + stored,
            window: usize::try_from(WINDOW_LEN).expect("it is a few megabytes").max(chunk)
                + chunk
                + stored,
        }
    }
}

impl Threads {
    /// Returns how many may plan and write with `total` bytes: at most `threads` of each kind, or, if that is `None`, as
    /// many as there are processors, and twice as many to write, because half of them wait for the target.
    pub(super) fn by_plan(
        total: usize,
        threads: Option<NonZero<usize>>,
        chunking: &ChunkingParams,
        page: PageBounds,
    ) -> Result<Self> {
        let needs = Needs::of(chunking, page);
        let wanted = |usual: usize| threads.map_or(usual, NonZero::get);
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let shared = index::CACHE_LEN + PLAN_LEN * PLACEMENT_LEN;
        let left = total.saturating_sub(shared);
        // Their spans must leave room for one that writes.
        let spans = left.saturating_sub(needs.write) / needs.span;
        let survey = (left / (needs.survey + needs.span)).min(spans).min(wanted(processors));
        let left = left.saturating_sub(survey * needs.span);
        let write = (left / needs.write).min(wanted(2 * processors));
        match (NonZero::new(survey), NonZero::new(write)) {
            (Some(survey), Some(write)) => Ok(Self { survey, write }),
            _ => Err(too_little_memory(total, shared + needs.span + needs.survey.max(needs.write))),
        }
    }

    /// Returns how many may expand windows of a stream with `total` bytes. One of them at a time also cuts the image into
    /// windows.
    pub(super) fn for_stream(
        total: usize,
        threads: Option<NonZero<usize>>,
        chunking: &ChunkingParams,
        page: PageBounds,
    ) -> Result<Self> {
        let needs = Needs::of(chunking, page);
        let wanted = threads.or_else(|| thread::available_parallelism().ok());
        let shared = index::CACHE_LEN + needs.survey;
        let left = total.saturating_sub(shared);
        let count = (left / needs.window).min(wanted.map_or(1, NonZero::get));
        let count =
            NonZero::new(count).ok_or_else(|| too_little_memory(total, shared + needs.window))?;
        Ok(Self { survey: count, write: count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::limits::SPAN_LEN_MIN;
    use crate::ops::MEMORY_DEFAULT;

    const EXTREMES: [[u32; 3]; 4] = [
        [64, 256, 1 << 10],
        [64, 256, 16 << 20],
        [16 << 10, 64 << 10, 256 << 10],
        [1 << 20, 4 << 20, 16 << 20],
    ];

    fn bounds([min, average, max]: [u32; 3]) -> (ChunkingParams, PageBounds) {
        let chunking = ChunkingParams::new(min, average, max).unwrap();
        let page = PageBounds::new(&chunking, SPAN_LEN_MIN);
        (chunking, page)
    }

    #[test]
    fn default_suffices_for_all_chunks_and_bounds_the_threads() {
        for lengths in EXTREMES {
            let (chunking, page) = bounds(lengths);
            for wanted in [1, 2, 1000] {
                let wanted = NonZero::new(wanted);
                let threads = Threads::by_plan(MEMORY_DEFAULT, wanted, &chunking, page).unwrap();
                let stream = Threads::for_stream(MEMORY_DEFAULT, wanted, &chunking, page).unwrap();
                let counts = [threads.survey, threads.write, stream.write].map(NonZero::get);
                assert!(counts.iter().all(|count| *count <= 100), "{lengths:?}: {counts:?}");
                assert!(counts.iter().all(|count| Some(*count) <= wanted.map(NonZero::get)));
            }
        }
    }

    #[test]
    fn usual_chunks_are_worked_on_by_all_of_few_processors() {
        let (chunking, page) = bounds(EXTREMES[2]);
        for wanted in [1, 2, 8] {
            let wanted = NonZero::new(wanted).unwrap();
            let threads = Threads::by_plan(MEMORY_DEFAULT, Some(wanted), &chunking, page).unwrap();
            assert_eq!(threads, Threads { survey: wanted, write: wanted });
        }
    }

    #[test]
    fn too_little_memory_is_refused_with_what_is_needed() {
        for lengths in EXTREMES {
            let (chunking, page) = bounds(lengths);
            let needed = |error: Error| -> usize {
                let text = error.to_string();
                text.rsplit(' ').find_map(|word| word.parse().ok()).expect("it says how much")
            };
            let enough = needed(Threads::by_plan(1 << 20, None, &chunking, page).unwrap_err());
            let threads = Threads::by_plan(enough, None, &chunking, page).unwrap();
            assert_eq!(threads.survey.min(threads.write).get(), 1);
            assert!(Threads::by_plan(enough - 1, None, &chunking, page).is_err());
            let enough = needed(Threads::for_stream(1, None, &chunking, page).unwrap_err());
            assert_eq!(Threads::for_stream(enough, None, &chunking, page).unwrap().write.get(), 1);
            assert!(Threads::for_stream(enough - 1, None, &chunking, page).is_err());
        }
    }
}
