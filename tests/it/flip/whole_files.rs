//! Whole files are cut, extended, removed, swapped, copied under other names, or replaced by what was there before.

mod copies;
mod lengths;
mod swaps;

use std::path::Path;

use chunkstore::vfs::simulated::SimulatedVfs;
use support::damage::{FileKind, Finder, StoreAtRest, name_of};

/// A record is gone, and nothing tells that it was ever there.
const FORGOTTEN: &str = "it is as if it had been forgotten";

/// Returns who must find that a file has other content than it should, all of it.
fn finder_of_content(path: &Path, kind: FileKind, store: &StoreAtRest) -> Finder {
    match kind {
        FileKind::Pack => Finder::ScrubOfPack(path.to_path_buf()),
        _ => store.finder(path, kind, 0),
    }
}

/// Returns who must find that a file is gone.
fn finder_of_absence(path: &Path, kind: FileKind, store: &StoreAtRest) -> Vec<Finder> {
    match kind {
        FileKind::Config => vec![Finder::Open],
        FileKind::Record => vec![Finder::Absent(name_of(path))],
        FileKind::State => vec![Finder::Nobody("the state is that of a new revision")],
        FileKind::Condemned => vec![Finder::Nobody("what nothing needs is condemned again")],
        FileKind::Ledger => vec![Finder::Nobody("all packs count as never read")],
        FileKind::Quarantined => vec![Finder::FoundAgain],
        FileKind::Pack => vec![Finder::Gone(path.to_path_buf())],
        _ => vec![store.finder(path, kind, 0)],
    }
}

/// Puts a file in the place of another.
fn put(vfs: &SimulatedVfs, path: &Path, bytes: &[u8]) {
    vfs.write_raw(path, bytes).unwrap();
}
