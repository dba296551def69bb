//! Operations beside each other, as `docs/concurrency.md` promises.
//!
//! Every thread opens the store for itself. A `flock` belongs to an open file, so threads exclude each other
//! exactly as processes do. Where the order matters it is scripted: a source that waits holds its backup at that byte.

use std::collections::BTreeMap;
use std::env;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use chunkstore::environment::Environment;
use chunkstore::error::Error;
use chunkstore::format::{SessionKind, SessionRecord};
use chunkstore::id::{RevisionId, SessionId};
use chunkstore::image_reader::ImageReader;
use chunkstore::ops::purge::{self, PurgeOptions};
use chunkstore::ops::{self, BackupError, BackupOptions, BackupStats};
use chunkstore::progress::NoProgress;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::time::Timestamp;
use chunkstore::vfs::simulated::{SimulatedClock, SimulatedVfs};
use chunkstore::vfs::{LockMode, Vfs};
use support::images;
use support::model_store::{
    ImageSource, Numbers, SparseImage, assert_reads, assert_restores, assert_revision,
    assert_sound, back_up, purge_now, random_image, small_chunks, try_backup, try_purge,
};
use support::simulated_store;
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const HOUR: Duration = Duration::from_secs(3600);

/// How long the random runs take: seconds, or minutes with `BACKY_LONG_TESTS=1`.
fn run_time(seconds: u64) -> Duration {
    let is_long = env::var("BACKY_LONG_TESTS").is_ok_and(|value| value == "1");
    Duration::from_secs(if is_long { 20 * seconds } else { seconds })
}

fn new_store(options: &StoreOptions) -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path().join("store"), options).unwrap();
    (directory, store)
}

fn open(path: &Path) -> Store {
    Store::open(path).unwrap()
}

/// A backup in a thread of its own that stops before it reads byte `place`.
struct HeldBackup<'scope> {
    reached: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
    thread: thread::ScopedJoinHandle<'scope, Result<BackupStats, BackupError>>,
}

impl<'scope> HeldBackup<'scope> {
    fn start<'env>(
        scope: &'scope thread::Scope<'scope, 'env>,
        path: &'env Path,
        name: &'env str,
        image: &'env SparseImage,
        place: u64,
    ) -> Self {
        let (has_reached, reached) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new((false, released));
        let thread = scope.spawn(move || {
            let source = ImageSource::new(image).with_hook(move |offset| {
                let mut released = released.lock().unwrap();
                if place <= offset && !released.0 {
                    released.0 = true;
                    has_reached.send(()).unwrap();
                    released.1.recv().unwrap();
                }
            });
            let options = BackupOptions {
                threads: NonZero::new(1),
                ..BackupOptions::new(name.parse().unwrap())
            };
            ops::backup(&open(path), &source, &options, &NoProgress)
        });
        let held = Self { reached, release, thread };
        held.reached.recv_timeout(Duration::from_secs(60)).expect("the backup gets to its place");
        held
    }

    fn go_on(self) -> BackupStats {
        self.release.send(()).unwrap();
        self.thread.join().unwrap().expect("the backup succeeds")
    }
}

#[test]
fn backups_of_two_sources_restore_and_verify_run_beside_each_other() {
    let (_directory, store) = new_store(&StoreOptions::default());
    let path = store.path();
    let old = random_image(1, 6 * MIB);
    let old_id = back_up(&store, "old", &old).id;
    let mut images = [old.clone(), random_image(2, 9 * MIB)];
    images[0].write(MIB as u64, &Numbers(3).bytes(2 * MIB));
    let done = thread::scope(|scope| {
        let first = HeldBackup::start(scope, path, "first", &images[0], 3 * MIB as u64);
        let second = HeldBackup::start(scope, path, "second", &images[1], 5 * MIB as u64);
        assert_restores(&open(path), &old_id, &old);
        assert_sound(&open(path), &[old_id]);
        [first.go_on(), second.go_on()]
    });
    for (stats, image) in done.iter().zip(&images) {
        assert_restores(&open(path), &stats.id, image);
    }
    assert_sound(&store, &[old_id, done[0].id, done[1].id]);
}

