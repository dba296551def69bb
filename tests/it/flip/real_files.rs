//! Files of a store on a real file system that are huge: sparse, so that they cost the disk nothing. They must not cost memory either.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use chunkstore::error::Error;
use chunkstore::ops::{self, BackupOptions, RestoreOptions, ScrubOptions, VerifyOptions, purge};
use chunkstore::progress::NoProgress;
use chunkstore::source::FileSource;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::target::{FileTarget, FileTargetOptions};
use support::attempt::Attempts;
use support::damage::is_named;
use support::images;
use support::simulated_store::describe;

use crate::own_process::{CHILD_DIRECTORY, peak_memory, run_child};

/// Promise of the project: no operation takes more memory than this.
const MEMORY_MAX: u64 = 256 << 20;

/// Lengths of the files: beyond all limits, and just below that of the longest lists.
const LENS: [u64; 2] = [10 << 30, 500 << 20];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Makes a store with a revision, a state, a condemned list and a ledger.
fn make(store: &Path, image: &Path) {
    let store = Store::create(store, &StoreOptions::default()).unwrap();
    let source = FileSource::open(image).unwrap();
    for name in ["disk", "gone"] {
        ops::backup(&store, &source, &BackupOptions::new(name.parse().unwrap()), &NoProgress)
            .unwrap();
    }
    let revision = store.history(Some(&"gone".parse().unwrap())).unwrap().revisions.remove(0);
    ops::forget(&store, &[revision.record.id]).unwrap();
    fs::write(image, images::image(4, 150_000)).unwrap();
    let source = FileSource::open(image).unwrap();
    let options = BackupOptions::new("gone".parse().unwrap());
    let id = ops::backup(&store, &source, &options, &NoProgress).unwrap().id;
    ops::forget(&store, &[id]).unwrap();
    let options = purge::PurgeOptions { ballast_len: 0, ..purge::PurgeOptions::default() };
    purge::plan(&store, &options, &NoProgress).unwrap().execute(&NoProgress).unwrap();
    let ids: Vec<_> = store.history(None).unwrap().revisions;
    let ids: Vec<_> = ids.iter().map(|revision| revision.record.id).collect();
    ops::verify(&store, &ids, &VerifyOptions::default(), &NoProgress).unwrap();
    ops::scrub(&store, &ScrubOptions::default(), &NoProgress).unwrap();
}

/// Runs everything; an error must name what is damaged.
fn check(path: &Path, image: &[u8], scratch: &Path) {
    let allow = |what: &str, result: Result<(), Error>| {
        if let Err(error) = result {
            let is_config = matches!(&error, Error::Damaged { .. } | Error::NotAStore { .. });
            assert!(is_config || is_named(&error), "{what}: {}", describe(&error));
        }
    };
    let store = match Store::open(path) {
        Ok(store) => store,
        Err(error) => return allow("open", Err(error)),
    };
    let history = store.history(None).unwrap_or_else(|error| panic!("{}", describe(&error)));
    // A damaged state stands beside its revision.
    assert!(history.revisions.len() == 1 || history.damaged.len() == 1);
    for revision in &history.revisions {
        let target = scratch.join("restored");
        let options = FileTargetOptions { overwrite: true, ..FileTargetOptions::default() };
        let target_file = FileTarget::open(&target, &options).unwrap();
        let options = RestoreOptions::default();
        match ops::restore(&store, &revision.record.id, &target_file, &options, &NoProgress) {
            Ok(_) => assert!(fs::read(&target).unwrap() == image, "WRONG BYTES"),
            Err(ops::RestoreError::Store(error)) => allow("restore", Err(error)),
            Err(other) => panic!("{other:?}"),
        }
    }
    let ids: Vec<_> = history.revisions.iter().map(|revision| revision.record.id).collect();
    let options = VerifyOptions { all_data: true, ..VerifyOptions::default() };
    allow("verify", ops::verify(&store, &ids, &options, &NoProgress).map(drop));
    allow("scrub", ops::scrub(&store, &ScrubOptions::default(), &NoProgress).map(drop));
    let source = scratch.join("source");
    fs::write(&source, image).unwrap();
    let source = FileSource::open(&source).unwrap();
    let options = BackupOptions::new("disk".parse().unwrap());
    match ops::backup(&store, &source, &options, &NoProgress) {
        Ok(_) => {}
        Err(ops::BackupError::Store(error)) => allow("backup", Err(error)),
        Err(other) => panic!("{other:?}"),
    }
    allow("repair", {
        let plan = ops::repair::plan(&store, &NoProgress);
        plan.and_then(|plan| plan.execute(&NoProgress)).map(drop)
    });
    let options = purge::PurgeOptions { ballast_len: 0, ..purge::PurgeOptions::default() };
    allow("purge", purge::plan(&store, &options, &NoProgress).map(drop));
}

#[test]
#[ignore = "measures memory: run in a process of its own by the test below"]
fn child_huge_files() {
    let directory = PathBuf::from(env::var(CHILD_DIRECTORY).unwrap());
    let (sound, image) = (directory.join("sound"), directory.join("image"));
    let bytes = images::image(3, 300_000);
    fs::write(&image, &bytes).unwrap();
    make(&sound, &image);
    let mut paths = Vec::new();
    files(&sound, &mut paths);
    // Some that the store does not have now, but could.
    let name = "0123456789abcdef".repeat(4);
    for place in [
        format!("quarantine/{name}"),
        format!("quarantine/given-up-{name}"),
        format!("quarantine/mismatch-{name}"),
        format!("sessions/{}", &name[..32]),
        format!("packs/01/{name}"),
        format!("tmp/{name}"),
        format!("trash/{name}"),
    ] {
        paths.push(sound.join(place));
    }
    let mut attempts = Attempts::default();
    for path in &paths {
        for len in LENS {
            let inside = path.strip_prefix(&sound).unwrap();
            let name = || format!("{} with {len} zeros", inside.display());
            attempts.attempt(name, || {
                let store = directory.join("store");
                copy(&sound, &store);
                let huge = store.join(inside);
                fs::create_dir_all(huge.parent().unwrap()).unwrap();
                File::create(&huge).unwrap().set_len(len).unwrap();
                check(&store, &bytes, &directory);
                fs::remove_dir_all(&store).unwrap();
                let peak = peak_memory();
                assert!(peak <= MEMORY_MAX, "{peak} bytes of memory");
            });
            let _gone_or_not = fs::remove_dir_all(directory.join("store"));
        }
    }
    println!("peak of memory: {} MiB", peak_memory() >> 20);
    attempts.finish("huge files");
}

#[test]
fn huge_files_are_named_and_take_no_memory() {
    run_child(concat!(module_path!(), "::child_huge_files").split_once("::").unwrap().1);
}
