//! Pack header: the first bytes of every pack.
//!
//! Byte layout: `docs/format.md`, section "Pack header". The checksum is checked before the version,
//! so that a flipped bit is damage and never a format of the future.

use crate::format::checksum::{CHECKSUM8_LEN, checksum8};
use crate::format::{ByteReader, FormatError, PackKind};
use crate::id::{SessionId, StoreId};
use crate::time::Timestamp;

/// Digest of "chunkstore pack v1".
const MAGIC: [u8; 8] = [0x73, 0x7c, 0x81, 0x40, 0x69, 0xee, 0xcf, 0xcf];

const VERSION: u16 = 1;
const STRUCTURE: &str = "pack header";

/// What a pack is and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHeader {
    /// What its records are.
    pub kind: PackKind,
    /// The store that it belongs to.
    pub store_id: StoreId,
    /// The session that wrote it. While that session lives, its packs are left alone.
    pub session_id: SessionId,
    /// When it was begun; the grace of a session that died is counted from here.
    pub created: Timestamp,
}

impl PackHeader {
    /// Length in bytes.
    pub const LEN: usize = 80;

    /// Returns the stored form.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the length is a constant")]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]); // flags
        out.push(self.kind.to_byte());
        out.extend_from_slice(&[0; 3]); // reserved
        out.extend_from_slice(self.store_id.as_bytes());
        out.extend_from_slice(self.session_id.as_bytes());
        out.extend_from_slice(&[0; 8]); // key id
        out.extend_from_slice(&self.created.0.to_le_bytes());
        out.extend_from_slice(&[0; 8]); // reserved
        let checksum = checksum8(&out);
        out.extend_from_slice(&checksum);
        out.try_into().expect("the fields add up to LEN")
    }

    /// Reads a header from exactly [`PackHeader::LEN`] bytes.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the length is another.
    /// - [`FormatError::WrongMagic`] if it is not a pack.
    /// - [`FormatError::WrongChecksum`] if a byte was changed.
    /// - [`FormatError::Unsupported`] if a newer program wrote it, or if it is encrypted.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut input = ByteReader::new(bytes);
        input.magic(&MAGIC, "a pack")?;
        let mut input = checked_fields(bytes)?;
        let version = input.u16("version")?;
        if version != VERSION {
            return Err(unsupported(version));
        }
        let flags = input.u16("flags")?;
        if flags != 0 {
            return Err(unsupported(flags));
        }
        let kind = PackKind::from_byte(input.u8("pack kind")?)?;
        input.reserved::<3>()?;
        let store_id = StoreId::from_bytes(input.array("store id")?);
        let session_id = SessionId::from_bytes(input.array("session id")?);
        let key_id = input.u64("key id")?;
        if key_id != 0 {
            return Err(unsupported(u32::try_from(key_id).unwrap_or(u32::MAX)));
        }
        let created = Timestamp(input.i64("creation time")?);
        input.reserved::<8>()?;
        input.finish(STRUCTURE)?;
        Ok(Self { kind, store_id, session_id, created })
    }
}

/// Returns the fields between magic and checksum once the checksum matches.
fn checked_fields(bytes: &[u8]) -> Result<ByteReader<'_>, FormatError> {
    let mut input = ByteReader::new(bytes);
    let covered = input.take(PackHeader::LEN.saturating_sub(CHECKSUM8_LEN), STRUCTURE)?;
    let checksum = input.array::<CHECKSUM8_LEN>("checksum")?;
    input.finish(STRUCTURE)?;
    if checksum != checksum8(covered) {
        return Err(FormatError::WrongChecksum { structure: STRUCTURE });
    }
    let mut fields = ByteReader::new(covered);
    fields.take(MAGIC.len(), "magic")?;
    Ok(fields)
}

fn unsupported(found: impl Into<u32>) -> FormatError {
    FormatError::Unsupported {
        structure: STRUCTURE,
        found: found.into(),
        supported: u32::from(VERSION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected, assert_magic};

    fn example() -> PackHeader {
        PackHeader {
            kind: PackKind::List,
            store_id: StoreId::from_bytes([1; 16]),
            session_id: SessionId::from_bytes([2; 16]),
            created: Timestamp(-3),
        }
    }

    /// Returns the example with `bytes` at `offset` and a checksum that matches.
    fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
        let mut encoded = example().encode().to_vec();
        encoded.truncate(72);
        encoded.splice(offset..offset.saturating_add(bytes.len()), bytes.iter().copied());
        let checksum = checksum8(&encoded);
        encoded.extend_from_slice(&checksum);
        encoded
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore pack v1");
    }

    #[test]
    fn header_reads_back() {
        assert_eq!(PackHeader::decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn damaged_header_is_rejected() {
        assert_flips_rejected(&example().encode(), PackHeader::decode);
        assert_exact_length(&example().encode(), PackHeader::decode);
    }

    #[test]
    fn header_of_the_future_is_unsupported() {
        for (offset, bytes) in [(8, &[2, 0][..]), (10, &[1]), (11, &[0x80]), (48, &[1])] {
            let result = PackHeader::decode(&with(offset, bytes));
            assert!(matches!(result, Err(FormatError::Unsupported { .. })), "{offset}: {result:?}");
        }
    }

    #[test]
    fn values_that_are_never_written_are_rejected() {
        for offset in [13, 14, 15, 64, 71] {
            let result = PackHeader::decode(&with(offset, &[1]));
            assert!(matches!(result, Err(FormatError::OutOfRange { .. })), "{offset}: {result:?}");
        }
        assert!(PackHeader::decode(&with(12, &[2])).is_err());
    }
}
