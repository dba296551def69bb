//! Makes the store that is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chunkstore::chunking::ChunkingParams;
use chunkstore::environment::{Clock, Environment};
use chunkstore::format::{
    FooterRecord, ObjectKind, POINT_LEN, Quarantined, RecordHeader, TreePath,
};
use chunkstore::id::RevisionId;
use chunkstore::ops::purge::{self, PurgeOptions};
use chunkstore::ops::thin::{self, ThinOptions};
use chunkstore::ops::{self, BackupError, BackupOptions, ScrubOptions, repair};
use chunkstore::progress::NoProgress;
use chunkstore::source::{
    FileError, FilePiece, FileStatus, Found, Source, SourceError, TreeSource,
};
use chunkstore::store::{Store, StoreOptions};
use chunkstore::vfs::simulated::{FaultKind, FaultPlan, SimulatedClock, SimulatedVfs, environment};

use super::content::{Content, Sparse};
use super::kind::FileKind;
use super::regions::records_of;
use crate::images;
use crate::memory_tree::{self, MemoryTree};
use crate::simulated_store::{STORE_PATH, files_below, record_renames, verify_all};

/// What fits beside a store of this size.
const CAPACITY: u64 = 1 << 30;

/// Points that become one chunk.
const POINTS_IN_CHUNK: usize = 300;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A revision and what it must give back.
#[derive(Clone, Debug)]
pub struct Held {
    /// The revision.
    pub id: RevisionId,
    /// Name of its source.
    pub source: &'static str,
    /// What it holds.
    pub content: Content,
}

/// How large the images, files and chunks of a store are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Bytes of an image.
    pub image: usize,
    /// Points in the file of a tree.
    pub points: u32,
    /// Shortest, average and longest chunk.
    pub chunk: [u32; 3],
}

impl Size {
    /// Some chunks in each image.
    pub const SMALL: Self = Self { image: 900, points: 60, chunk: [64, 256, 1024] };
    /// Packs of some hundred KiB.
    pub const LARGE: Self = Self { image: 190_000, points: 5000, chunk: [4096, 16_384, 65_536] };
}

/// A store at rest, with every kind of file that a store can have.
#[derive(Debug)]
pub struct StoreAtRest {
    /// Its file system.
    pub vfs: SimulatedVfs,
    /// Its revisions.
    pub held: Vec<Held>,
    /// Bytes of records that are in quarantine, by the file of their pack.
    pub quarantined: Vec<(PathBuf, Range<u64>)>,
    /// The records of each pack.
    pub records: BTreeMap<PathBuf, Vec<FooterRecord>>,
    /// The record of a revision that was forgotten, and whose packs are condemned: its file, and what it held.
    pub forgotten: (PathBuf, Vec<u8>),
    clock: SimulatedClock,
}

impl StoreAtRest {
    /// Makes a store.
    ///
    /// # Panics
    ///
    /// If that does not work.
    #[must_use]
    pub fn new(size: Size) -> Self {
        let vfs = SimulatedVfs::new();
        vfs.set_capacity(Some(CAPACITY));
        let clock = SimulatedClock::default();
        let forgotten = (PathBuf::new(), Vec::new());
        let mut scene = Scene { vfs, clock, size, seed: 0, held: Vec::new(), forgotten };
        scene.run();
        let Scene { vfs, clock, held, forgotten, .. } = scene;
        clock.advance(DAY);
        Self::of(&vfs, held, forgotten, clock)
    }

    fn of(
        vfs: &SimulatedVfs,
        held: Vec<Held>,
        forgotten: (PathBuf, Vec<u8>),
        clock: SimulatedClock,
    ) -> Self {
        let records = files_below(vfs, "packs").into_iter().map(|path| {
            let records = records_of(&vfs.read_all(&path).expect("it was listed"));
            (path, records)
        });
        let records = records.collect();
        let quarantined = Vec::new();
        let mut store = Self { vfs: vfs.kill(), held, quarantined, records, forgotten, clock };
        store.quarantined = store.find_quarantined();
        store
    }

