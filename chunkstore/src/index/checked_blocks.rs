//! The file of the index as redb sees it: pages, each of which is checked when it is read.
//!
//! redb has checksums of its pages and believes what it reads all the same: a page that has rotted makes it give wrong answers,
//! panic, or panic once more while it cleans up, which no caller can catch. So it gets no such page: the file has blocks of 4096 bytes,
//! each followed by a checksum of its bytes and its number, and reading one that does not match is an error.
//!
//! The first block is the header of redb. It is the only one that is ever changed in place, and only its first sector is used: its
//! checksum is in the same sector, so that a power cut leaves both or none. Every other block that a crash may tear belongs to no committed
//! state, because redb never writes over a page of such a state.
//!
//! redb reads nothing that it has not written. So a block that was never written is damage as well: its write was lost.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::vfs::VfsFile;

/// Bytes of a block as redb sees it: its page size.
pub(super) const BLOCK_LEN: u64 = 4096;

/// Length of a checksum in bytes.
const CHECKSUM_LEN: usize = 16;

/// Bytes of a block in the file.
const STORED_LEN: u64 = BLOCK_LEN + CHECKSUM_LEN as u64;

/// The smallest unit that a medium writes whole, in bytes: what redb uses of its header, 320 bytes, and the checksum.
const SECTOR_LEN: usize = 512;

/// Where the checksum of the header is in its block. redb sees zeros there.
const HEADER_CHECKSUM: Range<usize> = SECTOR_LEN - CHECKSUM_LEN..SECTOR_LEN;

/// A file of checked blocks.
#[derive(Debug)]
pub(super) struct CheckedBlocks {
    file: Box<dyn VfsFile>,
    /// The first sector as it is in the file, once it was read or written.
    header: Mutex<Option<[u8; SECTOR_LEN]>>,
}

impl CheckedBlocks {
    pub(super) fn new(file: Box<dyn VfsFile>) -> Self {
        Self { file, header: Mutex::default() }
    }

    /// Returns the length as redb sees it.
    pub(super) fn len(&self) -> io::Result<u64> {
        let len = self.file.len()?;
        if len.is_multiple_of(STORED_LEN) {
            Ok(len / STORED_LEN * BLOCK_LEN)
        } else {
            Err(damaged("the index file ends within a block"))
        }
    }

    /// Sets the length as redb sees it: whole blocks, of which new ones cannot be read before they are written.
    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(BLOCK_LEN) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.set_len(stored(len / BLOCK_LEN)?)
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Fills `out` with the bytes at `offset`. A block that does not match its checksum is an error of kind `InvalidData`.
    pub(super) fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let (first, count, mut start) = blocks_of(offset, out.len())?;
        let mut bytes = vec![0; count * place(STORED_LEN)?];
        self.file.read_exact_at(&mut bytes, stored(first)?)?;
        let mut rest = out;
        for (number, block) in (first..).zip(bytes.chunks_exact_mut(place(STORED_LEN)?)) {
            let plain = open(number, block)?;
            let (part, behind) = rest.split_at_mut(rest.len().min(plain.len() - start));
            part.copy_from_slice(&plain[start..start + part.len()]);
            (rest, start) = (behind, 0);
        }
        Ok(())
    }

    /// Writes bytes at `offset`.
    pub(super) fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let (first, count, start) = blocks_of(offset, data.len())?;
        if first == 0 {
            return self.write_header(data, start..start + data.len());
        }
        let mut plain = vec![0; count * place(BLOCK_LEN)?];
        if plain.len() != data.len() {
            self.read_exact_at(&mut plain, first * BLOCK_LEN)?;
        }
        plain[start..start + data.len()].copy_from_slice(data);
        let mut bytes = Vec::with_capacity(count * place(STORED_LEN)?);
        for (number, block) in (first..).zip(plain.chunks_exact(place(BLOCK_LEN)?)) {
            bytes.extend_from_slice(block);
            bytes.extend_from_slice(&checksum(number, block));
        }
        self.file.write_all_at(&bytes, stored(first)?)
    }

    /// Writes what redb uses of the first block, all in one sector.
    fn write_header(&self, data: &[u8], within: Range<usize>) -> io::Result<()> {
        if HEADER_CHECKSUM.start < within.end {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a header of another redb"));
        }
        let mut header = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sector = match *header {
            Some(sector) => sector,
            None => {
                let mut sector = [0; SECTOR_LEN];
                self.file.read_exact_at(&mut sector, 0)?;
                if sector != [0; SECTOR_LEN] {
                    self.read_exact_at(&mut sector, 0)?;
                }
                sector
            }
        };
        sector[within].copy_from_slice(data);
        let sum = checksum(0, &sector[..HEADER_CHECKSUM.start]);
        sector[HEADER_CHECKSUM].copy_from_slice(&sum);
        self.file.write_all_at(&sector, 0)?;
        *header = Some(sector);
        Ok(())
    }
}

