//! Writes whole blocks past the page cache (`O_DIRECT`, open(2)).
//!
//! Restored bytes are not read again soon, and copying them into the page cache costs more than writing them: on a
//! virtual machine with two processors, writing 2 GiB so and syncing them took 1.5 s and a tenth of a processor, through
//! the page cache 2.4 to 8 s and up to four fifths (`docs/performance.md`). Not every file system can do it; then the
//! page cache is used.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::BLOCK_LEN;
use super::edges::Edges;
use crate::vfs::AlignedBuffer;
use crate::vfs::real::reopen_direct;

/// A second way to the same file.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: Option<File>,
    is_refused: AtomicBool,
    edges: Mutex<Edges>,
}

impl DirectFile {
    /// Opens the file that `file` is once more.
    pub(super) fn open(file: &File) -> Self {
        let file = reopen_direct(file).ok();
        Self { file, is_refused: AtomicBool::new(false), edges: Mutex::default() }
    }

    /// Writes `bytes` at `offset`; `cached` is the usual way to the file. Parts of blocks are kept until [`Self::flush`] or until
    /// their neighbours come; so no two calls may have the same byte.
    pub(super) fn write_all_at(&self, cached: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let direct = self.file.as_ref().filter(|_| !self.is_refused.load(Ordering::Relaxed));
        let (Some(direct), Some(parts)) = (direct, Parts::of(bytes, offset)) else {
            return cached.write_all_at(bytes, offset);
        };
        let (head, tail) = {
            let mut edges = self.edges();
            let mut add = |part: &[u8], offset| match part {
                [] => None,
                part => edges.add(part, offset),
            };
            (add(parts.head, offset), add(parts.tail, parts.tail_offset))
        };
        let head = head.as_ref().map_or(&[] as &[u8], AlignedBuffer::as_slice);
        let tail = tail.as_ref().map_or(&[] as &[u8], AlignedBuffer::as_slice);
        let start = parts.blocks_offset - head.len() as u64;
        let written = self.write_blocks(direct, [head, parts.blocks, tail], start)?;
        // What the file system refused goes the usual way.
        let mut skipped = written;
        let mut place = start;
        for slice in [head, parts.blocks, tail] {
            let done = skipped.min(slice.len());
            cached.write_all_at(&slice[done..], place + done as u64)?;
            skipped -= done;
            place += slice.len() as u64;
        }
        if self.edges().is_full() { self.flush(cached) } else { Ok(()) }
    }

    /// Writes what waits for its neighbours.
    pub(super) fn flush(&self, cached: &File) -> io::Result<()> {
        let parts = self.edges().take();
        parts.iter().try_for_each(|(offset, part)| cached.write_all_at(part, *offset))
    }

    fn edges(&self) -> MutexGuard<'_, Edges> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes neighbouring slices of whole blocks, and returns how many bytes the file system took: all, or fewer if it
    /// cannot write this way.
    fn write_blocks(&self, file: &File, slices: [&[u8]; 3], offset: u64) -> io::Result<usize> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = 0;
        while written < total {
            let mut skipped = written;
            let rest = slices.map(|slice| {
                let done = skipped.min(slice.len());
                skipped -= done;
                IoSlice::new(&slice[done..])
            });
            match rustix::io::pwritev(file, &rest, offset + written as u64) {
                // What is left after a short write is aligned only if that ended with a block.
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) if count % BLOCK_LEN == 0 => written += count,
                Ok(count) => return Ok(written + count),
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                    self.is_refused.store(true, Ordering::Relaxed);
                    return Ok(written);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(written)
    }
}

/// Bytes at a place of a file, divided where blocks begin and end.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    /// The end of a block, or the middle of one if there is nothing else.
    head: &'a [u8],
    /// Whole blocks.
    blocks: &'a [u8],
    blocks_offset: u64,
    /// The beginning of a block.
    tail: &'a [u8],
    tail_offset: u64,
}