#[test]
fn second_backup_of_a_source_is_refused_and_names_the_first() {
    let (_directory, store) = new_store(&StoreOptions::default());
    let image = random_image(1, 2 * MIB);
    let stats = thread::scope(|scope| {
        let held = HeldBackup::start(scope, store.path(), "disk", &image, MIB as u64);
        let error = try_backup(&store, "disk", &ImageSource::new(&image)).unwrap_err();
        let BackupError::Store(Error::Locked { what, holder }) = error else {
            panic!("{error:?}");
        };
        assert!(what.contains("disk"), "{what}");
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        held.go_on()
    });
    assert_eq!(store.history(None).unwrap().revisions.len(), 1);
    assert_eq!(back_up(&store, "disk", &image).parent, Some(stats.id));
}

#[test]
fn second_purge_is_refused() {
    let (_directory, store) = new_store(&StoreOptions::default());
    let lock = store.lock_purge().unwrap();
    let refused = try_purge(&open(store.path()), HOUR);
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    drop(lock);
    purge_now(&store);
}

#[test]
fn reader_reads_a_forgotten_revision_through_a_purge() {
    let (_directory, store) = new_store(&small_chunks());
    let image = random_image(1, MIB);
    let id = back_up(&store, "disk", &image).id;
    // The handle of the reader has nothing cached or open but the root.
    let reader = ImageReader::open(&open(store.path()), &id).unwrap();
    ops::forget(&store, &[id]).unwrap();
    let stats = purge_now(&store);
    assert_eq!((stats.condemned_packs, stats.removed_packs), (0, 0));
    ops::rebuild_index(&store, &NoProgress).unwrap();
    assert_reads(&reader, &image);
    drop(reader);
    assert!(0 < purge_now(&store).removed_packs);
    assert_eq!(ops::info(&store).unwrap().stored_bytes, 0);
}

#[test]
fn chunks_found_before_they_were_condemned_stay() {
    let (_directory, store) = new_store(&StoreOptions::default());
    let mut image = random_image(1, 12 * MIB);
    let old = back_up(&store, "old", &image).id;
    image.write(11 * MIB as u64, &Numbers(2).bytes(MIB));
    ops::forget(&store, &[old]).unwrap();
    let id = thread::scope(|scope| {
        // Chunks are looked up for 8 MiB at a time: the first batch has been when byte 11 MiB is read.
        let held = HeldBackup::start(scope, store.path(), "new", &image, 11 * MIB as u64);
        let stats = purge_now(&store);
        assert!(0 < stats.condemned_packs, "{stats:?}");
        assert!(0 < stats.deferred_bytes, "{stats:?}");
        assert_eq!(stats.removed_packs, 0);
        assert!(stats.waiting[0].reason.to_string().contains("backup"), "{:?}", stats.waiting);
        let again = purge_now(&store);
        assert_eq!((again.condemned_packs, again.removed_packs), (0, 0), "{again:?}");
        let stats = held.go_on();
        assert!(7 * MIB as u64 <= stats.statistics.reused_bytes, "{:?}", stats.statistics);
        stats.id
    });
    let stats = purge_now(&store);
    assert!(0 < stats.reprieved_packs, "{stats:?}");
    assert_restores(&store, &id, &image);
    ops::rebuild_index(&store, &NoProgress).unwrap();
    assert_sound(&store, &[id]);
}

#[test]
fn chunks_condemned_before_they_were_looked_up_are_written_anew() {
    let (_directory, store) = new_store(&StoreOptions::default());
    let image = random_image(1, 2 * MIB);
    let old = back_up(&store, "old", &image).id;
    ops::forget(&store, &[old]).unwrap();
    let stats = thread::scope(|scope| {
        let held = HeldBackup::start(scope, store.path(), "new", &image, 0);
        assert!(0 < purge_now(&store).deferred_bytes);
        held.go_on()
    });
    assert_eq!(stats.statistics.new_bytes, image.len());
    let purged = purge_now(&store);
    assert!(0 < purged.removed_packs, "{purged:?}");
    assert_restores(&store, &stats.id, &image);
}

