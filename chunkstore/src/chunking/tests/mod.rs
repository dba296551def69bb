//! What the tests of the cutter share: inputs made of seeds, a way to give a span in pieces, and a
//! reference that is written for the eye instead of for speed and memory.

mod canonical;
mod golden;
mod window;

use std::convert::Infallible;

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};

use super::{ChunkingParams, Cutter, EntrySink, Piece, SpanInput, chunk_span};
use crate::format::{ObjectKind, PageEntry};
use crate::id::ChunkId;

const BLOCK_LEN: usize = 4 << 10;
const ZERO_RUN_LEN: usize = 64 << 10;

pub(super) fn small_params() -> ChunkingParams {
    ChunkingParams::new(64, 256, 1024).unwrap()
}

/// Bytes of a xorshift generator (Marsaglia, "Xorshift RNGs", 2003). The golden vectors rest on it.
pub(super) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// Gives a span in pieces of these lengths, over and over.
struct Pieces<'a> {
    rest: &'a [u8],
    lens: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    /// Whether zeros at the start of a piece are given as a hole.
    holes: bool,
}

impl<'a> Pieces<'a> {
    fn new(span: &'a [u8], lens: &'a [usize], holes: bool) -> Self {
        assert!(lens.iter().any(|len| *len != 0));
        Self { rest: span, lens: lens.iter().cycle(), holes }
    }
}

impl SpanInput for Pieces<'_> {
    type Error = Infallible;

    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, Infallible> {
        if self.rest.is_empty() {
            return Ok(Piece::End);
        }
        let len = (*self.lens.next().unwrap()).min(self.rest.len());
        let zeros = self.rest.iter().take_while(|byte| **byte == 0).count();
        let is_hole = self.holes && zeros != 0;
        let (piece, rest) = self.rest.split_at(if is_hole { zeros.min(8 * len) } else { len });
        self.rest = rest;
        if is_hole {
            return Ok(Piece::Zeros(piece.len() as u64));
        }
        buffer.extend_from_slice(piece);
        Ok(Piece::Data(len))
    }
}

/// Entries of a span, and for each whether it was predicted.
#[derive(Debug, Default)]
struct Collected {
    entries: Vec<PageEntry>,
    predicted: Vec<bool>,
}

impl EntrySink for Collected {
    type Error = Infallible;

    fn data(&mut self, id: ChunkId, bytes: &[u8], predicted: bool) -> Result<(), Infallible> {
        debug_assert_eq!(id, ObjectKind::Data.chunk_id(bytes));
        self.entries.push(PageEntry::Data { len: u32::try_from(bytes.len()).unwrap(), id });
        self.predicted.push(predicted);
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> Result<(), Infallible> {
        self.entries.push(PageEntry::Zero { len });
        self.predicted.push(false);
        Ok(())
    }
}

fn cut_span(params: ChunkingParams, mut input: Pieces<'_>, predicted: &[PageEntry]) -> Collected {
    let mut collected = Collected::default();
    let Ok(()) = chunk_span(&Cutter::new(&params), &mut input, predicted, &mut collected);
    collected
}

/// Entries of a span that is in memory: the definition, word by word.
fn reference(params: ChunkingParams, span: &[u8]) -> Vec<PageEntry> {
    let zero_blocks: Vec<bool> =
        span.chunks(BLOCK_LEN).map(|block| block.iter().all(|byte| *byte == 0)).collect();
    let mut entries = Vec::new();
    let mut data_start = 0;
    let mut place = 0;
    for run in zero_blocks.chunk_by(|left, right| left == right) {
        let end = (place + run.len() * BLOCK_LEN).min(span.len());
        if run[0] && end - place >= ZERO_RUN_LEN {
            reference_data_run(params, &span[data_start..place], &mut entries);
            entries.push(PageEntry::Zero { len: (end - place) as u64 });
            data_start = end;
        }
        place = end;
    }
    reference_data_run(params, &span[data_start..], &mut entries);
    entries
}

fn reference_data_run(params: ChunkingParams, run: &[u8], entries: &mut Vec<PageEntry>) {
    let mut rest = run;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(reference_cut(params, rest));
        let id = ObjectKind::Data.chunk_id(chunk);
        entries.push(PageEntry::Data { len: u32::try_from(chunk.len()).unwrap(), id });
        rest = behind;
    }
}

/// FastCDC, one byte after another.
fn reference_cut(params: ChunkingParams, run: &[u8]) -> usize {
    let [min, average, max] =
        [params.min(), params.average(), params.max()].map(|len| usize::try_from(len).unwrap());
    let (mask_strict, mask_loose) = select_masks(average, Normalization::Level1);
    let (gear, _) = get_gear_with_seed(0);
    let len = run.len().min(max);
    let mut hash = 0_u64;
    for place in min..len / 2 * 2 {
        hash = (hash << 1).wrapping_add(gear[usize::from(run[place])]);
        if hash & (if place < average { mask_strict } else { mask_loose }) == 0 {
            return place;
        }
    }
    len
}