/// Checks a block, and returns its bytes as redb sees them.
fn open(number: u64, stored: &mut [u8]) -> io::Result<&[u8]> {
    let (plain, sum) = stored.split_at_mut(stored.len() - CHECKSUM_LEN);
    let is_intact = if number == 0 {
        let is_intact = checksum(0, &plain[..HEADER_CHECKSUM.start]) == plain[HEADER_CHECKSUM];
        plain[HEADER_CHECKSUM.start..].fill(0);
        is_intact
    } else {
        checksum(number, plain) == sum
    };
    if is_intact {
        Ok(plain)
    } else {
        Err(damaged(format!("the checksum of block {number} of the index does not match")))
    }
}

/// Returns the checksum of a block: the first bytes of BLAKE3, keyed with the number of the block so that a block in the place of another
/// one does not match.
fn checksum(number: u64, plain: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut key = [0; blake3::KEY_LEN];
    key[..8].copy_from_slice(&number.to_le_bytes());
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&blake3::keyed_hash(&key, plain).as_bytes()[..CHECKSUM_LEN]);
    sum
}

/// Returns in which blocks bytes lie: the number of the first, how many, and where in the first they begin.
fn blocks_of(offset: u64, len: usize) -> io::Result<(u64, usize, usize)> {
    let start = place(offset % BLOCK_LEN)?;
    let end = start.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
    let count = if len == 0 { 0 } else { end.div_ceil(place(BLOCK_LEN)?) };
    Ok((offset / BLOCK_LEN, count, start))
}

