#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use super::*;
use crate::format::test_support::{assert_flips_rejected, assert_magic};
use crate::limits::CHUNK_LEN_MAX;

/// Returns a footer of `count` records and the place of its table.
fn example(count: u32) -> (PackFooter, u32) {
    let mut offset = 80;
    let mut records = Vec::new();
    for number in 0..count {
        let record = FooterRecord {
            id: ObjectKind::Data.chunk_id(&number.to_le_bytes()),
            offset: PackOffset(offset),
            plain_len: 100,
            stored_len: 1 + number % 100,
            kind: ObjectKind::Data,
            codec: Codec::Zstd,
        };
        offset += record.len_in_pack();
        records.push(record);
    }
    (PackFooter { records }, offset)
}

fn encode(footer: &PackFooter, table_offset: u32) -> (Vec<u8>, u64) {
    let bytes = footer.encode(table_offset);
    let file_len = u64::from(table_offset) + u64::try_from(bytes.len()).unwrap();
    (bytes, file_len)
}

#[test]
fn magic_is_the_digest_of_its_sentence() {
    assert_magic(&MAGIC, "chunkstore pack end v1");
}

#[test]
fn footer_reads_back() {
    for count in [1, 2, 1000] {
        let (footer, table_offset) = example(count);
        let (bytes, file_len) = encode(&footer, table_offset);
        let trailer = bytes.last_chunk::<{ PackFooter::TRAILER_LEN }>().unwrap();
        let range = PackFooter::table_range(trailer, file_len).unwrap();
        assert_eq!(range, u64::from(table_offset)..file_len - 64);
        assert_eq!(PackFooter::decode(&bytes, file_len), Ok(footer));
    }
}

#[test]
fn damaged_footer_is_rejected() {
    let (footer, table_offset) = example(2);
    let (bytes, file_len) = encode(&footer, table_offset);
    assert_flips_rejected(&bytes, |bytes| PackFooter::decode(bytes, file_len));
}

#[test]
fn footer_of_a_file_of_another_length_is_rejected() {
    let (footer, table_offset) = example(2);
    let (bytes, file_len) = encode(&footer, table_offset);
    assert!(PackFooter::decode(&bytes, file_len - 1).is_err());
    assert!(PackFooter::decode(&bytes, file_len + 1).is_err());
    for len in 0..bytes.len() {
        let (front, back) = bytes.split_at(len);
        assert!(PackFooter::decode(front, file_len).is_err(), "cut to {len}");
        assert!(len == 0 || PackFooter::decode(back, file_len).is_err(), "first {len} cut off");
    }
}

#[test]
fn record_count_is_checked_at_its_limits() {
    let mut trailer =
        Trailer { table_checksum: [0; 32], record_count: 0, table_offset: 80, plain_total: 0 };
    for (record_count, accepted) in [
        (0, false),
        (1, true),
        (PACK_RECORD_COUNT_MAX - 1, true),
        (PACK_RECORD_COUNT_MAX, true),
        (PACK_RECORD_COUNT_MAX + 1, false),
        (u32::MAX, false),
    ] {
        trailer.record_count = record_count;
        let file_len = 80 + 48 * u64::from(record_count) + 64;
        let result = PackFooter::table_range(&trailer.encode(), file_len);
        assert_eq!(result.is_ok(), accepted, "{record_count}");
    }
}

#[test]
fn pack_length_is_checked_at_its_limit() {
    for (file_len, accepted) in
        [(PACK_LEN_MAX - 1, true), (PACK_LEN_MAX, true), (PACK_LEN_MAX + 1, false)]
    {
        let trailer = Trailer {
            table_checksum: [0; 32],
            record_count: 1,
            table_offset: u32::try_from(file_len - 112).unwrap(),
            plain_total: 0,
        };
        let result = PackFooter::table_range(&trailer.encode(), file_len);
        assert_eq!(result.is_ok(), accepted, "{file_len}");
    }
}

/// Encodes a footer after `change`, with checksums that match.
fn changed(change: impl FnOnce(&mut PackFooter, &mut u32)) -> Result<PackFooter, FormatError> {
    let (mut footer, mut table_offset) = example(3);
    change(&mut footer, &mut table_offset);
    let (bytes, file_len) = encode(&footer, table_offset);
    PackFooter::decode(&bytes, file_len)
}

fn second(footer: &mut PackFooter) -> &mut FooterRecord {
    footer.records.get_mut(1).unwrap()
}

#[test]
fn gaps_and_overlaps_are_rejected() {
    assert!(changed(|_, _| ()).is_ok());
    assert!(changed(|footer, _| second(footer).offset.0 += 1).is_err());
    assert!(changed(|footer, _| second(footer).offset.0 -= 1).is_err());
    assert!(changed(|footer, _| second(footer).stored_len += 1).is_err());
    assert!(changed(|footer, _| footer.records.swap(0, 1)).is_err());
    assert!(changed(|_, table_offset| *table_offset += 1).is_err());
    assert!(changed(|_, table_offset| *table_offset -= 1).is_err());
}

#[test]
fn lengths_beyond_their_limits_are_rejected() {
    assert!(changed(|footer, _| second(footer).plain_len = 0).is_err());
    assert!(changed(|footer, _| second(footer).plain_len = CHUNK_LEN_MAX).is_ok());
    assert!(changed(|footer, _| second(footer).plain_len = CHUNK_LEN_MAX + 1).is_err());
    assert!(changed(|footer, _| second(footer).stored_len = u32::MAX).is_err());
    assert!(changed(|footer, _| second(footer).codec = Codec::Raw).is_err());
}

#[test]
fn wrong_total_is_rejected() {
    let (footer, table_offset) = example(1);
    let (bytes, file_len) = encode(&footer, table_offset);
    let (table, trailer) = bytes.split_at(48);
    let mut trailer = Trailer::decode(trailer).unwrap();
    trailer.plain_total += 1;
    let bytes = [table, &trailer.encode()].concat();
    let result = PackFooter::decode(&bytes, file_len);
    assert!(matches!(result, Err(FormatError::Inconsistent { .. })), "{result:?}");
}
