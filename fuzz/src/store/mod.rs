//! Whole stores of which the input changes files, and what must hold afterwards: no panic, no wrong bytes, and no purge that
//! takes what could be read before. Opened and used by the code that users run.

mod edits;
mod forge;
mod hook;
mod operations;
mod overlay;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use chunkstore::error::{Error, Result};
use chunkstore::id::{PackId, RevisionId};
use chunkstore::layout::Layout;
use chunkstore::ops::{self, ScrubOptions};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::SimulatedVfs;
use support::history::{Operation, World};
use support::images;
use support::simulated_store::{
    STORE_PATH, backup, describe, open, purge_now, restore, verify_all,
};

use self::edits::Edits;
pub(crate) use self::operations::{operations, operations_seeds};
pub(crate) use self::overlay::{overlay, overlay_seeds};
use crate::memory::{DECODER, Limit};
use crate::seeds;

/// Buffers of backup and restore, the cache of the index, and the copy of the store: what the promise of bounded memory permits.
pub(crate) const LIMIT: Limit = Limit { base: 256 << 20, factor: 1024, ..DECODER };

/// Seeds of environments: different ones in one store, so that ids differ.
const OPENED: u64 = 500;
const OPENED_AGAIN: u64 = 501;

/// The store before anything happens to it.
struct Scene {
    vfs: SimulatedVfs,
    /// Its files, sorted by kind and name.
    files: Vec<PathBuf>,
    images: BTreeMap<RevisionId, Arc<Vec<u8>>>,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    hook::install();
    let (vfs, images) = small_store();
    let files = vfs.all_files().into_iter().filter(|(_, len)| *len != 0);
    Scene { files: files.map(|(path, _)| path).collect(), vfs, images }
});

/// Returns a store with revisions of three sources, marks, a condemned list and a ledger, and its images.
pub(crate) fn small_store() -> (SimulatedVfs, BTreeMap<RevisionId, Arc<Vec<u8>>>) {
    use Operation::{BackUp, Forget, Purge, Tag, Verify};
    let mut world = World::new(SimulatedVfs::new());
    world.create().expect("a new store");
    for operation in [
        BackUp { source: 0, edit: 1 },
        BackUp { source: 0, edit: 2 },
        BackUp { source: 1, edit: 3 },
        BackUp { source: 2, edit: 4 },
        Tag { pick: 0, tags: 3, autoremove: false },
        Forget { pick: 3 },
        Purge { has_grace: true },
        Verify,
    ] {
        world.must_run(operation);
    }
    let revisions = world.model.acknowledged.iter();
    let images = revisions.map(|(id, it)| (*id, Arc::new(it.bytes().to_vec()))).collect();
    (world.vfs.kill(), images)
}

/// Revisions that can be read, and their bytes.
type Readable = BTreeMap<RevisionId, Vec<u8>>;

impl Scene {
    /// Returns the revisions of a store that can be read. Those that are not `forged` have the bytes that they were made from.
    fn readable(&self, store: &Store, forged: &[RevisionId]) -> Readable {
        let mut readable = Readable::new();
        for (id, expected) in &self.images {
            let Some(bytes) = permitted("restore", restore(store, id)) else { continue };
            assert!(
                bytes == **expected || forged.contains(id),
                "revision {id} restores other bytes"
            );
            readable.insert(*id, bytes);
        }
        readable
    }

    /// Does with a store what a user would do, and returns whether every revision could be read.
    fn check(&self, vfs: &SimulatedVfs, forged: &[RevisionId]) -> bool {
        let Some(store) = permitted("open", open(vfs, OPENED)) else { return false };
        permitted("history", store.history(None));
        let readable = self.readable(&store, forged);
        permitted("verify", verify_all(&store));
        permitted("scrub", ops::scrub(&store, &ScrubOptions::default(), &NoProgress));
        permitted("purge", purge_now(&store));
        check_readable(&store, &readable, "after a purge");
        let image = self.images.values().next().expect("there are revisions");
        let bytes = images::changed(image, OPENED);
        if let Some(stats) = permitted("backup", backup(&store, "a", &bytes)) {
            let found = permitted("restore of a new revision", restore(&store, &stats.id));
            assert!(found.is_some_and(|found| found == bytes), "a new revision is not what it was");
        }
        drop(store);
        let Some(store) = permitted("open", open(vfs, OPENED_AGAIN)) else { return false };
        check_readable(&store, &readable, "at last");
        readable.len() == self.images.len()
    }
}

