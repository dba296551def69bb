//! `status`: lists revisions.

use std::collections::HashMap;
use std::path::Path;

use chunkstore::id::RevisionId;
use chunkstore::ops::{self, RevisionSpace};
use chunkstore::{Revision, Store};
use jiff::tz::TimeZone;

use super::damage;
use super::scrub::{find_coverage, tell_coverage};
use crate::arguments::StatusArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::{AncestorRevisionReport, RevisionReport};
use crate::table::{self, Align};
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &StatusArguments, ui: &Ui) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let selection = directory.select(&store, &arguments.revision, ui)?;
    let revisions = &selection.revisions;
    if arguments.yaml {
        let reports: Vec<_> = revisions.iter().map(AncestorRevisionReport::from).collect();
        let text = serde_saphyr::to_string(&reports)
            .expect("documents have text keys, and writing to memory does not fail");
        ui.print(&text)?;
    } else {
        let spaces = arguments.space.then(|| find_spaces(&store, ui)).transpose()?;
        let space = |revision: &Revision| spaces.as_ref()?.get(&revision.record.id);
        let report = |revision| RevisionReport::from(revision).with_space(space(revision));
        let reports: Vec<_> = revisions.iter().map(report).collect();
        let zone = TimeZone::system();
        let coverage = (!ui.is_json()).then(|| find_coverage(&store, ui)).transpose()?;
        ui.result(&reports, || {
            let mut text = text(revisions, spaces.as_ref(), &zone);
            if let Some(coverage) = &coverage {
                text.push_str(&format!("\n{}", tell_coverage(coverage, &zone)));
            }
            text
        })?;
    }
    damage::tell_mismatches(&store, ui)?;
    damage::records(selection.damaged_count)
}

/// What each revision needs, by id.
type Spaces = HashMap<RevisionId, RevisionSpace>;

fn find_spaces(store: &Store, ui: &Ui) -> Result<Spaces, CommandError> {
    let spaces = ops::space(store, &ui.progress())?;
    Ok(spaces.into_iter().map(|space| (space.id, space)).collect())
}

fn text(revisions: &[Revision], spaces: Option<&Spaces>, zone: &TimeZone) -> String {
    let several_sources =
        revisions.windows(2).any(|pair| pair[0].record.source != pair[1].record.source);
    let mut alignment = vec![Align::Left; 2];
    let mut heading = vec![format!("Date ({})", human::zone_name(zone)), "ID".to_owned()];
    if several_sources {
        alignment.push(Align::Left);
        heading.push("Source".to_owned());
    }
    alignment.extend([Align::Right, Align::Right]);
    heading.extend(["Size", "New"].map(str::to_owned));
    if spaces.is_some() {
        alignment.extend([Align::Right, Align::Right]);
        heading.extend(["Shared", "Exclusive"].map(str::to_owned));
    }
    alignment.extend([Align::Right, Align::Left]);
    heading.extend(["Duration", "Tags"].map(str::to_owned));
    let some_protected = revisions.iter().any(|revision| revision.state.protected);
    if some_protected {
        alignment.push(Align::Left);
        heading.push("Protected".to_owned());
    }
    let some_thinned = revisions.iter().any(|revision| revision.record.thinned.is_some());
    if some_thinned {
        alignment.push(Align::Left);
        heading.push("Thinned".to_owned());
    }
    alignment.push(Align::Left);
    heading.push("Trust".to_owned());
    let mut rows = vec![heading];
    for Revision { record, state } in revisions {
        let mut row = vec![human::time(record.time, zone), record.id.to_string()];
        if several_sources {
            row.push(record.source.to_string());
        }
        row.extend([record.size, record.statistics.stored_bytes].map(human::size));
        if let Some(spaces) = spaces {
            // A revision that was made in between is not among them.
            let space = spaces.get(&record.id);
            let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), human::size);
            row.push(size(space.map(|space| space.shared_bytes)));
            row.push(size(space.map(|space| space.exclusive_bytes)));
        }
        row.extend([
            human::duration(record.statistics.duration_milliseconds),
            state.tags.join(","),
        ]);
        if some_protected {
            row.push(if state.protected { "yes" } else { "" }.to_owned());
        }
        if some_thinned {
            row.push(if record.thinned.is_some() { "yes" } else { "" }.to_owned());
        }
        row.push(state.trust.to_string());
        rows.push(row);
    }
    format!("{}{}", table::render(&alignment, &rows), summary(revisions))
}

fn summary(revisions: &[Revision]) -> String {
    let sum = |bytes: fn(&Revision) -> u64| {
        human::size(revisions.iter().map(bytes).fold(0, u64::saturating_add))
    };
    let count = u64::try_from(revisions.len()).unwrap_or(u64::MAX);
    format!(
        "{} containing {} data ({} stored)",
        human::count(count, "revision"),
        sum(|revision| revision.record.size),
        sum(|revision| revision.record.statistics.stored_bytes),
    )
}
