//! Which slots of a file were changed: one bit each, no memory before the first change.

use std::ops::Range;

use super::header::{Archive, SLOT_LEN};

/// Which slots of each archive were changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// By archive; empty while it is unchanged. Slot 0 is the lowest bit of the first word.
    words: Vec<Vec<u64>>,
}

impl Changes {
    /// Notes a change of a slot.
    pub(super) fn mark(&mut self, archives: &[Archive], archive: usize, slot: usize) {
        self.words.resize(archives.len(), Vec::new());
        let words = &mut self.words[archive];
        if words.is_empty() {
            words.resize((archives[archive].points as usize).div_ceil(64), 0);
        }
        words[slot / 64] |= 1 << (slot % 64);
    }

    /// Returns the bytes of the file that the changed slots have: sorted, no two ranges touch.
    pub(super) fn ranges(&self, archives: &[Archive]) -> Vec<Range<u64>> {
        let mut in_order: Vec<usize> = (0..self.words.len()).collect();
        in_order.sort_by_key(|&archive| archives[archive].offset);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for archive in in_order {
            for slot in set_bits(&self.words[archive]) {
                let start = u64::from(archives[archive].offset) + slot * u64::from(SLOT_LEN);
                let end = start + u64::from(SLOT_LEN);
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => ranges.push(start..end),
                }
            }
        }
        ranges
    }
}

fn set_bits(words: &[u64]) -> impl Iterator<Item = u64> + '_ {
    (0..).step_by(64).zip(words).flat_map(|(first, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(first + u64::from(bit))
        })
    })
}
