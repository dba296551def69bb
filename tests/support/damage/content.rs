//! What a revision holds: a sparse image or a tree, and the targets and sources for them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use chunkstore::source::{Source, SourceError};
use chunkstore::target::{Target, TargetError};

use crate::memory_tree::Files;

/// What a revision holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// An image.
    Image(Sparse),
    /// Files.
    Tree(Files),
}

/// An image: runs of data, and zeros between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sparse {
    /// Length in bytes.
    pub len: u64,
    /// Bytes by their offsets, ascending, without overlap.
    pub runs: Vec<(u64, Vec<u8>)>,
}

impl Sparse {
    /// Returns an image without holes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u64, runs: vec![(0, bytes.to_vec())] }
    }

    fn run_range((offset, bytes): &(u64, Vec<u8>)) -> Range<u64> {
        *offset..*offset + bytes.len() as u64
    }

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Panics
    ///
    /// If an offset does not fit into memory.
    pub fn read(&self, buffer: &mut [u8], offset: u64) {
        buffer.fill(0);
        let wanted = offset..offset + buffer.len() as u64;
        for (run, (from, bytes)) in self.runs.iter().map(|run| (Self::run_range(run), run)) {
            let (start, end) = (run.start.max(wanted.start), run.end.min(wanted.end));
            if start < end {
                let part = |base: u64| {
                    usize::try_from(start - base).expect("small")
                        ..usize::try_from(end - base).expect("small")
                };
                buffer[part(wanted.start)].copy_from_slice(&bytes[part(*from)]);
            }
        }
    }

    /// Returns whether a range is zero.
    #[must_use]
    pub fn is_zero(&self, range: &Range<u64>) -> bool {
        self.runs.iter().all(|run| {
            let found = Self::run_range(run);
            let (start, end) = (found.start.max(range.start), found.end.min(range.end));
            let mut places = start..end;
            places.all(|place| usize::try_from(place - run.0).is_ok_and(|index| run.1[index] == 0))
        })
    }
}

impl Source for Sparse {
    fn name(&self) -> &'static str {
        "sparse"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        let mut runs = self.runs.iter().map(Self::run_range);
        let found = runs.find(|run| offset < run.end);
        Ok(found.map(|run| run.start.max(offset)..run.end))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.read(buffer, offset);
        Ok(())
    }
}

/// A target that keeps what is written, and where zeros are to be, without taking memory for these.
#[derive(Debug, Default)]
pub struct SparseTarget {
    pieces: Mutex<BTreeMap<u64, Piece>>,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Zeros(u64),
}

impl SparseTarget {
    fn add(&self, offset: u64, piece: Piece) {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(pieces.insert(offset, piece).is_none(), "byte {offset} is written twice");
    }

    /// Checks that what came is the image: each byte once.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check(&self, expected: &Sparse, what: &str) {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = 0;
        for (offset, piece) in pieces.iter() {
            assert_eq!(*offset, place, "{what}: a gap or an overlap");
            match piece {
                Piece::Bytes(bytes) => {
                    let mut right = vec![0; bytes.len()];
                    expected.read(&mut right, place);
                    assert!(right == *bytes, "WRONG BYTES in {what} from byte {place} on");
                    place += bytes.len() as u64;
                }
                Piece::Zeros(len) => {
                    let range = place..place + len;
                    assert!(expected.is_zero(&range), "WRONG ZEROS in {what} in {range:?}");
                    place += len;
                }
            }
        }
        assert_eq!(place, expected.len, "{what}: the length");
    }
}

impl Target for SparseTarget {
    fn name(&self) -> &'static str {
        "sparse"
    }

    fn prepare(&self, _len: u64) -> Result<(), TargetError> {
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError> {
        self.add(offset, Piece::Bytes(bytes.to_vec()));
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        self.add(offset, Piece::Zeros(len));
        Ok(())
    }

    fn finish(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn read_exact_at(&self, _buffer: &mut [u8], _offset: u64) -> Result<(), TargetError> {
        Err(TargetError::NotReadable { name: "sparse".into() })
    }
}
