//! Overlay header: which revision an overlay lies over.
//!
//! Byte layout: `docs/format.md`, section "Overlay file". It is written last of all when an overlay is created, and never
//! changed.

use crate::format::{ByteReader, FormatError};
use crate::id::{OverlayId, RevisionId, SourceName, StoreId};
use crate::limits::{IMAGE_LEN_MAX, NAME_LEN_MAX};

/// Digest of "chunkstore overlay v1".
const MAGIC: [u8; 8] = [0x6c, 0x60, 0x8d, 0x7a, 0xe8, 0x89, 0x5e, 0xcf];

const VERSION: u16 = 1;
const STRUCTURE: &str = "overlay header";
const CHECKSUM_LEN: usize = 32;

/// Which revision an overlay lies over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayHeader {
    /// The overlay; each page of its map names it too.
    pub id: OverlayId,
    /// The store that has the revision.
    pub store_id: StoreId,
    /// The revision.
    pub revision: RevisionId,
    /// The source of the revision.
    pub source: SourceName,
    /// Size of the image in bytes.
    pub image_len: u64,
}

impl OverlayHeader {
    /// Length in bytes.
    pub const LEN: usize = 360;

    /// Bytes of the image whose state the map keeps together.
    pub const BLOCK_LEN: u32 = 4096;

    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If the name of the source is longer than names can be.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let name = self.source.as_str().as_bytes();
        let name_len = u8::try_from(name.len()).expect("a name has at most 255 bytes");
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]); // flags
        out.extend_from_slice(&Self::BLOCK_LEN.to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.store_id.as_bytes());
        out.extend_from_slice(self.revision.as_bytes());
        out.extend_from_slice(&self.image_len.to_le_bytes());
        out.push(name_len);
        out.extend_from_slice(name);
        out.resize(Self::LEN.saturating_sub(CHECKSUM_LEN), 0);
        let checksum = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&checksum);
        out.try_into().expect("the fields add up to LEN")
    }

    /// Reads a header from exactly [`OverlayHeader::LEN`] bytes.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the length is another.
    /// - [`FormatError::WrongMagic`] if it is not an overlay.
    /// - [`FormatError::WrongChecksum`] if a byte was changed.
    /// - [`FormatError::Unsupported`] if a newer program wrote it.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        ByteReader::new(bytes).magic(&MAGIC, "an overlay")?;
        let mut input = checked_fields(bytes)?;
        let version = input.u16("version")?;
        if version != VERSION {
            return Err(unsupported(version));
        }
        let flags = input.u16("flags")?;
        if flags != 0 {
            return Err(unsupported(flags));
        }
        let block_len = input.u32("block length")?;
        if block_len != Self::BLOCK_LEN {
            return Err(FormatError::out_of_range("block length", block_len, "4096"));
        }
        let id = OverlayId::from_bytes(input.array("overlay id")?);
        let store_id = StoreId::from_bytes(input.array("store id")?);
        let revision = RevisionId::from_bytes(input.array("revision id")?);
        let image_len = input.u64("image length")?;
        if IMAGE_LEN_MAX < image_len {
            return Err(FormatError::out_of_range("image length", image_len, "at most 2^50"));
        }
        let source = take_name(&mut input)?;
        input.finish(STRUCTURE)?;
        Ok(Self { id, store_id, revision, source, image_len })
    }
}

/// Returns the fields between magic and checksum once the checksum matches.
fn checked_fields(bytes: &[u8]) -> Result<ByteReader<'_>, FormatError> {
    let mut input = ByteReader::new(bytes);
    let covered = input.take(OverlayHeader::LEN.saturating_sub(CHECKSUM_LEN), STRUCTURE)?;
    let checksum = input.array::<CHECKSUM_LEN>("checksum")?;
    input.finish(STRUCTURE)?;
    if checksum != *blake3::hash(covered).as_bytes() {
        return Err(FormatError::WrongChecksum { structure: STRUCTURE });
    }
    let mut fields = ByteReader::new(covered);
    fields.take(MAGIC.len(), "magic")?;
    Ok(fields)
}

/// Takes the length and the field of the name; what the name does not fill is zero.
fn take_name(input: &mut ByteReader<'_>) -> Result<SourceName, FormatError> {
    let name_len = input.u8("length of the source name")?;
    let mut field = ByteReader::new(input.take(NAME_LEN_MAX, "source name")?);
    let name = field.take(name_len.into(), "source name")?;
    let rest = field.take(field.remaining(), "source name")?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(FormatError::Inconsistent { what: "bytes follow its source name" });
    }
    let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    name.ok_or(FormatError::Inconsistent { what: "its source name is not a name" })
}

fn unsupported(found: u16) -> FormatError {
    FormatError::Unsupported {
        structure: STRUCTURE,
        found: found.into(),
        supported: VERSION.into(),
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests index their own bytes")]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected, assert_magic};

    fn example(name: &str) -> OverlayHeader {
        OverlayHeader {
            id: OverlayId::from_bytes([1; 16]),
            store_id: StoreId::from_bytes([2; 16]),
            revision: RevisionId::from_bytes([3; 16]),
            source: name.parse().unwrap(),
            image_len: 69632,
        }
    }

    /// Returns the example with other bytes at a place, and a checksum that matches.
    fn altered(place: usize, bytes: &[u8]) -> Vec<u8> {
        let mut out = example("vm1").encode().to_vec();
        out[place..][..bytes.len()].copy_from_slice(bytes);
        let checksum = *blake3::hash(&out[..OverlayHeader::LEN - CHECKSUM_LEN]).as_bytes();
        out[OverlayHeader::LEN - CHECKSUM_LEN..].copy_from_slice(&checksum);
        out
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore overlay v1");
    }

    #[test]
    fn header_reads_back_with_names_of_any_length() {
        for name in ["a", "vm1", &"n".repeat(NAME_LEN_MAX)] {
            assert_eq!(OverlayHeader::decode(&example(name).encode()), Ok(example(name)));
        }
    }

    #[test]
    fn damaged_header_is_rejected() {
        assert_flips_rejected(&example("vm1").encode(), OverlayHeader::decode);
        assert_exact_length(&example("vm1").encode(), OverlayHeader::decode);
    }

    #[test]
    fn header_of_the_future_is_unsupported() {
        for place in [8, 10] {
            let result = OverlayHeader::decode(&altered(place, &[2]));
            assert!(matches!(result, Err(FormatError::Unsupported { found: 2, .. })), "{result:?}");
        }
    }

    #[test]
    fn fields_are_checked() {
        let too_long = (IMAGE_LEN_MAX + 1).to_le_bytes();
        for (place, bytes) in [
            (12, &[0, 2, 0, 0][..]),
            (64, &too_long),
            (72, &[0]),
            (72, &[2]),
            (72, &[4]),
            (73, b"-"),
            (73, &[0xff]),
        ] {
            assert!(OverlayHeader::decode(&altered(place, bytes)).is_err(), "{place} {bytes:?}");
        }
        assert!(OverlayHeader::decode(&altered(64, &IMAGE_LEN_MAX.to_le_bytes())).is_ok());
    }
}
