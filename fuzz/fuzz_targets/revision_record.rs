//! Revision record: no panic, and what decodes is the same after encoding and decoding again.

#![no_main]

use backy_fuzz::document;
use chunkstore::format::RevisionRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&document("chunkstore revision", bytes));
});

fn check(bytes: &[u8]) {
    if let Ok(value) = RevisionRecord::decode(bytes) {
        assert_eq!(RevisionRecord::decode(&value.encode()), Ok(value));
    }
}
