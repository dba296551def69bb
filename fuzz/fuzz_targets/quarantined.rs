//! Quarantine file: no panic, and what decodes encodes back to the same bytes.

#![no_main]

use chunkstore::format::Quarantined;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let checksum = blake3::hash(bytes);
    check(&[bytes, checksum.as_bytes()].concat());
});

fn check(bytes: &[u8]) {
    if let Ok(file) = Quarantined::decode(bytes) {
        assert_eq!(file.encode(), bytes);
    }
}
