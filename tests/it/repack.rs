//! Repacking: what is still needed of packs that are mostly dead, or small, moves into new packs, whoever reads or writes meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chunkstore::error::Error;
use chunkstore::format::{PackFooter, PackHeader, PackKind, SessionKind};
use chunkstore::id::RevisionId;
use chunkstore::image_reader::ImageReader;
use chunkstore::ops::purge::{self, PurgeOptions, PurgeStats, PurgeSummary, WaitReason};
use chunkstore::ops::{self, BackupOptions, RestoreOptions, VerifyOptions};
use chunkstore::progress::{NoProgress, Phase, Progress};
use chunkstore::store::{Store, StoreOptions};
use support::model_store::{
    ImageSource, ImageTarget, Numbers, SparseImage, assert_reads, assert_restores, assert_same,
    assert_sound, back_up, purge_now, random_image, small_chunks, try_backup,
};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

fn new_store(options: &StoreOptions) -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path().join("store"), options).unwrap();
    (directory, store)
}

fn no_grace() -> PurgeOptions {
    PurgeOptions { grace: Duration::ZERO, ballast_len: 0, ..PurgeOptions::default() }
}

fn pack_files(store: &Store) -> Vec<PathBuf> {
    let levels = fs::read_dir(store.path().join("packs")).unwrap();
    let files = levels.flat_map(|level| fs::read_dir(level.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

fn stored_bytes(store: &Store) -> u64 {
    pack_files(store).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

fn longest_pack(store: &Store) -> PathBuf {
    let len = |path: &PathBuf| fs::metadata(path).unwrap().len();
    pack_files(store).into_iter().max_by_key(len).unwrap()
}

/// A store with one revision, whose data is a small part of a pack.
struct MostlyDead {
    _directory: TempDir,
    store: Store,
    image: SparseImage,
    id: RevisionId,
    /// What the pack was made for.
    whole: SparseImage,
}

impl MostlyDead {
    fn new(whole_len: usize) -> Self {
        let (_directory, store) = new_store(&StoreOptions::default());
        let whole = random_image(1, whole_len);
        let whole_id = back_up(&store, "whole", &whole).id;
        let mut image = whole.clone();
        image.resize((whole_len / 4) as u64);
        let stats = back_up(&store, "part", &image);
        assert!(stats.statistics.new_bytes < 512 << 10, "{:?}", stats.statistics);
        ops::forget(&store, &[whole_id]).unwrap();
        Self { _directory, store, image, id: stats.id, whole }
    }
}

fn assert_nothing_to_do(store: &Store) {
    let before: BTreeSet<PathBuf> = pack_files(store).into_iter().collect();
    let stats = purge_now(store);
    let done = (stats.condemned_packs, stats.repacked_packs, stats.removed_packs);
    assert_eq!((done, stats.freed_bytes, stats.repacked_bytes), ((0, 0, 0), 0, 0));
    assert_eq!(pack_files(store).into_iter().collect::<BTreeSet<_>>(), before);
}

#[test]
fn preview_tells_what_the_purge_then_does() {
    let scene = MostlyDead::new(8 * MIB);
    let store = &scene.store;
    let before = stored_bytes(store);
    let summary = purge::preview(store, &no_grace(), &NoProgress).unwrap();
    assert_eq!(stored_bytes(store), before);
    let stats = purge_now(store);
    let done = PurgeSummary {
        free_bytes: stats.freed_bytes,
        repack_bytes: stats.repacked_bytes,
        keep_bytes: stats.kept_bytes,
        defer_bytes: stats.deferred_bytes,
        waiting: stats.waiting.clone(),
    };
    assert_eq!(summary, done);
    assert_eq!(before + stats.repacked_bytes - stats.freed_bytes, stored_bytes(store));
    assert_eq!(stats.kept_bytes, stored_bytes(store));
    assert!(MIB as u64 <= stats.repacked_bytes, "{stats:?}");
    assert!(stored_bytes(store) < 3 * MIB as u64, "{stats:?}");
    assert_nothing_to_do(store);
    assert_restores(store, &scene.id, &scene.image);
    ops::rebuild_index(store, &NoProgress).unwrap();
    assert_sound(store, &[scene.id]);
    assert_nothing_to_do(store);
}

#[test]
fn repacked_packs_keep_the_grace_and_say_how_long() {
    let scene = MostlyDead::new(8 * MIB);
    let options = PurgeOptions { ballast_len: 0, ..PurgeOptions::default() };
    let plan = purge::plan(&scene.store, &options, &NoProgress).unwrap();
    let summary = plan.summary().unwrap();
    let stats = plan.execute(&NoProgress).unwrap();
    assert_eq!((stats.freed_bytes, summary.free_bytes), (0, 0));
    assert_eq!(summary.repack_bytes, stats.repacked_bytes);
    assert_eq!((summary.keep_bytes, summary.defer_bytes), (stats.kept_bytes, stats.deferred_bytes));
    assert!(8 * (MIB as u64) < stats.deferred_bytes, "{stats:?}");
    let is_grace = |reason: &WaitReason| matches!(reason, WaitReason::Grace { .. });
    // Two lists: what was dead, and what was emptied.
    assert!(stats.waiting.iter().all(|waiting| is_grace(&waiting.reason)), "{stats:?}");
    let waiting: u64 = stats.waiting.iter().map(|waiting| waiting.bytes).sum();
    assert_eq!(waiting, stats.deferred_bytes);
    let again = purge::plan(&scene.store, &options, &NoProgress).unwrap();
    let again = again.execute(&NoProgress).unwrap();
    assert_eq!((again.repacked_bytes, again.condemned_packs), (0, 0), "{again:?}");
    assert_eq!(again.deferred_bytes, stats.deferred_bytes);
    let last = purge_now(&scene.store);
    assert_eq!((last.freed_bytes, last.repacked_bytes), (stats.deferred_bytes, 0));
    assert_restores(&scene.store, &scene.id, &scene.image);
}

/// Returns header and table of a pack.
fn read_pack(path: &Path) -> (PackHeader, PackFooter) {
    let bytes = fs::read(path).unwrap();
    let header = PackHeader::decode(&bytes[..PackHeader::LEN]).unwrap();
    let trailer = &bytes[bytes.len() - PackFooter::TRAILER_LEN..];
    let table = PackFooter::table_range(trailer, bytes.len() as u64).unwrap();
    let start = usize::try_from(table.start).unwrap();
    (header, PackFooter::decode(&bytes[start..], bytes.len() as u64).unwrap())
}

#[test]
fn many_small_packs_become_few_without_mixing_data_and_lists() {
    let (_directory, store) = new_store(&small_chunks());
    let mut image = random_image(1, 200_000);
    let mut truth = Vec::new();
    for round in 0..30 {
        image.write(round * 5000, &Numbers(100 + round).bytes(3000));
        truth.push((back_up(&store, "disk", &image).id, image.clone()));
    }
    assert_eq!(pack_files(&store).len(), 60);
    let (sum, record_count) = (stored_bytes(&store), ops::info(&store).unwrap().chunks);
    let stats = purge_now(&store);
    assert_eq!((stats.repacked_packs, stats.removed_packs), (60, 60), "{stats:?}");
    assert!(stats.freed_bytes == sum && stats.repacked_bytes < sum, "{stats:?}");
    assert_eq!(ops::info(&store).unwrap().chunks, record_count);
    let mut kinds = Vec::new();
    let mut sessions = BTreeSet::new();
    for path in pack_files(&store) {
        let (header, footer) = read_pack(&path);
        assert!(footer.records.iter().all(|record| record.kind.pack_kind() == header.kind));
        kinds.push(header.kind);
        sessions.insert(header.session_id);
    }
    kinds.sort();
    assert_eq!(kinds, [PackKind::Data, PackKind::List]);
    assert_eq!(sessions.len(), 1, "both are of the purge");
    assert_nothing_to_do(&store);
    for (id, image) in &truth {
        assert_restores(&store, id, image);
    }
    ops::rebuild_index(&store, &NoProgress).unwrap();
    let ids: Vec<RevisionId> = truth.iter().map(|(id, _)| *id).collect();
    assert_sound(&store, &ids);
    // The next backups build on what was moved.
    assert_eq!(back_up(&store, "other", &image).statistics.new_chunks, 0);
    for round in 0..3 {
        image.write(round * 9000, &Numbers(300 + round).bytes(3000));
        back_up(&store, "disk", &image);
    }
    assert_nothing_to_do(&store);
}

#[test]
fn damaged_record_stays_where_it_is_and_is_named() {
    let scene = MostlyDead::new(8 * MIB);
    let store = &scene.store;
    let pack = longest_pack(store);
    let mut bytes = fs::read(&pack).unwrap();
    // In the first record, which is the beginning of both images.
    bytes[PackHeader::LEN + 1000] ^= 1;
    fs::write(&pack, &bytes).unwrap();
    for _ in 0..2 {
        let stats = purge_now(&Store::open(store.path()).unwrap());
        assert_eq!(stats.damaged.len(), 1, "{stats:?}");
        let name = pack.file_name().unwrap().to_str().unwrap();
        assert!(stats.damaged[0].contains(name), "{stats:?}");
        assert!(pack.exists(), "{stats:?}");
    }
    assert_eq!(fs::read(&pack).unwrap(), bytes);
    let packs = pack_files(store).len();
    purge_now(store);
    assert_eq!(pack_files(store).len(), packs, "nothing is copied again and again");
    let verified = ops::verify(store, &[scene.id], &VerifyOptions::default(), &NoProgress).unwrap();
    assert_eq!(verified.damaged.len(), 1, "{verified:?}");
}

/// Stops an operation after so many questions whether to stop.
struct StopAfter(AtomicU64);

impl Progress for StopAfter {
    fn is_cancelled(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_err()
    }
}

#[test]
fn purge_that_is_stopped_while_it_repacks_is_finished_by_the_next() {
    let scene = MostlyDead::new(8 * MIB);
    let (mut stopped, mut count) = (0, 0);
    loop {
        let path = scene.store.path();
        let copy = tempfile::tempdir().unwrap();
        copy_directory(path, &copy.path().join("store"));
        let store = Store::open(copy.path().join("store")).unwrap();
        let plan = purge::plan(&store, &no_grace(), &NoProgress).unwrap();
        let result = plan.execute(&StopAfter(AtomicU64::new(count)));
        let is_stopped = matches!(result, Err(Error::Cancelled));
        assert!(is_stopped || result.is_ok(), "{result:?}");
        stopped += u64::from(is_stopped);
        assert_restores(&store, &scene.id, &scene.image);
        purge_now(&store);
        assert_nothing_to_do(&store);
        assert!(stored_bytes(&store) < 3 * MIB as u64);
        assert_restores(&store, &scene.id, &scene.image);
        if !is_stopped {
            break;
        }
        count += 1;
    }
    assert!(2 <= stopped, "it is asked while it copies");
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn reader_of_a_forgotten_revision_reads_on_while_its_packs_are_repacked_and_swept() {
    let scene = MostlyDead::new(8 * MIB);
    let store = &scene.store;
    let reader = ImageReader::open(&Store::open(store.path()).unwrap(), &scene.id).unwrap();
    // Places of the first chunks are known to it, and one of them is in its cache.
    let mut first = vec![0; 1000];
    reader.read_exact_at(&mut first, 0).unwrap();
    ops::forget(store, &[scene.id]).unwrap();
    let pack = longest_pack(store);
    let stats = purge_now(store);
    assert!(1 <= stats.repacked_packs && 1 <= stats.removed_packs, "{stats:?}");
    assert!(!pack.exists());
    let holder = &stats.waiting[0];
    assert!(matches!(&holder.reason, WaitReason::InUse(session)
        if session.kind == SessionKind::Export && session.process == std::process::id()));
    assert_reads(&reader, &scene.image);
    assert!(matches!(ImageReader::open(store, &scene.id), Err(Error::NoSuchRevision { .. })));
    ops::rebuild_index(store, &NoProgress).unwrap();
    assert_reads(&reader, &scene.image);
    drop(reader);
    purge_now(store);
    assert_eq!(stored_bytes(store), 0);
}

/// Forgets revisions and purges without grace, once, when an operation gets to a phase.
struct PurgeAt<'a> {
    phase: Phase,
    path: &'a Path,
    forgotten: &'a [RevisionId],
    is_over: AtomicBool,
    stats: std::sync::Mutex<Option<PurgeStats>>,
}

impl<'a> PurgeAt<'a> {
    fn new(phase: Phase, path: &'a Path, forgotten: &'a [RevisionId]) -> Self {
        let is_over = AtomicBool::new(false);
        Self { phase, path, forgotten, is_over, stats: std::sync::Mutex::default() }
    }

    fn stats(self) -> PurgeStats {
        self.stats.into_inner().unwrap().expect("the operation gets to its phase")
    }
}

impl Progress for PurgeAt<'_> {
    fn begin(&self, phase: Phase, _total: Option<u64>) {
        if phase == self.phase && !self.is_over.swap(true, Ordering::Relaxed) {
            let store = Store::open(self.path).unwrap();
            ops::forget(&store, self.forgotten).unwrap();
            *self.stats.lock().unwrap() = Some(purge_now(&store));
        }
    }
}

#[test]
fn restore_of_a_forgotten_revision_goes_on_while_its_packs_are_repacked_and_swept() {
    let scene = MostlyDead::new(8 * MIB);
    let ids = [scene.id];
    let progress = PurgeAt::new(Phase::Restore, scene.store.path(), &ids);
    let target = ImageTarget::default();
    // The reader has no file open yet: every chunk has moved when it looks for it.
    let store = Store::open(scene.store.path()).unwrap();
    ops::restore(&store, &scene.id, &target, &RestoreOptions::default(), &progress).unwrap();
    assert_same(&target.into_image(), &scene.image);
    let stats = progress.stats();
    assert!(1 <= stats.repacked_packs && 1 <= stats.removed_packs, "{stats:?}");
    purge_now(&scene.store);
    assert_eq!(stored_bytes(&scene.store), 0);
}

#[test]
fn verification_keeps_the_packs_that_it_reads_until_it_ends() {
    let scene = MostlyDead::new(8 * MIB);
    let progress = PurgeAt::new(Phase::Verify, scene.store.path(), &[]);
    let store = Store::open(scene.store.path()).unwrap();
    let verified = ops::verify(&store, &[scene.id], &VerifyOptions::default(), &progress).unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    let stats = progress.stats();
    assert!(1 <= stats.repacked_packs && stats.removed_packs == 0, "{stats:?}");
    assert!(stats.waiting.iter().any(|waiting| {
        matches!(&waiting.reason, WaitReason::OlderSession(session)
            if session.kind == SessionKind::Verify)
    }));
    assert!(1 <= purge_now(&scene.store).removed_packs);
    assert_restores(&scene.store, &scene.id, &scene.image);
}

#[test]
fn dead_chunks_that_a_running_backup_has_found_are_not_lost_when_their_pack_is_repacked() {
    let scene = MostlyDead::new(16 * MIB);
    let store = &scene.store;
    let mut image = scene.whole.clone();
    image.write(15 * MIB as u64, &Numbers(5).bytes(MIB));
    let purged = std::sync::Mutex::new(None);
    // Chunks are looked up for 8 MiB at a time: some have been found when this byte is read.
    let source = ImageSource::new(&image).with_hook(|offset| {
        let mut purged = purged.lock().unwrap();
        if 15 * MIB as u64 <= offset && purged.is_none() {
            *purged = Some(purge_now(&Store::open(store.path()).unwrap()));
        }
    });
    let options = BackupOptions {
        threads: std::num::NonZero::new(1),
        ..BackupOptions::new("new".parse().unwrap())
    };
    let backup = ops::backup(&Store::open(store.path()).unwrap(), &source, &options, &NoProgress);
    drop(source);
    let backup = backup.unwrap();
    let stats = purged.into_inner().unwrap().unwrap();
    assert!(1 <= stats.repacked_packs && stats.removed_packs == 0, "{stats:?}");
    assert!(stats.waiting.iter().any(|waiting| {
        matches!(&waiting.reason, WaitReason::OlderSession(session)
            if session.kind == SessionKind::Backup)
    }));
    assert!(7 * (MIB as u64) <= backup.statistics.reused_bytes, "{:?}", backup.statistics);
    let stats = purge_now(store);
    assert!(1 <= stats.reprieved_packs, "{stats:?}");
    assert_restores(store, &backup.id, &image);
    assert_restores(store, &scene.id, &scene.image);
    purge_now(store);
    ops::rebuild_index(store, &NoProgress).unwrap();
    assert_sound(store, &[backup.id, scene.id]);
}

#[test]
fn packs_of_a_backup_that_did_not_finish_are_not_repacked() {
    let (_directory, store) = new_store(&small_chunks());
    // Long enough for a part of it to be on its way when the source fails.
    let image = random_image(1, 12 * MIB);
    let ids: Vec<RevisionId> = (0..9)
        .map(|number| back_up(&store, &format!("s{number}"), &random_image(number, 20_000)).id)
        .collect();
    let purged = std::sync::Mutex::new(None);
    let source = ImageSource::new(&image).failing_at(11 * MIB as u64).with_hook(|offset| {
        let mut purged = purged.lock().unwrap();
        if offset == 0 && purged.is_none() {
            *purged = Some(purge_now(&Store::open(store.path()).unwrap()));
        }
    });
    try_backup(&store, "disk", &source).unwrap_err();
    drop(source);
    assert_eq!(purged.into_inner().unwrap().unwrap().repacked_packs, 18);
    // What the failed one has left is for its next attempt, as long as the grace lasts.
    let options = PurgeOptions { ballast_len: 0, ..PurgeOptions::default() };
    let stats = purge::plan(&store, &options, &NoProgress).unwrap().execute(&NoProgress).unwrap();
    assert_eq!((stats.repacked_packs, stats.condemned_packs), (0, 0), "{stats:?}");
    // Those of the failed backup, then what was emptied beside it.
    let reasons: Vec<_> = stats.waiting.iter().map(|waiting| &waiting.reason).collect();
    assert!(
        matches!(reasons[..], [WaitReason::Unfinished { .. }, WaitReason::Grace { .. }]),
        "{reasons:?}"
    );
    assert_sound(&store, &ids);
}

#[test]
fn repacking_reads_no_faster_than_it_is_told() {
    use std::num::NonZero;
    use std::sync::Arc;

    use chunkstore::environment::Environment;
    use chunkstore::vfs::simulated::SimulatedClock;

    let scene = MostlyDead::new(48 * MIB);
    let clock = SimulatedClock::default();
    let environment = Environment { clock: Arc::new(clock.clone()), ..Environment::system() };
    let store = Store::open_in(environment, scene.store.path()).unwrap();
    let options = PurgeOptions { bytes_per_second: NonZero::new(1_000_000), ..no_grace() };
    let plan = purge::plan(&store, &options, &NoProgress).unwrap();
    let began = chunkstore::environment::Clock::monotonic(&clock);
    assert!(0 < plan.execute(&NoProgress).unwrap().repacked_packs);
    let elapsed = chunkstore::environment::Clock::monotonic(&clock) - began;
    // Of 12 MiB, what one second permits and the last read of 4 MiB are not waited for.
    assert!(Duration::from_secs(6) <= elapsed, "{elapsed:?}");
    assert_restores(&scene.store, &scene.id, &scene.image);
}

#[test]
fn too_little_memory_to_repack_is_refused_and_costs_nothing() {
    let scene = MostlyDead::new(8 * MIB);
    let options = PurgeOptions { memory: 1000, ..no_grace() };
    let plan = purge::plan(&scene.store, &options, &NoProgress).unwrap();
    let result = plan.execute(&NoProgress);
    assert!(matches!(result, Err(Error::InvalidOption { .. })), "{result:?}");
    assert_restores(&scene.store, &scene.id, &scene.image);
}
