//! Mismatch report: no panic, and what decodes is the same after encoding and decoding again.

#![no_main]

use backy_fuzz::document;
use chunkstore::format::MismatchReport;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&document("chunkstore mismatch", bytes));
});

fn check(bytes: &[u8]) {
    if let Ok(value) = MismatchReport::decode(bytes) {
        assert_eq!(MismatchReport::decode(&value.encode()), Ok(value));
    }
}
