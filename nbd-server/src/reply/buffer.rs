//! Memory of replies, used again and again: to fill fresh memory with zeros took 6 % of the time
//! of serving an image (`perf`, nbdcopy of a whole image).
//!
//! What a buffer held before is overwritten before it can be seen: only what was appended since is ever given out.

use std::sync::{Mutex, PoisonError};

/// Shorter memory is cheaper to get than to keep.
const LEN_MIN: usize = 16 << 10;

/// Longer memory is not kept.
const LEN_MAX: usize = 2 << 20;

/// Buffers that are kept.
const COUNT_MAX: usize = 16;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Bytes that are appended, in memory that may have been used before.
#[derive(Debug)]
pub(super) struct Buffer {
    /// Longer than what was appended: the rest is of an earlier use.
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let is_kept = (LEN_MIN..=LEN_MAX).contains(&capacity);
        let spare = if is_kept { take(capacity) } else { None };
        Self { bytes: spare.unwrap_or_else(|| Vec::with_capacity(capacity)), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends `len` bytes of any value, and returns them. Whoever does so fills them, or drops the buffer.
    pub(super) fn grow(&mut self, len: usize) -> &mut [u8] {
        let start = self.len;
        self.len += len;
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len, 0);
        }
        &mut self.bytes[start..self.len]
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

/// Returns a spare buffer that holds so much, the one that was used last.
fn take(capacity: usize) -> Option<Vec<u8>> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let position = spare.iter().rposition(|bytes| capacity <= bytes.capacity())?;
    Some(spare.swap_remove(position))
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !(LEN_MIN..=LEN_MAX).contains(&self.bytes.capacity()) {
            return;
        }
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < COUNT_MAX {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_was_used_shows_only_what_was_appended_since() {
        let mut first = Buffer::with_capacity(LEN_MIN);
        first.push(&[7; LEN_MIN]);
        drop(first);
        let mut second = Buffer::with_capacity(LEN_MIN);
        assert_eq!(second.as_slice(), []);
        second.push(b"ab");
        second.grow(2).copy_from_slice(b"cd");
        second.as_mut_slice()[0] = b'x';
        assert_eq!((second.as_slice(), second.len()), (&b"xbcd"[..], 4));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers: Vec<_> = (0..100).map(|_| Buffer::with_capacity(LEN_MAX)).collect();
        drop(buffers);
        drop(Buffer::with_capacity(10 * LEN_MAX));
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(spare.len() <= COUNT_MAX);
        assert!(spare.iter().all(|bytes| bytes.capacity() <= LEN_MAX));
    }
}
