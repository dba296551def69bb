//! Operations that get in each other's way.

use chunkstore::error::{Error, Result};
use chunkstore::format::Trust;
use chunkstore::id::RevisionId;
use chunkstore::image_reader::ImageReader;
use chunkstore::ops::expire::{self, ExpireError, ExpireOptions};
use chunkstore::ops::{self, BackupOptions, TagEdit, TagOptions};
use chunkstore::progress::NoProgress;
use chunkstore::retention::{Schedule, TagRule};
use chunkstore::store::Store;
use support::explorer::{Operation, Scenario, Truth};
use support::images;
use support::memory::MemorySource;
use support::simulated_store::{purge_now, restore, verify_all};

const LEN: usize = 3000;

/// Returns an image that shares all of another one and adds something.
fn longer(image: &[u8]) -> Vec<u8> {
    [image, &images::image(50, LEN)].concat()
}

/// Passes over what another operation may cause, and the death of the operation.
#[track_caller]
fn allow<R>(result: Option<Result<R>>, is_allowed: impl Fn(&Error) -> bool) -> Option<R> {
    match result? {
        Ok(done) => Some(done),
        Err(error) if is_allowed(&error) => None,
        Err(error) => panic!("{error:?}"),
    }
}

fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Locked { .. })
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::NoSuchRevision { .. })
}

/// Forgets a revision that nobody else forgets.
fn forget(operation: &Operation<'_>, id: RevisionId) {
    let result = operation.survives(|| operation.truth.forget(&operation.store, id));
    allow(result, |_| false);
}

/// Purges without grace, as often as that; another purge may be in its way.
fn purge(operation: &Operation<'_>, count: usize) {
    for _ in 0..count {
        allow(operation.survives(|| purge_now(&operation.store)), is_locked);
        operation.pause();
    }
}

/// Backs up; another operation on the source may be in its way.
fn backup(operation: &Operation<'_>, source: &str, bytes: &[u8]) {
    allow(operation.survives(|| operation.backup(source, bytes)), is_locked);
}

/// Opens a revision, takes its time, and reads it; gets all of it, or is told that there is none.
fn read(operation: &Operation<'_>, id: RevisionId, truth: &[u8]) {
    let opened = operation.survives(|| ImageReader::open(&operation.store, &id));
    let Some(reader) = allow(opened, is_gone) else {
        assert!(operation.truth.may_be_gone(&id), "{id} is lost");
        return;
    };
    operation.pause();
    let mut bytes = vec![0; truth.len()];
    reader.read_exact_at(&mut bytes, 0).expect("what was opened can be read");
    assert!(bytes == truth, "other bytes are read");
}

fn remember(store: &Store, truth: &Truth, source: &str, bytes: &[u8]) -> RevisionId {
    truth.backup(store, source, bytes).expect("nothing is in the way of the preparation")
}

/// A backup finds all its chunks in the index, of a revision that is forgotten and purged meanwhile.
pub(super) fn shared_with_forgotten() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, id) = Scenario::new("shared with forgotten", |store, truth| {
        remember(store, truth, "old", &first)
    });
    scenario
        .with("backup", move |operation| backup(operation, "new", &longer(&first)))
        .with("forget", move |operation| forget(operation, id))
        .with("purge", |operation| purge(operation, 2))
}

/// The same with two purges that get in each other's way, and revisions that are gone already.
pub(super) fn two_purges() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, ()) = Scenario::new("two purges", |store, truth| {
        let id = remember(store, truth, "old", &first);
        remember(store, truth, "kept", &images::image(2, LEN));
        truth.forget(store, id).expect("it is there");
    });
    scenario
        .with("backup", move |operation| backup(operation, "new", &longer(&first)))
        .with("first purge", |operation| purge(operation, 1))
        .with("second purge", |operation| purge(operation, 1))
}

/// A reader has opened a revision, or is about to, when it is forgotten and purged.
pub(super) fn reader_of_forgotten() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, id) =
        Scenario::new("reader of forgotten", |store, truth| remember(store, truth, "old", &first));
    scenario
        .with("reader", move |operation| read(operation, id, &first))
        .with("forget", move |operation| forget(operation, id))
        .with("purge", |operation| purge(operation, 2))
}

/// Restore and verify instead of an open image.
pub(super) fn restore_and_verify_of_forgotten() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, id) = Scenario::new("restore and verify of forgotten", |store, truth| {
        remember(store, truth, "old", &first)
    });
    scenario
        .with("restore", move |operation| {
            let restored = operation.survives(|| restore(&operation.store, &id));
            if let Some(bytes) = allow(restored, is_gone) {
                assert!(bytes == first, "other bytes are restored");
            }
        })
        .with("verify", |operation| {
            let verified = operation.survives(|| verify_all(&operation.store));
            if let Some(stats) = allow(verified, is_gone) {
                assert!(stats.is_sound(), "{stats:?}");
            }
        })
        .with("forget", move |operation| forget(operation, id))
        .with("purge", |operation| purge(operation, 1))
}

