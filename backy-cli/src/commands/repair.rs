//! `repair`: makes anew what can be made anew, and moves aside what cannot be read.

use std::path::Path;

use chunkstore::Store;
use chunkstore::id::{ChunkId, RevisionId, SourceName};
use chunkstore::ops::repair::{self, AsideFile, RepairStats};
use serde::Serialize;

use super::damage;
use crate::arguments::RepairArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::DamageReport;
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &RepairArguments, ui: &Ui) -> Result<(), CommandError> {
    let store = BackupDirectory::open(path)?.open_store()?;
    let progress = ui.progress();
    let plan = repair::plan(&store, &progress)?;
    if arguments.plan {
        return tell(&store, plan.expected(), true, ui);
    }
    tell(&store, &plan.execute(&progress)?, false, ui)
}

fn tell(store: &Store, stats: &RepairStats, is_plan: bool, ui: &Ui) -> Result<(), CommandError> {
    damage::tell(store, &stats.damaged, ui);
    ui.warnings(&stats.damaged_packs);
    ui.result(&RepairReport::new(stats, is_plan), || text(stats, is_plan))?;
    ui.note("only lists were read; `verify --all-data` reads everything, and finds damage that nobody knows of yet");
    if !stats.moved_records.is_empty() {
        let verb = match (is_plan, stats.moved_records.len()) {
            (true, _) => "would be",
            (false, 1) => "was",
            (false, _) => "were",
        };
        let records = count(stats.moved_records.len(), "revision record");
        let what = format!("{records} cannot be decoded and {verb} moved to quarantine");
        return Err(CommandError::DamageFound { what });
    }
    damage::result(&stats.damaged, "a backup that meets the same bytes again heals them")
}

/// Returns a line for each thing that was done, or would be.
fn text(stats: &RepairStats, is_plan: bool) -> String {
    let (was, were) = if is_plan { ("would be", "would be") } else { ("was", "were") };
    let mut lines =
        vec![format!("the index {was} made anew: {}", human::count(stats.packs, "pack"))];
    for file in &stats.moved_records {
        let (source, id, path) = (&file.source, file.id, file.path.display());
        lines.push(format!("record of revision {id} of {source} {was} moved to {path}"));
    }
    for file in &stats.replaced_states {
        let (id, path) = (file.id, file.path.display());
        lines.push(format!(
            "revision {id} {was} distrusted and protected: its state is damaged; kept in {path}"
        ));
    }
    for id in &stats.set_aside {
        lines.push(format!("damaged list {id} {was} set aside"));
    }
    for id in &stats.marked {
        lines.push(format!("revision {id} {was} marked as damaged"));
    }
    for id in &stats.healed {
        lines.push(format!("revision {id} {was} healed: the store has again all that it needs"));
    }
    if !stats.given_up.is_empty() {
        let lists = count(stats.given_up.len(), "list");
        lines.push(format!(
            "{lists} that nobody can serve {were} given up: the next purge removes what only they led to"
        ));
    }
    for generation in &stats.condemned_lists {
        lines
            .push(format!("condemned list {generation} is damaged: the next purge moves it aside"));
    }
    if stats.is_sound() {
        lines.push("all revisions can be read, as far as is known".to_owned());
    }
    lines.join("\n") + "\n"
}

fn count(number: usize, noun: &str) -> String {
    human::count(u64::try_from(number).unwrap_or(u64::MAX), noun)
}

/// What `repair` did, or would do.
#[derive(Debug, Serialize)]
struct RepairReport<'a> {
    plan: bool,
    packs: u64,
    damaged_packs: Vec<String>,
    moved_records: Vec<AsideReport<'a>>,
    replaced_states: Vec<AsideReport<'a>>,
    set_aside: &'a [ChunkId],
    marked: &'a [RevisionId],
    healed: &'a [RevisionId],
    given_up: &'a [ChunkId],
    condemned_lists: &'a [u64],
    damaged: Vec<DamageReport<'a>>,
}

/// A file of a revision in quarantine.
#[derive(Debug, Serialize)]
struct AsideReport<'a> {
    source: &'a SourceName,
    id: RevisionId,
    path: &'a Path,
}

impl<'a> From<&'a AsideFile> for AsideReport<'a> {
    fn from(file: &'a AsideFile) -> Self {
        Self { source: &file.source, id: file.id, path: &file.path }
    }
}

impl<'a> RepairReport<'a> {
    fn new(stats: &'a RepairStats, plan: bool) -> Self {
        Self {
            plan,
            packs: stats.packs,
            damaged_packs: stats.damaged_packs.iter().map(ToString::to_string).collect(),
            moved_records: stats.moved_records.iter().map(AsideReport::from).collect(),
            replaced_states: stats.replaced_states.iter().map(AsideReport::from).collect(),
            set_aside: &stats.set_aside,
            marked: &stats.marked,
            healed: &stats.healed,
            given_up: &stats.given_up,
            condemned_lists: &stats.condemned_lists,
            damaged: stats.damaged.iter().map(DamageReport::from).collect(),
        }
    }
}
