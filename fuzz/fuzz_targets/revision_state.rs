//! Revision state: no panic, and what decodes is the same after encoding and decoding again.

#![no_main]

use backy_fuzz::document;
use chunkstore::format::RevisionState;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&document("chunkstore state", bytes));
});

fn check(bytes: &[u8]) {
    if let Ok(value) = RevisionState::decode(bytes) {
        assert_eq!(RevisionState::decode(&value.encode()), Ok(value));
    }
}
