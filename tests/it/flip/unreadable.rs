//! Files that cannot be read, because of their rights or of the medium: an error of reading, which is never taken for damage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chunkstore::error::{Error, Result};
use chunkstore::format::Trust;
use chunkstore::ops::{self, ScrubOptions, repair};
use chunkstore::progress::NoProgress;
use chunkstore::vfs::simulated::{FaultKind, FaultPlan, SimulatedVfs};
use support::attempt::Attempts;
use support::damage::{Content, FileKind, Size, StoreAtRest, backup_image, is_named, restore};
use support::simulated_store::{STORE_PATH, describe, purge_now, verify_all};

use super::is_tried;

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

    fn check(&self, seed: u64) {
        let vfs = self.all.vfs.kill();
        vfs.set_faults(match self.fault {
            FaultKind::Access => FaultPlan::fail_open(self.path, self.fault),
            fault => FaultPlan::fail_reads(self.path, 0..u64::MAX, fault),
        });
        let store = match self.all.open(&vfs, seed) {
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
        vfs.set_faults(FaultPlan::none());
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
