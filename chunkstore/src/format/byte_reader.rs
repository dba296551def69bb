//! Reads little-endian fields from the front of a byte slice.
//!
//! Conventions: `docs/format.md`, section "Conventions". No call reads past the slice or panics; a failed
//! call consumes nothing.

use crate::format::FormatError;

/// What is left of an input while its fields are taken from the front.
#[derive(Clone, Debug)]
pub struct ByteReader<'a> {
    rest: &'a [u8],
}

impl<'a> ByteReader<'a> {
    /// Returns a reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns how many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next `len` bytes.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] if fewer are left.
    pub fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], FormatError> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or(FormatError::Truncated { field })?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes the next `N` bytes.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] if fewer are left.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or(FormatError::Truncated { field })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes one byte.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] if none is left.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        self.array(field).map(u8::from_le_bytes)
    }

    /// Takes a 16-bit number.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] if fewer than 2 bytes are left.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, FormatError> {
        self.array(field).map(u16::from_le_bytes)
    }

    /// Takes a 32-bit number.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] if fewer than 4 bytes are left.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Takes a 64-bit number.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] if fewer than 8 bytes are left.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Takes a signed 64-bit number.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] if fewer than 8 bytes are left.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, FormatError> {
        self.array(field).map(i64::from_le_bytes)
    }

    /// Takes a magic and compares it.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] if fewer than `N` bytes are left.
    /// - [`FormatError::WrongMagic`] if they are not `magic`.
    pub fn magic<const N: usize>(
        &mut self,
        magic: &[u8; N],
        structure: &'static str,
    ) -> Result<(), FormatError> {
        if self.array::<N>("magic")? == *magic {
            Ok(())
        } else {
            Err(FormatError::WrongMagic { expected: structure })
        }
    }

    /// Takes `N` bytes that must be zero.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] if fewer than `N` bytes are left.
    /// - [`FormatError::OutOfRange`] if one of them is not zero.
    pub fn reserved<const N: usize>(&mut self) -> Result<(), FormatError> {
        match self.array::<N>("reserved")?.iter().find(|&&byte| byte != 0) {
            None => Ok(()),
            Some(&byte) => Err(FormatError::out_of_range("reserved", byte, "0")),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// - [`FormatError::TrailingBytes`] if bytes are left.
    pub fn finish(self, structure: &'static str) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let count = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        Err(FormatError::TrailingBytes { structure, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian() {
        let mut input = ByteReader::new(&[1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(input.u8("a"), Ok(1));
        assert_eq!(input.u16("b"), Ok(2));
        assert_eq!(input.u32("c"), Ok(3));
        assert_eq!(input.u64("d"), Ok(4));
        assert_eq!(input.finish("input"), Ok(()));
    }

    #[test]
    fn reading_past_the_end_is_truncated_and_consumes_nothing() {
        let mut input = ByteReader::new(&[1, 2, 3]);
        assert_eq!(input.u32("number"), Err(FormatError::Truncated { field: "number" }));
        assert_eq!(input.take(4, "bytes"), Err(FormatError::Truncated { field: "bytes" }));
        assert_eq!(input.take(3, "bytes"), Ok(&[1, 2, 3][..]));
        assert_eq!(input.remaining(), 0);
    }

    #[test]
    fn bytes_that_are_left_are_counted() {
        let trailing = FormatError::TrailingBytes { structure: "input", count: 2 };
        assert_eq!(ByteReader::new(&[1, 2]).finish("input"), Err(trailing));
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        assert!(ByteReader::new(&[0, 0]).reserved::<2>().is_ok());
        assert!(ByteReader::new(&[0, 1]).reserved::<2>().is_err());
    }
}
