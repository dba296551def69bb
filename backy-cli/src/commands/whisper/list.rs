//! `whisper list`: the versions of metrics. Takes no lock.

use std::path::Path;

use chunkstore::source::WhisperTree;
use chunkstore::versions::{FileVersions, Version, Versions};
use jiff::tz::TimeZone;

use super::WhisperDirectory;
use super::report::MetricReport;
use super::retention::path_filter;
use crate::command_error::CommandError;
use crate::commands::damage;
use crate::human;
use crate::ui::Ui;
use crate::whisper_arguments::WhisperListArguments;

pub(super) fn run(
    path: &Path,
    arguments: &WhisperListArguments,
    ui: &Ui,
) -> Result<(), CommandError> {
    let WhisperDirectory { store, name, .. } = WhisperDirectory::open(path)?;
    let mut versions = Versions::open(&store, &name, path_filter(&arguments.metrics.metrics))?;
    let zone = TimeZone::system();
    let (mut count, mut has_begun) = (0_u64, false);
    while let Some(file) = versions.next() {
        let file = match file {
            Ok(file) => file,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error.into()),
        };
        let mut found = file.versions();
        found.retain(|version| arguments.date.is_none_or(|date| version.since < date));
        if found.is_empty() {
            continue;
        }
        count += 1;
        if ui.is_json() {
            // One document, written as it comes: there may be millions of metrics.
            let report = MetricReport::new(&file, &found, versions.revisions());
            let document = serde_json::to_string(&report)
                .expect("documents have text keys, and writing to memory does not fail");
            ui.print_part(&format!("{}{document}", if has_begun { ",\n" } else { "[\n" }))?;
            has_begun = true;
        } else {
            ui.print_part(&text(&file, &found, &zone))?;
        }
    }
    if ui.is_json() {
        ui.print(if has_begun { "\n]" } else { "[]" })?;
    } else {
        ui.print(&match count {
            0 => "no metrics found".to_owned(),
            count => format!("{} found", human::count(count, "metric")),
        })?;
    }
    let problems = versions.problems();
    ui.warnings(problems.iter().map(|problem| &problem.error));
    damage::lists(problems.len())
}

fn text(file: &FileVersions, found: &[Version], zone: &TimeZone) -> String {
    let gone = match file.last_seen() {
        Some(seen) if !file.is_current() => {
            format!(" (gone, last seen {})", human::time(seen, zone))
        }
        _ => String::new(),
    };
    let mut text = format!("{}{gone}\n", WhisperTree::metric_name(&file.path));
    for version in found {
        let since = human::time(version.since, zone);
        let seen = human::time(version.last_seen, zone);
        text.push_str(&format!("\t{since}  {}  seen until {seen}\n", human::size(version.len)));
    }
    text
}