fn check_readable(store: &Store, readable: &Readable, when: &str) {
    for (id, expected) in readable {
        let bytes = restore(store, id)
            .unwrap_or_else(|error| panic!("{when}: {id} is lost: {}", describe(&error)));
        assert!(bytes == *expected, "{when}: {id} restores other bytes");
    }
}

/// Returns what an operation gave. Any error is fine that does not say that this program is wrong.
fn permitted<T>(what: &str, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let is_bug = matches!(error, Error::Bug { .. });
            assert!(!is_bug, "{what}: {}", describe(&error));
            None
        }
    }
}

/// Returns what an operation gave that cannot fail.
fn expected<T>(what: &str, result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {}", describe(&error)))
}

/// Changes any files of a store, in ways that the input says.
pub(crate) fn bytes(bytes: &[u8]) -> bool {
    let scene = &*SCENE;
    let vfs = scene.vfs.kill();
    let forged = Edits::new(bytes).apply(&vfs, &scene.files);
    scene.check(&vfs, &forged)
}

pub(crate) fn bytes_seeds() -> Vec<Vec<u8>> {
    edits::seeds()
}

/// Gives a store one more pack, sealed under its right name, and takes its index away: the new index is made from all packs.
pub(crate) fn pack(bytes: &[u8]) -> bool {
    let scene = &*SCENE;
    let Some((choice, bytes)) = bytes.split_first() else { return false };
    let mut pack = bytes.to_vec();
    if choice & 1 != 0 {
        forge::fix_pack(&mut pack, choice & 2 != 0);
    }
    let vfs = scene.vfs.kill();
    let layout = Layout::new(STORE_PATH);
    let id = PackId::from_bytes(*blake3::hash(&pack).as_bytes());
    vfs.write_raw(layout.pack(&id), pack).expect("directories can be made");
    vfs.remove(layout.index()).expect("there is an index");
    scene.check(&vfs, &[])
}

pub(crate) fn pack_seeds() -> Vec<Vec<u8>> {
    let whole = |pack: Vec<u8>| [[&[0][..], &pack].concat(), [&[3][..], &pack].concat()];
    let mut seeds: Vec<Vec<u8>> = seeds::packs().into_iter().flat_map(whole).collect();
    let cut = |pack: Vec<u8>| [&[1][..], &pack[..pack.len() - seeds::footer(&pack).len()]].concat();
    seeds.extend(seeds::packs().into_iter().map(cut));
    seeds
}

/// Changes the index alone, which nothing may depend on: all revisions read, nothing is found damaged, and a purge keeps what
/// is needed.
pub(crate) fn index(bytes: &[u8]) -> bool {
    let scene = &*SCENE;
    let vfs = scene.vfs.kill();
    let index = Layout::new(STORE_PATH).index();
    Edits::new(bytes).patch(&vfs, &index);
    let store = expected("open", open(&vfs, OPENED));
    let readable = scene.readable(&store, &[]);
    assert_eq!(readable.len(), scene.images.len(), "a revision cannot be read");
    let stats = expected("verify", verify_all(&store));
    assert!(stats.is_sound(), "verify finds damage that is not there");
    expected("purge", purge_now(&store));
    check_readable(&store, &readable, "after a purge");
    drop(store);
    assert!(scene.check(&vfs, &[]), "a revision cannot be read at last");
    true
}

pub(crate) fn index_seeds() -> Vec<Vec<u8>> {
    edits::patch_seeds()
}

/// Returns the id of the revision whose record a path is.
fn record_of(path: &Path) -> Option<RevisionId> {
    if path.extension()? != "rev" {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}