#[test]
fn parent_that_is_forgotten_and_purged_keeps_its_chunks_for_the_backup() {
    let (_directory, store) = new_store(&StoreOptions::default());
    let image = random_image(1, 4 * MIB);
    let parent = back_up(&store, "disk", &image).id;
    let stats = thread::scope(|scope| {
        let held = HeldBackup::start(scope, store.path(), "disk", &image, 2 * MIB as u64);
        ops::forget(&store, &[parent]).unwrap();
        let stats = purge_now(&store);
        assert_eq!((stats.condemned_packs, stats.removed_packs), (0, 0), "{stats:?}");
        held.go_on()
    });
    assert_eq!((stats.parent, stats.statistics.new_chunks), (Some(parent), 0));
    purge_now(&store);
    assert_restores(&store, &stats.id, &image);
}

#[test]
fn packs_of_a_running_backup_are_left_alone() {
    let (_directory, store) = new_store(&StoreOptions::default());
    // Incompressible, and longer than a pack: the first one is sealed and in the index.
    let image = random_image(1, 90 * MIB);
    let id = thread::scope(|scope| {
        let held = HeldBackup::start(scope, store.path(), "disk", &image, 89 * MIB as u64);
        let start = Instant::now();
        while ops::info(&store).unwrap().packs == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "no pack was sealed");
            thread::sleep(Duration::from_millis(20));
        }
        let stats = purge_now(&store);
        assert_eq!((stats.condemned_packs, stats.removed_packs), (0, 0), "{stats:?}");
        held.go_on().id
    });
    assert_sound(&store, &[id]);
}

/// A store on the real file system whose time the test decides.
fn store_with_clock() -> (TempDir, Store, SimulatedClock) {
    let directory = tempfile::tempdir().unwrap();
    let clock = SimulatedClock::default();
    let environment = Environment { clock: Arc::new(clock.clone()), ..Environment::system() };
    let path = directory.path().join("store");
    let store = Store::create_in(environment, path, &StoreOptions::default()).unwrap();
    (directory, store, clock)
}

#[test]
fn backup_goes_on_where_a_dead_one_ended() {
    let (_directory, store, clock) = store_with_clock();
    let image = random_image(1, 20 * MIB);
    let failing = ImageSource::new(&image).failing_at(19 * MIB as u64);
    let failed = try_backup(&store, "disk", &failing);
    assert!(matches!(failed, Err(BackupError::Source(_))), "{failed:?}");
    assert!(store.history(None).unwrap().revisions.is_empty());

    clock.advance(23 * HOUR);
    let stats = try_purge(&store, 24 * HOUR).unwrap();
    assert_eq!((stats.condemned_packs, stats.removed_packs), (0, 0), "{stats:?}");
    let stats = back_up(&store, "disk", &image);
    assert!(8 * MIB as u64 <= stats.statistics.reused_bytes, "{:?}", stats.statistics);
    clock.advance(72 * HOUR);
    try_purge(&store, 24 * HOUR).unwrap();
    try_purge(&store, Duration::ZERO).unwrap();
    assert_restores(&store, &stats.id, &image);
}

#[test]
fn packs_of_a_dead_backup_go_when_their_grace_is_over() {
    let (_directory, store, clock) = store_with_clock();
    let image = random_image(1, 20 * MIB);
    let failing = ImageSource::new(&image).failing_at(19 * MIB as u64);
    try_backup(&store, "disk", &failing).unwrap_err();
    assert!(0 < ops::info(&store).unwrap().packs);

    clock.advance(25 * HOUR);
    let stats = try_purge(&store, 24 * HOUR).unwrap();
    assert!(0 < stats.condemned_packs && stats.removed_packs == 0, "{stats:?}");
    clock.advance(25 * HOUR);
    let stats = try_purge(&store, 24 * HOUR).unwrap();
    assert!(0 < stats.removed_packs, "{stats:?}");
    assert_eq!(ops::info(&store).unwrap().stored_bytes, 0);
    let sessions = std::fs::read_dir(store.path().join("sessions")).unwrap();
    assert_eq!(sessions.count(), 0);
}