/// Returns where a block is in the file.
fn stored(number: u64) -> io::Result<u64> {
    number.checked_mul(STORED_LEN).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn damaged(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::Vfs;
    use crate::vfs::simulated::{CallKind, SimulatedVfs};

    const PATH: &str = "/index";

    fn open_file(vfs: &SimulatedVfs) -> CheckedBlocks {
        CheckedBlocks::new(vfs.open(PATH.as_ref(), true).unwrap())
    }

    /// Returns a file of three blocks: a header and two pages.
    fn scene() -> (SimulatedVfs, Vec<u8>) {
        let vfs = SimulatedVfs::new();
        drop(vfs.create_new(PATH.as_ref()).unwrap());
        let file = open_file(&vfs);
        file.set_len(3 * BLOCK_LEN).unwrap();
        let mut content = vec![0; 3 * 4096];
        for (offset, len) in [(0, 320), (4096, 8192), (64, 128), (5000, 100), (8000, 300)] {
            let byte = |number: usize| u8::try_from((number * 7 + offset) % 251).unwrap();
            let bytes: Vec<u8> = (0..len).map(byte).collect();
            content[offset..offset + len].copy_from_slice(&bytes);
            file.write_all_at(&bytes, offset as u64).unwrap();
        }
        (vfs, content)
    }

    fn read_all(vfs: &SimulatedVfs) -> io::Result<Vec<u8>> {
        let file = open_file(vfs);
        let mut bytes = vec![0; place(file.len()?)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    #[test]
    fn what_was_written_is_read() {
        let (vfs, content) = scene();
        assert!(read_all(&vfs).unwrap() == content);
        let file = open_file(&vfs);
        for (offset, len) in [(0, 0), (0, 320), (4095, 2), (4096, 4096), (6000, 6000), (12_288, 0)]
        {
            let mut bytes = vec![0xee; len];
            file.read_exact_at(&mut bytes, offset as u64).unwrap();
            assert!(bytes == content[offset..offset + len], "{len} bytes at {offset}");
        }
        let behind = file.read_exact_at(&mut [0; 2], 3 * BLOCK_LEN - 1).unwrap_err();
        assert_eq!(behind.kind(), io::ErrorKind::UnexpectedEof);
        file.set_len(4 * BLOCK_LEN).unwrap();
        let unwritten = file.read_exact_at(&mut [0; 2], 3 * BLOCK_LEN).unwrap_err();
        assert_eq!(unwritten.kind(), io::ErrorKind::InvalidData);
        file.set_len(2 * BLOCK_LEN).unwrap();
        assert!(read_all(&vfs).unwrap() == content[..8192]);
    }

    /// A page that had rotted made redb panic, and panic again while it cleaned up: the process was aborted.
    #[test]
    fn rotten_page_never_reaches_redb() {
        let (vfs, content) = scene();
        let stored_len = u64::try_from(vfs.read_all(PATH).unwrap().len()).unwrap();
        for offset in 0..stored_len {
            for bit in 0..8 {
                vfs.flip(PATH, offset, 1 << bit).unwrap();
                match read_all(&vfs) {
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
                    Ok(bytes) => {
                        assert!(bytes == content, "byte {offset}");
                        // Of the first block only the first sector is used.
                        assert!(
                            (512..STORED_LEN).contains(&offset),
                            "byte {offset} is not checked"
                        );
                    }
                }
                vfs.flip(PATH, offset, 1 << bit).unwrap();
            }
        }
        assert!(read_all(&vfs).unwrap() == content);
    }

    #[test]
    fn block_in_the_place_of_another_one_is_damage() {
        let (vfs, _) = scene();
        let bytes = vfs.read_all(PATH).unwrap();
        let len = usize::try_from(STORED_LEN).unwrap();
        let mut swapped = bytes.clone();
        swapped[len..2 * len].copy_from_slice(&bytes[2 * len..3 * len]);
        swapped[2 * len..3 * len].copy_from_slice(&bytes[len..2 * len]);
        vfs.write_raw(PATH, swapped).unwrap();
        assert_eq!(read_all(&vfs).unwrap_err().kind(), io::ErrorKind::InvalidData);
        vfs.write_raw(PATH, &bytes[..2 * len + 1]).unwrap();
        assert_eq!(read_all(&vfs).unwrap_err().kind(), io::ErrorKind::InvalidData);
        // What was written before there were checksums has other lengths, too.
        vfs.write_raw(PATH, [bytes[..320].to_vec(), vec![0; 8192 - 320]].concat()).unwrap();
        assert_eq!(read_all(&vfs).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn header_is_written_in_one_sector() {
        let (vfs, _) = scene();
        let before = vfs.calls().len();
        open_file(&vfs).write_all_at(&[7; 300], 20).unwrap();
        let calls = vfs.calls();
        let writes: Vec<_> =
            { calls[before..].iter() }.filter(|call| call.kind == CallKind::WriteAllAt).collect();
        assert_eq!(writes.len(), 1, "{writes:?}");
        assert_eq!((writes[0].offset, writes[0].len), (0, 512), "{writes:?}");
        let refused = open_file(&vfs).write_all_at(&[7; 300], 200).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }
}
