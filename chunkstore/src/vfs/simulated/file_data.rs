//! The bytes of one file, live and durable apart.
//!
//! Live bytes are always the durable ones with every pending change applied in order, except after
//! a failed sync, which throws the pending changes away and leaves the live bytes.

use std::io;
use std::sync::Arc;

use crate::vfs::simulated::crash::UnsyncedData;
use crate::vfs::simulated::random::Random;

/// Longest file in bytes. Files are held in memory.
const FILE_LEN_MAX: u64 = 4 << 30;

/// Most bytes, and their alignment, that reach a disk whole or not at all.
const SECTOR_LEN: usize = 512;

/// A change of bytes or length that no sync has made durable.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// The bytes of one file. A clone shares them until one of the two is written.
#[derive(Clone, Debug, Default)]
pub(super) struct FileData {
    live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
}

impl FileData {
    /// Returns a file whose bytes are durable.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let bytes = Arc::new(bytes);
        Self { live: Arc::clone(&bytes), durable: bytes, pending: Vec::new() }
    }

    /// Returns the live bytes.
    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    /// Writes at an offset. What lies between the old end and the offset becomes zero.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::FileTooLarge`] if the file would not fit in memory.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = u64::try_from(bytes.len()).ok().and_then(|len| offset.checked_add(len));
        memory_len(end.unwrap_or(u64::MAX))?;
        let offset = memory_len(offset)?;
        put(Arc::make_mut(&mut self.live), offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    /// Cuts the file or extends it by zeros.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::FileTooLarge`] if the file would not fit in memory.
    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = memory_len(len)?;
        Arc::make_mut(&mut self.live).resize(len, 0);
        self.pending.push(Change::SetLen(len));
        Ok(())
    }

    /// Extends the file to `len` bytes by zeros, if it is not longer already.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::FileTooLarge`] if the file would not fit in memory.
    pub(super) fn grow(&mut self, len: u64) -> io::Result<()> {
        let end = memory_len(len)?;
        let start = self.live.len();
        if end <= start {
            return Ok(());
        }
        self.write(&vec![0; end - start], u64::try_from(start).map_err(io::Error::other)?)
    }

    /// Writes zeros where the file has bytes in a range.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::FileTooLarge`] if the range lies where no file can be.
    pub(super) fn clear(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let start = memory_len(offset)?.min(self.live.len());
        let end = memory_len(offset.saturating_add(len))?.min(self.live.len());
        self.write(&vec![0; end - start], offset)
    }

    /// Makes the pending changes durable.
    pub(super) fn sync(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        for change in self.pending.drain(..) {
            match change {
                Change::Write { offset, bytes } => put(durable, offset, &bytes),
                Change::SetLen(len) => durable.resize(len, 0),
            }
        }
    }

    /// Throws the pending changes away; the live bytes keep showing them.
    pub(super) fn lose_pending(&mut self) {
        self.pending.clear();
    }

    /// Returns the bytes after a power cut.
    pub(super) fn after_crash(&self, unsynced: UnsyncedData, random: &mut Random) -> Self {
        let mut bytes = Arc::clone(&self.durable);
        let density = random.density();
        if unsynced != UnsyncedData::Lost && !self.pending.is_empty() {
            let bytes = Arc::make_mut(&mut bytes);
            for change in &self.pending {
                match (unsynced, change) {
                    (UnsyncedData::Lost, _) => {}
                    (UnsyncedData::ZeroTail, Change::SetLen(len)) => bytes.resize(*len, 0),
                    (UnsyncedData::ZeroTail, Change::Write { offset, bytes: written }) => {
                        grow(bytes, offset + written.len());
                    }
                    (UnsyncedData::AnySectors, Change::Write { offset, bytes: written }) => {
                        put_sectors(bytes, *offset, written, density, random);
                    }
                    (UnsyncedData::AnySectors | UnsyncedData::AnyWrites, _)
                        if !random.chance(density) => {}
                    (_, Change::SetLen(len)) => bytes.resize(*len, 0),
                    (_, Change::Write { offset, bytes: written }) => put(bytes, *offset, written),
                }
            }
        }
        Self { live: Arc::clone(&bytes), durable: bytes, pending: Vec::new() }
    }
}

/// Writes any of the sectors of a write, and lets the length grow over the others or not.
fn put_sectors(
    file: &mut Vec<u8>,
    offset: usize,
    written: &[u8],
    density: u64,
    random: &mut Random,
) {
    let end = offset + written.len();
    let mut start = offset;
    while start < end {
        let stop = ((start / SECTOR_LEN + 1) * SECTOR_LEN).min(end);
        if random.chance(density) {
            put(file, start, &written[start - offset..stop - offset]);
        }
        start = stop;
    }
    if random.chance(4) {
        grow(file, end);
    }
}

/// Writes bytes at an offset, and zeros from the old end to there.
fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    grow(file, end);
    file[offset..end].copy_from_slice(bytes);
}

/// Extends to a length by zeros, if the file is not longer already.
fn grow(file: &mut Vec<u8>, len: usize) {
    if file.len() < len {
        file.resize(len, 0);
    }
}

/// Returns a length or offset as one of memory.
fn memory_len(len: u64) -> io::Result<usize> {
    if FILE_LEN_MAX < len {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    usize::try_from(len).map_err(io::Error::other)
}
