//! Pack footer: the table of a pack's records and the trailer that ends the file.
//!
//! Byte layout: `docs/format.md`, section "Pack footer". A footer that decodes describes records
//! that lie one after the other from the header to the table, without gap and without overlap.

use std::ops::Range;

use crate::format::checksum::{CHECKSUM8_LEN, checksum8};
use crate::format::record_header::check_lens;
use crate::format::{ByteReader, Codec, FormatError, ObjectKind, PackHeader, RecordHeader};
use crate::id::ChunkId;
use crate::limits::{PACK_LEN_MAX, PACK_RECORD_COUNT_MAX};
use crate::units::PackOffset;

/// Digest of "chunkstore pack end v1".
const MAGIC: [u8; 8] = [0x89, 0x58, 0xf2, 0x71, 0x00, 0x9a, 0xe8, 0x0b];

const STRUCTURE: &str = "pack footer";

/// One record of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterRecord {
    /// Id of the plain bytes.
    pub id: ChunkId,
    /// Place of the record header in the file.
    pub offset: PackOffset,
    /// Length of the plain bytes.
    pub plain_len: u32,
    /// Length of the payload.
    pub stored_len: u32,
    /// What the plain bytes are.
    pub kind: ObjectKind,
    /// How the payload becomes the plain bytes.
    pub codec: Codec,
}

impl FooterRecord {
    /// Length in bytes of its entry in the table.
    pub const LEN: usize = 48;

    /// Returns the length of the record in the pack: header and payload.
    #[must_use]
    pub const fn len_in_pack(&self) -> u32 {
        self.stored_len.saturating_add(RecordHeader::LEN_U32)
    }

    /// Returns the header that stands before the payload.
    #[must_use]
    pub const fn header(&self) -> RecordHeader {
        RecordHeader {
            kind: self.kind,
            codec: self.codec,
            id: self.id,
            plain_len: self.plain_len,
            stored_len: self.stored_len,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.offset.0.to_le_bytes());
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        out.push(self.kind.to_byte());
        out.push(self.codec.to_byte());
        out.extend_from_slice(&[0; 2]); // reserved
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, FormatError> {
        let id = ChunkId::from_bytes(input.array("chunk id")?);
        let offset = PackOffset(input.u32("record offset")?);
        let plain_len = input.u32("plain length")?;
        let stored_len = input.u32("stored length")?;
        let kind = ObjectKind::from_byte(input.u8("object kind")?)?;
        let codec = Codec::from_byte(input.u8("codec")?)?;
        input.reserved::<2>()?;
        check_lens(plain_len, stored_len, codec)?;
        Ok(Self { id, offset, plain_len, stored_len, kind, codec })
    }
}

/// The records of a pack, in the order in which they lie in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackFooter {
    /// 1 to [`PACK_RECORD_COUNT_MAX`] records.
    pub records: Vec<FooterRecord>,
}

impl PackFooter {
    /// Length of the trailer in bytes.
    pub const TRAILER_LEN: usize = 64;

    /// Returns table and trailer, which are written at `table_offset` and end the file.
    ///
    /// # Panics
    ///
    /// If there are more records than a pack may have.
    #[must_use]
    pub fn encode(&self, table_offset: u32) -> Vec<u8> {
        let record_count = u32::try_from(self.records.len()).expect("a pack writer counts records");
        assert!(record_count <= PACK_RECORD_COUNT_MAX, "a pack writer counts records");
        let mut out = Vec::with_capacity(
            self.records.len().saturating_mul(FooterRecord::LEN).saturating_add(Self::TRAILER_LEN),
        );
        self.records.iter().for_each(|record| record.encode(&mut out));
        let trailer = Trailer {
            table_checksum: *blake3::hash(&out).as_bytes(),
            record_count,
            table_offset,
            plain_total: self.plain_total(),
        };
        out.extend_from_slice(&trailer.encode());
        out
    }

    /// Returns where the table lies in a file of `file_len` bytes that ends with `trailer`, which
    /// must be [`PackFooter::TRAILER_LEN`] bytes. The table itself is not looked at.
    ///
    /// # Errors
    ///
    /// - [`FormatError::WrongMagic`] if the file does not end as a pack does.
    /// - [`FormatError::WrongChecksum`] if a byte of the trailer was changed.
    /// - [`FormatError::OutOfRange`] if a length or a count is beyond its limits.
    /// - [`FormatError::Inconsistent`] if a file of that length has no such table.
    pub fn table_range(trailer: &[u8], file_len: u64) -> Result<Range<u64>, FormatError> {
        Trailer::decode(trailer)?.table_range(file_len)
    }

