//! `whisper restore`: the newest version of each metric before a date, written whole or filled into what is there.

use std::path::Path;
use std::time::Duration;

use chunkstore::ops::{self, TreeRestoreOptions, TreeRestoreStats};
use chunkstore::target::{Existing, WhisperTarget};
use chunkstore::time::Timestamp;
use chunkstore::versions::Versions;
use chunkstore::whisper::Backfill;
use jiff::tz::TimeZone;

use super::WhisperDirectory;
use super::report::TreeRestoreReport;
use super::retention::path_filter;
use crate::backup_directory::absolute;
use crate::command_error::CommandError;
use crate::human;
use crate::own_files;
use crate::ui::Ui;
use crate::whisper_arguments::{BackfillArgument, WhisperRestoreArguments};

/// Files that are told by name on a terminal.
const NAMED_COUNT_MAX: usize = 20;

pub(super) fn run(
    path: &Path,
    arguments: &WhisperRestoreArguments,
    ui: &Ui,
) -> Result<(), CommandError> {
    let WhisperDirectory { store, name, prefix, .. } = WhisperDirectory::open(path)?;
    let prefix = arguments.prefix.as_deref().map(absolute).transpose()?.unwrap_or(prefix);
    own_files::refuse("target", &prefix, path, store.path())?;
    let pattern = &arguments.metrics.metrics;
    let versions = Versions::open(&store, &name, path_filter(pattern))?;
    let mut selection = versions.select(arguments.date);
    let options = TreeRestoreOptions {
        existing: match arguments.backfill {
            BackfillArgument::Safe => Existing::Backfill(Backfill::Safe),
            BackfillArgument::Compat => Existing::Backfill(Backfill::Compat),
            BackfillArgument::Never => Existing::Skip,
        },
        lock_timeout: Duration::from_secs(arguments.job.lock_timeout),
        is_dry_run: arguments.noop,
        threads: arguments.processes,
        ..TreeRestoreOptions::default()
    };
    let target = WhisperTarget::new(&prefix);
    let mut entries = selection.by_ref().peekable();
    // Before the target is made.
    if entries.peek().is_none() {
        let without = selection.without_version_count();
        return Err(CommandError::NothingToRestore(nothing(pattern, arguments.date, without)));
    }
    let stats = ops::restore_tree(&store, &mut entries, &target, &options, &ui.progress())?;
    let without = selection.without_version_count();
    if without != 0 {
        let metrics = human::count(without, "metric");
        ui.note(&format!("{metrics} had no version before that date: left out"));
    }
    tell(&stats, ui);
    let report = TreeRestoreReport::new(&prefix, arguments.noop, without, &stats);
    ui.result(&report, || summary(&prefix, arguments.noop, &stats))?;
    finish(&stats)
}

/// Says why there is nothing to restore.
fn nothing(pattern: &str, date: Option<Timestamp>, without: u64) -> String {
    match date {
        Some(date) if without != 0 => {
            let date = human::time(date, &TimeZone::system());
            format!("no version is older than {date}; metrics that match {pattern:?}: {without}")
        }
        _ => format!("no metric matches {pattern:?}"),
    }
}

/// Tells what was left out, and what has another name now.
pub(in crate::commands) fn tell(stats: &TreeRestoreStats, ui: &Ui) {
    for aside in stats.set_aside.iter().take(NAMED_COUNT_MAX) {
        ui.warning(&format!(
            "{} was no whisper file: it is {} now, and was written anew",
            aside.path, aside.name
        ));
    }
    for problem in stats.problems.iter().take(NAMED_COUNT_MAX) {
        let cause = std::error::Error::source(&problem.reason);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        match &problem.path {
            Some(path) => ui.warning(&format!("{path}: {}{cause}", problem.reason)),
            None => ui.warning(&format!("some metrics cannot be found: {}{cause}", problem.reason)),
        }
    }
    let told =
        stats.problems.len().min(NAMED_COUNT_MAX) + stats.set_aside.len().min(NAMED_COUNT_MAX);
    let all = stats.problem_count + stats.set_aside_count;
    let told = u64::try_from(told).unwrap_or(u64::MAX);
    if told < all {
        ui.warning(&format!("and {} more", all - told));
    }
    if stats.owner_kept != 0 {
        let files = human::count(stats.owner_kept, "file");
        ui.note(&format!("{files} belong to you: only root can give them to their owners"));
    }
}

/// Returns what was done, in words.
pub(in crate::commands) fn summary(
    target: &Path,
    changes_nothing: bool,
    stats: &TreeRestoreStats,
) -> String {
    let mut parts = Vec::new();
    for (count, what) in [
        (stats.written, "written"),
        (stats.replaced, "replaced"),
        (stats.backfilled, "filled"),
        (stats.unchanged, "unchanged"),
        (stats.skipped, "left alone"),
        (stats.problem_count, "not restored"),
    ] {
        if count != 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let would = if changes_nothing { "would restore" } else { "restored" };
    let done = stats.written + stats.replaced + stats.backfilled + stats.unchanged + stats.skipped;
    format!(
        "{would} {} to {} ({}): {} written, {} filled, in {}",
        human::count(done, "metric"),
        target.display(),
        parts.join(", "),
        human::size(stats.written_bytes),
        human::count(stats.filled_points, "point"),
        human::duration(stats.duration_milliseconds),
    )
}

/// Returns the error of a restore that has left something out.
pub(in crate::commands) fn finish(stats: &TreeRestoreStats) -> Result<(), CommandError> {
    let problems = human::count(stats.problem_count, "metric");
    let what = format!("{problems} could not be restored; all others are");
    match (stats.problem_count, stats.damage_count) {
        (0, _) => Ok(()),
        (_, 0) => Err(CommandError::FilesFailed { what }),
        (_, _) => Err(CommandError::DamageFound { what }),
    }
}
