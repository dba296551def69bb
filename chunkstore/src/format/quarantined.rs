//! Quarantine file: records of a pack that were found damaged, with the bytes that were read in their place.
//!
//! Byte layout: `docs/format.md`, section "Quarantine file". The record numbers are strictly ascending, and the evidence is as
//! long as the records say together, so that the same finding has one stored form.

use crate::format::{ByteReader, FormatError};
use crate::id::{ChunkId, PackId};
use crate::limits::{PACK_RECORD_COUNT_MAX, QUARANTINE_EVIDENCE_LEN_MAX, QUARANTINE_TEXT_LEN_MAX};
use crate::time::Timestamp;

/// Digest of "chunkstore quarantine v1".
const MAGIC: [u8; 8] = [0x3b, 0x7a, 0xce, 0xe1, 0x8d, 0x21, 0xd8, 0x2e];

const VERSION: u16 = 1;
const CHECKSUM_LEN: usize = 32;
const RECORD_LEN: usize = ChunkId::LEN + 12;
const STRUCTURE: &str = "quarantine file";

/// A record that was found damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantinedRecord {
    /// The chunk that it should hold.
    pub id: ChunkId,
    /// Counts the records of the pack from 0.
    pub record_index: u32,
    /// Where its header begins in the pack.
    pub offset: u32,
    /// Bytes of the evidence that are from this record: its first ones, as many as there was room for.
    pub evidence_len: u32,
}

/// Damaged records of one pack, found at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The pack.
    pub pack: PackId,
    /// When the damage was confirmed.
    pub found: Timestamp,
    /// The command that found it, for people; at most [`QUARANTINE_TEXT_LEN_MAX`] bytes.
    pub command: String,
    /// What is wrong with the first of the records; at most [`QUARANTINE_TEXT_LEN_MAX`] bytes.
    pub reason: String,
    /// The records, by their number.
    pub records: Vec<QuarantinedRecord>,
    /// What was read in the place of the records, one after another.
    pub evidence: Vec<u8>,
}

impl Quarantined {
    /// Longest stored form in bytes.
    pub const LEN_MAX: u64 = 96
        + 2 * QUARANTINE_TEXT_LEN_MAX as u64
        + (RECORD_LEN as u64) * PACK_RECORD_COUNT_MAX as u64
        + QUARANTINE_EVIDENCE_LEN_MAX as u64;

    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If there are more than 2^32 records.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        for text in [&self.command, &self.reason] {
            let len = u16::try_from(text.len()).expect("texts are cut to their limit");
            out.extend_from_slice(&len.to_le_bytes());
        }
        out.extend_from_slice(&[0; 2]); // reserved
        let count = u32::try_from(self.records.len()).expect("a pack has fewer records");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 4]); // reserved
        out.extend_from_slice(&self.found.0.to_le_bytes());
        out.extend_from_slice(self.pack.as_bytes());
        out.extend_from_slice(self.command.as_bytes());
        out.extend_from_slice(self.reason.as_bytes());
        for record in &self.records {
            out.extend_from_slice(record.id.as_bytes());
            for field in [record.record_index, record.offset, record.evidence_len] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        out.extend_from_slice(&self.evidence);
        let checksum = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&checksum);
        out
    }

    /// Reads a quarantine file.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if it is not as long as its fields say.
    /// - [`FormatError::WrongMagic`] if it is no quarantine file.
    /// - [`FormatError::WrongChecksum`] if a byte was changed.
    /// - [`FormatError::Unsupported`] if a newer program wrote it.
    /// - [`FormatError::OutOfRange`] if a field has a value that is never written.
    /// - [`FormatError::Inconsistent`] if the record numbers do not ascend, or a text is not UTF-8.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        ByteReader::new(bytes).magic(&MAGIC, "a quarantine file")?;
        let (covered, checksum) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(FormatError::Truncated { field: "checksum" })?;
        if blake3::hash(covered).as_bytes() != checksum {
            return Err(FormatError::WrongChecksum { structure: STRUCTURE });
        }
        let mut input = ByteReader::new(covered);
        input.take(MAGIC.len(), "magic")?;
        let version = input.u16("version")?;
        if version != VERSION {
            let (found, supported) = (version.into(), VERSION.into());
            return Err(FormatError::Unsupported { structure: STRUCTURE, found, supported });
        }
        let command_len = input.u16("command length")?;
        let reason_len = input.u16("reason length")?;
        input.reserved::<2>()?;
        let count = input.u32("record count")?;
        input.reserved::<4>()?;
        let found = Timestamp(input.i64("time")?);
        let pack = PackId::from_bytes(input.array("pack id")?);
        let command = take_text(&mut input, command_len, "command length")?;
        let reason = take_text(&mut input, reason_len, "reason length")?;
        let records = take_records(&mut input, count)?;
        let evidence_len = records
            .iter()
            .try_fold(0_u32, |sum, record| sum.checked_add(record.evidence_len))
            .filter(|len| *len <= QUARANTINE_EVIDENCE_LEN_MAX);
        let evidence_len = evidence_len.ok_or_else(|| {
            FormatError::out_of_range("evidence length", u32::MAX, "at most 512 KiB together")
        })?;
        let evidence_len = usize::try_from(evidence_len).unwrap_or(usize::MAX);
        let evidence = input.take(evidence_len, "evidence")?.to_vec();
        input.finish(STRUCTURE)?;
        Ok(Self { pack, found, command, reason, records, evidence })
    }
}

