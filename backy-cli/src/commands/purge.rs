//! `purge`: gives back the space that no revision needs.

use std::path::Path;
use std::time::Duration;

use chunkstore::ops::purge::{self, GRACE_DEFAULT, PurgeOptions};

use crate::arguments::PurgeArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::{PurgeReport, WaitingReport};
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &PurgeArguments, ui: &Ui) -> Result<(), CommandError> {
    let store = BackupDirectory::open(path)?.open_store()?;
    let options = PurgeOptions {
        grace: if arguments.now { Duration::ZERO } else { GRACE_DEFAULT },
        bytes_per_second: arguments.limit,
        ..PurgeOptions::default()
    };
    let progress = ui.progress();
    if arguments.dry_run {
        let summary = purge::preview(&store, &options, &progress)?;
        let report = PurgeReport {
            dry_run: true,
            freed_bytes: summary.free_bytes,
            repacked_bytes: summary.repack_bytes,
            kept_bytes: summary.keep_bytes,
            deferred_bytes: summary.defer_bytes,
            waiting: summary.waiting.iter().map(WaitingReport::from).collect(),
            damaged: &[],
        };
        return ui.result(&report, || text(&report, "would free", "repack", "keep", "defer"));
    }
    let stats = purge::plan(&store, &options, &progress)?.execute(&progress)?;
    for damage in &stats.damaged {
        ui.warning(&format!("{damage}: it stays where it is, and so does its pack"));
    }
    let report = PurgeReport {
        dry_run: false,
        freed_bytes: stats.freed_bytes,
        repacked_bytes: stats.repacked_bytes,
        kept_bytes: stats.kept_bytes,
        deferred_bytes: stats.deferred_bytes,
        waiting: stats.waiting.iter().map(WaitingReport::from).collect(),
        damaged: &stats.damaged,
    };
    ui.result(&report, || text(&report, "freed", "repacked", "kept", "deferred"))
}

fn text(
    report: &PurgeReport<'_>,
    freed: &str,
    repacked: &str,
    kept: &str,
    deferred: &str,
) -> String {
    let mut text = format!(
        "{freed} {}, {repacked} {}, {kept} {}, {deferred} {}\n",
        human::size(report.freed_bytes),
        human::size(report.repacked_bytes),
        human::size(report.kept_bytes),
        human::size(report.deferred_bytes),
    );
    for waiting in &report.waiting {
        text.push_str(&waiting.line());
        text.push('\n');
    }
    text
}
