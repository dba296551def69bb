//! Cuts one span, piece by piece, without ever holding it whole.
//!
//! Document: `docs/format.md`, section "Chunking".
//!
//! The window holds the data run from its first byte that is not yet part of a chunk. At its end there may be zero
//! blocks of which it is not known yet whether they belong to the data run or begin a zero run: fewer than
//! [`ZERO_RUN_LEN_MIN`] bytes, because a zero run is certain from there on and is only counted. So holes take no memory, and the
//! window is bounded by twice the longest chunk and [`ZERO_RUN_LEN_MIN`], plus one piece.

use super::prediction::Prediction;
use super::{Cutter, is_zero};
use crate::format::PageEntry;
use crate::id::ChunkId;
use crate::limits::{ZERO_BLOCK_LEN, ZERO_RUN_LEN_MIN};

const BLOCK_LEN: usize = 4 << 10;
const _: () = assert!(BLOCK_LEN as u64 == ZERO_BLOCK_LEN);

/// What comes next in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This many bytes were appended to the buffer.
    Data(usize),
    /// This many bytes are zero. Nothing was appended.
    Zeros(u64),
    /// The span has no further bytes.
    End,
}

/// Bytes of one span, in order.
pub trait SpanInput {
    /// Why the bytes cannot be had.
    type Error;

    /// Appends the next bytes to `buffer`, or says that they are zeros. Pieces may have any length and
    /// begin anywhere; the same bytes give the same entries in whatever pieces they come.
    ///
    /// # Errors
    ///
    /// - What the input fails with; it ends the span.
    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, Self::Error>;
}

/// Takes the entries of one span, in order.
pub trait EntrySink {
    /// Why an entry cannot be taken.
    type Error;

    /// Takes a chunk. `predicted`: the older revision has the same chunk at the same place of the span.
    ///
    /// # Errors
    ///
    /// - What the sink fails with; it ends the span.
    fn data(&mut self, id: ChunkId, bytes: &[u8], predicted: bool) -> Result<(), Self::Error>;

    /// Takes a zero run of `len` bytes. Two never follow each other.
    ///
    /// # Errors
    ///
    /// - What the sink fails with; it ends the span.
    fn zeros(&mut self, len: u64) -> Result<(), Self::Error>;
}

/// Cuts the span that `input` gives and hands its entries to `sink`.
///
/// `predicted` has the entries of this span in an older revision, or none; it must come from a cutter with the
/// same parameters. It makes unchanged data cost hashing only and has no influence on the entries.
///
/// # Errors
///
/// - The first error of `input` or `sink`. What was handed over until then is right, but not complete.
pub fn chunk_span<E, I: SpanInput<Error = E>, S: EntrySink<Error = E>>(
    cutter: &Cutter,
    input: &mut I,
    predicted: &[PageEntry],
    sink: &mut S,
) -> Result<(), E> {
    let mut window = Window {
        cutter,
        prediction: Prediction::new(predicted),
        sink,
        buffer: Vec::new(),
        chunk_start: 0,
        data_end: 0,
        judged: 0,
        zero_run: 0,
        offset: 0,
    };
    loop {
        window.compact();
        let len_before = window.buffer.len();
        match input.next_piece(&mut window.buffer)? {
            Piece::Data(len) => {
                debug_assert_eq!(window.buffer.len() - len_before, len, "a piece is what it says");
                window.judge_blocks()?;
            }
            Piece::Zeros(len) => window.push_zeros(len)?,
            Piece::End => return window.finish(),
        }
    }
}

/// The bytes of a span between the last chunk and the last piece.
///
/// In the buffer, `chunk_start <= data_end <= judged`. Between `data_end` and `judged` are zero blocks, fewer
/// than a zero run, that are data if data follows. In a zero run the three are equal.
struct Window<'a, S> {
    cutter: &'a Cutter,
    prediction: Prediction<'a>,
    sink: &'a mut S,
    buffer: Vec<u8>,
    /// Where the next chunk starts.
    chunk_start: usize,
    /// Where the bytes end that belong to the data run for certain.
    data_end: usize,
    /// Where the whole blocks end that were looked at.
    judged: usize,
    /// Length in bytes of the zero run that `judged` lies in; 0 outside of one.
    zero_run: u64,
    /// Offset in the span of what comes behind the last entry.
    offset: u64,
}

