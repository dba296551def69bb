//! Reads a part of a backup back from the store, before it becomes a revision, and compares it with the source.
//!
//! New chunks were expanded and compared in memory before they were written. What this adds: that what lies in the store,
//! also what older backups wrote, is what the source has. How much: `docs/trust.md`, section "After each backup".

mod comparison;
mod evidence;
mod pick;

use std::fmt;
use std::path::PathBuf;

use self::comparison::Comparison;
use self::evidence::{has_reports, keep_evidence};
use self::pick::{Choice, choose_spans, pick};
use super::{BackupError, Run};
use crate::chunk_reader::ChunkReader;
use crate::error::Result;
use crate::format::{MismatchReport, Root};
use crate::id::RevisionId;
use crate::progress::Phase;

/// Usually one chunk of this many is read back, ...
const USUAL_SHARE: u64 = 256;
/// ... but not fewer ...
const USUAL_COUNT_MIN: u64 = 32;
/// ... and not more than these.
const USUAL_COUNT_MAX: u64 = 1024;

/// Percentage that is read back while something speaks against the source or its revisions.
const PERCENT_IN_DOUBT: u8 = 10;

/// Spans whose entries are looked up together.
const ROUND_LEN: usize = 64;

/// How much of a backup is read back from the store and compared with the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleSize {
    /// One chunk of 256, at least 32 and at most 1024 of them, at random; a tenth of all while something speaks against the source or
    /// its revisions.
    #[default]
    Adaptive,
    /// This percentage of all chunks, each chosen at random: 0 for none, 100 and more for all.
    Percent(u8),
}

/// What was read back and compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleStats {
    /// Chunks and zero ranges.
    pub count: u64,
    /// Their bytes in the image.
    pub bytes: u64,
    /// Whether more than usual was compared because something speaks against the source or its revisions.
    pub in_doubt: bool,
}

/// What a sample has shown: store and source do not agree.
#[derive(Clone, Debug)]
pub struct SampleMismatch {
    /// The source.
    pub name: String,
    /// The places, by offset. Of the first 16 both sides were kept.
    pub reports: Vec<MismatchReport>,
    /// How much was compared.
    pub compared: SampleStats,
    /// Files with the evidence.
    pub evidence: Vec<PathBuf>,
    /// Why some of it could not be kept.
    pub evidence_lost: Option<String>,
}

impl fmt::Display for SampleMismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offset, len) =
            self.reports.first().map_or((0, 0), |report| (report.offset, report.len));
        write!(
            formatter,
            "no revision: at byte {offset} ({len} bytes) of source {} the store gives back something else than was there when it was compared ({} of {} samples)",
            self.name,
            self.reports.len(),
            self.compared.count,
        )
    }
}

/// Compares a sample of what would become revision `id`.
pub(super) fn compare(
    run: &Run<'_>,
    id: RevisionId,
    root: &Root,
    chunk_count: u64,
) -> std::result::Result<SampleStats, BackupError> {
    let (choice, in_doubt) = choose(run, chunk_count)?;
    if matches!(choice, Choice::Percent(0)) || root.spans.is_empty() {
        return Ok(SampleStats { in_doubt, ..SampleStats::default() });
    }
    run.progress.begin(Phase::Sample, None);
    let mut comparison = Comparison::new(run, in_doubt);
    let mut reader = ChunkReader::new(run.store);
    for round in choose_spans(run, root, choice).chunks(ROUND_LEN) {
        let picks = pick(run, &mut reader, root, round, choice)?;
        comparison.add(&picks)?;
    }
    run.progress.end();
    if comparison.differing.is_empty() {
        return Ok(comparison.stats);
    }
    Err(BackupError::Mismatch(Box::new(keep_evidence(run, id, comparison))))
}

/// Returns what is to be compared, and whether something is in doubt.
fn choose(run: &Run<'_>, chunk_count: u64) -> Result<(Choice, bool)> {
    if let SampleSize::Percent(percent) = run.options.sample {
        return Ok((Choice::Percent(percent.min(100)), false));
    }
    let in_doubt = run.parent.history_has_doubts || has_reports(run)?;
    let usual = (chunk_count / USUAL_SHARE).clamp(USUAL_COUNT_MIN, USUAL_COUNT_MAX);
    if in_doubt && usual * 100 < chunk_count * u64::from(PERCENT_IN_DOUBT) {
        return Ok((Choice::Percent(PERCENT_IN_DOUBT), true));
    }
    Ok((if chunk_count <= usual { Choice::EveryOne } else { Choice::Count(usual) }, in_doubt))
}