    /// Returns the store with the same revisions as it is on another file system, a day later.
    #[must_use]
    pub fn after(&self, vfs: &SimulatedVfs) -> Self {
        let clock = SimulatedClock::new(self.clock.now(), Duration::from_millis(1));
        clock.advance(DAY);
        Self::of(vfs, self.held.clone(), self.forgotten.clone(), clock)
    }

    /// Opens a store on this file system, at the time at which this one was left.
    ///
    /// # Errors
    ///
    /// As [`Store::open_in`].
    pub fn open(&self, vfs: &SimulatedVfs, seed: u64) -> chunkstore::error::Result<Store> {
        Store::open_in(self.environment(vfs, seed), STORE_PATH)
    }

    /// Returns the environment in which the store is opened.
    #[must_use]
    pub fn environment(&self, vfs: &SimulatedVfs, seed: u64) -> Environment {
        let clock = SimulatedClock::new(self.clock.now(), Duration::from_millis(1));
        Environment { clock: Arc::new(clock), ..environment(vfs.clone(), 0x5eed_0000 + seed) }
    }

    /// Returns the files with their lengths, without empty ones.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, FileKind, u64)> {
        let files = self.vfs.all_files().into_iter().filter(|(_, len)| *len != 0);
        files.map(|(path, len)| (path.clone(), FileKind::of(&path), len)).collect()
    }

    /// Returns the sum of the lengths of the files of each kind.
    #[must_use]
    pub fn sizes(&self) -> BTreeMap<FileKind, (u64, u64)> {
        let mut sizes = BTreeMap::new();
        for (_, kind, len) in self.files() {
            let (count, sum) = sizes.entry(kind).or_insert((0, 0));
            *count += 1;
            *sum += len;
        }
        sizes
    }

    fn find_quarantined(&self) -> Vec<(PathBuf, Range<u64>)> {
        let mut found = Vec::new();
        let is_quarantine =
            |(_, kind, _): &(PathBuf, FileKind, u64)| *kind == FileKind::Quarantined;
        for (path, ..) in self.files().into_iter().filter(is_quarantine) {
            let file = self.vfs.read_all(path).expect("it was listed");
            let file = Quarantined::decode(&file).expect("a quarantine file");
            let pack = file.pack.to_string();
            let path = PathBuf::from(format!("{STORE_PATH}/packs/{}/{pack}", &pack[..2]));
            // The pack may be gone by now.
            for record in self.records.get(&path).into_iter().flatten() {
                if file.records.iter().any(|damaged| damaged.id == record.id) {
                    found.push((path.clone(), range_of(record)));
                }
            }
        }
        found
    }
}

/// Returns where a record lies in its pack.
#[must_use]
pub fn range_of(record: &FooterRecord) -> Range<u64> {
    let start = u64::from(record.offset.0);
    start..start + u64::from(record.len_in_pack())
}

/// A store in the making.
struct Scene {
    vfs: SimulatedVfs,
    clock: SimulatedClock,
    size: Size,
    seed: u64,
    held: Vec<Held>,
    forgotten: (PathBuf, Vec<u8>),
}

impl Scene {
    fn environment(&mut self) -> Environment {
        self.seed += 1;
        let clock = Arc::new(self.clock.clone());
        Environment { clock, ..environment(self.vfs.clone(), self.seed) }
    }

    fn open(&mut self) -> Store {
        Store::open_in(self.environment(), STORE_PATH).expect("the store opens")
    }

