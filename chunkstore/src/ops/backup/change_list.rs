//! Backup by a change list: spans that did not change are taken over without reading them.
//!
//! A change list is never trusted blindly. In each run some of what it calls unchanged is read and compared; if one sample
//! differs, the whole image is read.

use super::{BackupError, Run};
use crate::chunk_reader::ChunkReader;
use crate::chunking::{is_zero, spans_to_read};
use crate::error::Error;
use crate::format::{ObjectKind, PageEntry, SpanRef};
use crate::source::Source;

/// Spans of which a sample is compared in each run.
const SAMPLE_COUNT: usize = 32;

/// Bytes of a zero entry that are compared.
const ZERO_SAMPLE_LEN: u64 = 64 << 10;

/// Returns for every span what the root says of it, or `None` if it must be read.
pub(super) fn plan(
    run: &Run<'_>,
    span_len: u64,
    span_count: usize,
    warnings: &mut Vec<String>,
) -> Result<Vec<Option<SpanRef>>, BackupError> {
    let read_all = vec![None; span_count];
    let parent = run.parent;
    let is_reliable = parent.is_complete && parent.unhealed.is_empty();
    let (Some(revision), Some(root), true) = (&parent.revision, &parent.root, is_reliable) else {
        return Ok(read_all);
    };
    let Some(changed) = run.source.changes_since(&revision.record)? else {
        return Ok(read_all);
    };
    if root.span_len != span_len {
        return Ok(read_all);
    }
    if let Some(range) = changed.iter().find(|range| range.end < range.start) {
        let (name, start, end) = (run.source.name(), range.start, range.end);
        warnings.push(format!(
            "the change list of {name} ends a range at byte {end} that begins at byte {start}: the whole image was read"
        ));
        return Ok(read_all);
    }
    let mut plan: Vec<Option<SpanRef>> =
        (0..span_count).map(|span| root.spans.get(span).copied()).collect();
    for span in spans_to_read(span_len, run.source.len(), root.image_len, &changed) {
        let span = usize::try_from(span).expect("a root has at most 2^18 spans");
        plan[span] = None;
    }
    match first_difference(run, span_len, &plan)? {
        None => Ok(plan),
        Some(offset) => {
            let name = run.source.name();
            warnings.push(format!(
                "the change list of {name} is wrong at byte {offset}: the whole image was read"
            ));
            Ok(read_all)
        }
    }
}

/// Compares one random entry of some random spans that are to be taken over.
fn first_difference(
    run: &Run<'_>,
    span_len: u64,
    plan: &[Option<SpanRef>],
) -> Result<Option<u64>, BackupError> {
    let kept: Vec<usize> =
        plan.iter().enumerate().filter(|(_, kept)| kept.is_some()).map(|(span, _)| span).collect();
    let mut reader = ChunkReader::new(run.store);
    for _ in 0..SAMPLE_COUNT.min(kept.len()) {
        let span = kept[run.random_below(kept.len())];
        let entries = run.parent.entries(&mut reader, span, span_len);
        if entries.is_empty() {
            return Ok(Some(span as u64 * span_len));
        }
        let chosen = run.random_below(entries.len());
        let before: u64 = entries[..chosen].iter().map(PageEntry::len).sum();
        let offset = span as u64 * span_len + before;
        if !is_unchanged(run.source, &entries[chosen], offset)? {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

fn is_unchanged(source: &dyn Source, entry: &PageEntry, offset: u64) -> Result<bool, BackupError> {
    let len = match entry {
        PageEntry::Data { len, .. } => u64::from(*len),
        PageEntry::Zero { len } => ZERO_SAMPLE_LEN.min(*len),
    };
    let len = usize::try_from(len).map_err(|_| bug("a sample is too long"))?;
    let mut bytes = vec![0; len];
    source.read_exact_at(&mut bytes, offset)?;
    Ok(match entry {
        PageEntry::Data { id, .. } => ObjectKind::Data.chunk_id(&bytes) == *id,
        PageEntry::Zero { .. } => is_zero(&bytes),
    })
}

fn bug(what: &str) -> Error {
    Error::Bug { what: what.to_owned() }
}
