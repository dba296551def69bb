//! `purge`: gives back the space that no revision needs.

use std::path::Path;
use std::time::Duration;

use chunkstore::ops::purge::{self, PurgeOptions};

use crate::arguments::PurgeArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::PurgeReport;
use crate::ui::Ui;

/// Time for which condemned packs stay, so that an interrupted backup can go on.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn run(path: &Path, arguments: &PurgeArguments, ui: &Ui) -> Result<(), CommandError> {
    let store = BackupDirectory::open(path)?.open_store()?;
    let grace = if arguments.now { Duration::ZERO } else { GRACE };
    let progress = ui.progress();
    let plan = purge::plan(&store, &PurgeOptions { grace }, &progress)?;
    if arguments.dry_run {
        let summary = plan.summary();
        let report = PurgeReport {
            dry_run: true,
            freed_bytes: summary.free_bytes,
            repacked_bytes: summary.repack_bytes,
            kept_bytes: summary.keep_bytes,
            deferred_bytes: summary.defer_bytes,
            waiting: &summary.waiting,
        };
        return ui.result(&report, || text(&report, "would free"));
    }
    let stats = plan.execute(&progress)?;
    let report = PurgeReport {
        dry_run: false,
        freed_bytes: stats.freed_bytes,
        repacked_bytes: stats.repacked_bytes,
        kept_bytes: stats.kept_bytes,
        deferred_bytes: stats.deferred_bytes,
        waiting: &stats.waiting,
    };
    ui.result(&report, || text(&report, "freed"))
}

fn text(report: &PurgeReport<'_>, freed: &str) -> String {
    let mut text = format!(
        "{freed} {}, repacked {}, kept {}, deferred {}\n",
        human::size(report.freed_bytes),
        human::size(report.repacked_bytes),
        human::size(report.kept_bytes),
        human::size(report.deferred_bytes),
    );
    for reason in report.waiting {
        text.push_str(&format!("deferred: {reason}\n"));
    }
    text
}