#[test]
fn reader_gets_all_of_a_revision_or_none() {
    let (_directory, store) = new_store(&small_chunks());
    let path = store.path();
    let image = random_image(1, 200_000);
    let newest = Mutex::new(back_up(&store, "disk", &image).id);
    let is_over = AtomicBool::new(false);
    let (opened, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _ends_the_others = SetOnDrop(&is_over);
                let store = open(path);
                while !is_over.load(Ordering::Relaxed) {
                    let id = *newest.lock().unwrap();
                    match ImageReader::open(&store, &id) {
                        Ok(reader) => {
                            assert_reads(&reader, &image);
                            opened.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Error::NoSuchRevision { .. }) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
        let _ends_the_others = SetOnDrop(&is_over);
        let (start, mut numbers) = (Instant::now(), Numbers(2));
        while start.elapsed() < run_time(5) && !is_over.load(Ordering::Relaxed) {
            // No parent that pins, so that nothing but the readers keeps the chunks.
            let old = *newest.lock().unwrap();
            ops::forget(&store, &[old]).unwrap();
            purge_now(&store);
            *newest.lock().unwrap() = back_up(&store, "disk", &image).id;
            thread::sleep(Duration::from_millis(numbers.below(15)));
        }
    });
    assert!(0 < opened.into_inner(), "no reader ever came in time");
}

/// Sets a flag when it is dropped, so that a thread that panics does not leave the others running.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What must be in a store that many threads work in.
struct Shared<'a> {
    path: &'a Path,
    truth: Mutex<BTreeMap<RevisionId, Arc<SparseImage>>>,
    is_over: AtomicBool,
    end: Instant,
}