    fn run(&mut self) {
        let [min, average, max] = self.size.chunk;
        let chunking = ChunkingParams::new(min, average, max).expect("permitted parameters");
        let options = StoreOptions { chunking, ..StoreOptions::default() };
        Store::create_in(self.environment(), STORE_PATH, &options).expect("a new store");
        let len = self.size.image;
        let first = images::image(3, len);
        self.condemn(&images::image(5, len / 2));
        self.keep_image("a", Sparse::of(&first));
        let mut next = first.clone();
        next[len * 3 / 4..len * 3 / 4 + 10].fill(7);
        self.keep_image("a", Sparse::of(&next));
        self.keep_image("sparse", sparse_image(&first[..len / 3]));
        self.keep_trees();
        self.heal(&images::image(8, len * 2 / 3));
        self.report_mismatch(&images::image(9, len / 3));
        self.leave_session(&images::image(6, len / 3));
        let store = self.open();
        assert!(verify_all(&store).expect("a verification").is_sound());
        let scrub = ops::scrub(&store, &one_thread(), &NoProgress).expect("a scrub");
        assert!(scrub.is_sound(), "{scrub:?}");
        self.leave_leftovers();
    }

    fn keep_image(&mut self, source: &'static str, image: Sparse) -> RevisionId {
        let id = backup_image(&self.open(), source, &image).expect("a backup").id;
        self.clock.advance(DAY);
        self.held.push(Held { id, source, content: Content::Image(image) });
        id
    }

    /// Leaves a condemned list that was damaged and set aside, and one that names packs.
    fn condemn(&mut self, image: &[u8]) {
        let options = PurgeOptions { ballast_len: 512, ..PurgeOptions::default() };
        let purge = |store: &Store| {
            let plan = purge::plan(store, &options, &NoProgress).expect("a plan");
            plan.execute(&NoProgress).expect("a purge")
        };
        let store = self.open();
        let gone = backup_image(&store, "gone", &Sparse::of(image)).expect("a backup").id;
        let record = files_below(&self.vfs, "revisions").remove(0);
        let bytes = self.vfs.read_all(&record).expect("it was listed");
        self.forgotten = (record, bytes);
        ops::forget(&store, &[gone]).expect("it is there");
        assert_eq!(purge(&store).condemned_packs, 2);
        let list = files_below(&self.vfs, "condemned").remove(0);
        self.vfs.flip(list, 20, 1).expect("a list is longer");
        let store = self.open();
        purge(&store);
    }

    /// Two revisions of a tree, the first one thinned: it keeps what is gone.
    fn keep_trees(&mut self) {
        let count = self.size.points;
        let points = |seed: u64| points(seed, count);
        let mut tree = MemoryTree::default();
        tree.write("a/gone.wsp", &points(1));
        tree.write("b.wsp", &points(2));
        tree.write("c", b"no points");
        let store = self.open();
        let first = backup_tree(&store, &tree).expect("a backup");
        self.clock.advance(DAY);
        tree.remove("a/gone.wsp");
        tree.write("b.wsp", &points(3));
        let second = backup_tree(&store, &tree).expect("a backup");
        self.clock.advance(DAY);
        let source = TREE.parse().expect("a name");
        let options = ThinOptions { versions: NonZero::new(1), ..ThinOptions::default() };
        let plan = thin::plan(&store, &source, &options).expect("a plan");
        let stats = plan.execute(&NoProgress).expect("it is thinned");
        assert_eq!(stats.replaced.len(), 1, "{stats:?}");
        let history = store.history(Some(&source)).expect("a history");
        let thinned = history.revisions.iter().map(|revision| revision.record.id);
        let thinned = thinned.into_iter().find(|id| *id != second).expect("the thinned one");
        assert_ne!(thinned, first);
        for id in [thinned, second] {
            let files = memory_tree::files_of(&store, &id).expect("a tree");
            assert_eq!(files.len(), if id == second { 2 } else { 1 });
            self.held.push(Held { id, source: TREE, content: Content::Tree(files) });
        }
    }

