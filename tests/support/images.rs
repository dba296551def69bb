//! Images that a seed determines, and changes to them.

/// Reproducible numbers: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Returns the numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next_number() % end as u64).expect("below a usize")
    }

    /// Fills `bytes`; `shrinks` makes them such that zstd finds something to do.
    pub fn fill(&mut self, bytes: &mut [u8], shrinks: bool) {
        for word in bytes.chunks_mut(8) {
            let number = self.next_number();
            let number = if shrinks { number & 0x0303_0303_0303_0303 } else { number };
            word.copy_from_slice(&number.to_le_bytes()[..word.len()]);
        }
    }
}

/// Returns an image of about `len` bytes: data that shrinks, data that does not, and between them a run of zeros that is
/// long enough to take no chunk. Its length is no multiple of anything.
#[must_use]
pub fn image(seed: u64, len: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut bytes = vec![0; len + 13];
    let (first, rest) = bytes.split_at_mut(len / 2);
    numbers.fill(first, true);
    let rest_len = rest.len();
    // Zeros in the middle; at least 64 KiB of them in whole 4 KiB blocks make a zero entry.
    let zeros = if len < 100 << 10 { 0 } else { 72 << 10 };
    numbers.fill(&mut rest[zeros.min(rest_len)..], false);
    bytes
}

/// Returns the image with a few places overwritten, one of them with zeros.
#[must_use]
pub fn changed(image: &[u8], seed: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seed ^ 0x5eed);
    let mut bytes = image.to_vec();
    for place in 0..3 {
        let len = 1 + numbers.below(1500.min(bytes.len()));
        let start = numbers.below(bytes.len() - len + 1);
        let target = &mut bytes[start..start + len];
        if place == 2 { target.fill(0) } else { numbers.fill(target, place == 0) }
    }
    bytes
}