impl<S: EntrySink> Window<'_, S> {
    /// Drops the bytes that are done with, if moving the rest costs no more than they did.
    fn compact(&mut self) {
        let done = self.chunk_start;
        if self.buffer.len() / 2 <= done {
            self.buffer.drain(..done);
            self.chunk_start = 0;
            self.data_end -= done;
            self.judged -= done;
        }
    }

    /// Judges all whole blocks of the buffer and cuts what is then certain.
    fn judge_blocks(&mut self) -> Result<(), S::Error> {
        while self.judged + BLOCK_LEN <= self.buffer.len() {
            self.judge_block(BLOCK_LEN)?;
        }
        self.cut_run(false)
    }

    /// Judges the next `len` bytes of the buffer, which are a block.
    fn judge_block(&mut self, len: usize) -> Result<(), S::Error> {
        let block = self.judged..self.judged + len;
        let block_end = block.end;
        if !is_zero(&self.buffer[block]) {
            self.end_zero_run()?;
            self.judged = block_end;
            self.data_end = block_end;
        } else if self.zero_run != 0 {
            self.zero_run += len as u64;
            self.skip_to(block_end);
        } else {
            self.judged = block_end;
            if (self.judged - self.data_end) as u64 >= ZERO_RUN_LEN_MIN {
                self.begin_zero_run(0)?;
            }
        }
        Ok(())
    }

    /// Takes `len` bytes that are zero.
    fn push_zeros(&mut self, len: u64) -> Result<(), S::Error> {
        let mut rest = len;
        let open = self.buffer.len() - self.judged;
        if open != 0 {
            let fill = rest.min((BLOCK_LEN - open) as u64);
            self.append_zeros(fill);
            self.judge_blocks()?;
            rest -= fill;
        }
        let partial = rest % ZERO_BLOCK_LEN;
        let whole = rest - partial;
        if self.zero_run != 0 {
            self.zero_run += whole;
        } else if (self.judged - self.data_end) as u64 + whole >= ZERO_RUN_LEN_MIN {
            self.begin_zero_run(whole)?;
        } else {
            self.append_zeros(whole);
            self.judged += usize_below_zero_run(whole);
        }
        self.append_zeros(partial);
        Ok(())
    }

    /// Appends `len` zeros to the buffer, fewer than a zero run.
    fn append_zeros(&mut self, len: u64) {
        self.buffer.resize(self.buffer.len() + usize_below_zero_run(len), 0);
    }

    /// Ends the data run where the undecided zeros begin. They and `more` zeros, which are not in the buffer,
    /// are a zero run.
    fn begin_zero_run(&mut self, more: u64) -> Result<(), S::Error> {
        self.cut_run(true)?;
        self.zero_run = (self.judged - self.data_end) as u64 + more;
        self.skip_to(self.judged);
        Ok(())
    }

    /// Hands over the zero run, if there is one.
    fn end_zero_run(&mut self) -> Result<(), S::Error> {
        if self.zero_run != 0 {
            self.sink.zeros(self.zero_run)?;
            self.offset += self.zero_run;
            self.zero_run = 0;
        }
        Ok(())
    }

    /// Leaves out the bytes before `place`, which are part of a zero run.
    fn skip_to(&mut self, place: usize) {
        self.chunk_start = place;
        self.data_end = place;
        self.judged = place;
    }

    /// Cuts the data run as far as is certain. A chunk depends on at most [`Cutter::len_max`] bytes, or on
    /// where the run ends.
    fn cut_run(&mut self, run_ends: bool) -> Result<(), S::Error> {
        loop {
            let run = &self.buffer[self.chunk_start..self.data_end];
            if run.is_empty() || (!run_ends && run.len() < self.cutter.len_max()) {
                return Ok(());
            }
            let chunk = self.prediction.next_chunk(self.cutter, run, self.offset);
            self.sink.data(chunk.id, &run[..chunk.len], chunk.predicted)?;
            self.chunk_start += chunk.len;
            self.offset += chunk.len as u64;
        }
    }

    /// Judges the last block, which may be partial, and hands over what is left.
    fn finish(mut self) -> Result<(), S::Error> {
        let partial = self.buffer.len() - self.judged;
        if partial != 0 {
            self.judge_block(partial)?;
        }
        self.end_zero_run()?;
        self.data_end = self.judged;
        self.cut_run(true)
    }
}

fn usize_below_zero_run(len: u64) -> usize {
    debug_assert!(len < ZERO_RUN_LEN_MIN);
    usize::try_from(len).expect("fewer bytes than a zero run fit into memory")
}
