//! Makes one revision of a tree, and says what came of it.

use chunkstore::Store;
use chunkstore::ops::{self, FileProblem, TreeBackupOptions, TreeBackupStats, TreeCounts};
use chunkstore::source::WhisperTree;

use super::report::TreeBackupReport;
use crate::command_error::CommandError;
use crate::commands::backup::tell;
use crate::human;
use crate::ui::Ui;

/// Problems that are told by name on a terminal; `--json` and the log file have as many as were kept.
const PROBLEM_COUNT_MAX: usize = 20;

/// Makes the revision, and tells what speaks against it.
pub(in crate::commands) fn make_revision(
    store: &Store,
    source: &WhisperTree,
    options: &TreeBackupOptions,
    ui: &Ui,
) -> Result<TreeBackupStats, CommandError> {
    let stats = ops::backup_tree(store, source, options, &ui.progress())?;
    tell(&stats.warnings, stats.recheck, &stats.sample, &stats.healed, ui);
    tell_problems(&stats.problems, stats.counts.problems, ui);
    Ok(stats)
}

/// Prints what came of it.
pub(in crate::commands) fn print(
    stats: &TreeBackupStats,
    options: &TreeBackupOptions,
    ui: &Ui,
) -> Result<(), CommandError> {
    ui.result(&TreeBackupReport::new(stats, &options.common), || summary(stats))
}

/// Returns the error of a revision that lacks some files.
pub(in crate::commands) fn finish(counts: &TreeCounts) -> Result<(), CommandError> {
    if counts.problems == 0 {
        return Ok(());
    }
    let problems = human::count(counts.problems, "problem");
    let what = format!("{problems} with files or directories; all others are in the revision");
    Err(CommandError::FilesFailed { what })
}

/// Tells which files could not be read.
pub(super) fn tell_problems(problems: &[FileProblem], count: u64, ui: &Ui) {
    for problem in problems.iter().take(PROBLEM_COUNT_MAX) {
        let kept = if problem.is_carried { "; the revision keeps what it had" } else { "" };
        let cause = std::error::Error::source(&problem.error);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        ui.warning(&format!("{}: {}{cause}{kept}", problem.path, problem.error));
    }
    let told = u64::try_from(problems.len().min(PROBLEM_COUNT_MAX)).unwrap_or(u64::MAX);
    if told < count {
        ui.warning(&format!("and {} more", count - told));
    }
}

/// Returns how many files are what, in words.
pub(super) fn counted(counts: &TreeCounts) -> String {
    let mut parts = vec![format!("{} unchanged", counts.unchanged)];
    for (count, what) in [
        (counts.new, "new"),
        (counts.changed, "changed"),
        (counts.carried, "kept unread"),
        (counts.gone, "gone"),
        (counts.problems, "with problems"),
    ] {
        if count != 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    format!("{} ({})", human::count(counts.files, "metric"), parts.join(", "))
}

/// Returns what a backup did, in words.
pub(super) fn summary(stats: &TreeBackupStats) -> String {
    let numbers = &stats.statistics;
    format!(
        "revision {}: {}, {}, of which {} are new ({} stored), in {}; {} compared",
        stats.id,
        counted(&stats.counts),
        human::size(stats.size),
        human::size(numbers.new_bytes),
        human::size(numbers.stored_bytes),
        human::duration(numbers.duration_milliseconds),
        human::count(stats.sample.count, "file"),
    )
}
