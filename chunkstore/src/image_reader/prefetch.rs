//! Reading ahead: brings chunks into the cache before somebody asks for them.

use std::ops::Range;

use super::ImageReader;
use crate::error::Result;
use crate::format::SpanRef;

/// One part in this many of the chunks' bytes is what one call brings at most. It stays in the queue of what is new until it is read.
const PART: usize = 8;

impl ImageReader {
    /// Brings the chunks of `len` bytes at `offset`, as far as they lie in the image, into the cache. Returns how many bytes
    /// from `offset` on were passed: fewer than `len` if the rest would take too much of the cache, or if something could not be read.
    ///
    /// What another thread is loading is not waited for. An error is none of this call: the read that needs the bytes meets it
    /// again and reports it; what is lost is marked as after a read.
    pub fn prefetch(&self, offset: u64, len: u64) -> u64 {
        let end = offset.saturating_add(len).min(self.len());
        let mut position = offset;
        let passed =
            self.marking(|| self.prefetch_range(&(offset..end.max(offset)), &mut position));
        // Who reads these bytes meets the error again.
        drop(passed);
        position - offset
    }

    fn prefetch_range(&self, range: &Range<u64>, position: &mut u64) -> Result<()> {
        let mut left = self.cache.chunks.byte_len_max() / PART;
        for (span, part) in self.parts_of(range) {
            let start = self.root.span_range(span).start;
            if let SpanRef::Page(id) = &self.root.spans[span] {
                let page = self.page(span, id)?;
                for piece in page.value.pieces(part.clone()) {
                    if let Some(id) = &piece.chunk
                        && let Some(duty) = self.cache.chunks.claim_absent(id)
                    {
                        let Ok(len) = usize::try_from(piece.entry.end - piece.entry.start) else {
                            return Ok(());
                        };
                        if left < len {
                            return Ok(());
                        }
                        left -= len;
                        duty.fulfil(self.load_chunk(&page.value, id, piece.index))?;
                    }
                    *position = start + piece.part.end;
                }
            }
            *position = start + part.end;
        }
        Ok(())
    }
}
