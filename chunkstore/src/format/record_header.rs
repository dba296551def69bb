//! Record header: what the payload after it is.
//!
//! Byte layout: `docs/format.md`, section "Record". A header that decodes has lengths within the limits,
//! so a reader may take memory for both of them.

use crate::format::checksum::{CHECKSUM8_LEN, checksum8};
use crate::format::{ByteReader, Codec, FormatError, ObjectKind, POINT_LEN};
use crate::id::ChunkId;
use crate::limits::{CHUNK_LEN_MAX, STORED_OVERHEAD_MAX};

/// Digest of "chunkstore record v1".
const MAGIC: [u8; 4] = [0xc8, 0xc9, 0x84, 0x79];

const STRUCTURE: &str = "record header";

/// One chunk in a pack; its payload of `stored_len` bytes follows at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the plain bytes are.
    pub kind: ObjectKind,
    /// How the payload becomes the plain bytes.
    pub codec: Codec,
    /// Id of the plain bytes.
    pub id: ChunkId,
    /// Length of the plain bytes, `1..=CHUNK_LEN_MAX`.
    pub plain_len: u32,
    /// Length of the payload, `1..=plain_len + STORED_OVERHEAD_MAX`.
    pub stored_len: u32,
}

impl RecordHeader {
    /// Length in bytes.
    pub const LEN: usize = 56;

    /// Length in bytes, as a number of the format.
    pub const LEN_U32: u32 = 56;

    /// Returns the stored form.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the length is a constant")]
    pub fn encode(&self) -> [u8; Self::LEN] {
        debug_assert_eq!(check_lens(self.plain_len, self.stored_len, self.codec), Ok(()));
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend_from_slice(&MAGIC);
        out.push(self.kind.to_byte());
        out.push(self.codec.to_byte());
        out.extend_from_slice(&[0; 2]); // reserved
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        let checksum = checksum8(&out);
        out.extend_from_slice(&checksum);
        out.try_into().expect("the fields add up to LEN")
    }

    /// Reads a header from exactly [`RecordHeader::LEN`] bytes.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the length is another.
    /// - [`FormatError::WrongMagic`] if no record begins here.
    /// - [`FormatError::WrongChecksum`] if a byte was changed.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    /// - [`FormatError::Inconsistent`] if a raw record has two lengths, or points are not whole.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        ByteReader::new(bytes).magic(&MAGIC, "a record")?;
        let mut input = ByteReader::new(bytes);
        let covered = input.take(Self::LEN.saturating_sub(CHECKSUM8_LEN), STRUCTURE)?;
        let checksum = input.array::<CHECKSUM8_LEN>("checksum")?;
        input.finish(STRUCTURE)?;
        if checksum != checksum8(covered) {
            return Err(FormatError::WrongChecksum { structure: STRUCTURE });
        }
        let mut fields = ByteReader::new(covered);
        fields.take(MAGIC.len(), "magic")?;
        let kind = ObjectKind::from_byte(fields.u8("object kind")?)?;
        let codec = Codec::from_byte(fields.u8("codec")?)?;
        fields.reserved::<2>()?;
        let id = ChunkId::from_bytes(fields.array("chunk id")?);
        let plain_len = fields.u32("plain length")?;
        let stored_len = fields.u32("stored length")?;
        fields.finish(STRUCTURE)?;
        check_lens(plain_len, stored_len, codec)?;
        Ok(Self { kind, codec, id, plain_len, stored_len })
    }
}

/// Checks the two lengths of a record.
///
/// # Errors
///
/// - [`FormatError::OutOfRange`] if one of them is beyond its limits.
/// - [`FormatError::Inconsistent`] if a raw record has two lengths, or points are not whole.
pub(super) fn check_lens(plain_len: u32, stored_len: u32, codec: Codec) -> Result<(), FormatError> {
    if plain_len == 0 || CHUNK_LEN_MAX < plain_len {
        return Err(FormatError::out_of_range("plain length", plain_len, "1 byte to 16 MiB"));
    }
    if stored_len == 0 || plain_len.saturating_add(STORED_OVERHEAD_MAX) < stored_len {
        let expected = "1 byte to 64 KiB more than the plain length";
        return Err(FormatError::out_of_range("stored length", stored_len, expected));
    }
    if codec == Codec::Raw && stored_len != plain_len {
        return Err(FormatError::Inconsistent {
            what: "a raw record has a stored length that is not its plain length",
        });
    }
    if codec == Codec::Points && !u64::from(plain_len).is_multiple_of(POINT_LEN as u64) {
        return Err(FormatError::Inconsistent {
            what: "a record of points has a plain length that is no whole number of them",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected, assert_magic};

    fn example() -> RecordHeader {
        RecordHeader {
            kind: ObjectKind::Page,
            codec: Codec::Zstd,
            id: ChunkId::from_bytes([7; 32]),
            plain_len: 65536,
            stored_len: 1234,
        }
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore record v1");
    }

    #[test]
    fn header_reads_back() {
        assert_eq!(RecordHeader::decode(&example().encode()), Ok(example()));
        assert_eq!(usize::try_from(RecordHeader::LEN_U32), Ok(RecordHeader::LEN));
    }

    #[test]
    fn damaged_header_is_rejected() {
        assert_flips_rejected(&example().encode(), RecordHeader::decode);
        assert_exact_length(&example().encode(), RecordHeader::decode);
    }

    #[test]
    fn plain_length_is_checked_at_its_limits() {
        for (plain_len, accepted) in [
            (0, false),
            (1, true),
            (CHUNK_LEN_MAX - 1, true),
            (CHUNK_LEN_MAX, true),
            (CHUNK_LEN_MAX + 1, false),
            (u32::MAX, false),
        ] {
            assert_eq!(check_lens(plain_len, 1, Codec::Zstd).is_ok(), accepted, "{plain_len}");
            assert_eq!(check_lens(plain_len, plain_len, Codec::Raw).is_ok(), accepted);
        }
    }

    #[test]
    fn stored_length_is_checked_at_its_limits() {
        let stored_len_max = CHUNK_LEN_MAX + STORED_OVERHEAD_MAX;
        for (stored_len, accepted) in [
            (0, false),
            (1, true),
            (stored_len_max - 1, true),
            (stored_len_max, true),
            (stored_len_max + 1, false),
        ] {
            let result = check_lens(CHUNK_LEN_MAX, stored_len, Codec::Zstd);
            assert_eq!(result.is_ok(), accepted, "{stored_len}");
        }
        assert!(check_lens(10, 9, Codec::Raw).is_err());
        assert!(check_lens(10, 11, Codec::Raw).is_err());
    }

    #[test]
    fn points_are_whole() {
        for plain_len in 1..100 {
            let is_whole = plain_len % 12 == 0;
            assert_eq!(check_lens(plain_len, 9, Codec::Points).is_ok(), is_whole, "{plain_len}");
        }
    }

    #[test]
    fn kind_codec_and_reserved_bytes_are_checked() {
        for offset in [4, 5, 6, 7] {
            let mut covered = example().encode().to_vec();
            covered.truncate(48);
            *covered.get_mut(offset).unwrap() = 9;
            let checksum = checksum8(&covered);
            covered.extend_from_slice(&checksum);
            let result = RecordHeader::decode(&covered);
            assert!(matches!(result, Err(FormatError::OutOfRange { .. })), "{offset}: {result:?}");
        }
    }
}
