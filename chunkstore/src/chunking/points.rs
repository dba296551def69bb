//! Placeholder until the measured rule is merged.

use std::ops::Range;

/// A part of a whisper file that becomes a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which bytes.
    pub range: Range<u64>,
    /// Whether they are points.
    pub is_points: bool,
}

/// Cuts.
pub fn cut_whisper_file(len: u64, archives: &[(u64, u32)]) -> impl Iterator<Item = Cut> {
    let mut cuts = Vec::new();
    let mut position = 0;
    let plain = |cuts: &mut Vec<Cut>, mut from: u64, to: u64| {
        while from < to {
            let end = to.min(from + 65536);
            cuts.push(Cut { range: from..end, is_points: false });
            from = end;
        }
    };
    for (offset, points) in archives {
        plain(&mut cuts, position, *offset);
        position = *offset;
        let end = offset + u64::from(*points) * 12;
        while position < end {
            let next = end.min(position + 512 * 12);
            cuts.push(Cut { range: position..next, is_points: true });
            position = next;
        }
    }
    plain(&mut cuts, position, len);
    cuts.into_iter()
}
