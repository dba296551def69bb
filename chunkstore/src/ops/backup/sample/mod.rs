//! Reads a part of a backup back from the store, before it becomes a revision, and compares it with the source.
//!
//! New chunks were expanded and compared in memory before they were written. What this adds: that what lies in the store,
//! also what older backups wrote, is what the source has. How much: `docs/trust.md`, section "After each backup".

mod comparison;
mod evidence;
mod pick;

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use self::comparison::Comparison;
pub(super) use self::comparison::{Difference, Differences};
use self::evidence::EVIDENCE_LEN_MAX;
pub(super) use self::evidence::{has_reports, keep_evidence};
use self::pick::{Choice, Pick, choose_spans, page_id, pick};
use super::{BackupError, Run};
use crate::chunk_reader::ChunkReader;
use crate::compression::stored_len_max;
use crate::error::Result;
use crate::format::{MismatchReport, Root};
use crate::id::{ChunkId, RevisionId};
use crate::index;
use crate::ops::page_bounds::{ENTRY_LEN, PageBounds};
use crate::progress::Phase;

/// Usually one chunk of this many is read back, ...
const USUAL_SHARE: u64 = 256;
/// ... but not fewer ...
const USUAL_COUNT_MIN: u64 = 32;
/// ... and not more than these.
const USUAL_COUNT_MAX: u64 = 1024;

/// Percentage that is read back while something speaks against the source or its revisions.
const PERCENT_IN_DOUBT: u8 = 10;

/// Spans whose pages are looked up together.
const ROUND_LEN: usize = 64;

/// Entries that are looked up together, unless one page has more: then in pieces of so many.
const LOOKUP_COUNT: usize = 8192;

/// Memory for each entry of a lookup: its id and its place in the index.
const LOOKUP_ENTRY_MEMORY: usize = 256;

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
    /// How many of the samples differ.
    pub count: u64,
    /// Places, by offset; at most 1024. Of the first 16 both sides were kept, as far as they have no more than 32 MiB.
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
            self.name, self.count, self.compared.count,
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
    let mut comparison = Comparison::new(run, in_doubt, thread_count(run, root.span_len));
    let mut reader = ChunkReader::new(run.store);
    let mut picks = Vec::new();
    let is_counted = matches!(choice, Choice::Count(_));
    // What spans should have given and did not have.
    let mut missing = 0;
    for round in choose_spans(run, root, choice).chunks(ROUND_LEN) {
        if is_counted && missing == 0 && round.iter().all(|(_, count)| *count == 0) {
            break;
        }
        let pages: Vec<ChunkId> =
            round.iter().filter_map(|(span, _)| page_id(root, *span)).collect();
        let mut locations = run.store.index().view(|view| view.locate(&pages))?.into_iter();
        for (span, count) in round {
            let location = page_id(root, *span).and_then(|_| locations.next().flatten());
            let wanted = count + missing;
            if is_counted && wanted == 0 {
                continue;
            }
            let before = picks.len();
            pick(run, &mut reader, (root, *span), location, (choice, wanted), &mut picks)?;
            missing = wanted.saturating_sub((picks.len() - before) as u64);
            if LOOKUP_COUNT <= picks.len() {
                comparison.add(&picks)?;
                picks.clear();
            }
        }
        comparison.add(&picks)?;
        picks.clear();
    }
    run.progress.end();
    if comparison.differing.count == 0 {
        return Ok(comparison.stats);
    }
    let (source, origin) = (&run.options.source_name, run.source.name());
    let Comparison { stats, differing, .. } = comparison;
    let mismatch = keep_evidence(run.store, source, origin, id, stats, differing);
    Err(BackupError::Mismatch(Box::new(mismatch)))
}

/// Returns how many threads there is memory for, at least one: a backup has more at its disposal than one of them takes.
fn thread_count(run: &Run<'_>, span_len: u64) -> NonZero<usize> {
    let chunking = run.store.chunking();
    let chunk = chunking.max() as usize;
    let page = PageBounds::new(chunking, span_len);
    let shared = index::CACHE_LEN
        + EVIDENCE_LEN_MAX
        + 2 * page.len_max
        + stored_len_max(page.len_max)
        + page.entry_count_max * (ENTRY_LEN + size_of::<Pick>())
        + LOOKUP_COUNT * LOOKUP_ENTRY_MEMORY;
    // Both sides, the record, and what the allocator keeps of one of them.
    let each = 3 * chunk + stored_len_max(chunk);
    let wanted = run.options.threads.or_else(|| thread::available_parallelism().ok());
    // An eighth is left to what the allocator does not give back at once, as where spans are cut.
    let affordable = (run.options.memory - run.options.memory / 8).saturating_sub(shared) / each;
    NonZero::new(affordable.min(wanted.map_or(1, NonZero::get))).unwrap_or(NonZero::<usize>::MIN)
}

/// Returns what is to be compared, and whether something is in doubt.
fn choose(run: &Run<'_>, chunk_count: u64) -> Result<(Choice, bool)> {
    if let SampleSize::Percent(percent) = run.options.sample {
        return Ok((Choice::Percent(percent.min(100)), false));
    }
    let in_doubt =
        run.parent.history_has_doubts || has_reports(run.store, &run.options.source_name)?;
    let usual = (chunk_count / USUAL_SHARE).clamp(USUAL_COUNT_MIN, USUAL_COUNT_MAX);
    if in_doubt && usual * 100 < chunk_count * u64::from(PERCENT_IN_DOUBT) {
        return Ok((Choice::Percent(PERCENT_IN_DOUBT), true));
    }
    Ok((if chunk_count <= usual { Choice::EveryOne } else { Choice::Count(usual) }, in_doubt))
}
