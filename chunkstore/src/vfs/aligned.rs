//! Memory that the medium can be written from directly.
//!
//! Invariant of [`AlignedBuffer`]: its bytes begin at a multiple of [`ALIGNMENT`] and never move.

use std::fmt;

/// Alignment in bytes, of memory, offset and length, that suffices for direct writes on usual file systems. It is a
/// multiple of all common block lengths. Where it does not suffice, the system refuses, and bytes are written as usual.
pub const ALIGNMENT: usize = 4096;

/// A buffer of fixed capacity, filled from its start.
pub struct AlignedBuffer {
    memory: Box<[u8]>,
    /// Where the bytes begin in `memory`.
    start: usize,
    len: usize,
    capacity: usize,
}

impl AlignedBuffer {
    /// Returns an empty buffer for `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let memory = vec![0; capacity + ALIGNMENT].into_boxed_slice();
        // What the distance cannot be told of is used as it is, and written as usual.
        let start =
            Some(memory.as_ptr().align_offset(ALIGNMENT)).filter(|start| *start < ALIGNMENT);
        Self { memory, start: start.unwrap_or(0), len: 0, capacity }
    }

    /// Appends as much of `bytes` as there is room for, and returns the rest.
    pub fn fill<'bytes>(&mut self, bytes: &'bytes [u8]) -> &'bytes [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(self.capacity - self.len));
        let end = self.start + self.len;
        self.memory[end..end + taken.len()].copy_from_slice(taken);
        self.len += taken.len();
        rest
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    /// Returns whether there is no room left.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Empties the buffer.
    pub const fn clear(&mut self) {
        self.len = 0;
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AlignedBuffer({} of {} bytes)", self.len, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_aligned_and_what_has_no_room_is_left() {
        let mut buffer = AlignedBuffer::new(10_000);
        assert!(buffer.as_slice().is_empty() && !buffer.is_full());
        assert!(buffer.fill(&[1; 6000]).is_empty());
        assert_eq!(buffer.fill(&[2; 6000]), [2; 2000]);
        assert!(buffer.is_full());
        assert_eq!(buffer.fill(&[3]), [3]);
        assert_eq!(buffer.as_slice().as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!(buffer.as_slice(), [[1; 6000].as_slice(), &[2; 4000]].concat());
        buffer.clear();
        assert!(buffer.fill(&[4; 3]).is_empty());
        assert_eq!(buffer.as_slice(), [4; 3]);
    }
}