impl<'a> Parts<'a> {
    /// Returns `None` if the address of the blocks is not aligned, or if there are no such offsets.
    fn of(bytes: &'a [u8], offset: u64) -> Option<Self> {
        let block_len = BLOCK_LEN as u64;
        let blocks_offset = offset.checked_next_multiple_of(block_len)?;
        let end = offset.checked_add(bytes.len() as u64)?;
        let head_len = usize::try_from(blocks_offset - offset).ok()?.min(bytes.len());
        let (head, rest) = bytes.split_at(head_len);
        let (blocks, tail) = rest.split_at(rest.len() / BLOCK_LEN * BLOCK_LEN);
        let is_aligned = blocks.is_empty() || blocks.as_ptr().addr().is_multiple_of(BLOCK_LEN);
        let tail_offset = end - tail.len() as u64;
        is_aligned.then_some(Self { head, blocks, blocks_offset, tail, tail_offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns bytes that begin at an address of `remainder` modulo the length of a block.
    fn aligned(buffer: &[u8], remainder: usize, len: usize) -> &[u8] {
        let address = buffer.as_ptr().addr() % BLOCK_LEN;
        let start = (remainder + BLOCK_LEN - address) % BLOCK_LEN;
        &buffer[start..start + len]
    }

    #[test]
    fn bytes_are_divided_where_blocks_begin() {
        let buffer = vec![0; 64 << 10];
        for (offset, len, expected) in [
            (0, 4096, Some((0, 1, 0))),
            (0, 4095, Some((0, 0, 4095))),
            (8192, 4097, Some((0, 1, 1))),
            (4095, 1, Some((1, 0, 0))),
            (4095, 8193, Some((1, 2, 0))),
            (1, 4095 + 4096 + 5, Some((4095, 1, 5))),
            (5, 10, Some((10, 0, 0))),
            (5, 0, Some((0, 0, 0))),
            (u64::MAX - 5, 5, None),
        ] {
            let bytes = aligned(&buffer, usize::try_from(offset % 4096).unwrap(), len);
            let parts = Parts::of(bytes, offset);
            let lens = parts
                .as_ref()
                .map(|parts| (parts.head.len(), parts.blocks.len() / BLOCK_LEN, parts.tail.len()));
            assert_eq!(lens, expected, "{len} at {offset}");
        }
        assert_eq!(Parts::of(aligned(&buffer, 512, 8192), 0), None);
    }

    /// Writes pieces of a file of 40 KiB in some order and returns what it holds then.
    fn write(direct: &DirectFile, file: &File, pieces: &[Range]) -> Vec<u8> {
        let image: Vec<u8> = (0..40 << 10).map(|index: u32| (index % 251) as u8).collect();
        let mut buffer = vec![0; 64 << 10];
        for Range { start, end, is_aligned } in pieces {
            let address = buffer.as_ptr().addr() + usize::from(!is_aligned);
            let place = (start % 4096 + 4096 - address % 4096) % 4096;
            buffer[place..place + end - start].copy_from_slice(&image[*start..*end]);
            direct.write_all_at(file, &buffer[place..place + end - start], *start as u64).unwrap();
        }
        direct.flush(file).unwrap();
        let mut found = vec![0; image.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == image);
        found
    }

    struct Range {
        start: usize,
        end: usize,
        is_aligned: bool,
    }

    #[test]
    fn file_has_all_bytes_whatever_their_order_and_their_alignment() {
        let cuts = [0, 100, 4096, 5000, 6000, 7000, 20_000, 24_576, 30_000, 40 << 10];
        for turn in 0..cuts.len() {
            let mut pieces: Vec<Range> = cuts
                .windows(2)
                .enumerate()
                .map(|(index, cut)| Range {
                    start: cut[0],
                    end: cut[1],
                    is_aligned: turn % 3 != 0 || index % 2 == 0,
                })
                .collect();
            pieces.rotate_left(turn % cuts.len());
            if turn % 2 == 1 {
                pieces.reverse();
            }
            let file = tempfile::tempfile().unwrap();
            file.set_len(40 << 10).unwrap();
            write(&DirectFile::open(&file), &file, &pieces);
        }
    }

    #[test]
    fn file_system_that_refuses_gets_its_bytes_the_usual_way() {
        let file = tempfile::tempfile().unwrap();
        let whole = [Range { start: 0, end: 40 << 10, is_aligned: true }];
        let direct = DirectFile { file: None, ..DirectFile::open(&file) };
        write(&direct, &file, &whole);
        // What is not aligned is refused by the write itself, and nothing is lost by that.
        let direct = DirectFile::open(&file);
        if let Some(other) = &direct.file {
            let misaligned = aligned(&[7; 16 << 10], 1, 4096).to_vec();
            let slices = [&misaligned[..0], aligned(&misaligned, 0, 0), &misaligned[..100]];
            assert_eq!(direct.write_blocks(other, slices, 0).unwrap(), 0);
            assert!(direct.is_refused.load(Ordering::Relaxed));
        }
        write(&direct, &file, &whole);
    }
}
