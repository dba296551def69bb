//! Codec of a record.
//!
//! Byte layout: `docs/format.md`, section "Record".

use crate::format::FormatError;

/// How the payload of a record becomes the plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The payload is the plain bytes.
    Raw = 0,
    /// The payload is one Zstandard frame (RFC 8878) without dictionary.
    Zstd = 1,
    /// The payload is a [`Transform`](super::Transform) and one Zstandard frame of columns of points. The plain bytes are a whole
    /// number of points.
    Points = 2,
}

impl Codec {
    /// Returns the codec that this byte stands for.
    ///
    /// # Errors
    ///
    /// - [`FormatError::OutOfRange`] if it stands for none.
    pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Points),
            _ => Err(FormatError::out_of_range("codec", byte, "0 to 2")),
        }
    }

    /// Returns the byte that stands for this codec.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_a_codec_or_rejected() {
        for byte in 0..=u8::MAX {
            assert_eq!(Codec::from_byte(byte).map(Codec::to_byte).ok(), (byte < 3).then_some(byte));
        }
    }
}
