//! `store info`: sizes, format and parameters of a store.

use std::path::Path;

use chunkstore::ops;
use jiff::tz::TimeZone;

use super::scrub::{find_coverage, tell_coverage};
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::InfoReport;
use crate::table::{self, Align};
use crate::ui::Ui;

pub(crate) fn info(path: &Path, ui: &Ui) -> Result<(), CommandError> {
    let store = BackupDirectory::open(path)?.open_store()?;
    let info = ops::info(&store)?;
    let coverage = find_coverage(&store, ui)?;
    ui.result(&InfoReport::new(store.path(), &info, &coverage), || {
        let chunking = [info.chunking.min(), info.chunking.average(), info.chunking.max()];
        let chunking = chunking.map(|len| human::size(len.into())).join(", ");
        let quarantined = match (info.quarantined_chunks, info.unhealed_chunks) {
            (all, 0) => all.to_string(),
            (all, lost) => format!("{all}, of which {lost} are lost until a backup meets them"),
        };
        let rows = [
            ("Store", store.path().display().to_string()),
            ("Id", info.store_id.to_string()),
            ("Format", info.format.to_string()),
            ("Revisions", info.revisions.to_string()),
            ("Packs", info.packs.to_string()),
            ("Chunks", info.chunks.to_string()),
            ("Size of all revisions", human::size(info.apparent_bytes)),
            ("Without duplicates", human::size(info.unique_bytes)),
            ("Stored", human::size(info.stored_bytes)),
            ("Of which condemned", human::size(info.condemned_bytes)),
            ("Chunks in quarantine", quarantined),
            ("Reports of mismatches", info.mismatches.to_string()),
            ("Chunk size (min, average, max)", chunking),
            ("Compression level", info.compression_level.to_string()),
            ("Verified", tell_coverage(&coverage, &TimeZone::system())),
        ];
        let rows: Vec<_> =
            rows.into_iter().map(|(name, value)| vec![format!("{name}:"), value]).collect();
        table::render(&[Align::Left, Align::Left], &rows)
    })
}
