//! Which bytes of a revision are zeros that take no chunk.

use super::ImageReader;
use crate::error::Result;
use crate::format::SpanRef;

/// Neighbouring bytes of an image that are alike in whether chunks hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Length in bytes, not 0.
    pub len: u64,
    /// Whether they are zeros that take no chunk.
    pub is_zero: bool,
}

impl ImageReader {
    /// Returns which of `len` bytes at `offset` are in chunks, in order. Neighbours differ. Like [`Self::extents`], but says
    /// nothing of the chunks, and stops after `count_max`, which bounds time and memory for long ranges of mixed content.
    ///
    /// # Errors
    ///
    /// As [`Self::extents`].
    pub fn allocation(&self, offset: u64, len: u64, count_max: usize) -> Result<Vec<Allocation>> {
        let range = self.check_range(offset, len)?;
        let mut found: Vec<Allocation> = Vec::new();
        // Returns whether there was room.
        let mut add = |len: u64, is_zero: bool| {
            let count = found.len();
            match found.last_mut() {
                Some(last) if last.is_zero == is_zero => last.len += len,
                _ if count == count_max => return false,
                _ => found.push(Allocation { len, is_zero }),
            }
            true
        };
        self.marking(|| {
            for (span, part) in self.parts_of(&range) {
                let is_complete =
                    match &self.root.spans[span] {
                        SpanRef::Zero => add(part.end - part.start, true),
                        SpanRef::Page(id) => self.page(span, id)?.value.pieces(part).all(|piece| {
                            add(piece.part.end - piece.part.start, piece.chunk.is_none())
                        }),
                    };
                if !is_complete {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(found)
    }
}
