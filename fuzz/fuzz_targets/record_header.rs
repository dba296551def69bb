//! Record header: no panic, and what decodes encodes back to the same bytes.

#![no_main]

use backy_fuzz::fix_checksum8;
use chunkstore::format::RecordHeader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut bytes = bytes.to_vec();
    fix_checksum8(&mut bytes, RecordHeader::LEN - 8);
    check(&bytes);
});

fn check(bytes: &[u8]) {
    if let Ok(header) = RecordHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes);
    }
}