    /// Reads the footer from the bytes between the start of the table and the end of a file of
    /// `file_len` bytes.
    ///
    /// # Errors
    ///
    /// - Those of [`PackFooter::table_range`].
    /// - [`FormatError::WrongChecksum`] if a byte of the table was changed.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    /// - [`FormatError::Inconsistent`] if the records do not lie one after the other, or if the
    ///   totals are wrong.
    pub fn decode(table_and_trailer: &[u8], file_len: u64) -> Result<Self, FormatError> {
        let table_len = table_and_trailer
            .len()
            .checked_sub(Self::TRAILER_LEN)
            .ok_or(FormatError::Truncated { field: STRUCTURE })?;
        let mut input = ByteReader::new(table_and_trailer);
        let table = input.take(table_len, "record table")?;
        let trailer = Trailer::decode(input.take(Self::TRAILER_LEN, "trailer")?)?;
        let range = trailer.table_range(file_len)?;
        if range.end.checked_sub(range.start) != u64::try_from(table_len).ok() {
            return Err(FormatError::Inconsistent {
                what: "the record table does not have the length that the trailer says",
            });
        }
        if *blake3::hash(table).as_bytes() != trailer.table_checksum {
            return Err(FormatError::WrongChecksum { structure: "record table" });
        }
        let footer = Self { records: decode_table(table, &trailer)? };
        if footer.plain_total() != trailer.plain_total {
            return Err(FormatError::Inconsistent {
                what: "the plain lengths of the records do not add up to the total",
            });
        }
        Ok(footer)
    }

    /// Returns the sum of the plain lengths; at most 2^20 times 16 MiB.
    #[must_use]
    pub fn plain_total(&self) -> u64 {
        self.records.iter().map(|record| u64::from(record.plain_len)).sum()
    }
}

/// Reads entries, which must follow each other from the pack header to the table.
fn decode_table(table: &[u8], trailer: &Trailer) -> Result<Vec<FooterRecord>, FormatError> {
    let mut input = ByteReader::new(table);
    let mut records = Vec::with_capacity(table.len() / FooterRecord::LEN);
    let mut offset = u32::try_from(PackHeader::LEN).expect("80 fits");
    for _ in 0..trailer.record_count {
        let record = FooterRecord::decode(&mut input)?;
        if record.offset.0 != offset {
            return Err(FormatError::Inconsistent {
                what: "a record does not begin where the one before it ends",
            });
        }
        offset = offset.saturating_add(record.len_in_pack());
        records.push(record);
    }
    input.finish("record table")?;
    if offset != trailer.table_offset {
        return Err(FormatError::Inconsistent {
            what: "the record table does not begin where the last record ends",
        });
    }
    Ok(records)
}

/// The last bytes of a pack.
struct Trailer {
    table_checksum: [u8; 32],
    record_count: u32,
    table_offset: u32,
    plain_total: u64,
}

impl Trailer {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PackFooter::TRAILER_LEN);
        out.extend_from_slice(&self.table_checksum);
        out.extend_from_slice(&self.record_count.to_le_bytes());
        out.extend_from_slice(&self.table_offset.to_le_bytes());
        out.extend_from_slice(&self.plain_total.to_le_bytes());
        let checksum = checksum8(&out);
        out.extend_from_slice(&checksum);
        out.extend_from_slice(&MAGIC);
        debug_assert_eq!(out.len(), PackFooter::TRAILER_LEN);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut input = ByteReader::new(bytes);
        let covered = input.take(48, "trailer")?;
        let checksum = input.array::<CHECKSUM8_LEN>("checksum")?;
        input.magic(&MAGIC, "the end of a pack")?;
        input.finish("pack trailer")?;
        if checksum != checksum8(covered) {
            return Err(FormatError::WrongChecksum { structure: "pack trailer" });
        }
        let mut fields = ByteReader::new(covered);
        let trailer = Self {
            table_checksum: fields.array("table checksum")?,
            record_count: fields.u32("record count")?,
            table_offset: fields.u32("table offset")?,
            plain_total: fields.u64("plain total")?,
        };
        fields.finish("pack trailer")?;
        Ok(trailer)
    }

    fn table_range(&self, file_len: u64) -> Result<Range<u64>, FormatError> {
        if PACK_LEN_MAX < file_len {
            return Err(FormatError::out_of_range("pack length", file_len, "at most 256 MiB"));
        }
        if self.record_count == 0 || PACK_RECORD_COUNT_MAX < self.record_count {
            let found = self.record_count;
            return Err(FormatError::out_of_range("record count", found, "1 to 2^20"));
        }
        let entry_len = u64::try_from(FooterRecord::LEN).expect("48 fits");
        let trailer_len = u64::try_from(PackFooter::TRAILER_LEN).expect("64 fits");
        let start = u64::from(self.table_offset);
        let end = start.saturating_add(entry_len.saturating_mul(u64::from(self.record_count)));
        if end.checked_add(trailer_len) != Some(file_len) {
            return Err(FormatError::Inconsistent {
                what: "header, records, table and trailer do not add up to the length of the pack",
            });
        }
        Ok(start..end)
    }
}

#[cfg(test)]
mod tests;
