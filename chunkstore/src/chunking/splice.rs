//! Which spans must be read again when it is known what has changed.
//!
//! Document: `docs/format.md`, section "Chunking". Chunking starts anew at every span, so a span in which no byte
//! changed keeps its entries, whatever happens beside it. Then its page is used again as it is.

use std::iter;
use std::ops::Range;

/// Returns the indexes of the spans that must be read again, in ascending order; all others have the bytes
/// and the length that they had in the old image, which must have been cut with the same `span_len`.
///
/// `changed` has the byte ranges of the image that may differ from the old one, in any order. Bytes that
/// one of the images does not have need not be in it.
///
/// # Panics
///
/// If `span_len` is 0.
#[must_use]
pub fn spans_to_read(
    span_len: u64,
    image_len: u64,
    old_image_len: u64,
    changed: &[Range<u64>],
) -> Vec<u64> {
    let span_count = image_len.div_ceil(span_len);
    let touched = changed.iter().filter_map(|range| {
        let end = range.end.min(image_len);
        (range.start < end).then(|| range.start / span_len..end.div_ceil(span_len))
    });
    // An image of another length has another last span, and those behind the old end are new.
    let kept_len = image_len.min(old_image_len);
    let resized = if image_len == old_image_len { span_count } else { kept_len / span_len };
    let mut ranges: Vec<_> = touched.chain(iter::once(resized..span_count)).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut spans = Vec::new();
    let mut next = 0;
    for range in ranges {
        spans.extend(range.start.max(next)..range.end);
        next = next.max(range.end);
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_touched_spans_are_read() {
        assert!(spans_to_read(10, 35, 35, &[]).is_empty());
        assert_eq!(spans_to_read(10, 35, 35, &[0..1, 9..10]), [0]);
        assert_eq!(spans_to_read(10, 35, 35, &[9..11, 0..0]), [0, 1]);
        assert_eq!(spans_to_read(10, 35, 35, &[34..99, 10..20, 12..13]), [1, 3]);
        let nothing = [5..5, 35..40];
        assert!(spans_to_read(10, 35, 35, &nothing).is_empty());
    }

    #[test]
    fn spans_of_another_length_are_read() {
        assert_eq!(spans_to_read(10, 36, 35, &[]), [3]);
        assert_eq!(spans_to_read(10, 31, 35, &[]), [3]);
        assert!(spans_to_read(10, 30, 35, &[]).is_empty());
        assert_eq!(spans_to_read(10, 40, 30, &[]), [3]);
        assert_eq!(spans_to_read(10, 55, 35, &[0..1, 0..0]), [0, 3, 4, 5]);
        assert!(spans_to_read(10, 0, 35, &[]).is_empty());
    }
}
