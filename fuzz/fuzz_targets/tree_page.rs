//! Tree page: no panic, and what decodes encodes back to the same bytes.

#![no_main]

use chunkstore::format::TreePage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(decoded) = TreePage::decode(bytes) {
        assert_eq!(decoded.encode(), bytes);
    }
});
