//! Pack footer: no panic, and what decodes encodes back to the same bytes.

#![no_main]

use backy_fuzz::fix_checksum8;
use chunkstore::format::PackFooter;
use libfuzzer_sys::fuzz_target;

const TABLE_CHECKSUM_LEN: usize = 32;
const TABLE_OFFSET_START: usize = 36;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut bytes = bytes.to_vec();
    if let Some(table_len) = bytes.len().checked_sub(PackFooter::TRAILER_LEN) {
        let (table, trailer) = bytes.split_at_mut(table_len);
        trailer[..TABLE_CHECKSUM_LEN].copy_from_slice(blake3::hash(table).as_bytes());
        fix_checksum8(trailer, 48);
    }
    check(&bytes);
});

/// Decodes the footer of a file that is as long as the footer says.
fn check(bytes: &[u8]) {
    let Some(trailer) = bytes.last_chunk::<{ PackFooter::TRAILER_LEN }>() else {
        assert!(PackFooter::decode(bytes, bytes.len() as u64).is_err());
        return;
    };
    let (_, rest) = trailer.split_at(TABLE_OFFSET_START);
    let table_offset = u32::from_le_bytes(*rest.first_chunk().expect("a trailer is longer"));
    let file_len = u64::from(table_offset) + bytes.len() as u64;
    if let Ok(footer) = PackFooter::decode(bytes, file_len) {
        assert_eq!(footer.encode(table_offset), bytes);
        let range = PackFooter::table_range(trailer, file_len).expect("the footer decodes");
        assert_eq!(range.start, u64::from(table_offset));
    }
}
