//! Files that cannot be read, because of their rights or of the medium: an error of reading, which is never taken for damage.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chunkstore::environment::Environment;
use chunkstore::error::{Error, Result};
use chunkstore::format::Trust;
use chunkstore::ops::{self, ScrubOptions, repair};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{FaultKind, SimulatedVfs};
use chunkstore::vfs::{Entry, LockMode, Vfs, VfsFile, VfsLock};
use support::attempt::Attempts;
use support::damage::{Content, FileKind, Size, StoreAtRest, backup_image, is_named, restore};
use support::simulated_store::{STORE_PATH, describe, purge_now, verify_all};

use super::is_tried;

/// A file system on which one file cannot be opened, or cannot be read once it is open.
#[derive(Debug)]
struct Unreadable {
    inner: SimulatedVfs,
    path: PathBuf,
    kind: FaultKind,
}

#[derive(Debug)]
struct UnreadableFile {
    inner: Box<dyn VfsFile>,
    kind: FaultKind,
}

impl Vfs for Unreadable {
    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn VfsFile>> {
        if path != self.path {
            return self.inner.open(path, writable);
        }
        if self.kind == FaultKind::Access {
            return Err(self.kind.error());
        }
        let inner = self.inner.open(path, writable)?;
        Ok(Box::new(UnreadableFile { inner, kind: self.kind }))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.inner.create_new(path)
    }
    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.inner.file_len(path)
    }
    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename_no_replace(from, to)
    }
    fn rename_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename_replace(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(path)
    }
    fn lock(
        &self,
        path: &Path,
        mode: LockMode,
        wait: bool,
    ) -> io::Result<Option<Box<dyn VfsLock>>> {
        self.inner.lock(path, mode, wait)
    }
    fn free_space(&self, path: &Path) -> io::Result<Option<u64>> {
        self.inner.free_space(path)
    }
}

impl VfsFile for UnreadableFile {
    fn read_exact_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(self.kind.error())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }
    fn try_lock(&self, mode: LockMode) -> io::Result<bool> {
        self.inner.try_lock(mode)
    }
}

/// What is in quarantine.
fn quarantine(vfs: &SimulatedVfs) -> BTreeMap<PathBuf, u64> {
    let root = Path::new(STORE_PATH).join("quarantine");
    vfs.all_files().into_iter().filter(|(path, _)| path.starts_with(&root)).collect()
}

/// One file that cannot be read, and what the operations say.
struct Scene<'a> {
    all: &'a StoreAtRest,
    path: &'a Path,
    kind: FileKind,
    fault: FaultKind,
}

impl Scene<'_> {
    /// Checks that an operation works, or fails because the file cannot be read, which it names.
    fn allow<T>(&self, what: &str, result: Result<T>) {
        match result {
            Ok(_) => {}
            // It may be something that stands on the file: the index, on that of the index.
            Err(Error::Storage { path, .. }) => assert_eq!(path, self.path, "{what}"),
            // A pack of which nothing can be read has no records: that is how it is named.
            Err(error) => {
                let is_pack = self.kind == FileKind::Pack && self.fault == FaultKind::Device;
                assert!(is_pack && is_named(&error), "{what}: {}", describe(&error));
            }
        }
    }

    fn open(&self, vfs: &SimulatedVfs, seed: u64) -> Result<Store> {
        let bad = Unreadable { inner: vfs.clone(), path: self.path.to_owned(), kind: self.fault };
        let environment = Environment { vfs: Arc::new(bad), ..self.all.environment(vfs, seed) };
        Store::open_in(environment, STORE_PATH)
    }

    fn check(&self, seed: u64) {
        let vfs = self.all.vfs.kill();
        let store = match self.open(&vfs, seed) {
            Ok(store) => store,
            Err(error) => return self.allow("open", Err::<(), _>(error)),
        };
        assert_ne!(self.kind, FileKind::Config);
        self.allow("history", store.history(None));
        for held in &self.all.held {
            self.allow("restore", restore(&store, held));
        }
        let verified = verify_all(&store);
        let scrubbed = ops::scrub(&store, &ScrubOptions::default(), &NoProgress);
        if self.kind != FileKind::Pack {
            let is_sound = verified.as_ref().map_or(true, |stats| stats.is_sound());
            assert!(is_sound, "{verified:?}");
        }
        self.allow("verify", verified);
        self.allow("scrub", scrubbed);
        self.allow("plan", repair::plan(&store, &NoProgress).map(drop));
        self.allow("purge", purge_now(&store).map(drop));
        for held in &self.all.held {
            if let Content::Image(image) = &held.content {
                self.allow("backup", backup_image(&store, held.source, image));
            }
        }
        drop(store);
        assert_eq!(quarantine(&vfs), quarantine(&self.all.vfs), "something is set aside");
        // The medium is well again, or the rights are: nothing was lost, and nothing is called damaged for good.
        let store = self.all.open(&vfs, seed + 1).unwrap();
        let lost = self.all.check_restore(&store, "afterwards");
        assert!(lost.is_empty(), "{lost:?}");
        assert!(verify_all(&store).unwrap().is_sound());
        let history = store.history(None).unwrap();
        let is_damaged = |state: &chunkstore::format::RevisionState| state.trust == Trust::Damaged;
        assert!(!history.revisions.iter().any(|revision| is_damaged(&revision.state)));
    }
}

#[test]
fn file_that_cannot_be_read_is_an_error_of_reading_and_no_damage() {
    let all = StoreAtRest::new(Size::SMALL);
    let mut attempts = Attempts::default();
    for (turn, (path, kind, _)) in (0..).zip(all.files()) {
        for fault in [FaultKind::Access, FaultKind::Device] {
            // In the short form one of the two, of every other file.
            if !is_tried(turn + u64::from(fault == FaultKind::Device) * 2, 4) {
                continue;
            }
            let scene = Scene { all: &all, path: &path, kind, fault };
            attempts.attempt(
                || format!("{} cannot be read: {fault:?}", path.display()),
                || scene.check(2 * turn),
            );
        }
    }
    attempts.finish("files that cannot be read");
}
