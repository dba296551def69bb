//! What the measurements in `bytes.rs` and `store.rs` share: inputs that are the same on every run.
//!
//! How to run and read them: `docs/performance.md`.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chunkstore::chunking::{Cutter, EntrySink, Piece, SpanInput, chunk_span};
use chunkstore::format::PageEntry;
use chunkstore::id::ChunkId;
use tempfile::TempDir;

/// One MiB in bytes.
pub const MIB: usize = 1 << 20;

/// Length in bytes of the pieces in which a span arrives.
const PIECE_LEN: usize = MIB;

/// Variable that names the directory in which stores are made.
const DIRECTORY_VARIABLE: &str = "BACKY_BENCH_DIR";

/// Returns bytes that do not compress.
#[must_use]
pub fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Returns bytes that shrink to about a half, like those of programs and texts: each KiB repeats
/// some of what came before it.
#[must_use]
pub fn compressible_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = random_bytes(len, seed);
    for block in bytes.chunks_exact_mut(1024) {
        let (first, second) = block.split_at_mut(512);
        second.copy_from_slice(first);
        second.rotate_left(7);
    }
    bytes
}

/// A directory for stores and images, removed when it is dropped.
///
/// It is in the directory that the variable `BACKY_BENCH_DIR` names; else in memory, where that is
/// possible, so that the program is measured and not the disk.
///
/// # Panics
///
/// If none can be made.
#[must_use]
pub fn scratch_directory() -> TempDir {
    let named = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from);
    let memory = Some(PathBuf::from("/dev/shm")).filter(|path| path.is_dir());
    let parent = named.or(memory).unwrap_or_else(std::env::temp_dir);
    TempDir::new_in(&parent).expect("a directory for the measurements can be made")
}

/// Writes an image of `mib` MiB: half of it shrinks, a quarter does not, a quarter is zeros.
///
/// # Errors
///
/// - What writing the file fails with.
pub fn write_image(path: &Path, mib: u64, seed: u64) -> io::Result<()> {
    let mut image = File::create(path)?;
    for number in 0..mib {
        let bytes = match number % 4 {
            0 | 1 => compressible_bytes(MIB, seed + number),
            2 => random_bytes(MIB, seed + number),
            _ => vec![0; MIB],
        };
        image.write_all(&bytes)?;
    }
    image.sync_all()
}

/// Cuts a span and returns its entries.
#[must_use]
pub fn entries_of(cutter: &Cutter, span: &[u8], predicted: &[PageEntry]) -> Vec<PageEntry> {
    let mut entries = Entries { list: Vec::new() };
    let Ok(()) = chunk_span(cutter, &mut SpanBytes { rest: span }, predicted, &mut entries);
    entries.list
}

/// A span in memory.
struct SpanBytes<'a> {
    rest: &'a [u8],
}

impl SpanInput for SpanBytes<'_> {
    type Error = Infallible;

    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, Infallible> {
        if self.rest.is_empty() {
            return Ok(Piece::End);
        }
        let (piece, rest) = self.rest.split_at(self.rest.len().min(PIECE_LEN));
        self.rest = rest;
        buffer.extend_from_slice(piece);
        Ok(Piece::Data(piece.len()))
    }
}

struct Entries {
    list: Vec<PageEntry>,
}

impl EntrySink for Entries {
    type Error = Infallible;

    fn data(&mut self, id: ChunkId, bytes: &[u8], _predicted: bool) -> Result<(), Infallible> {
        let len = u32::try_from(bytes.len()).expect("a chunk has at most 16 MiB");
        self.list.push(PageEntry::Data { len, id });
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> Result<(), Infallible> {
        self.list.push(PageEntry::Zero { len });
        Ok(())
    }
}
