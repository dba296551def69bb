//! Writes an image in the order of storage: spans are surveyed, then their chunks are read pack by pack.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::plan::{Batch, Batches, Placement};
use super::read_back::read_back;
use super::run_buffer::RunBuffer;
use super::{RestoreError, RestoreResult, Run, survey};
use crate::chunk_reader::{ChunkReader, to_usize};
use crate::compression::Expander;
use crate::error::Error;
use crate::format::{FormatError, ObjectKind, RecordHeader};
use crate::image_reader::check_len;
use crate::pack::read_record;

pub(super) fn write(run: &Run<'_>) -> RestoreResult<()> {
    let next_span = AtomicUsize::new(0);
    let span_count = run.image.root().spans.len();
    while next_span.load(Ordering::Relaxed) < span_count {
        let mut plan = survey::plan(run, &next_span)?;
        plan.sort();
        let batches = plan.batches();
        run.on_threads(run.threads.write, plan.placements().len(), || {
            Worker::new(run).write_batches(&batches)
        })?;
        if run.options.delta {
            read_back(run, plan)?;
        }
    }
    Ok(())
}

/// One thread: reads batches, expands their chunks, writes them together with their neighbours.
struct Worker<'a> {
    run: &'a Run<'a>,
    expander: Expander,
    /// For chunks that are not where they were expected.
    reader: ChunkReader,
    stored: Vec<u8>,
    plain: Vec<u8>,
    pending: RunBuffer,
}

impl<'a> Worker<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        Self {
            run,
            expander: Expander::new(),
            reader: ChunkReader::new(run.store),
            stored: Vec::new(),
            plain: Vec::new(),
            pending: RunBuffer::new(),
        }
    }

    fn write_batches(&mut self, batches: &Batches<'_>) -> RestoreResult<()> {
        while self.run.goes_on()?
            && let Some(batch) = batches.next()
        {
            self.write_batch(batch)?;
        }
        Ok(())
    }

    fn write_batch(&mut self, batch: Batch<'_>) -> RestoreResult<()> {
        let mut stored = std::mem::take(&mut self.stored);
        let is_read = batch.pack.is_some_and(|pack| {
            let (start, len) = batch.range();
            stored.resize(len, 0);
            // What cannot be read at once is read chunk by chunk, which also says what is wrong.
            read_record(self.run.store.storage(), &pack, &mut stored, start).is_ok()
        });
        // Records lie in the order in which they were found, by several threads; neighbours in the image are written at once.
        let mut records: Vec<&[Placement]> =
            batch.placements.chunk_by(Placement::shares_record_with).collect();
        records.sort_unstable_by_key(|places| places.first().map(|place| place.offset));
        for places in records {
            if !self.run.goes_on()? {
                return Ok(());
            }
            let Some(first) = places.first() else { continue };
            let record = is_read.then(|| batch.record(first, &stored));
            self.write_record(record, places)?;
        }
        self.stored = stored;
        self.flush()
    }

    /// Writes one chunk to all its places.
    fn write_record(&mut self, record: Option<&[u8]>, places: &[Placement]) -> RestoreResult<()> {
        let Some((first, others)) = places.split_first() else { return Ok(()) };
        let len = to_usize(first.len);
        if !self.pending.has_room(first.offset, len) {
            self.flush()?;
            self.pending.begin(first.offset, len);
        }
        let plain = self.pending.next(len);
        let is_expanded =
            record.is_some_and(|record| expand(&mut self.expander, first, record, plain).is_ok());
        if !is_expanded {
            // It may have moved meanwhile. If it is damaged, this says so.
            let read = self.reader.read(ObjectKind::Data, &first.id, None, &mut self.plain);
            let read = read.and_then(|()| check_len(&first.id, self.plain.len(), len as u64));
            if let Err(error) = read {
                return self.lose(error, places);
            }
            plain.copy_from_slice(&self.plain);
        }
        for other in others {
            self.run.target.write_all_at(plain, other.offset)?;
        }
        self.pending.extend(len);
        let written = u64::from(first.len) * places.len() as u64;
        self.run.totals.written_bytes.fetch_add(written, Ordering::Relaxed);
        self.run.progress.advance(written);
        Ok(())
    }

    /// Leaves zeros where a chunk belongs that cannot be had, or ends the restore with the reason.
    fn lose(&self, error: Error, places: &[Placement]) -> RestoreResult<()> {
        let mut error = Some(error);
        for place in places {
            let len = u64::from(place.len);
            match error.take() {
                Some(error) => self.run.note_lost(place.id, error, place.offset, len)?,
                None => {
                    let revision = self.run.image.revision().record.id;
                    self.run.findings().add_range(&place.id, revision, place.offset, len);
                }
            }
            self.run.target.zero_at(place.offset, len).map_err(RestoreError::Target)?;
            self.run.totals.zero_bytes.fetch_add(len, Ordering::Relaxed);
            self.run.progress.advance(len);
        }
        Ok(())
    }

    fn flush(&mut self) -> RestoreResult<()> {
        if let Some((bytes, offset)) = self.pending.take() {
            self.run.target.write_all_at(bytes, offset)?;
        }
        Ok(())
    }
}

/// Fills `plain` from a record, if that is the one which was expected there.
pub(super) fn expand(
    expander: &mut Expander,
    expected: &Placement,
    record: &[u8],
    plain: &mut [u8],
) -> Result<(), FormatError> {
    let (header, payload) = record.split_at(RecordHeader::LEN);
    let header = RecordHeader::decode(header)?;
    let is_expected = header.id == expected.id
        && header.kind == ObjectKind::Data
        && header.stored_len == expected.stored_len
        && header.plain_len == expected.len;
    if !is_expected {
        return Err(FormatError::Inconsistent { what: "another record is in its place" });
    }
    expander.expand_into(&header, payload, plain)
}
