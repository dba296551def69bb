//! The store that is damaged has everything that a store can have, and is sound.

use std::collections::BTreeSet;
use std::path::PathBuf;

use chunkstore::format::{ObjectKind, PackKind};
use chunkstore::id::{ChunkId, PackId, QuarantineId, RevisionId, SessionId, SourceName};
use chunkstore::layout::Layout;
use support::damage::{FileKind, Finder, HARMLESS, Restored, Size, StoreAtRest};
use support::simulated_store::STORE_PATH;

/// Source of the module that knows where files lie.
const LAYOUT: &str = include_str!("../../../chunkstore/src/layout.rs");

#[test]
fn small_store_has_every_kind_of_file_and_little_of_each() {
    let store = StoreAtRest::new(Size::SMALL);
    let sizes = store.sizes();
    let sum: u64 =
        sizes.iter().filter(|(kind, _)| **kind != FileKind::Index).map(|(_, (_, len))| len).sum();
    println!("small store: {sum} bytes without the index; files and bytes by kind: {sizes:?}");
    assert!(sum <= 64 << 10);
    for kind in FileKind::ALL {
        assert!(sizes.contains_key(&kind), "there is no {kind:?}");
    }
    let records: Vec<_> = store.records.values().flatten().collect();
    let kinds: BTreeSet<ObjectKind> = records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds.len(), 3, "data, pages and roots");
    let codecs: BTreeSet<_> = records.iter().map(|record| record.codec).collect();
    assert_eq!(codecs.len(), 3, "raw, compressed, and points");
    let is_data = |kind: &ObjectKind| kind.pack_kind() == PackKind::Data;
    assert!(kinds.iter().any(is_data) && !kinds.iter().all(is_data));
    assert_eq!(store.quarantined.len(), 2, "a chunk and a page");
}

#[test]
fn every_path_of_the_layout_has_a_kind_and_every_directory_a_file() {
    let layout = Layout::new(STORE_PATH);
    let source: SourceName = "vm1".parse().unwrap();
    let (id, revision) = (ChunkId::from_bytes([7; 32]), RevisionId::from_bytes([7; 16]));
    let pack = PackId::from_bytes([7; 32]);
    let paths = [
        (layout.config(), FileKind::Config),
        (layout.index(), FileKind::Index),
        (layout.ledger(), FileKind::Ledger),
        (layout.ballast(), FileKind::Ballast),
        (layout.pack(&pack), FileKind::Pack),
        (layout.trashed_pack(&pack), FileKind::Trash),
        (layout.record(&source, &revision), FileKind::Record),
        (layout.state(&source, &revision), FileKind::State),
        (layout.condemned(7), FileKind::Condemned),
        (layout.mismatch(&id), FileKind::Mismatch),
        (layout.evidence(&id), FileKind::Evidence),
        (layout.given_up(&id), FileKind::GivenUp),
        (layout.quarantined(&QuarantineId::from_bytes([7; 32])), FileKind::Quarantined),
        (layout.session(&SessionId::from_bytes([7; 16])), FileKind::Session),
        (layout.lock("index"), FileKind::Lock),
        (layout.source_lock(&source), FileKind::Lock),
    ];
    let directories = [
        layout.directory("packs"),
        layout.pack_directory(&pack),
        layout.source_directory(&source),
        layout.aside_directory(&source),
    ];
    for (path, kind) in &paths {
        assert_eq!(FileKind::of(path), *kind, "{}", path.display());
    }
    let known = LAYOUT.matches("-> PathBuf").count();
    assert_eq!(known, paths.len() + directories.len(), "a path that has no kind here");
    let store = StoreAtRest::new(Size::SMALL);
    let files: Vec<PathBuf> = store.files().into_iter().map(|(path, ..)| path).collect();
    for directory in Layout::DIRECTORIES {
        let directory = layout.directory(directory);
        assert!(files.iter().any(|path| path.starts_with(&directory)), "{}", directory.display());
    }
}

/// What is harmless is listed, once: of all other kinds each byte is found.
#[test]
fn table_of_what_is_harmless_names_no_kind_that_carries_data() {
    let kinds: BTreeSet<FileKind> = HARMLESS.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), HARMLESS.len());
    for kind in [
        FileKind::Config,
        FileKind::Pack,
        FileKind::Record,
        FileKind::State,
        FileKind::Condemned,
        FileKind::Ledger,
        FileKind::Quarantined,
    ] {
        assert!(!kinds.contains(&kind), "{kind:?}");
    }
}

#[test]
fn undamaged_store_passes_all_checks_and_is_the_same_each_time() {
    for size in [Size::SMALL, Size::LARGE] {
        let [store, again] = [(); 2].map(|()| StoreAtRest::new(size));
        assert_eq!(store.files(), again.files(), "a failed case could not be replayed");
        for (path, kind, _) in store.files() {
            let is_same = store.vfs.read_all(&path).unwrap() == again.vfs.read_all(&path).unwrap();
            assert!(is_same || kind == FileKind::Index, "{}", path.display());
        }
        for seed in 0..4 {
            let finders = [Finder::Nobody("nothing is damaged")];
            store.check_found(&store.vfs, (&finders, Restored::All), seed);
            store.check_survival(&store.vfs, true, seed);
        }
        println!("{size:?}: {:?}", store.sizes());
    }
}