/// Two sources get the same new bytes, some of which are condemned already.
pub(super) fn two_backups() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, ()) = Scenario::new("two backups", |store, truth| {
        let id = remember(store, truth, "old", &first);
        truth.forget(store, id).expect("it is there");
    });
    let other = longer(&first);
    scenario
        .with("first backup", move |operation| backup(operation, "one", &longer(&first)))
        .with("second backup", move |operation| backup(operation, "two", &other))
        .with("purge", |operation| purge(operation, 2))
}

/// Two backups of one source: one of them comes later, or is refused.
pub(super) fn same_source() -> Scenario {
    let (first, second) = (images::image(1, LEN), images::image(2, LEN));
    let base = images::image(3, LEN);
    let (scenario, _) =
        Scenario::new("same source", |store, truth| remember(store, truth, "disk", &base));
    scenario
        .with("first backup", move |operation| backup(operation, "disk", &first))
        .with("second backup", move |operation| backup(operation, "disk", &second))
}

/// The parent of a running backup is forgotten and purged.
pub(super) fn forgotten_parent() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, id) =
        Scenario::new("forgotten parent", |store, truth| remember(store, truth, "disk", &first));
    scenario
        .with("backup", move |operation| backup(operation, "disk", &images::changed(&first, 5)))
        .with("forget", move |operation| forget(operation, id))
        .with("purge", |operation| purge(operation, 2))
}

/// The index is built anew while packs leave and a backup looks for what is in them.
pub(super) fn rebuilt_index() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, ()) = Scenario::new("rebuilt index", |store, truth| {
        let id = remember(store, truth, "old", &first);
        remember(store, truth, "kept", &images::image(2, LEN));
        truth.forget(store, id).expect("it is there");
    });
    scenario
        .with("purge", |operation| purge(operation, 1))
        .with("rebuild", |operation| {
            let rebuilt = operation.survives(|| ops::rebuild_index(&operation.store, &NoProgress));
            allow(rebuilt, |_| false);
        })
        .with("backup", move |operation| backup(operation, "new", &longer(&first)))
}

/// A doubted image is written again, while the index is built anew and leads to one copy or the other, and what has the first
/// copy is forgotten and purged.
pub(super) fn rewritten_chunks() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, id) = Scenario::new("rewritten chunks", |store, truth| {
        let old = remember(store, truth, "old", &first);
        let doubted = remember(store, truth, "disk", &first);
        ops::distrust(store, &[doubted]).expect("it is there");
        old
    });
    scenario
        .with("backup", move |operation| backup(operation, "disk", &longer(&first)))
        .with("rebuild", |operation| {
            let rebuilt = operation.survives(|| ops::rebuild_index(&operation.store, &NoProgress));
            allow(rebuilt, |_| false);
        })
        .with("forget", move |operation| forget(operation, id))
        .with("purge", |operation| purge(operation, 2))
}

/// A backup dies at each of its points, and a purge comes at any time.
pub(super) fn dying_backup() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, ()) = Scenario::new("dying backup", |store, truth| {
        let id = remember(store, truth, "old", &first);
        truth.forget(store, id).expect("it is there");
    });
    scenario
        .with("purge", |operation| purge(operation, 1))
        .with("backup", move |operation| backup(operation, "new", &longer(&first)))
        .which_dies()
}

/// A purge dies at each of its points beside a backup of what it removes.
pub(super) fn dying_purge() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, ()) = Scenario::new("dying purge", |store, truth| {
        let id = remember(store, truth, "old", &first);
        remember(store, truth, "kept", &images::image(2, LEN));
        truth.forget(store, id).expect("it is there");
    });
    scenario
        .with("backup", move |operation| backup(operation, "new", &longer(&first)))
        .with("purge", |operation| purge(operation, 1))
        .which_dies()
}

