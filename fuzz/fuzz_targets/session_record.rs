//! Session: no panic, and what decodes is the same after encoding and decoding again.

#![no_main]

use backy_fuzz::document;
use chunkstore::format::SessionRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&document("chunkstore session", bytes));
});

fn check(bytes: &[u8]) {
    if let Ok(value) = SessionRecord::decode(bytes) {
        assert_eq!(SessionRecord::decode(&value.encode()), Ok(value));
    }
}
