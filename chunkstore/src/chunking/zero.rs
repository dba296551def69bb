//! Finds zero bytes at the speed of memory.

/// Bytes that are looked at between two decisions: enough for the compiler to use its widest registers,
/// few enough to stop early in data.
const STRIDE: usize = 256;

/// Returns whether all bytes are zero. Stops at the first stride that holds another one.
#[must_use]
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Data seldom starts with a zero byte, so that most blocks are decided here.
    if bytes.first().is_some_and(|first| *first != 0) {
        return false;
    }
    let (strides, rest) = bytes.as_chunks::<STRIDE>();
    let is_zero_stride = |stride: &[u8; STRIDE]| stride.iter().fold(0, |sum, byte| sum | byte) == 0;
    strides.iter().all(is_zero_stride) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_found() {
        for len in [0, 1, 7, 255, 256, 257, 511, 512, 4096] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for place in 0..len {
                bytes[place] = 0x10;
                assert!(!is_zero(&bytes), "byte {place} of {len}");
                bytes[place] = 0;
            }
        }
    }
}