    /// A chunk and a page are damaged, found, given up and healed; a state is replaced, a record moved.
    fn heal(&mut self, image: &[u8]) {
        let before: BTreeSet<PathBuf> = files_below(&self.vfs, "packs").into_iter().collect();
        self.keep_image("healed", Sparse::of(image));
        for path in
            files_below(&self.vfs, "packs").into_iter().filter(|path| !before.contains(path))
        {
            let records = records_of(&self.vfs.read_all(&path).expect("it was listed"));
            let record = records.iter().find(|record| record.kind != ObjectKind::Root);
            let range = range_of(record.expect("a chunk, or a page"));
            let place = range.start + RecordHeader::LEN as u64 + 20;
            self.vfs.flip(&path, place, 0xff).expect("it is there");
        }
        // It shares nothing: a backup that met the damage would heal it.
        let other = Sparse::of(&images::image(12, image.len() / 4));
        let lost = backup_image(&self.open(), "lost", &other);
        let lost = lost.expect("a backup").id;
        // A verification would not get below the page.
        let scrub = ops::scrub(&self.open(), &one_thread(), &NoProgress);
        assert_eq!(scrub.expect("a scrub").damaged.len(), 2);
        // Not of the same source: its next backup would write everything again.
        let doubted = self.held[0].id;
        ops::protect(&self.open(), &[doubted], false).expect("it is there");
        ops::protect(&self.open(), &[doubted], true).expect("it is there");
        for path in files_below(&self.vfs, "revisions") {
            let is = |id: RevisionId, end: &str| path.ends_with(format!("{id}.{end}"));
            if is(lost, "rev") || is(doubted, "state") {
                self.vfs.flip(&path, 200, 1).expect("it is longer");
            }
        }
        let store = self.open();
        let plan = repair::plan(&store, &NoProgress).expect("a plan");
        let stats = plan.execute(&NoProgress).expect("a repair");
        assert_eq!((stats.moved_records.len(), stats.replaced_states.len()), (1, 1), "{stats:?}");
        assert!(!stats.given_up.is_empty(), "{stats:?}");
        self.keep_image("healed", Sparse::of(image));
    }

    fn report_mismatch(&mut self, image: &[u8]) {
        let source = Unfaithful { image: Sparse::of(image), was_read: AtomicBool::new(false) };
        let options = BackupOptions {
            threads: NonZero::new(1),
            ..BackupOptions::new("doubtful".parse().expect("a name"))
        };
        let result = ops::backup(&self.open(), &source, &options, &NoProgress);
        assert!(matches!(result, Err(BackupError::Mismatch(_))), "{result:?}");
    }

    /// Lets a backup fail at its record: its packs and its session stay.
    fn leave_session(&mut self, image: &[u8]) {
        let image = Sparse::of(image);
        let rehearsal = self.vfs.kill();
        let environment = Environment {
            clock: Arc::new(SimulatedClock::new(self.clock.now(), Duration::from_millis(1))),
            ..environment(rehearsal.clone(), self.seed + 1)
        };
        let store = Store::open_in(environment, STORE_PATH).expect("it opens");
        backup_image(&store, "died", &image).expect("a backup");
        let renames = record_renames(&rehearsal);
        let record = *renames.first().expect("a backup ends with its record");
        let store = self.open();
        self.vfs.set_faults(FaultPlan::fail_mutation(record, FaultKind::Device));
        backup_image(&store, "died", &image).expect_err("its record cannot be written");
        self.vfs.set_faults(FaultPlan::none());
    }

    /// What a crash may leave: a pack in `trash/`, something in `tmp/`.
    fn leave_leftovers(&self) {
        let pack = files_below(&self.vfs, "packs").remove(0);
        let bytes = self.vfs.read_all(&pack).expect("it was listed");
        let part = bytes[..bytes.len() / 3].to_vec();
        let name = "0".repeat(64);
        self.vfs.write_raw(format!("{STORE_PATH}/trash/{name}"), bytes).expect("a file");
        self.vfs.write_raw(format!("{STORE_PATH}/tmp/{}", &name[..32]), part).expect("a file");
    }
}

/// With several threads the times in the ledger would be up to chance.
fn one_thread() -> ScrubOptions {
    ScrubOptions { threads: NonZero::new(1), ..ScrubOptions::default() }
}

/// Name of the source that is a tree.
pub const TREE: &str = "tree";

