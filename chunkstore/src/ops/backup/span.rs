//! One worker's job: reads spans in windows, cuts them, stores what is new, makes their pages.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::chunk_writer::{ChunkWriter, Worker, too_many_chunks};
use super::parent::Parent;
use super::{BackupError, Run};
use crate::chunk_reader::ChunkReader;
use crate::chunking::{Cutter, EntrySink, Piece, SpanInput, chunk_span};
use crate::error::Error;
use crate::format::{BackupStatistics, ObjectKind, Page, PageEntry, SpanRef};
use crate::id::ChunkId;
use crate::ops::page_bounds::PageBounds;

/// Bytes that are read at once, or a little more: fits into the cache of a core.
pub(super) const WINDOW_LEN: usize = 1 << 20;

/// What one worker needs for its spans.
pub(super) struct SpanJob<'a> {
    run: &'a Run<'a>,
    cutter: &'a Cutter,
    is_over: &'a AtomicBool,
    page: PageBounds,
    worker: Worker<'a>,
    reader: ChunkReader,
    read_bytes: u64,
    hole_bytes: u64,
    /// The data range that the source named last; all before it is a hole.
    data: Option<Range<u64>>,
}

impl<'a> SpanJob<'a> {
    pub(super) fn new(
        run: &'a Run<'a>,
        cutter: &'a Cutter,
        writer: &'a ChunkWriter,
        is_over: &'a AtomicBool,
        page: PageBounds,
    ) -> Result<Self, Error> {
        Ok(Self {
            run,
            cutter,
            is_over,
            page,
            worker: Worker::new(run.store, writer)?,
            reader: ChunkReader::new(run.store),
            read_bytes: 0,
            hole_bytes: 0,
            data: None,
        })
    }

    /// Backs up one span and returns what the root says of it.
    pub(super) fn run(&mut self, span: usize, range: Range<u64>) -> Result<SpanRef, BackupError> {
        let span_len = crate::format::Root::span_len_for(self.run.source.len());
        let predicted = self.run.parent.entries(&mut self.reader, span, span_len);
        let mut input = SourceSpan {
            run: self.run,
            is_over: self.is_over,
            position: range.start,
            end: range.end,
            data: self.data.take(),
            read_bytes: 0,
            hole_bytes: 0,
        };
        let mut sink = PageSink {
            worker: &mut self.worker,
            parent: self.run.parent,
            entries: Vec::new(),
            entry_count_max: self.page.entry_count_max,
        };
        chunk_span(self.cutter, &mut input, &predicted, &mut sink)?;
        let entries = sink.entries;
        self.data = input.data;
        self.read_bytes += input.read_bytes;
        self.hole_bytes += input.hole_bytes;

        if matches!(entries.as_slice(), [PageEntry::Zero { .. }]) {
            return Ok(SpanRef::Zero);
        }
        if entries == predicted
            && let Some(unchanged) = self.run.parent.span(span, span_len)
            && let SpanRef::Page(id) = unchanged
            && self.run.parent.is_reliable(id)
        {
            return Ok(*unchanged);
        }
        drop(predicted);
        let page = Page { entries };
        let encoded = page.encode();
        drop(page);
        let id = self.worker.store_list(ObjectKind::Page, &encoded)?;
        Ok(SpanRef::Page(id))
    }

    /// Works on what other workers have cut, until they are through.
    pub(super) fn help(&mut self) -> Result<(), BackupError> {
        Ok(self.worker.help()?)
    }

    /// Hands over what is left and adds to the statistics.
    pub(super) fn finish(self, statistics: &mut BackupStatistics) -> Result<(), BackupError> {
        statistics.read_bytes += self.read_bytes;
        statistics.hole_bytes += self.hole_bytes;
        Ok(self.worker.finish(statistics)?)
    }
}

/// The bytes of one span, window by window; holes are not read.
struct SourceSpan<'a> {
    run: &'a Run<'a>,
    is_over: &'a AtomicBool,
    position: u64,
    end: u64,
    data: Option<Range<u64>>,
    read_bytes: u64,
    hole_bytes: u64,
}

impl SourceSpan<'_> {
    /// Returns the next data range that ends behind the position; an empty one at the end of the source if none follows.
    fn next_data(&mut self) -> Result<Range<u64>, BackupError> {
        let source = self.run.source;
        let known = self.data.take().filter(|data| self.position < data.end);
        let data = match known {
            Some(data) => data,
            None => match source.next_data(self.position)? {
                Some(data) if data.is_empty() || data.end <= self.position => {
                    let name = source.name();
                    let what = format!("source {name} has no data behind byte {}", self.position);
                    return Err(BackupError::Store(Error::Bug { what }));
                }
                Some(data) => data,
                // Remembered as an empty range, so that the source is asked once.
                None => source.len()..source.len().saturating_add(1),
            },
        };
        self.data = Some(data.clone());
        Ok(data)
    }
}

impl SpanInput for SourceSpan<'_> {
    type Error = BackupError;

    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, BackupError> {
        if self.run.progress.is_cancelled() || self.is_over.load(Ordering::Relaxed) {
            return Err(BackupError::Store(Error::Cancelled));
        }
        if self.position == self.end {
            return Ok(Piece::End);
        }
        let data = self.next_data()?;
        if self.position < data.start {
            let len = data.start.min(self.end) - self.position;
            self.position += len;
            self.hole_bytes += len;
            self.run.progress.advance(len);
            return Ok(Piece::Zeros(len));
        }
        let start = buffer.len();
        buffer.reserve_exact(WINDOW_LEN);
        let rest = usize::try_from(data.end.min(self.end) - self.position).unwrap_or(usize::MAX);
        self.run.source.append_at(buffer, rest, self.position)?;
        let window = buffer.len() - start;
        if window == 0 || rest < window {
            let what =
                format!("source {} appended {window} of {rest} bytes", self.run.source.name());
            return Err(BackupError::Store(Error::Bug { what }));
        }
        let len = window as u64;
        self.position += len;
        self.read_bytes += len;
        self.run.progress.advance(len);
        Ok(Piece::Data(window))
    }
}

/// Collects the entries of one span and stores its chunks.
struct PageSink<'job, 'a> {
    worker: &'job mut Worker<'a>,
    parent: &'job Parent,
    entries: Vec<PageEntry>,
    entry_count_max: usize,
}

impl PageSink<'_, '_> {
    fn push(&mut self, entry: PageEntry) -> Result<(), BackupError> {
        if self.entry_count_max <= self.entries.len() {
            return Err(BackupError::Store(too_many_chunks()));
        }
        self.entries.push(entry);
        Ok(())
    }
}

impl EntrySink for PageSink<'_, '_> {
    type Error = BackupError;

    fn data(&mut self, id: ChunkId, bytes: &[u8], predicted: bool) -> Result<(), BackupError> {
        let len = u32::try_from(bytes.len()).expect("a chunk has at most 16 MiB");
        self.push(PageEntry::Data { len, id })?;
        if predicted && self.parent.is_reliable(&id) {
            self.worker.reuse(u64::from(len));
            return Ok(());
        }
        Ok(self.worker.store_chunk(ObjectKind::Data, id, bytes)?)
    }

    fn zeros(&mut self, len: u64) -> Result<(), BackupError> {
        self.push(PageEntry::Zero { len })
    }
}
