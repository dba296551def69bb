//! Page: no panic, and what decodes encodes back to the same bytes.

#![no_main]

use chunkstore::format::Page;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(page) = Page::decode(bytes) {
        assert_eq!(page.encode(), bytes);
    }
});
