//! Bytes of a store at rest change: each bit of each byte of each file of a small store, each byte of a larger one, and whole files.
//! Whoever must find it does and names it, or it is harmless and shown to be; nothing ever gives wrong bytes, panics, or goes on for ever.

mod bytes;
mod hostile;
mod index;
mod larger;
mod overlay;
mod real_files;
mod scene;
mod unreadable;
mod whole_files;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use chunkstore::vfs::simulated::SimulatedVfs;
use support::attempt::Attempts;
use support::damage::{FileKind, Finder, Outcome, Restored, StoreAtRest};
use support::long_tests::choose;

/// How much is tried with a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// It is found, and one revision is restored.
    Named,
    /// It is found, and everything is restored.
    Found,
    /// Then all operations.
    All,
}

/// Returns the depth of a case: in the short form one of so many is followed by all operations.
fn depth_of(turn: u64, step: u64) -> Depth {
    if choose(turn.is_multiple_of(step), true) { Depth::All } else { Depth::Found }
}

/// Returns whether a case is tried: in the short form one of so many is.
fn is_tried(turn: u64, step: u64) -> bool {
    choose(turn.is_multiple_of(step), true)
}

/// Counts what came of damage.
pub(crate) struct Tally {
    attempts: Attempts,
    outcomes: BTreeMap<(FileKind, Outcome), u64>,
    start: Instant,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { attempts: Attempts::default(), outcomes: BTreeMap::new(), start: Instant::now() }
    }

    /// Damages a copy of a store, and checks what comes of it.
    pub(crate) fn check(
        &mut self,
        store: &StoreAtRest,
        (name, kind): (impl FnOnce() -> String, FileKind),
        (finders, depth, seed): (&[Finder], Depth, u64),
        damage: impl FnOnce(&SimulatedVfs),
    ) {
        let mut outcome = None;
        self.attempts.attempt(name, || {
            let vfs = store.vfs.kill();
            damage(&vfs);
            let restored = if depth == Depth::Named { Restored::One } else { Restored::All };
            outcome = Some(store.check_found(&vfs, (finders, restored), seed));
            if depth == Depth::All {
                let is_harmless = finders.iter().all(Finder::is_harmless);
                store.check_survival(&vfs, is_harmless, seed);
            }
        });
        if let Some(outcome) = outcome {
            *self.outcomes.entry((kind, outcome)).or_insert(0) += 1;
        }
    }

    /// Flips bits of one byte.
    pub(crate) fn flip(
        &mut self,
        store: &StoreAtRest,
        (path, kind, offset): (&Path, FileKind, u64),
        mask: u8,
        (depth, seed): (Depth, u64),
    ) {
        let name = || format!("{} byte {offset} mask {mask:#x} seed {seed}", path.display());
        let finder = store.finder(path, kind, offset);
        self.check(store, (name, kind), (&[finder], depth, seed), |vfs| {
            vfs.flip(path, offset, mask).unwrap();
        });
    }

    /// Prints what came of it, and fails if something did.
    pub(crate) fn finish(self, what: &str) {
        for ((kind, outcome), count) in &self.outcomes {
            println!("  {kind:?}: {count} {outcome:?}");
        }
        self.attempts.finish(&format!("{what} in {:?}", self.start.elapsed()));
    }
}
