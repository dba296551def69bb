//! Documents that the commands for whisper sources print with `--json`.

use std::path::Path;

use chunkstore::Revision;
use chunkstore::id::{RevisionId, SourceName};
use chunkstore::ops::purge::PurgeStats;
use chunkstore::ops::thin::ThinCounts;
use chunkstore::ops::{
    BackupOptions, FileProblem, TreeBackupStats, TreeCounts, TreeProblem, TreeRestoreStats,
};
use chunkstore::source::WhisperTree;
use chunkstore::time::Timestamp;
use chunkstore::versions::{FileVersions, Version};
use serde::Serialize;

use crate::human;
use crate::reports::ThinReport;

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
    thinned: ThinReport,
}

impl<'a> PreviewReport<'a> {
    pub(super) fn new(
        counts: TreeCounts,
        problems: &'a [FileProblem],
        thinned: ThinCounts,
    ) -> Self {
        let problems = problems.iter().map(ProblemReport::from).collect();
        let thinned = ThinReport::from(thinned);
        Self { noop: true, counts: CountsReport::from(counts), problems, thinned }
    }
}

/// What `whisper backup` did: the revision, and what it removed from older ones.
#[derive(Debug, Serialize)]
pub(super) struct WhisperBackupReport<'a> {
    #[serde(flatten)]
    pub(super) backup: TreeBackupReport<'a>,
    pub(super) thinned: ThinReport,
    pub(super) space: Option<SpaceReport>,
}

/// What `whisper purge` did.
#[derive(Debug, Serialize)]
pub(super) struct WhisperPurgeReport {
    pub(super) noop: bool,
    #[serde(flatten)]
    pub(super) thinned: ThinReport,
    pub(super) space: Option<SpaceReport>,
}

/// What was given back.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct SpaceReport {
    freed_bytes: u64,
    repacked_bytes: u64,
    kept_bytes: u64,
    deferred_bytes: u64,
}

impl From<&PurgeStats> for SpaceReport {
    fn from(stats: &PurgeStats) -> Self {
        Self {
            freed_bytes: stats.freed_bytes,
            repacked_bytes: stats.repacked_bytes,
            kept_bytes: stats.kept_bytes,
            deferred_bytes: stats.deferred_bytes,
        }
    }
}

/// What a restore of whisper files did.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct TreeRestoreReport<'a> {
    target: String,
    noop: bool,
    files: u64,
    written_files: u64,
    replaced_files: u64,
    backfilled_files: u64,
    unchanged_files: u64,
    skipped_files: u64,
    files_without_version: u64,
    filled_points: u64,
    replaced_points: u64,
    written_bytes: u64,
    set_aside: Vec<SetAsideReport<'a>>,
    set_aside_count: u64,
    problems: Vec<RestoreProblemReport<'a>>,
    problem_count: u64,
    damage_count: u64,
    duration_seconds: f64,
}

#[derive(Debug, Serialize)]
struct SetAsideReport<'a> {
    path: &'a str,
    name: &'a str,
}

#[derive(Debug, Serialize)]
struct RestoreProblemReport<'a> {
    path: Option<&'a str>,
    reason: String,
    damage: bool,
}

impl<'a> TreeRestoreReport<'a> {
    pub(in crate::commands) fn new(
        target: &Path,
        noop: bool,
        files_without_version: u64,
        stats: &'a TreeRestoreStats,
    ) -> Self {
        let set_aside =
            stats.set_aside.iter().map(|it| SetAsideReport { path: &it.path, name: &it.name });
        Self {
            target: target.display().to_string(),
            noop,
            files: stats.files,
            written_files: stats.written,
            replaced_files: stats.replaced,
            backfilled_files: stats.backfilled,
            unchanged_files: stats.unchanged,
            skipped_files: stats.skipped,
            files_without_version,
            filled_points: stats.filled_points,
            replaced_points: stats.replaced_points,
            written_bytes: stats.written_bytes,
            set_aside: set_aside.collect(),
            set_aside_count: stats.set_aside_count,
            problems: stats.problems.iter().map(RestoreProblemReport::from).collect(),
            problem_count: stats.problem_count,
            damage_count: stats.damage_count,
            duration_seconds: human::seconds(stats.duration_milliseconds),
        }
    }
}

impl<'a> From<&'a TreeProblem> for RestoreProblemReport<'a> {
    fn from(problem: &'a TreeProblem) -> Self {
        let cause = std::error::Error::source(&problem.reason);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Self {
            path: problem.path.as_deref(),
            reason: format!("{}{cause}", problem.reason),
            damage: problem.reason.is_damage(),
        }
    }
}

/// A metric, as `whisper list` lists it.
#[derive(Debug, Serialize)]
pub(super) struct MetricReport {
    metric: String,
    path: String,
    /// Whether the newest revision has it.
    current: bool,
    last_seen: Option<Timestamp>,
    versions: Vec<VersionReport>,
}

/// A version of a metric.
#[derive(Debug, Serialize)]
struct VersionReport {
    since: Timestamp,
    last_seen: Timestamp,
    size: u64,
    revisions: Vec<RevisionId>,
}

impl MetricReport {
    pub(super) fn new(file: &FileVersions, found: &[Version], revisions: &[Revision]) -> Self {
        let version = |version: &Version| VersionReport {
            since: version.since,
            last_seen: version.last_seen,
            size: version.len,
            revisions: version.revisions.iter().map(|it| revisions[*it].record.id).collect(),
        };
        Self {
            metric: WhisperTree::metric_name(&file.path),
            path: file.path.to_string(),
            current: file.is_current(),
            last_seen: file.last_seen(),
            versions: found.iter().map(version).collect(),
        }
    }
}
