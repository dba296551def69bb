//! A revision as a block device, perhaps with an overlay that takes what is written.

use std::error::Error as _;
use std::sync::Arc;

use chunkstore::error::{Error, ObjectName};
use chunkstore::id::ChunkId;
use chunkstore::overlay::{OverlayExtent, OverlayExtentKind};
use chunkstore::{ImageReader, Overlay};
use nbd_server::{
    BlockSizes, ErrorCode, Export, ExportError, ExportWriter, Extent, MetaContext, OpenError,
    ZeroOptions,
};

use super::catalog::Catalog;
use super::changes::{CONTEXT_PREFIX, ChangesSince};
use crate::human;

/// Bytes of an image whose lists are looked at together.
const WINDOW_LEN: u64 = 64 << 20;

/// Windows that one request for extents goes through, unless they are all zeros: a client asks again for the rest.
const WINDOW_COUNT_MAX: u32 = 256;

/// What is served well: a chunk is longer than this, and no client is made to read more than it wants.
const PREFERRED_LEN: u32 = 64 << 10;

/// Revisions that a client is told of when it asks since when changes can be had. Others are found by their names.
const CONTEXT_COUNT_MAX: usize = 100;

/// What is served under one name.
#[derive(Debug)]
pub(super) struct RevisionExport {
    catalog: Arc<Catalog>,
    reader: Arc<ImageReader>,
    overlay: Option<Arc<Overlay>>,
}

impl RevisionExport {
    pub(super) fn read_only(catalog: Arc<Catalog>, reader: Arc<ImageReader>) -> Self {
        Self { catalog, reader, overlay: None }
    }

    pub(super) fn writable(catalog: Arc<Catalog>, overlay: Arc<Overlay>) -> Self {
        Self { catalog, reader: Arc::clone(overlay.base()), overlay: Some(overlay) }
    }

    pub(super) fn reader(&self) -> &ImageReader {
        &self.reader
    }

    pub(super) fn is_writable(&self) -> bool {
        self.overlay.is_some()
    }

    /// Says what failed, and where in the range: with the revision, so that the log names all that is concerned.
    fn failed(&self, error: &Error, offset: u64, len: u64) -> ExportError {
        let place = damaged_chunk(error).and_then(|id| self.place_of(id, offset, len));
        let failed = self.failed_somewhere(error);
        match place {
            Some(place) => failed.at(place),
            None => failed,
        }
    }

    fn failed_somewhere(&self, error: &Error) -> ExportError {
        let code = if error.is_out_of_space() { ErrorCode::NoSpace } else { ErrorCode::Io };
        let mut message = format!("revision {}: {error}", self.reader.revision().record.id);
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        ExportError::new(code, message)
    }

    /// Returns the first byte of the range that needs a chunk.
    fn place_of(&self, id: ChunkId, offset: u64, len: u64) -> Option<u64> {
        let extents = self.reader.extents(offset, len).ok()?;
        extents.into_iter().find_map(|extent| match extent {
            chunkstore::Extent::Data { range, id: found } if found == id => Some(range.start),
            _ => None,
        })
    }

    /// Returns extents of a part of the range that is looked at together.
    fn window(&self, offset: u64, len: u64, count_max: usize) -> Result<Vec<Extent>, Error> {
        let extent = |len, is_hole, is_zero| Extent { len, is_hole, is_zero };
        if let Some(overlay) = &self.overlay {
            let extents = overlay.extents(offset, len, count_max)?;
            let convert = |OverlayExtent { range, kind }| {
                let len = range.end - range.start;
                match kind {
                    OverlayExtentKind::Data => extent(len, false, false),
                    OverlayExtentKind::Hole => extent(len, true, true),
                    OverlayExtentKind::Zero => extent(len, false, true),
                }
            };
            return Ok(extents.into_iter().map(convert).collect());
        }
        let allocation = self.reader.allocation(offset, len, count_max)?;
        Ok(allocation.into_iter().map(|one| extent(one.len, one.is_zero, one.is_zero)).collect())
    }
}

impl Export for RevisionExport {
    fn size(&self) -> u64 {
        self.reader.len()
    }

    fn block_sizes(&self) -> BlockSizes {
        BlockSizes { min: 1, preferred: PREFERRED_LEN }
    }

    fn description(&self) -> Option<String> {
        Some(describe(self.reader.revision()))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
        let len = buffer.len() as u64;
        let result = match &self.overlay {
            Some(overlay) => overlay.read(offset, buffer),
            None => self.reader.read_exact_at(buffer, offset),
        };
        result.map_err(|error| self.failed(&error, offset, len))
    }

    fn read_immediately(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let is_base = |overlay: &Arc<Overlay>| overlay.is_base(offset, buffer.len() as u64);
        if !self.overlay.as_ref().is_none_or(is_base) {
            return false;
        }
        // An error is one of the read that follows, and is told there.
        matches!(self.reader.try_read_at(buffer, offset), Ok(true))
    }

