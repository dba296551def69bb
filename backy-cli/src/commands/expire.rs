//! `expire`: drops what the schedule does not keep, and says why of everything.

use std::path::Path;

use chunkstore::ops::expire::{self, ExpireOptions};
use chunkstore::ops::thin::ThinOptions;
use chunkstore::retention::{Decision, Reason, Verdict};
use jiff::tz::TimeZone;

use super::tags::change_of_tags;
use super::{damage, whisper};
use crate::arguments::ExpireArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::ExpireReport;
use crate::table::{self, Align};
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &ExpireArguments, ui: &Ui) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let (Some(source), Some(schedule)) = (directory.source_name()?, directory.schedule()) else {
        return Err(CommandError::Usage(format!(
            "{} has no schedule in its configuration: nothing says what to keep",
            path.display()
        )));
    };
    let store = directory.open_store()?;
    let options = ExpireOptions {
        schedule: schedule.clone(),
        timezone: TimeZone::system(),
        force: arguments.force,
        thin: directory.is_whisper().then(|| {
            let thin = whisper::thin_options(directory.config(), None, None, "*");
            ThinOptions { force: arguments.force, ..thin }
        }),
    };
    let plan = expire::plan(&store, &source, &options)?;
    ui.warnings(plan.damaged());
    let damaged_count = plan.damaged().len();
    let (verdict, thinned) = if arguments.dry_run {
        (plan.verdict().clone(), plan.thinning().map(|plan| *plan.expected()))
    } else {
        let stats = plan.execute_with(&ui.progress())?;
        (stats.verdict, stats.thinned.map(|stats| stats.counts))
    };
    let overruled = match (arguments.dry_run, arguments.force) {
        (true, false) => "this is refused without --force",
        _ => "forced",
    };
    for refusal in &verdict.refusals {
        ui.warning(&format!("{overruled}: {refusal}"));
    }
    let report = ExpireReport::new(&source, arguments.dry_run, &verdict, thinned);
    ui.result(&report, || {
        let text = text(&verdict, arguments.dry_run, thinned.is_some(), &options.timezone);
        match &thinned {
            Some(counts) => {
                let would = if arguments.dry_run { "would be " } else { "" };
                format!("{text}\n{}", whisper::thinning(counts, would))
            }
            None => text,
        }
    })?;
    if !arguments.dry_run && verdict.removed().next().is_some() {
        ui.note(&format!("`backy -b {} purge` gives the space back", path.display()));
    }
    damage::records(damaged_count)
}

fn text(verdict: &Verdict, dry_run: bool, is_thinned: bool, zone: &TimeZone) -> String {
    let heading = [&format!("Date ({})", human::zone_name(zone)), "ID", "Tags", "Result", "Reason"];
    let dropped = if is_thinned { "thinned" } else { "removed" };
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(verdict.decisions.iter().map(|decision| row(decision, dropped, zone)));
    let removed = u64::try_from(verdict.removed().count()).unwrap_or(u64::MAX);
    let kept = u64::try_from(verdict.decisions.len()).unwrap_or(u64::MAX).saturating_sub(removed);
    let would = if dry_run { "would be " } else { "" };
    let to = if is_thinned { " where nothing needs them" } else { "" };
    format!(
        "{}{} {would}{dropped}{to}, {kept} {would}kept",
        table::render(&[Align::Left; 5], &rows),
        human::count(removed, "revision"),
    )
}

fn row(decision: &Decision, dropped: &str, zone: &TimeZone) -> Vec<String> {
    let reasons: Vec<String> = decision.reasons.iter().map(Reason::to_string).collect();
    vec![
        human::time(decision.time, zone),
        decision.id.to_string(),
        change_of_tags(&decision.tags_before, &decision.tags_after),
        if decision.is_removed { dropped } else { "kept" }.to_owned(),
        reasons.join("; "),
    ]
}
