//! Documents that the commands for whisper sources print with `--json`.

use chunkstore::id::{RevisionId, SourceName};
use chunkstore::ops::{BackupOptions, FileProblem, TreeBackupStats, TreeCounts};
use serde::Serialize;

use crate::human;

/// What the backup of a tree did.
#[derive(Debug, Serialize)]
pub(super) struct TreeBackupReport<'a> {
    id: RevisionId,
    source: &'a SourceName,
    parent: Option<RevisionId>,
    size: u64,
    #[serde(flatten)]
    counts: CountsReport,
    problems: Vec<ProblemReport<'a>>,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    reused_bytes: u64,
    reused_chunks: u64,
    new_chunks: u64,
    sampled_count: u64,
    sampled_bytes: u64,
    duration_seconds: f64,
    tags: &'a [String],
    warnings: &'a [String],
    healed: &'a [RevisionId],
}

impl<'a> TreeBackupReport<'a> {
    pub(super) fn new(stats: &'a TreeBackupStats, options: &'a BackupOptions) -> Self {
        Self {
            id: stats.id,
            source: &options.source_name,
            parent: stats.parent,
            size: stats.size,
            counts: CountsReport::from(stats.counts),
            problems: stats.problems.iter().map(ProblemReport::from).collect(),
            read_bytes: stats.statistics.read_bytes,
            new_bytes: stats.statistics.new_bytes,
            stored_bytes: stats.statistics.stored_bytes,
            reused_bytes: stats.statistics.reused_bytes,
            reused_chunks: stats.statistics.reused_chunks,
            new_chunks: stats.statistics.new_chunks,
            sampled_count: stats.sample.count,
            sampled_bytes: stats.sample.bytes,
            duration_seconds: human::seconds(stats.statistics.duration_milliseconds),
            tags: &options.tags,
            warnings: &stats.warnings,
            healed: &stats.healed,
        }
    }
}

/// How many files are what.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct CountsReport {
    files: u64,
    new_files: u64,
    changed_files: u64,
    unchanged_files: u64,
    carried_files: u64,
    gone_files: u64,
    read_files: u64,
    problem_count: u64,
}

impl From<TreeCounts> for CountsReport {
    fn from(counts: TreeCounts) -> Self {
        Self {
            files: counts.files,
            new_files: counts.new,
            changed_files: counts.changed,
            unchanged_files: counts.unchanged,
            carried_files: counts.carried,
            gone_files: counts.gone,
            read_files: counts.read,
            problem_count: counts.problems,
        }
    }
}

/// A file that could not be backed up.
#[derive(Debug, Serialize)]
pub(super) struct ProblemReport<'a> {
    path: &'a str,
    reason: String,
    /// Whether the revision has what the one before had.
    carried: bool,
}

impl<'a> From<&'a FileProblem> for ProblemReport<'a> {
    fn from(problem: &'a FileProblem) -> Self {
        let cause = std::error::Error::source(&problem.error);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Self {
            path: &problem.path,
            reason: format!("{}{cause}", problem.error),
            carried: problem.is_carried,
        }
    }
}

/// What a backup would do.
#[derive(Debug, Serialize)]
pub(super) struct PreviewReport<'a> {
    noop: bool,
    #[serde(flatten)]
    counts: CountsReport,
    problems: Vec<ProblemReport<'a>>,
}

impl<'a> PreviewReport<'a> {
    pub(super) fn new(counts: TreeCounts, problems: &'a [FileProblem]) -> Self {
        let problems = problems.iter().map(ProblemReport::from).collect();
        Self { noop: true, counts: CountsReport::from(counts), problems }
    }
}