impl Shared<'_> {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed) && Instant::now() < self.end
    }

    fn pick(&self, numbers: &mut Numbers) -> Option<(RevisionId, Arc<SparseImage>)> {
        let truth = self.truth.lock().unwrap();
        let count = truth.len() as u64;
        let place = usize::try_from(numbers.next_number().checked_rem(count)?).unwrap();
        truth.iter().nth(place).map(|(id, image)| (*id, Arc::clone(image)))
    }

    /// Backs up ever new mixtures of a few common pieces, so that chunks are forgotten and needed again.
    fn write(&self, name: &str, seed: u64) {
        let mut numbers = Numbers(seed);
        let mut image = SparseImage::new(300_000);
        let mut store = open(self.path);
        while self.goes_on() {
            for _ in 0..numbers.below(6) {
                let piece = Numbers(numbers.below(12)).bytes(60_000);
                image.write(numbers.below(5) * 60_000, &piece);
            }
            if numbers.below(4) == 0 {
                image.write(numbers.below(290_000), &numbers.clone().bytes(2000));
            }
            if numbers.below(8) == 0 {
                store = open(self.path);
            }
            if numbers.below(8) == 0 {
                let source = ImageSource::new(&image).failing_at(250_000);
                match try_backup(&store, name, &source) {
                    Err(BackupError::Source(_)) => continue,
                    other => panic!("{other:?}"),
                }
            }
            let stats = back_up(&store, name, &image);
            assert_eq!(stats.warnings, Vec::<String>::new());
            self.truth.lock().unwrap().insert(stats.id, Arc::new(image.clone()));
        }
    }

    fn forget(&self, seed: u64) {
        let (store, mut numbers) = (open(self.path), Numbers(seed));
        while self.goes_on() {
            if self.truth.lock().unwrap().len() < 5 {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            let Some((id, _)) = self.pick(&mut numbers) else { continue };
            self.truth.lock().unwrap().remove(&id);
            ops::forget(&store, &[id]).unwrap();
        }
    }

    fn purge(&self, seed: u64) {
        let mut numbers = Numbers(seed);
        while self.goes_on() {
            let store = open(self.path);
            let grace =
                Duration::from_millis([0, 0, 300][usize::try_from(numbers.below(3)).unwrap()]);
            match try_purge(&store, grace) {
                Ok(_) => {}
                Err(error) => panic!("purge: {error:?}"),
            }
        }
    }

    fn rebuild(&self) {
        let store = open(self.path);
        while self.goes_on() {
            ops::rebuild_index(&store, &NoProgress).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn read(&self, seed: u64) {
        let mut numbers = Numbers(seed);
        while self.goes_on() {
            let Some((id, image)) = self.pick(&mut numbers) else { continue };
            let store = open(self.path);
            let was_forgotten = || !self.truth.lock().unwrap().contains_key(&id);
            match ImageReader::open(&store, &id) {
                Ok(reader) => assert_reads(&reader, &image),
                Err(Error::NoSuchRevision { .. }) => assert!(was_forgotten(), "{id} is lost"),
                Err(other) => panic!("{other:?}"),
            }
            let options = ops::VerifyOptions::default();
            match ops::verify(&store, &[id], &options, &NoProgress) {
                Ok(stats) => assert!(stats.is_sound(), "{stats:?}"),
                Err(Error::NoSuchRevision { .. }) => assert!(was_forgotten(), "{id} is lost"),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

fn run_beside_each_other(rebuilds: bool, seconds: u64) {
    let (_directory, store) = new_store(&small_chunks());
    let shared = Shared {
        path: store.path(),
        truth: Mutex::default(),
        is_over: AtomicBool::new(false),
        end: Instant::now() + run_time(seconds),
    };
    thread::scope(|scope| {
        let shared = &shared;
        let run = |work: &(dyn Fn() + Sync)| {
            let _ends_the_others = SetOnDropUnlessDone(&shared.is_over);
            work();
        };
        scope.spawn(move || run(&|| shared.write("alpha", 1)));
        scope.spawn(move || run(&|| shared.write("beta", 2)));
        scope.spawn(move || run(&|| shared.write("gamma", 3)));
        scope.spawn(move || run(&|| shared.forget(4)));
        scope.spawn(move || run(&|| shared.purge(5)));
        scope.spawn(move || run(&|| shared.read(6)));
        if rebuilds {
            scope.spawn(move || run(&|| shared.rebuild()));
        }
    });
    let truth = shared.truth.into_inner().unwrap();
    let store = open(store.path());
    purge_now(&store);
    let revisions = store.history(None).unwrap().revisions;
    assert_eq!(revisions.len(), truth.len());
    for (id, image) in &truth {
        assert_revision(&store, id, image);
    }
    let ids: Vec<RevisionId> = truth.keys().copied().collect();
    ops::rebuild_index(&store, &NoProgress).unwrap();
    assert_sound(&store, &ids);
    ops::forget(&store, &ids).unwrap();
    purge_now(&store);
    assert_eq!(ops::info(&store).unwrap().stored_bytes, 0);
}

/// As [`SetOnDrop`], for threads that end by themselves: only a panic ends the others.
struct SetOnDropUnlessDone<'a>(&'a AtomicBool);

impl Drop for SetOnDropUnlessDone<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A rebuild may move a chunk that two packs hold from one to the other, after a purge found out which of them is needed.
#[test]
fn purge_keeps_the_copies_that_a_rebuilt_index_leads_to() {
    let (_directory, store) = new_store(&StoreOptions::default());
    let long = random_image(1, 12 * MIB);
    let mut short = long.clone();
    short.resize(4 * MIB as u64);
    let long_id = thread::scope(|scope| {
        // Its pack is the older one, but enters the index last: the index leads to it, a new index to the other.
        let held = HeldBackup::start(scope, store.path(), "long", &long, 11 * MIB as u64);
        let short_id = back_up(&store, "short", &short).id;
        let long_id = held.go_on().id;
        ops::forget(&store, &[short_id]).unwrap();
        long_id
    });
    let options = PurgeOptions { grace: Duration::ZERO, ..PurgeOptions::default() };
    let plan = purge::plan(&store, &options, &NoProgress).unwrap();
    assert!(0 < plan.summary().unwrap().free_bytes, "one of two copies is not needed");
    ops::rebuild_index(&store, &NoProgress).unwrap();
    plan.execute(&NoProgress).unwrap();
    // All chunks are still in the index: nothing is written for another source.
    let other = back_up(&store, "other", &long);
    assert_eq!(other.statistics.new_chunks, 0, "{:?}", other.statistics);
    assert_restores(&store, &long_id, &long);
}

#[test]
fn purge_finds_what_was_committed_between_plan_and_execution_although_the_index_is_rebuilt() {
    for seed in 0..8 {
        let (_directory, store) = new_store(&StoreOptions::default());
        let mut image = random_image(seed, 12 * MIB);
        let old = back_up(&store, "old", &image).id;
        let other = random_image(100 + seed, 20_000);
        let other_id = back_up(&store, "other", &other).id;
        image.write(11 * MIB as u64, &Numbers(2).bytes(MIB));
        ops::forget(&store, &[old]).unwrap();
        let (plan, id) = thread::scope(|scope| {
            let held = HeldBackup::start(scope, store.path(), "new", &image, 11 * MIB as u64);
            assert!(0 < purge_now(&store).deferred_bytes);
            let options = PurgeOptions { grace: Duration::ZERO, ..PurgeOptions::default() };
            let plan = purge::plan(&store, &options, &NoProgress).unwrap();
            (plan, held.go_on().id)
        });
        ops::rebuild_index(&store, &NoProgress).unwrap();
        let stats = plan.execute(&NoProgress).unwrap();
        assert!(0 < stats.reprieved_packs, "{stats:?}");
        assert_restores(&store, &id, &image);
        assert_restores(&store, &other_id, &other);
    }
}

/// A reader registers with the root of a revision that it has read of, and then finds that the revision is gone. A purge that comes
/// between the two finds a pin of what is in no pack.
#[test]
fn purge_that_meets_a_pin_of_what_was_swept_before_removes_nothing() {
    let vfs = SimulatedVfs::new();
    let store = simulated_store::create(&vfs, 1).unwrap();
    let old = simulated_store::backup(&store, "old", &images::image(1, 3000)).unwrap().id;
    let image = images::image(2, 3000);
    let kept = simulated_store::backup(&store, "kept", &image).unwrap().id;
    let dead = simulated_store::backup(&store, "dead", &images::image(3, 3000)).unwrap().id;
    let root = store.revision(&old).unwrap().record.root;
    ops::forget(&store, &[old]).unwrap();
    simulated_store::purge_now(&store).unwrap();

    let session = SessionRecord {
        id: SessionId::from_bytes([7; SessionId::LEN]),
        kind: SessionKind::Export,
        start_generation: 0,
        pinned_roots: vec![root],
        host: "simulated".to_owned(),
        process: 1,
        command: "simulation".to_owned(),
        started: Timestamp(0),
    };
    let path = store.path().join("sessions").join(session.id.to_string());
    let file = vfs.create_new(&path).unwrap();
    file.write_all_at(&session.encode(), 0).unwrap();
    assert!(file.try_lock(LockMode::Exclusive).unwrap());
    ops::forget(&store, &[dead]).unwrap();
    // What the session needs is not known: nothing goes, and nobody is told of damage.
    let stats = simulated_store::purge_now(&store).unwrap();
    assert_eq!((stats.condemned_packs, stats.removed_packs), (0, 0), "{stats:?}");
    drop(file);
    let stats = simulated_store::purge_now(&store).unwrap();
    assert!(0 < stats.removed_packs, "{stats:?}");
    assert_eq!(simulated_store::restore(&store, &kept).unwrap(), image);
}

#[test]
fn nothing_is_lost_while_all_operations_run() {
    run_beside_each_other(false, 12);
}

#[test]
fn nothing_is_lost_while_the_index_is_rebuilt_again_and_again() {
    run_beside_each_other(true, 12);
}
