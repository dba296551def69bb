//! Overlay header: no panic, and what decodes encodes back to the same bytes.

#![no_main]

use chunkstore::format::OverlayHeader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // With the right length and checksum.
    let mut fields = bytes.to_vec();
    fields.resize(OverlayHeader::LEN - 32, 0);
    let checksum = blake3::hash(&fields);
    check(&[fields.as_slice(), checksum.as_bytes()].concat());
});

fn check(bytes: &[u8]) {
    if let Ok(header) = OverlayHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes);
    }
}