fn take_text(
    input: &mut ByteReader<'_>,
    len: u16,
    field: &'static str,
) -> Result<String, FormatError> {
    if QUARANTINE_TEXT_LEN_MAX < len {
        return Err(FormatError::out_of_range(field, len, "at most 1024"));
    }
    let bytes = input.take(len.into(), "text")?.to_vec();
    String::from_utf8(bytes).map_err(|_| FormatError::Inconsistent { what: "a text is not UTF-8" })
}

fn take_records(
    input: &mut ByteReader<'_>,
    count: u32,
) -> Result<Vec<QuarantinedRecord>, FormatError> {
    if count == 0 || PACK_RECORD_COUNT_MAX < count {
        return Err(FormatError::out_of_range("record count", count, "1 to 2^20"));
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if input.remaining().checked_div(RECORD_LEN).is_none_or(|whole| whole < count) {
        return Err(FormatError::Truncated { field: "records" });
    }
    let mut records: Vec<QuarantinedRecord> = Vec::with_capacity(count);
    for _ in 0..count {
        let record = QuarantinedRecord {
            id: ChunkId::from_bytes(input.array("chunk id")?),
            record_index: input.u32("record number")?,
            offset: input.u32("record offset")?,
            evidence_len: input.u32("evidence length")?,
        };
        if PACK_RECORD_COUNT_MAX <= record.record_index {
            let (field, found) = ("record number", record.record_index);
            return Err(FormatError::out_of_range(field, found, "below 2^20"));
        }
        if records.last().is_some_and(|last| record.record_index <= last.record_index) {
            let what = "the record numbers are not ascending";
            return Err(FormatError::Inconsistent { what });
        }
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected, assert_magic};

    fn record(record_index: u32, evidence_len: u32) -> QuarantinedRecord {
        QuarantinedRecord {
            id: ChunkId::from_bytes([7; 32]),
            record_index,
            offset: 80,
            evidence_len,
        }
    }

    fn example() -> Quarantined {
        Quarantined {
            pack: PackId::from_bytes([3; 32]),
            found: Timestamp(1_790_000_000_000),
            command: "backy verify".to_owned(),
            reason: "its bytes hash to something else".to_owned(),
            records: vec![record(1, 3), record(4, 0), record(9, 2)],
            evidence: vec![1, 2, 3, 4, 5],
        }
    }

    /// Returns the example with other bytes at a place, and a checksum that matches.
    fn changed(place: usize, bytes: &[u8]) -> Vec<u8> {
        let example = example().encode();
        let (covered, _) = example.split_last_chunk::<CHECKSUM_LEN>().unwrap();
        let (before, rest) = covered.split_at(place);
        let (_, after) = rest.split_at(bytes.len());
        let changed = [before, bytes, after].concat();
        let checksum = blake3::hash(&changed);
        [&changed, &checksum.as_bytes()[..]].concat()
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore quarantine v1");
    }

    #[test]
    fn quarantine_file_reads_back() {
        assert_eq!(Quarantined::decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn damaged_quarantine_file_is_rejected() {
        assert_flips_rejected(&example().encode(), Quarantined::decode);
        assert_exact_length(&example().encode(), Quarantined::decode);
    }

    #[test]
    fn records_must_ascend_and_there_is_one() {
        let with = |records| Quarantined::decode(&Quarantined { records, ..example() }.encode());
        assert!(with(vec![record(0, 5), record(PACK_RECORD_COUNT_MAX - 1, 0)]).is_ok());
        assert!(with(vec![record(1, 5), record(1, 0)]).is_err());
        assert!(with(vec![record(2, 5), record(1, 0)]).is_err());
        assert!(with(vec![record(PACK_RECORD_COUNT_MAX, 5)]).is_err());
        assert!(with(Vec::new()).is_err());
    }

    #[test]
    fn evidence_is_bounded_and_as_long_as_the_records_say() {
        let with = |records, len| {
            let evidence = vec![0; len];
            Quarantined::decode(&Quarantined { records, evidence, ..example() }.encode())
        };
        let len_max = usize::try_from(QUARANTINE_EVIDENCE_LEN_MAX).unwrap();
        assert!(with(vec![record(0, QUARANTINE_EVIDENCE_LEN_MAX)], len_max).is_ok());
        assert!(with(vec![record(0, QUARANTINE_EVIDENCE_LEN_MAX + 1)], len_max + 1).is_err());
        assert!(with(vec![record(0, u32::MAX), record(1, 6)], 5).is_err(), "the sum overflows");
        assert!(with(vec![record(0, 4)], 5).is_err());
        assert!(with(vec![record(0, 6)], 5).is_err());
    }

    #[test]
    fn texts_are_bounded() {
        let with = |len| {
            let reason = "x".repeat(len);
            Quarantined::decode(&Quarantined { reason, ..example() }.encode())
        };
        let len_max = usize::from(QUARANTINE_TEXT_LEN_MAX);
        assert!(with(len_max).is_ok());
        assert!(with(len_max + 1).is_err());
    }

    #[test]
    fn count_is_checked_before_memory_is_taken() {
        for (count, truncated) in
            [(PACK_RECORD_COUNT_MAX, true), (PACK_RECORD_COUNT_MAX + 1, false), (u32::MAX, false)]
        {
            let result = Quarantined::decode(&changed(16, &count.to_le_bytes()));
            let is_truncated = matches!(result, Err(FormatError::Truncated { .. }));
            assert_eq!(is_truncated, truncated, "{count}: {result:?}");
            assert!(result.is_err());
        }
    }

    #[test]
    fn quarantine_file_of_the_future_is_unsupported() {
        let result = Quarantined::decode(&changed(8, &[2]));
        assert!(matches!(result, Err(FormatError::Unsupported { .. })), "{result:?}");
    }
}
