//! An image as a sequence of segments, read page by page as far as it differs from another one.
//!
//! A span to which both roots refer in the same way is one segment, and its page is not read. Memory is one page, one
//! root, and the places of [`LOOKUP_COUNT`] pages.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use crate::chunk_reader::ChunkReader;
use crate::error::Result;
use crate::format::{PageEntry, Root, SpanRef};
use crate::id::ChunkId;
use crate::index::Location;
use crate::store::Store;

/// Pages that are looked up together.
const LOOKUP_COUNT: usize = 1024;

/// What some bytes of an image are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Zero,
    Chunk(ChunkId),
    /// A span that the other image has in the same place.
    Shared,
}

/// Some bytes of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) range: Range<u64>,
    pub(super) content: Content,
}

/// The segments of an image, in order and without gap.
#[derive(Debug)]
pub(super) struct Segments {
    store: Store,
    reader: ChunkReader,
    root: Rc<Root>,
    other: Rc<Root>,
    /// The span that comes next.
    span: usize,
    /// What is left of the current span.
    segments: VecDeque<Segment>,
    /// Where pages that are to be read are, as far as they were looked up.
    locations: VecDeque<(usize, Option<Location>)>,
    pub(super) page_count: u64,
}

impl Segments {
    pub(super) fn new(store: &Store, root: Rc<Root>, other: Rc<Root>) -> Self {
        Self {
            store: store.clone(),
            reader: ChunkReader::new(store),
            root,
            other,
            span: 0,
            segments: VecDeque::new(),
            locations: VecDeque::new(),
            page_count: 0,
        }
    }

    /// Returns the next segment, `None` behind the end of the image.
    pub(super) fn next(&mut self) -> Result<Option<Segment>> {
        loop {
            if let Some(segment) = self.segments.pop_front() {
                return Ok(Some(segment));
            }
            let Some(reference) = self.root.spans.get(self.span).copied() else {
                return Ok(None);
            };
            let span = self.span;
            self.span += 1;
            let range = self.root.span_range(span);
            match reference {
                SpanRef::Zero => self.segments.push_back(Segment { range, content: Content::Zero }),
                SpanRef::Page(_) if self.is_shared(span) => {
                    self.segments.push_back(Segment { range, content: Content::Shared });
                }
                SpanRef::Page(id) => self.read_span(span, &id, &range)?,
            }
        }
    }

    fn read_span(&mut self, span: usize, id: &ChunkId, range: &Range<u64>) -> Result<()> {
        let location = self.locate(span)?;
        let page = self.reader.read_page(id, location, range.end - range.start)?;
        self.page_count += 1;
        let mut start = range.start;
        for entry in &page.entries {
            let end = start + entry.len();
            let content = match entry {
                PageEntry::Zero { .. } => Content::Zero,
                PageEntry::Data { id, .. } => Content::Chunk(*id),
            };
            self.segments.push_back(Segment { range: start..end, content });
            start = end;
        }
        Ok(())
    }

    /// Returns whether the other image has the same page for the same bytes.
    fn is_shared(&self, span: usize) -> bool {
        let range = self.root.span_range(span);
        let Ok(in_other) = usize::try_from(range.start / self.other.span_len) else { return false };
        self.other.spans.get(in_other) == self.root.spans.get(span)
            && self.other.span_range(in_other) == range
    }

    /// Returns where the index has the page of a span that is to be read. Looks up those behind it, too.
    fn locate(&mut self, span: usize) -> Result<Option<Location>> {
        if self.locations.is_empty() {
            let wanted: Vec<(usize, ChunkId)> = (span..self.root.spans.len())
                .filter(|span| !self.is_shared(*span))
                .filter_map(|span| match self.root.spans.get(span) {
                    Some(SpanRef::Page(id)) => Some((span, *id)),
                    Some(SpanRef::Zero) | None => None,
                })
                .take(LOOKUP_COUNT)
                .collect();
            let ids: Vec<ChunkId> = wanted.iter().map(|(_, id)| *id).collect();
            let locations = self.store.index().view(|view| view.locate(&ids))?;
            self.locations = wanted.into_iter().map(|(span, _)| span).zip(locations).collect();
        }
        let found = self.locations.pop_front();
        debug_assert!(found.as_ref().is_some_and(|(found, _)| *found == span), "in order");
        Ok(found.and_then(|(_, location)| location))
    }
}
