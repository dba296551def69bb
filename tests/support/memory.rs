//! A source and a target in memory.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use chunkstore::source::{Source, SourceError};
use chunkstore::target::{Target, TargetError};

/// Granularity in bytes at which [`MemorySource`] tells data from zeros.
const BLOCK_LEN: usize = 4096;

/// An image in memory. Blocks of zeros are holes.
#[derive(Clone, Debug)]
pub struct MemorySource<'a> {
    bytes: &'a [u8],
}

impl<'a> MemorySource<'a> {
    /// Returns a source with these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn is_data(&self, block: usize) -> bool {
        let start = block * BLOCK_LEN;
        let end = (start + BLOCK_LEN).min(self.bytes.len());
        self.bytes[start..end].iter().any(|byte| *byte != 0)
    }
}

impl Source for MemorySource<'_> {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        let offset = usize::try_from(offset).expect("images of tests are small");
        let blocks = self.bytes.len().div_ceil(BLOCK_LEN);
        let Some(first) = (offset / BLOCK_LEN..blocks).find(|block| self.is_data(*block)) else {
            return Ok(None);
        };
        let end = (first..blocks).find(|block| !self.is_data(*block)).unwrap_or(blocks);
        let start = (first * BLOCK_LEN).max(offset) as u64;
        Ok(Some(start..(end * BLOCK_LEN).min(self.bytes.len()) as u64))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let start = usize::try_from(offset).expect("images of tests are small");
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        Ok(())
    }
}

/// A target in memory. It begins full of garbage, so that what is left out shows.
#[derive(Debug, Default)]
pub struct MemoryTarget {
    bytes: Mutex<Vec<u8>>,
}

impl MemoryTarget {
    /// Returns what was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, offset: u64, len: usize, run: impl FnOnce(&mut [u8]) -> R) -> R {
        let start = usize::try_from(offset).expect("images of tests are small");
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        run(&mut bytes[start..start + len])
    }
}

impl Target for MemoryTarget {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn prepare(&self, len: u64) -> Result<(), TargetError> {
        let len = usize::try_from(len).expect("images of tests are small");
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = vec![0xa5; len];
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError> {
        self.with(offset, bytes.len(), |place| place.copy_from_slice(bytes));
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        let len = usize::try_from(len).expect("images of tests are small");
        self.with(offset, len, |place| place.fill(0));
        Ok(())
    }

    fn finish(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), TargetError> {
        self.with(offset, buffer.len(), |place| buffer.copy_from_slice(place));
        Ok(())
    }
}
