//! The window is small, and what an input or a sink fails with comes through.

use std::convert::Infallible;

use super::{Collected, small_params};
use crate::chunking::{ChunkingParams, Cutter, EntrySink, Piece, SpanInput, chunk_span};
use crate::format::PageEntry;
use crate::id::ChunkId;

/// Gives pieces of the same byte, some of them as holes, and watches the buffer.
struct Watched {
    pieces: Vec<(u8, usize)>,
    buffer_len_max: usize,
}

impl SpanInput for Watched {
    type Error = Infallible;

    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, Infallible> {
        self.buffer_len_max = self.buffer_len_max.max(buffer.len());
        Ok(match self.pieces.pop() {
            Some((0, len)) => Piece::Zeros(len as u64),
            Some((byte, len)) => {
                buffer.resize(buffer.len() + len, byte);
                Piece::Data(len)
            }
            None => Piece::End,
        })
    }
}

#[test]
fn window_is_bounded_by_chunk_zero_run_and_piece() {
    for piece_len in [1000, 4096, 1 << 20] {
        let pieces = (0..(16 << 20) / piece_len).map(|_| (0x11, piece_len)).collect();
        let mut input = Watched { pieces, buffer_len_max: 0 };
        let cutter = Cutter::new(&ChunkingParams::IMAGE);
        let Ok(()) = chunk_span(&cutter, &mut input, &[], &mut Collected::default());
        let limit = 2 * ((256 << 10) + (64 << 10)) + piece_len;
        assert!(input.buffer_len_max <= limit, "{} of {limit}", input.buffer_len_max);
    }
}

#[test]
fn holes_take_no_memory() {
    let hole = 1 << 40;
    let pieces = vec![(0, hole), (9, 100), (0, hole), (0, 1), (0, hole + 3), (7, 5), (0, hole)];
    let mut input = Watched { pieces, buffer_len_max: 0 };
    let mut collected = Collected::default();
    let cutter = Cutter::new(&small_params());
    let Ok(()) = chunk_span(&cutter, &mut input, &[], &mut collected);
    assert!(input.buffer_len_max < 20_000);
    let len: u64 = collected.entries.iter().map(PageEntry::len).sum();
    assert_eq!(len, 4 * hole as u64 + 109);
    let zeros = collected.entries.iter().filter(|entry| matches!(entry, PageEntry::Zero { .. }));
    assert_eq!(zeros.count(), 3);
}

/// Fails at its second entry, or its input at its second piece.
struct Failing {
    left: u32,
}

impl Failing {
    fn count_down(&mut self) -> Result<(), &'static str> {
        self.left = self.left.checked_sub(1).ok_or("failed")?;
        Ok(())
    }
}

impl SpanInput for Failing {
    type Error = &'static str;

    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, &'static str> {
        self.count_down()?;
        buffer.extend_from_slice(&[1; 5000]);
        Ok(Piece::Data(5000))
    }
}

impl EntrySink for Failing {
    type Error = &'static str;

    fn data(&mut self, _: ChunkId, _: &[u8], _: bool) -> Result<(), &'static str> {
        self.count_down()
    }

    fn zeros(&mut self, _: u64) -> Result<(), &'static str> {
        self.count_down()
    }
}

#[test]
fn errors_of_input_and_sink_end_the_span() {
    let cutter = Cutter::new(&small_params());
    for (pieces, entries) in [(2, u32::MAX), (u32::MAX, 2)] {
        let mut input = Failing { left: pieces };
        let mut sink = Failing { left: entries };
        assert_eq!(chunk_span(&cutter, &mut input, &[], &mut sink), Err("failed"));
    }
}
