//! What differs between two revisions, range by range, from their chunk lists alone.
//!
//! It is an upper bound: a chunk with one changed byte has changed as a whole, and so have bytes that are cut elsewhere. For all of
//! two revisions see [`crate::ops::diff()`].

use std::ops::Range;
use std::sync::Arc;

use super::ImageReader;
use super::page::SpanPage;
use crate::cache::Entry;
use crate::error::{Error, Result};
use crate::format::SpanRef;
use crate::id::ChunkId;

/// Neighbouring bytes of an image that are alike in whether they have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Length in bytes, not 0.
    pub len: u64,
    /// Whether they may differ. If not, they do not.
    pub is_changed: bool,
}

/// What some bytes of an image are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Zero,
    Chunk(ChunkId),
    /// A whole span.
    Page(ChunkId),
}

/// Bytes of an image that one entry of a page covers, or a span.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    range: Range<u64>,
    content: Content,
}

/// Walks through an image, forwards. Keeps the page at hand.
#[derive(Debug)]
struct Segments<'a> {
    reader: &'a ImageReader,
    page: Option<(usize, Arc<Entry<SpanPage>>)>,
}

impl ImageReader {
    /// Returns which of `len` bytes at `offset` may differ from those at the same place of another revision, in order. What is beyond the
    /// end of the other image has changed. Neighbouring runs differ.
    ///
    /// Stops after `count_max` runs, and at least one if that is not 0; the last one may then go on beyond what is returned.
    /// Reads only pages, and none of spans that both revisions have.
    ///
    /// # Errors
    ///
    /// - [`InvalidOption`](Error::InvalidOption) if the range does not lie in this image.
    /// - [`Damaged`](Error::Damaged) or [`Missing`](crate::Error::Missing), naming a page.
    pub fn changes_since(
        &self,
        older: &Self,
        offset: u64,
        len: u64,
        count_max: usize,
    ) -> Result<Vec<Run>> {
        let range = self.check_range(offset, len)?;
        let mut runs: Vec<Run> = Vec::new();
        let mut ours = Segments { reader: self, page: None };
        let mut theirs = Segments { reader: older, page: None };
        let mut position = range.start;
        while position < range.end {
            let (end, is_changed) = compare(&mut ours, &mut theirs, position)?;
            let end = end.min(range.end);
            let len = end - position;
            let count = runs.len();
            match runs.last_mut() {
                Some(last) if last.is_changed == is_changed => last.len += len,
                _ if count == count_max => break,
                _ => runs.push(Run { len, is_changed }),
            }
            position = end;
        }
        Ok(runs)
    }
}

/// Returns whether the byte at `position` may differ, and up to where that holds for the same reason.
fn compare(
    ours: &mut Segments<'_>,
    theirs: &mut Segments<'_>,
    position: u64,
) -> Result<(u64, bool)> {
    if theirs.reader.len() <= position {
        return Ok((ours.reader.len(), true));
    }
    let (our_span, their_span) = (ours.span_at(position), theirs.span_at(position));
    if our_span == their_span {
        return Ok((our_span.range.end, false));
    }
    let our = ours.segment(our_span, position)?;
    let their = theirs.segment(their_span, position)?;
    let end = our.range.end.min(their.range.end);
    let is_equal = match (&our.content, &their.content) {
        (Content::Zero, Content::Zero) => true,
        (Content::Chunk(_), Content::Chunk(_)) => our == their,
        _ => false,
    };
    Ok((end, !is_equal))
}

impl Segments<'_> {
    /// Returns the span with a byte of the image.
    fn span_at(&self, position: u64) -> Segment {
        let root = &self.reader.root;
        let index = self.reader.span_index(position);
        let content = match root.spans[index] {
            SpanRef::Zero => Content::Zero,
            SpanRef::Page(id) => Content::Page(id),
        };
        Segment { range: root.span_range(index), content }
    }

    /// Returns the part of a span, or all of it, that the entry with a byte covers.
    fn segment(&mut self, span: Segment, position: u64) -> Result<Segment> {
        let Content::Page(id) = span.content else { return Ok(span) };
        let index = self.reader.span_index(position);
        let page = match &self.page {
            Some((known, page)) if *known == index => page,
            _ => {
                let page = self.reader.marking(|| self.reader.page(index, &id))?;
                &self.page.insert((index, page)).1
            }
        };
        let start = span.range.start;
        let part = position - start..span.range.end - start;
        let piece = page.value.pieces(part).next();
        let segment = piece.map(|piece| Segment {
            range: start + piece.entry.start..start + piece.entry.end,
            content: piece.chunk.map_or(Content::Zero, Content::Chunk),
        });
        segment.ok_or_else(|| Error::Bug { what: "a page does not cover its span".to_owned() })
    }
}
