//! Store configuration: no panic, and what decodes is the same after encoding and decoding again.

#![no_main]

use backy_fuzz::document;
use chunkstore::format::StoreConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&document("chunkstore store", bytes));
});

fn check(bytes: &[u8]) {
    if let Ok(value) = StoreConfig::decode(bytes) {
        assert_eq!(StoreConfig::decode(&value.encode()), Ok(value));
    }
}
