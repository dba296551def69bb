//! Ledger: no panic, and what decodes encodes back to the same bytes.

#![no_main]

use chunkstore::format::Ledger;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let checksum = blake3::hash(bytes);
    check(&[bytes, checksum.as_bytes()].concat());
});

fn check(bytes: &[u8]) {
    if let Ok(ledger) = Ledger::decode(bytes) {
        assert_eq!(ledger.encode(), bytes);
    }
}