/// The history of a source expires while it is being backed up, and packs go.
pub(super) fn expiring_source() -> Scenario {
    let (first, second) = (images::image(1, LEN), images::image(2, LEN));
    let options = ExpireOptions { schedule: two_daily(), force: true, ..ExpireOptions::default() };
    let tagged = |store: &Store, truth: &Truth, bytes: &[u8]| {
        let id = remember(store, truth, "disk", bytes);
        ops::edit_tags(
            store,
            &[id],
            &TagEdit::Add(vec!["daily".to_owned()]),
            &TagOptions::default(),
        )
        .expect("tags can be edited");
        id
    };
    let (scenario, oldest) = Scenario::new("expiring source", |store, truth| {
        let oldest = tagged(store, truth, &first);
        tagged(store, truth, &second);
        tagged(store, truth, &longer(&second));
        oldest
    });
    scenario
        .with("backup", move |operation| {
            let options = BackupOptions {
                tags: vec!["daily".to_owned()],
                threads: std::num::NonZero::new(1),
                ..BackupOptions::new("disk".parse().expect("a name"))
            };
            let source = MemorySource::new(&first);
            let made = operation
                .survives(|| ops::backup(&operation.store, &source, &options, &NoProgress));
            match made {
                Some(Ok(stats)) => operation.truth.add(stats.id, "disk", &first),
                Some(Err(ops::BackupError::Store(error))) => {
                    assert!(is_locked(&error), "{error:?}")
                }
                other => panic!("{other:?}"),
            }
        })
        .with("expire", move |operation| {
            operation.clock.advance(std::time::Duration::from_secs(30 * 86_400));
            let source = "disk".parse().expect("a name");
            operation.truth.let_go(oldest);
            // A new revision of the backup may make the next one superfluous too.
            let plan = expire::plan(&operation.store, &source, &options).expect("a plan is made");
            match plan.execute() {
                Ok(stats) => stats.removed.into_iter().for_each(|id| operation.truth.let_go(id)),
                Err(ExpireError::Store(error)) => assert!(is_locked(&error), "{error:?}"),
                Err(other) => panic!("{other:?}"),
            }
        })
        .with("purge", |operation| purge(operation, 1))
}

fn two_daily() -> Schedule {
    let interval = "1d".parse().expect("an interval");
    let rule = TagRule::count(interval, std::num::NonZero::new(2).expect("not 0"));
    Schedule::default().with_tag("daily", rule).expect("a rule")
}

/// A revision is distrusted while it is verified, tagged and succeeded by a backup: no edit is lost.
pub(super) fn doubted_revision() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, id) =
        Scenario::new("doubted revision", |store, truth| remember(store, truth, "disk", &first));
    let next = images::changed(&first, 6);
    scenario
        .with("verify", |operation| {
            let stats = verify_all(&operation.store).expect("nothing is forgotten here");
            assert!(stats.is_sound(), "{stats:?}");
        })
        .with("distrust", move |operation| {
            ops::distrust(&operation.store, &[id]).expect("the revision is there");
        })
        .with("tags", move |operation| {
            let edit = TagEdit::Add(vec!["manual:x".to_owned()]);
            ops::edit_tags(&operation.store, &[id], &edit, &TagOptions::default())
                .expect("the revision is there");
            ops::protect(&operation.store, &[id], true).expect("the revision is there");
        })
        .with("backup", move |operation| backup(operation, "disk", &next))
        .ending_with(move |store, _| {
            let state = store.revision(&id).expect("it is there").state;
            assert_eq!(state.tags, ["manual:x"], "an edit of tags is lost");
            assert!(state.protected, "a protection is lost");
        })
}

/// A distrust that nobody has answered is still there at the end: a verification that began before it does not undo it.
pub(super) fn doubt_while_verified() -> Scenario {
    let first = images::image(1, LEN);
    let (scenario, id) = Scenario::new("doubt while verified", |store, truth| {
        remember(store, truth, "disk", &first)
    });
    scenario
        .with("verify", |operation| {
            verify_all(&operation.store).expect("nothing is forgotten here");
        })
        .with("distrust", move |operation| {
            let stats = ops::distrust(&operation.store, &[id]).expect("the revision is there");
            assert_eq!(stats.changed, [id]);
        })
        .ending_with(move |store, _| {
            let trust = store.revision(&id).expect("it is there").state.trust;
            assert!(matches!(trust, Trust::Distrusted | Trust::Verified), "{trust}");
        })
}

/// Two operations that wait for each other: the search says so. No operation of the store does this.
pub(super) fn deadlock() -> Scenario {
    use chunkstore::vfs::{LockMode, Vfs};
    let (scenario, _) = Scenario::new("deadlock", |store, truth| {
        let id = remember(store, truth, "disk", b"bytes");
        // Makes the lock files.
        ops::protect(store, &[id], true).expect("the revision is there");
    });
    let take = |order: [&'static str; 2]| {
        move |operation: &Operation<'_>| {
            let paths = order.map(|name| operation.store.path().join("locks").join(name));
            let lock = |path| operation.vfs.lock(path, LockMode::Exclusive, true);
            let (_first, _second) = (lock(&paths[0]), lock(&paths[1]));
        }
    };
    scenario.with("one", take(["history", "index"])).with("other", take(["index", "history"]))
}
