//! Where a data run is cut: FastCDC, with what is needed to tell whether an old cut still holds.
//!
//! Document: `docs/format.md`, section "Chunking". The algorithm is that of Xia et al., "The Design of Fast
//! Content-Defined Chunking for Data Deduplication Based Storage Systems" (2020), as the crate
//! `fastcdc` has it in its module `v2020`, with normalisation level 1 and the stock gear table. Its version is
//! pinned and its cuts are held fast by golden vectors, because they are part of the format.
//!
//! # When an old cut is certain
//!
//! The cutter judges the places `min <= a < limit` in ascending order, where `limit` is
//! `remaining.min(max)` rounded down to an even number, because it works in pairs. It cuts before the first byte `a` whose gear hash
//! has no bit of a mask: the strict mask below the average, the loose one from there on. The hash starts with 0 at
//! `min` and shifts left by one bit for each byte, so it depends on bytes `a - 63 ..= a` only - **also on byte
//! `a`, which lies behind the chunk**. With no such place the cut is at `remaining.min(max)`.
//!
//! Let an old chunk have been cut like this, with length `len`, and let the same bytes now begin a
//! chunk. All places below `len` were judged then from bytes inside the chunk and lead to the same verdict
//! now: no cut. One place is an exception: if the old run ended with the chunk and `len` is odd, then place
//! `len - 1` had no partner and was not judged. So the cut is at `len` now if
//!
//! - `len` is the maximum; or
//! - the run ends there: no more places are judged than then; or
//! - place `len` is judged and cuts, and so does not place `len - 1` where that may be new.

use std::borrow::Cow;
use std::fmt;

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

use super::ChunkingParams;
use crate::planted::{Bug, has};

/// Bytes that a gear hash depends on: it has as many bits.
const WINDOW_LEN: usize = 64;

/// Cuts data runs. Holds no state of a run, so one serves all threads.
pub struct Cutter {
    min: usize,
    average: usize,
    max: usize,
    mask_strict: u64,
    mask_loose: u64,
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
}

impl Cutter {
    /// Prepares to cut with these parameters.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a usize has 32 bits at least")]
    pub fn new(params: &ChunkingParams) -> Self {
        let len = |value: u32| usize::try_from(value).expect("a usize has 32 bits at least");
        let average = len(params.average());
        let (mask_strict, mask_loose) = select_masks(average, Normalization::Level1);
        let (gear, gear_shifted) = get_gear_with_seed(0);
        Self {
            min: len(params.min()),
            average,
            max: len(params.max()),
            mask_strict,
            mask_loose,
            gear,
            gear_shifted,
        }
    }

    /// Returns the length of the first chunk of `run`, which reaches to the end of the data run or is at least
    /// as long as the longest chunk. It is 0 for an empty run only.
    #[must_use]
    pub fn cut(&self, run: &[u8]) -> usize {
        let (_, len) = cut_gear(
            run,
            self.min,
            self.average,
            self.max,
            self.mask_strict,
            self.mask_loose,
            self.mask_strict << 1,
            self.mask_loose << 1,
            &self.gear,
            &self.gear_shifted,
        );
        len
    }

    /// Returns the length in bytes of the longest chunk.
    pub(super) fn len_max(&self) -> usize {
        self.max
    }

    /// Returns whether [`cut`](Self::cut) of `run` is `len`, given that the first `len` bytes of `run` are a
    /// chunk that this cutter has cut before, from whatever run. Costs 64 steps instead of `len`.
    pub(super) fn cuts_again(&self, run: &[u8], len: usize) -> bool {
        if len == 0 || len > run.len().min(self.max) {
            return false;
        }
        if len == self.max || len == run.len() || has(Bug::PredictionUnconfirmed) {
            return true;
        }
        let was_judged = len.is_multiple_of(2) || !self.cuts_before(run, len - 1);
        was_judged && self.cuts_before(run, len)
    }

    /// Returns whether place `place` of `run` is judged, and the verdict is to cut.
    fn cuts_before(&self, run: &[u8], place: usize) -> bool {
        let limit = run.len().min(self.max) & !1;
        if place < self.min || limit <= place {
            return false;
        }
        let first = self.min.max((place + 1).saturating_sub(WINDOW_LEN));
        let hash = run[first..=place]
            .iter()
            .fold(0_u64, |hash, byte| (hash << 1).wrapping_add(self.gear[usize::from(*byte)]));
        let mask = if place < self.average { self.mask_strict } else { self.mask_loose };
        hash & mask == 0
    }
}

impl fmt::Debug for Cutter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, average, max, .. } = self;
        write!(formatter, "Cutter({min}, {average}, {max})")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{random_bytes, small_params};
    use super::*;

    #[test]
    fn every_cut_of_the_same_bytes_is_certain() {
        for params in [small_params(), ChunkingParams::IMAGE] {
            let cutter = Cutter::new(&params);
            let bytes = [random_bytes(1, 5_000_001), vec![1; 1_000_003]].concat();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let len = cutter.cut(rest);
                assert!(cutter.cuts_again(rest, len), "{cutter:?}: chunk of {len} bytes");
                rest = &rest[len..];
            }
        }
    }

    #[test]
    fn cut_at_the_average_is_judged_by_the_loose_mask() {
        let cutter = Cutter::new(&small_params());
        let runs = (0..20_000).map(|seed| random_bytes(seed, 300));
        let cut_runs: Vec<_> = runs.filter(|run| cutter.cut(run) == cutter.average).collect();
        assert!(!cut_runs.is_empty());
        assert!(cut_runs.iter().all(|run| cutter.cuts_again(run, cutter.average)));
    }

    /// The old run ended at `len` and its last byte had no partner. Now there are more bytes, and the cutter
    /// would cut before that last byte as well as behind it.
    #[test]
    fn unjudged_last_byte_of_an_old_run_is_judged() {
        let cutter = Cutter::new(&small_params());
        let mut trap_count = 0;
        for seed in 0..100 {
            let mut run = random_bytes(seed, 402);
            let len = 301;
            for last in 0..=255 {
                run[len - 1] = last;
                if cutter.cut(&run[..len]) != len || cutter.cut(&run) != len - 1 {
                    continue;
                }
                for behind in 0..=255 {
                    run[len] = behind;
                    trap_count += usize::from(cutter.cuts_before(&run, len));
                    assert_eq!(cutter.cuts_again(&run, len), cutter.cut(&run) == len);
                }
            }
        }
        assert_ne!(trap_count, 0);
    }
}
