//! What time does to a store: rot that costs no image, and what is known afterwards.

use std::path::PathBuf;

use chunkstore::id::RevisionId;

use super::operation::Fate;
use super::world::World;
use crate::simulated_store::files_below;

const INDEX: &str = "/store/index.redb";

impl World {
    /// Lets something rot, if there is such a file.
    pub(super) fn rot(&mut self, fate: Fate, place: u8) {
        let all = |directory| files_below(&self.vfs, directory);
        let ending = |directory, end: &str| {
            let files = all(directory).into_iter();
            files.filter(|path| path.extension().is_some_and(|found| found == end)).collect()
        };
        let files: Vec<PathBuf> = match fate {
            Fate::NoIndex => {
                // It may be gone already.
                let _is_there = self.vfs.remove(INDEX);
                return;
            }
            Fate::Index => vec![PathBuf::from(INDEX)],
            Fate::State => ending("revisions", "state"),
            Fate::Record => ending("revisions", "rev"),
            Fate::Condemned => all("condemned"),
            Fate::Session => all("sessions"),
            Fate::Ledger => vec![PathBuf::from("/store/ledger")],
        };
        let Some(path) = files.get(usize::from(place) % files.len().max(1)) else { return };
        let id: Option<RevisionId> = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
        // The same bit a second time would make a record sound again.
        let is_lost = id.is_none_or(|id| !self.model.acknowledged.contains_key(&id));
        if fate == Fate::Record && is_lost {
            return;
        }
        let Ok(bytes) = self.vfs.read_all(path) else { return };
        // Of the index the beginning: that is where its roots are.
        let len = if fate == Fate::Index { bytes.len().min(16 << 10) } else { bytes.len() };
        if len == 0 {
            return;
        }
        let offset = (usize::from(place) * 7919) % len;
        self.vfs.flip(path, offset as u64, 1 << (place % 8)).expect("the file is that long");
        match (fate, id) {
            (Fate::State, Some(id)) => self.forget_marks(id),
            (Fate::Record, Some(id)) => {
                self.forget_marks(id);
                self.model.acknowledged.remove(&id);
            }
            _ => {}
        }
    }

    /// Of the state of this revision nothing is known any more.
    fn forget_marks(&mut self, id: RevisionId) {
        self.model.rotten.insert(id);
        self.model.marks.remove(&id);
        self.model.verified.remove(&id);
        self.model.doubted.remove(&id);
    }
}
