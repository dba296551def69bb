//! Stores written by earlier versions: the present program reads them, and goes on with them.
//!
//! `golden/<version>/store` is the store without its index and without empty directories;
//! `golden/<version>/revisions.txt` says for each revision its id, source, size and the BLAKE3 of the image. They
//! are never changed.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chunkstore::chunking::ChunkingParams;
use chunkstore::id::RevisionId;
use chunkstore::layout::Layout;
use chunkstore::ops::{self, BackupOptions, RestoreOptions};
use chunkstore::progress::NoProgress;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::vfs::simulated::{SimulatedVfs, environment};
use chunkstore::vfs::{EntryKind, Vfs};
use support::model_store::{
    ImageSource, ImageTarget, Numbers, SparseImage, assert_sound, back_up, purge_now, try_purge,
};

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(version)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // Not fs::copy: a golden file may be read-only.
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// Returns id, source, size and digest of each revision that the store must have.
fn expected(version: &str) -> Vec<(RevisionId, String, u64, String)> {
    let text = fs::read_to_string(golden(version).join("revisions.txt")).unwrap();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [id, source, size, digest] = fields.as_slice() else { panic!("{line}") };
            let size = size.parse().unwrap();
            (id.parse().unwrap(), (*source).to_owned(), size, (*digest).to_owned())
        })
        .collect()
}

fn restored(store: &Store, id: &RevisionId) -> SparseImage {
    let target = ImageTarget::default();
    ops::restore(store, id, &target, &RestoreOptions::default(), &NoProgress).unwrap();
    target.into_image()
}

fn digest(image: &SparseImage) -> String {
    blake3::hash(&image.to_vec()).to_hex().to_string()
}

fn check_golden_store(version: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    copy(&golden(version).join("store"), &path);
    for name in Layout::DIRECTORIES {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    let store = Store::open(&path).unwrap();
    let expected = expected(version);
    let history = store.history(None).unwrap();
    assert!(history.damaged.is_empty(), "{:?}", history.damaged);
    assert_eq!(history.revisions.len(), expected.len());
    let mut ids = Vec::new();
    for (id, source, size, digest_expected) in &expected {
        let record = store.revision(id).unwrap().record;
        assert_eq!((record.source.as_str(), record.size), (source.as_str(), *size));
        assert_eq!(&digest(&restored(&store, id)), digest_expected);
        ids.push(*id);
    }
    assert_sound(&store, &ids);

    // The present program goes on where that version ended, and cuts as it did.
    let (newest, source, _, _) = expected.last().unwrap();
    let image = restored(&store, newest);
    let again = back_up(&store, source, &image);
    assert_eq!((again.parent, again.statistics.new_chunks), (Some(*newest), 0));
    let other = back_up(&store, "another-source", &image);
    assert_eq!((other.statistics.new_chunks, other.statistics.stored_bytes), (0, 0));
    let stats = purge_now(&store);
    assert!(0 < stats.removed_packs, "the golden store has packs that are condemned");
    ids.extend([again.id, other.id]);
    assert_sound(&store, &ids);
}

#[test]
fn store_of_version_1_is_read_and_continued() {
    check_golden_store("v1");
}

/// Files of a golden store, with what is empty, derived or locked left out.
fn export(vfs: &SimulatedVfs, from: &Path, to: &Path) {
    for entry in vfs.list(from).unwrap() {
        let path = from.join(&entry.name);
        match entry.kind {
            EntryKind::Directory if entry.name != "locks" => {
                export(vfs, &path, &to.join(&entry.name))
            }
            EntryKind::File if entry.name != "index.redb" => {
                let file = vfs.open(&path, false).unwrap();
                let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
                file.read_exact_at(&mut bytes, 0).unwrap();
                fs::create_dir_all(to).unwrap();
                fs::write(to.join(entry.name), bytes).unwrap();
            }
            _ => {}
        }
    }
}

/// Writes the golden store of the present format to a new directory; to be run by hand when the format
/// changes, and never again for that version:
/// `BACKY_GOLDEN=tests/golden/v2 cargo nextest run --run-ignored only write_golden_store`.
#[test]
#[ignore = "writes a golden store"]
fn write_golden_store() {
    let Ok(target) = std::env::var("BACKY_GOLDEN") else { return };
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(target);
    let vfs = SimulatedVfs::new();
    let chunking = ChunkingParams::new(1024, 4096, 16_384).unwrap();
    let options = StoreOptions { chunking, ..StoreOptions::default() };
    let store = Store::create_in(environment(vfs.clone(), 1), "/store", &options).unwrap();

    let text = "Data that compresses well, and that is not all the same. ".repeat(700);
    let numbered: String =
        text.split(' ').enumerate().map(|(n, word)| format!("{word} {n} ")).collect();
    let mut image = SparseImage::new((64 << 20) + 100_001);
    image.write(0, &Numbers(1).bytes(40_000));
    image.write(300_000, numbered.as_bytes());
    image.write((64 << 20) - 5000, &Numbers(2).bytes(10_000));
    let mut revisions = Vec::new();
    let mut keep = |name: &str, image: &SparseImage, tags: &[&str]| {
        let options = BackupOptions {
            threads: NonZero::new(1),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..BackupOptions::new(name.parse().unwrap())
        };
        let id = ops::backup(&store, &ImageSource::new(image), &options, &NoProgress).unwrap().id;
        revisions.push(format!("{id} {name} {} {}\n", image.len(), digest(image)));
        id
    };
    let dropped = SparseImage::of(&Numbers(3).bytes(5000));
    let dropped = back_up(&store, "dropped", &dropped).id;
    let first = keep("vm-1", &image, &["daily", "weekly"]);
    keep("empty", &SparseImage::new(0), &[]);
    keep("zeros", &SparseImage::new(200_000), &[]);
    image.write(20_000, b"a change");
    image.resize((64 << 20) + 50_000);
    keep("vm-1", &image, &["daily"]);
    assert_sound(&store, &[first]);
    ops::forget(&store, &[dropped]).unwrap();
    let stats = try_purge(&store, Duration::from_secs(3600)).unwrap();
    assert!(0 < stats.condemned_packs);

    assert!(!target.exists(), "a golden store is never changed");
    export(&vfs, Path::new("/store"), &target.join("store"));
    fs::write(target.join("revisions.txt"), revisions.concat()).unwrap();
}
