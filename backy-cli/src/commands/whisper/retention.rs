//! What is kept of metrics: unique versions, and those that are gone for a while.

use std::num::NonZero;
use std::path::Path;
use std::time::Duration;

use chunkstore::Store;
use chunkstore::id::SourceName;
use chunkstore::ops::purge::{self, GRACE_DEFAULT, PurgeOptions};
use chunkstore::ops::thin::{self, Candidates, ThinCounts, ThinError, ThinOptions};
use chunkstore::source::WhisperTree;
use chunkstore::versions::PathFilter;

use super::glob::Glob;
use super::report::WhisperPurgeReport;
use super::{PURGE_DAYS_DEFAULT, RETENTION_DEFAULT, WhisperDirectory};
use crate::command_error::CommandError;
use crate::config::{Config, WhisperConfig};
use crate::human;
use crate::reports::{ThinReport, WaitingReport};
use crate::ui::Ui;
use crate::whisper_arguments::WhisperPurgeArguments;

/// Returns what is kept: what the arguments say, else the configuration, else the defaults.
pub(in crate::commands) fn thin_options(
    config: Option<&Config>,
    retention: Option<NonZero<u32>>,
    purge_days: Option<i32>,
    pattern: &str,
) -> ThinOptions {
    let configured = config.and_then(|config| config.whisper).unwrap_or_default();
    let WhisperConfig { retention: configured_retention, purge_days: configured_days } = configured;
    let versions = retention.or(configured_retention).or(NonZero::new(RETENTION_DEFAULT));
    let days = purge_days.or(configured_days).unwrap_or(PURGE_DAYS_DEFAULT);
    let schedule = config.and_then(|config| config.schedule.clone()).unwrap_or_default();
    ThinOptions {
        versions,
        gone_after: gone_after(days),
        filter: path_filter(pattern),
        candidates: Candidates::WithoutTags(schedule.tags().map(str::to_owned).collect()),
        ..ThinOptions::default()
    }
}

/// Returns after which time metrics go that are no longer there; negative days mean never.
fn gone_after(days: i32) -> Option<Duration> {
    let days = u64::try_from(days).ok()?;
    Some(Duration::from_secs(days.saturating_mul(24 * 3600)))
}

/// Chooses files by the names of their metrics.
pub(super) fn path_filter(pattern: &str) -> PathFilter {
    if pattern == "*" {
        return PathFilter::all();
    }
    let glob = Glob::new(pattern);
    PathFilter::new(move |path| glob.matches(&WhisperTree::metric_name(path)))
}

/// Removes versions, or says what would be removed.
pub(super) fn thin(
    store: &Store,
    source: &SourceName,
    options: &ThinOptions,
    changes_nothing: bool,
    ui: &Ui,
) -> Result<ThinCounts, CommandError> {
    let plan = thin::plan(store, source, options)?;
    let expected = *plan.expected();
    ui.warnings(plan.damaged());
    if changes_nothing {
        for refusal in plan.refusals() {
            ui.warning(&format!("this would be refused: {refusal}"));
        }
        return Ok(expected);
    }
    if is_nothing(&expected) {
        return Ok(expected);
    }
    Ok(plan.execute(&ui.progress())?.counts)
}

/// Returns whether thinning has nothing to do.
pub(super) const fn is_nothing(counts: &ThinCounts) -> bool {
    counts.dropped_entries == 0 && counts.removed_revisions == 0 && counts.superseded_revisions == 0
}

/// Gives back what no revision needs any more, as soon as that is safe.
pub(super) fn purge_store(store: &Store, ui: &Ui) -> Result<purge::PurgeStats, CommandError> {
    let progress = ui.progress();
    let options = PurgeOptions { grace: GRACE_DEFAULT, ..PurgeOptions::default() };
    let stats = purge::plan(store, &options, &progress)?.execute(&progress)?;
    for damage in &stats.damaged {
        ui.warning(&format!("{damage}: it stays where it is, and so does its pack"));
    }
    Ok(stats)
}

/// Returns what thinning did, in words.
pub(in crate::commands) fn counted(counts: &ThinCounts, would: &str) -> String {
    format!(
        "{} {would}dropped, {} {would}thinned, {} {would}removed",
        human::count(counts.dropped_versions, "version"),
        human::count(counts.thinned_revisions, "revision"),
        human::count(counts.removed_revisions, "revision"),
    )
}

/// `whisper purge`.
pub(super) fn run(
    path: &Path,
    arguments: &WhisperPurgeArguments,
    ui: &Ui,
) -> Result<(), CommandError> {
    let WhisperDirectory { store, name, config, .. } = WhisperDirectory::open(path)?;
    let pattern = &arguments.metrics.metrics;
    let options = ThinOptions {
        versions: None,
        ..thin_options(Some(&config), None, arguments.purge_days, pattern)
    };
    let counts = thin(&store, &name, &options, arguments.noop, ui)?;
    let would = if arguments.noop { "would be " } else { "" };
    let gone = human::count(counts.gone_files, "metric");
    let text = format!("{gone} {would}forgotten: {}", counted(&counts, would));
    if arguments.noop {
        let report =
            WhisperPurgeReport { noop: true, thinned: ThinReport::from(counts), space: None };
        return ui.result(&report, || text);
    }
    let stats = purge_store(&store, ui)?;
    let report = WhisperPurgeReport {
        noop: false,
        thinned: ThinReport::from(counts),
        space: Some((&stats).into()),
    };
    ui.result(&report, || {
        let mut text = format!(
            "{text}; freed {}, deferred {}",
            human::size(stats.freed_bytes),
            human::size(stats.deferred_bytes)
        );
        for waiting in &stats.waiting {
            text.push('\n');
            text.push_str(&WaitingReport::from(waiting).line());
        }
        text
    })
}

impl From<ThinError> for CommandError {
    fn from(error: ThinError) -> Self {
        match error {
            ThinError::Store(error) => Self::Store(error),
            refused => Self::ThinningRefused(refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_before_the_configuration_and_that_before_the_defaults() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let options = thin_options(None, None, None, "*");
        assert_eq!((options.versions, options.gone_after), (NonZero::new(5), days(45)));
        let config: Config = serde_saphyr::from_str(
            "source: {type: whisper, filename: /w}\nwhisper: {retention: 7, purge-days: 0}\nschedule: {daily: {interval: 1d, keep: 3}}",
        )
        .unwrap();
        let options = thin_options(Some(&config), None, None, "*");
        assert_eq!((options.versions, options.gone_after), (NonZero::new(7), days(0)));
        assert_eq!(options.candidates, Candidates::WithoutTags(["daily".to_owned()].into()));
        let options = thin_options(Some(&config), NonZero::new(2), Some(-1), "*");
        assert_eq!((options.versions, options.gone_after), (NonZero::new(2), None));
    }

    #[test]
    fn metrics_are_chosen_by_their_dotted_names() {
        let path = |text: &str| chunkstore::format::TreePath::new(text.as_bytes()).unwrap();
        let filter = path_filter("carbon.*.cpu");
        assert!(filter.matches(&path("carbon/agents/a/cpu.wsp")));
        assert!(!filter.matches(&path("carbon/agents/a/mem.wsp")));
        assert!(path_filter("*").matches(&path("x.wsp")));
    }
}
