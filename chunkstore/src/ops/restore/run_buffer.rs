//! Collects neighbouring chunks of an image, so that they are written at once.
//!
//! Invariant: a byte that belongs at offset `n` of the image lies at an address that equals `n` modulo
//! [`BLOCK_LEN`]. So a target can write whole blocks past the page cache without copying them first.

use crate::target::BLOCK_LEN;

/// Bytes that are written at once, unless one chunk is longer.
pub(super) const RUN_LEN: usize = 4 << 20;

/// Neighbouring bytes of an image.
#[derive(Debug)]
pub(super) struct RunBuffer {
    /// Its whole length is in use: clearing it for each run would cost more than it is worth.
    bytes: Vec<u8>,
    /// Where the run begins in `bytes`.
    start: usize,
    len: usize,
    /// Where it begins in the image.
    offset: u64,
}

impl RunBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; RUN_LEN + BLOCK_LEN], start: 0, len: 0, offset: 0 }
    }

    /// Returns whether `len` bytes at `offset` of the image continue the run and have room in it.
    pub(super) fn has_room(&self, offset: u64, len: usize) -> bool {
        self.len != 0 && self.offset + self.len as u64 == offset && self.len + len <= RUN_LEN
    }

    /// Begins a new run at `offset` of the image that has room for `len` bytes at least.
    pub(super) fn begin(&mut self, offset: u64, len: usize) {
        if self.bytes.len() < len + BLOCK_LEN {
            self.bytes = vec![0; len + BLOCK_LEN];
        }
        let block_len = BLOCK_LEN as u64;
        let address = self.bytes.as_ptr().addr() as u64 % block_len;
        let start = (offset % block_len + block_len - address) % block_len;
        self.start = usize::try_from(start).expect("it is less than a block");
        self.len = 0;
        self.offset = offset;
    }

    /// Returns the bytes that follow the run; they belong to it once [`Self::extend`] says so.
    pub(super) fn next(&mut self, len: usize) -> &mut [u8] {
        let start = self.start + self.len;
        &mut self.bytes[start..start + len]
    }

    /// Takes the next `len` bytes into the run.
    pub(super) fn extend(&mut self, len: usize) {
        self.len += len;
    }

    /// Returns the run and where it begins in the image, and empties it; `None` if it is empty.
    pub(super) fn take(&mut self) -> Option<(&[u8], u64)> {
        let len = std::mem::take(&mut self.len);
        let run = &self.bytes[self.start..self.start + len];
        (!run.is_empty()).then_some((run, self.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_agree_with_offsets() {
        let mut run = RunBuffer::new();
        assert!(run.take().is_none());
        for (offset, len) in
            [(0, 1), (1, 5), (4095, 4097), ((7 << 40) + 123, 16 << 20), (5, RUN_LEN)]
        {
            run.begin(offset, len);
            let next = run.next(len);
            assert_eq!(next.as_ptr().addr() as u64 % 4096, offset % 4096);
            next.fill(7);
            run.extend(len);
            let (bytes, found) = run.take().unwrap();
            assert!(bytes.len() == len && found == offset && bytes.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn run_is_continued_by_its_neighbour_until_it_is_full() {
        let mut run = RunBuffer::new();
        assert!(!run.has_room(0, 1));
        run.begin(100, 10);
        run.extend(10);
        assert!(run.has_room(110, RUN_LEN - 10));
        assert!(!run.has_room(110, RUN_LEN - 9));
        assert!(!run.has_room(111, 1));
        assert!(!run.has_room(100, 1));
    }
}
