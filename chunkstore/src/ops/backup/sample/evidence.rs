//! What is kept of a mismatch: both sides, and a report that names them.

use std::path::PathBuf;

use super::comparison::{Difference, Differences, Side};
use super::{SampleMismatch, SampleStats};
use crate::error::{Error, Result};
use crate::format::MismatchReport;
use crate::id::{RevisionId, SourceName};
use crate::limits::DOCUMENT_LEN_MAX;
use crate::storage::{Existing, ObjectKey, Storage};
use crate::store::Store;

/// Places of which both sides are kept, ...
pub(super) const EVIDENCE_COUNT_MAX: usize = 16;
/// ... as far as these have no more bytes than this: of the longest chunks, one.
pub(super) const EVIDENCE_LEN_MAX: usize = 32 << 20;

/// Places that are named.
pub(super) const REPORT_COUNT_MAX: usize = 1024;

/// Returns whether there is a report about this source, or one that cannot be read.
pub(in crate::ops::backup) fn has_reports(store: &Store, source: &SourceName) -> Result<bool> {
    let storage = store.storage();
    for name in storage.list_mismatches()? {
        let bytes = match storage.get(&ObjectKey::Mismatch(name), DOCUMENT_LEN_MAX) {
            Err(Error::Damaged { .. }) => return Ok(true),
            other => other?,
        };
        let report = bytes.map(|bytes| MismatchReport::decode(&bytes));
        match report {
            Some(Ok(report)) if report.source != *source => {}
            Some(_) => return Ok(true),
            // Somebody has looked into it and removed it.
            None => {}
        }
    }
    Ok(false)
}

/// Keeps both sides of the first differences, and says what they are.
pub(in crate::ops::backup) fn keep_evidence(
    store: &Store,
    source: &SourceName,
    origin: &str,
    revision: RevisionId,
    compared: SampleStats,
    differing: Differences,
) -> SampleMismatch {
    let (count, mut differing) = (differing.count, differing.first);
    differing.sort_unstable_by_key(|difference| difference.offset);
    let time = store.environment().clock.now();
    let (mut reports, mut evidence, mut evidence_lost) = (Vec::new(), Vec::new(), None);
    for Difference { offset, len, stored, found } in differing {
        let report = MismatchReport {
            revision,
            source: source.clone(),
            origin: origin.to_owned(),
            time,
            offset,
            len,
            stored: stored.id,
            found: found.id,
        };
        if !found.bytes.is_empty() {
            match keep(store, &report, [&stored, &found]) {
                Ok(paths) => evidence.extend(paths),
                Err(error) => evidence_lost = Some(error.to_string()),
            }
        }
        reports.push(report);
    }
    evidence.sort();
    evidence.dedup();
    let name = origin.to_owned();
    SampleMismatch { name, count, reports, compared, evidence, evidence_lost }
}

/// Writes both sides and then the report. What is there already is not written again.
fn keep(store: &Store, report: &MismatchReport, sides: [&Side; 2]) -> Result<Vec<PathBuf>> {
    let storage: &dyn Storage = store.storage();
    let mut paths = Vec::new();
    let mut put = |key: ObjectKey, bytes: &[u8]| {
        if storage.object_len(&key)?.is_none() {
            storage.put(&key, bytes, Existing::Replace)?;
        }
        paths.push(storage.path(&key));
        Ok::<(), Error>(())
    };
    for side in sides {
        put(ObjectKey::Evidence(side.id), &side.bytes)?;
    }
    put(ObjectKey::Mismatch(report.name()), &report.encode())?;
    Ok(paths)
}