/// Returns an image of three spans: data in the first and at the end of the last, and zeros between.
#[must_use]
pub fn sparse_image(bytes: &[u8]) -> Sparse {
    const SPAN_LEN: u64 = 64 << 20;
    let (first, last) = bytes.split_at(bytes.len() / 2);
    let place = 2 * SPAN_LEN + 70_000;
    Sparse {
        len: place + last.len() as u64,
        runs: vec![(0, first.to_vec()), (place, last.to_vec())],
    }
}

/// Returns the points of a file: a minute apart, with values that a seed determines.
#[must_use]
pub fn points(seed: u64, count: u32) -> Vec<u8> {
    let mut numbers = images::Numbers::new(seed);
    let point = |index: u32| {
        let value = 20.0 + f64::from(u32::try_from(numbers.below(1000)).expect("small")) / 100.0;
        let time = 1_700_000_000 + 60 * index;
        [time.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()].concat()
    };
    (0..count).flat_map(point).collect()
}

/// Backs up an image, with one thread.
///
/// # Errors
///
/// As [`ops::backup`].
///
/// # Panics
///
/// If the source is blamed, which cannot fail.
pub fn backup_image(
    store: &Store,
    source: &str,
    image: &Sparse,
) -> chunkstore::error::Result<ops::BackupStats> {
    let source = source.parse().expect("names of tests are valid");
    let options = BackupOptions { threads: NonZero::new(1), ..BackupOptions::new(source) };
    match ops::backup(store, image, &options, &NoProgress) {
        Ok(stats) => Ok(stats),
        Err(BackupError::Store(error)) => Err(error),
        Err(other) => panic!("the source is blamed for an error of the store: {other:?}"),
    }
}

/// Backs up a tree whose files of points are stored by columns.
///
/// # Errors
///
/// As [`ops::backup_tree`].
///
/// # Panics
///
/// If the source is blamed, which cannot fail.
pub fn backup_tree(store: &Store, tree: &MemoryTree) -> chunkstore::error::Result<RevisionId> {
    let source = TREE.parse().expect("names of tests are valid");
    let common = BackupOptions { threads: NonZero::new(1), ..BackupOptions::new(source) };
    let options = ops::TreeBackupOptions::new(common);
    match ops::backup_tree(store, &PointTree(tree), &options, &NoProgress) {
        Ok(stats) => Ok(stats.id),
        Err(BackupError::Store(error)) => Err(error),
        Err(other) => panic!("the source is blamed for an error of the store: {other:?}"),
    }
}

/// A tree whose files with the end `.wsp` are points.
struct PointTree<'a>(&'a MemoryTree);

impl TreeSource for PointTree<'_> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn walk(&self) -> Result<Box<dyn Iterator<Item = Found> + Send + '_>, SourceError> {
        self.0.walk()
    }

    fn status(&self, path: &TreePath) -> Result<FileStatus, FileError> {
        self.0.status(path)
    }

    fn read(
        &self,
        path: &TreePath,
        take: &mut dyn FnMut(FilePiece<'_>) -> ControlFlow<()>,
    ) -> Result<FileStatus, FileError> {
        if !path.as_bytes().ends_with(b".wsp") {
            return self.0.read(path, take);
        }
        let bytes = self.0.read_all(&path.to_string()).ok_or(FileError::Vanished)?;
        for bytes in bytes.chunks(POINT_LEN * POINTS_IN_CHUNK) {
            if take(FilePiece::Chunk { bytes, is_points: true }).is_break() {
                return Err(FileError::Ended);
            }
        }
        self.status(path)
    }
}

/// An image that is another one when it is read once more.
struct Unfaithful {
    image: Sparse,
    was_read: AtomicBool,
}

impl Source for Unfaithful {
    fn name(&self) -> &'static str {
        "unfaithful"
    }

    fn len(&self) -> u64 {
        self.image.len
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        self.image.next_data(offset)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.image.read(buffer, offset);
        if self.was_read.load(Ordering::Relaxed)
            && let Some(first) = buffer.first_mut()
        {
            *first ^= 1;
        }
        if offset + buffer.len() as u64 == self.image.len {
            self.was_read.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
