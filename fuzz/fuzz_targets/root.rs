//! Root: no panic, what decodes encodes back to the same bytes, and its spans cover the image.

#![no_main]

use chunkstore::format::Root;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(root) = Root::decode(bytes) {
        assert_eq!(root.encode(), bytes);
        let end = (0..root.spans.len()).fold(0, |end, index| {
            let range = root.span_range(index);
            assert_eq!(range.start, end);
            range.end
        });
        assert_eq!(end, root.image_len);
    }
});
