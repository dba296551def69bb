//! Given-up lists: no panic, and what decodes is the same after encoding and decoding again.

#![no_main]

use backy_fuzz::document;
use chunkstore::format::GivenUp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&document("chunkstore given up", bytes));
});

fn check(bytes: &[u8]) {
    if let Ok(value) = GivenUp::decode(bytes) {
        assert_eq!(GivenUp::decode(&value.encode()), Ok(value));
    }
}
