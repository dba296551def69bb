//! Overlay map page: no panic, and what decodes encodes back to the same bytes.

#![no_main]

use chunkstore::format::{BlockStates, OverlayMapPage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // With the right length and checksum.
    let mut fields = bytes.to_vec();
    fields.resize(OverlayMapPage::LEN - 32, 0);
    let checksum = blake3::hash(&fields);
    check(&[fields.as_slice(), checksum.as_bytes()].concat());
});

fn check(bytes: &[u8]) {
    let Ok(page) = OverlayMapPage::decode(bytes) else { return };
    assert_eq!(page.encode(), bytes);
    let mut start = 0;
    while start < BlockStates::COUNT {
        let (state, end) = page.states.run(start, BlockStates::COUNT);
        assert!((start..end).all(|index| page.states.get(index) == state));
        assert!(start < end && (end == BlockStates::COUNT || page.states.get(end) != state));
        start = end;
    }
}
