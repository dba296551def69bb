//! Ways to damage encoded bytes, shared by the unit tests of all decoders.

#![expect(clippy::indexing_slicing, reason = "tests index their own bytes")]

use std::fmt::Debug;

use crate::format::FormatError;

/// Checks that `magic` is the start of the digest of its sentence.
pub(super) fn assert_magic(magic: &[u8], sentence: &str) {
    assert_eq!(magic, &blake3::hash(sentence.as_bytes()).as_bytes()[..magic.len()], "{sentence}");
}

/// Checks that no shorter and no longer input is accepted.
pub(super) fn assert_exact_length<T: Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "accepted when cut to {len} bytes");
    }
    let longer = [bytes, &[0]].concat();
    assert!(decode(&longer).is_err(), "accepted a byte after its end");
}

/// Checks that every change of a single byte is rejected.
pub(super) fn assert_flips_rejected<T: Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    for_each_flip(bytes, |damaged, place| {
        let result = decode(damaged);
        assert!(result.is_err(), "byte {place} changed, still {result:?}");
    });
}

/// Checks that every change of a single byte is rejected or decodes to another value.
pub(super) fn assert_flips_noticed<T: Debug + PartialEq>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    let value = decode(bytes).unwrap();
    for_each_flip(bytes, |damaged, place| {
        assert_ne!(decode(damaged).as_ref(), Ok(&value), "byte {place} changed unseen");
    });
}

fn for_each_flip(bytes: &[u8], mut check: impl FnMut(&[u8], usize)) {
    let mut damaged = bytes.to_vec();
    for place in 0..bytes.len() {
        for mask in 1..=u8::MAX {
            damaged[place] = bytes[place] ^ mask;
            check(&damaged, place);
        }
        damaged[place] = bytes[place];
    }
}