    fn extents(&self, offset: u64, len: u64, count_max: usize) -> Result<Vec<Extent>, ExportError> {
        let end = offset.saturating_add(len);
        let mut found: Vec<Extent> = Vec::new();
        let (mut start, mut data_count) = (offset, 0);
        while start < end && data_count < WINDOW_COUNT_MAX {
            let window_end = (start - start % WINDOW_LEN).saturating_add(WINDOW_LEN).min(end);
            let window = self.window(start, window_end - start, count_max);
            let window = window.map_err(|error| self.failed(&error, start, window_end - start))?;
            data_count += u32::from(window.iter().any(|one| !one.is_zero));
            for one in window {
                let is_full = found.len() == count_max;
                match found.last_mut() {
                    Some(last) if (last.is_hole, last.is_zero) == (one.is_hole, one.is_zero) => {
                        last.len += one.len;
                    }
                    _ if is_full => return Ok(found),
                    _ => found.push(one),
                }
                start += one.len;
            }
        }
        Ok(found)
    }

    fn contexts(&self) -> Vec<String> {
        let Ok(history) = self.catalog.history() else { return Vec::new() };
        let revision = &self.reader.revision().record;
        let others = history.revisions.iter().rev().map(|other| &other.record);
        others
            .filter(|other| other.source == revision.source && other.id != revision.id)
            .take(CONTEXT_COUNT_MAX)
            .map(|other| format!("{CONTEXT_PREFIX}{}", other.id))
            .collect()
    }

    fn open_context(&self, name: &str) -> Result<Arc<dyn MetaContext>, OpenError> {
        let text = name.strip_prefix(CONTEXT_PREFIX).ok_or(OpenError::Unknown)?;
        let older = self.catalog.find(text).map_err(|_| OpenError::Unknown)?;
        let older = self.catalog.open(&older.record.id);
        let older = older.map_err(|error| OpenError::Failed(error.to_string()))?;
        Ok(Arc::new(ChangesSince {
            older,
            reader: Arc::clone(&self.reader),
            overlay: self.overlay.clone(),
        }))
    }

    fn can_cache(&self) -> bool {
        true
    }

    fn cache(&self, offset: u64, len: u64) -> Result<(), ExportError> {
        // What could not be brought is no error of this request: the read meets it again.
        let _passed_len = self.reader.prefetch(offset, len);
        Ok(())
    }

    fn writer(&self) -> Option<&dyn ExportWriter> {
        self.overlay.is_some().then_some(self)
    }

    fn can_multi_conn(&self) -> bool {
        // All connections share one overlay, and a flush makes durable what any of them wrote.
        true
    }
}

impl RevisionExport {
    fn change(
        &self,
        offset: u64,
        len: u64,
        run: impl FnOnce(&Overlay) -> chunkstore::Result<()>,
    ) -> Result<(), ExportError> {
        let read_only = || ExportError::new(ErrorCode::NotPermitted, "the revision is read-only");
        let overlay = self.overlay.as_ref().ok_or_else(read_only)?;
        run(overlay).map_err(|error| self.failed(&error, offset, len))
    }
}

impl ExportWriter for RevisionExport {
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), ExportError> {
        self.change(offset, bytes.len() as u64, |overlay| overlay.write(offset, bytes))
    }

    fn write_zeroes(&self, offset: u64, len: u64, options: ZeroOptions) -> Result<(), ExportError> {
        // Blocks are marked, not written, so this is always fast.
        let may_make_hole = options.may_make_hole;
        self.change(offset, len, |overlay| overlay.write_zeroes(offset, len, may_make_hole))
    }

    fn trim(&self, offset: u64, len: u64) -> Result<(), ExportError> {
        self.change(offset, len, |overlay| overlay.trim(offset, len))
    }

    fn flush(&self) -> Result<(), ExportError> {
        self.change(0, 0, Overlay::flush)
    }
}

/// Returns what a list says about a revision.
pub(super) fn describe(revision: &chunkstore::Revision) -> String {
    let record = &revision.record;
    let time = human::time(record.time, &jiff::tz::TimeZone::system());
    let tags = revision.state.tags.join(",");
    let tags = if tags.is_empty() { String::new() } else { format!(", tags {tags}") };
    let trust = match revision.state.trust {
        chunkstore::format::Trust::Trusted => String::new(),
        other => format!(", {other}"),
    };
    format!("{} of {time}, {}{tags}{trust}", record.source, human::size(record.size))
}

fn damaged_chunk(error: &Error) -> Option<ChunkId> {
    match error {
        Error::Damaged { object: ObjectName::Chunk { id, .. }, .. }
        | Error::Missing { object: ObjectName::Chunk { id, .. } } => Some(*id),
        _ => None,
    }
}
