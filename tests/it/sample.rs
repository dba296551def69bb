//! The sample that a backup reads back and compares before there is a revision.

use std::num::NonZero;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chunkstore::format::{MismatchReport, ObjectKind};
use chunkstore::ops::{
    self, BackupError, BackupOptions, BackupStats, SampleMismatch, SampleSize, TreeBackupOptions,
};
use chunkstore::progress::NoProgress;
use chunkstore::source::{Source, SourceError};
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{FaultKind, FaultPlan, SimulatedVfs};
use support::damage::Notes;
use support::images;
use support::memory::MemorySource;
use support::memory_tree::{MemoryTree, backup_tree};
use support::simulated_store::{backup, create, files_below, open, restore, verify_all};

/// An image that changes after it was read once.
struct Changing<'a> {
    before: &'a [u8],
    after: &'a [u8],
    bytes_to_read: AtomicU64,
}

impl<'a> Changing<'a> {
    fn new(before: &'a [u8], after: &'a [u8]) -> Self {
        Self { before, after, bytes_to_read: AtomicU64::new(data_len(before)) }
    }

    fn now(&self) -> MemorySource<'a> {
        let is_read = self.bytes_to_read.load(Ordering::SeqCst) == 0;
        MemorySource::new(if is_read { self.after } else { self.before })
    }
}

/// Returns how many bytes a backup reads: holes are left out.
fn data_len(image: &[u8]) -> u64 {
    let source = MemorySource::new(image);
    let (mut place, mut len) = (0, 0);
    while place < source.len()
        && let Some(data) = source.next_data(place).unwrap()
    {
        len += data.end - data.start;
        place = data.end;
    }
    len
}

impl Source for Changing<'_> {
    fn name(&self) -> &'static str {
        "changing"
    }

    fn len(&self) -> u64 {
        self.before.len() as u64
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        self.now().next_data(offset)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.now().read_exact_at(buffer, offset)?;
        let read = buffer.len() as u64;
        let left = |left: u64| Some(left.saturating_sub(read));
        self.bytes_to_read.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).unwrap();
        Ok(())
    }
}

fn back_up(
    store: &Store,
    source: &dyn Source,
    sample: SampleSize,
) -> Result<BackupStats, BackupError> {
    let threads = NonZero::new(1);
    let options = BackupOptions { sample, threads, ..BackupOptions::new("a".parse().unwrap()) };
    ops::backup(store, source, &options, &NoProgress)
}

fn mismatch(result: Result<BackupStats, BackupError>) -> SampleMismatch {
    match result {
        Err(BackupError::Mismatch(mismatch)) => *mismatch,
        other => panic!("a mismatch was expected: {other:?}"),
    }
}

fn quarantine(vfs: &SimulatedVfs) -> Vec<PathBuf> {
    files_below(vfs, "quarantine")
}

#[test]
fn few_chunks_are_all_compared_and_a_percentage_is_what_it_says() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let image = images::image(3, 8000);
    let source = MemorySource::new(&image);
    let first = back_up(&store, &source, SampleSize::Adaptive).unwrap();
    assert_eq!(first.sample.bytes, image.len() as u64, "fewer chunks than are usually compared");
    assert!(!first.sample.in_doubt);
    assert_eq!(back_up(&store, &source, SampleSize::Percent(0)).unwrap().sample.count, 0);
    let all = back_up(&store, &source, SampleSize::Percent(100)).unwrap().sample;
    assert_eq!(all, first.sample);
}

#[test]
fn source_that_changed_leaves_no_revision_and_both_sides_as_evidence() {
    let before = images::image(3, 8000);
    let mut after = before.clone();
    after[5000] ^= 1;
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let good = backup(&store, "a", &before).unwrap().id;
    let found = mismatch(back_up(&store, &Changing::new(&before, &after), SampleSize::Adaptive));
    let [report] = &found.reports[..] else { panic!("one place differs: {found:?}") };
    let range = usize::try_from(report.offset).unwrap()
        ..usize::try_from(report.offset + report.len).unwrap();
    assert!(range.contains(&5000));
    assert_eq!(report.stored, ObjectKind::Data.chunk_id(&before[range.clone()]));
    assert_eq!(report.found, ObjectKind::Data.chunk_id(&after[range.clone()]));
    assert!(found.to_string().contains(&format!("byte {}", report.offset)), "{found}");

    let history = store.history(None).unwrap();
    let ids: Vec<_> = history.revisions.iter().map(|revision| revision.record.id).collect();
    assert_eq!(ids, [good], "the one before is still there, and no other");
    assert_eq!(restore(&store, &good).unwrap(), before);
    let files = quarantine(&vfs);
    assert_eq!(files.len(), 3, "{files:?}");
    let content = |name: String| vfs.read_all(Path::new("/store/quarantine").join(name)).unwrap();
    assert_eq!(content(format!("bytes-{}", report.stored)), before[range.clone()]);
    assert_eq!(content(format!("bytes-{}", report.found)), after[range]);
    let kept = MismatchReport::decode(&content(format!("mismatch-{}", report.name()))).unwrap();
    assert_eq!(kept, *report);
    assert_eq!(files, found.evidence);

    // The same once more is not kept twice.
    let again = mismatch(back_up(&store, &Changing::new(&before, &after), SampleSize::Adaptive));
    assert_eq!((quarantine(&vfs), again.evidence), (files.clone(), files));
}

#[test]
fn zeros_that_became_data_are_found() {
    let mut before = images::image(3, 1 << 20);
    before[200_000..900_000].fill(0);
    let mut after = before.clone();
    after[500_000] = 1;
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let source = Changing::new(&before, &after);
    let found = mismatch(back_up(&store, &source, SampleSize::Percent(100)));
    let [report] = &found.reports[..] else { panic!("one place differs: {found:?}") };
    assert!((report.offset..report.offset + report.len).contains(&500_000), "{report:?}");
    assert!(store.history(None).unwrap().revisions.is_empty());
}

#[test]
fn doubt_and_evidence_make_the_sample_larger_until_they_are_gone() {
    let image = images::image(3, 400_000);
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let source = MemorySource::new(&image);
    let first = back_up(&store, &source, SampleSize::Adaptive).unwrap();
    let chunks = first.statistics.new_chunks;
    assert!(500 < chunks, "{chunks} chunks are too few for this test");
    assert!((32..=40).contains(&first.sample.count), "{:?}", first.sample);

    let is_larger = |stats: &BackupStats| {
        // A tenth of them: with 500 the chance to get less than 33 is below one in ten thousand millions for the seeds of
        // this test, which are always the same.
        assert!(40 < stats.sample.count && stats.sample.in_doubt, "{:?}", stats.sample);
    };
    ops::distrust(&store, &[first.id]).unwrap();
    is_larger(&back_up(&store, &source, SampleSize::Adaptive).unwrap());
    let usual = back_up(&store, &source, SampleSize::Adaptive).unwrap().sample;
    assert!(!usual.in_doubt && usual.count <= 40, "the doubt was cleared: {usual:?}");

    let mut after = image.clone();
    after.fill(7);
    mismatch(back_up(&store, &Changing::new(&image, &after), SampleSize::Adaptive));
    is_larger(&back_up(&store, &source, SampleSize::Adaptive).unwrap());
    let other =
        ops::backup(&store, &source, &BackupOptions::new("b".parse().unwrap()), &NoProgress);
    assert!(!other.unwrap().sample.in_doubt, "the report is about another source");
    for file in quarantine(&vfs) {
        vfs.remove(&file).unwrap();
    }
    assert!(!back_up(&store, &source, SampleSize::Adaptive).unwrap().sample.in_doubt);
}

#[test]
fn evidence_of_many_places_is_bounded() {
    let image = images::image(3, 400_000);
    let mut after = image.clone();
    for byte in &mut after {
        *byte ^= 0x55;
    }
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let source = Changing::new(&image, &after);
    let found = mismatch(back_up(&store, &source, SampleSize::Percent(100)));
    assert!(500 < found.reports.len());
    let reports = quarantine(&vfs);
    let reports = reports.iter().filter(|path| path.to_string_lossy().contains("/mismatch-"));
    assert_eq!(reports.count(), 16);
}

#[test]
fn mismatch_is_told_also_where_the_evidence_cannot_be_kept() {
    let before = images::image(3, 8000);
    let mut after = before.clone();
    after[5000] ^= 1;
    // Every call that the quarantine needs fails in turn.
    let calls = {
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, 1).unwrap();
        vfs.set_faults(FaultPlan::none());
        mismatch(back_up(&store, &Changing::new(&before, &after), SampleSize::Adaptive));
        vfs.call_count()
    };
    let mut lost = 0;
    for call in (0..calls).rev().take(60) {
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, 1).unwrap();
        vfs.set_faults(FaultPlan::fail_call(call, FaultKind::NoSpace));
        match back_up(&store, &Changing::new(&before, &after), SampleSize::Adaptive) {
            Err(BackupError::Mismatch(found)) => lost += u32::from(found.evidence_lost.is_some()),
            Err(BackupError::Store(_)) => {}
            other => panic!("call {call}: {other:?}"),
        }
        vfs.set_faults(FaultPlan::none());
        let store = open(&vfs, 2).unwrap();
        assert!(store.history(None).unwrap().revisions.is_empty());
        assert!(verify_all(&store).unwrap().is_sound());
    }
    assert!(0 < lost, "no call of the quarantine was hit");
}

#[test]
fn damage_that_the_sample_meets_is_healed_by_the_same_backup() {
    let image = images::image(3, 8000);
    for which in ["data", "lists"] {
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, 1).unwrap();
        let old = backup(&store, "a", &image).unwrap().id;
        // Of the two packs, that with the data is the longer one.
        let mut packs: Vec<PathBuf> = files_below(&vfs, "packs");
        packs.sort_by_key(|pack| vfs.read_all(pack).unwrap().len());
        let pack = if which == "data" { &packs[1] } else { &packs[0] };
        vfs.flip(pack, 80 + 56 + 10, 1).unwrap();
        let stats = backup(&open(&vfs, 2).unwrap(), "a", &image).unwrap();
        let store = open(&vfs, 3).unwrap();
        for id in [old, stats.id] {
            assert_eq!(restore(&store, &id).unwrap(), image, "{which}");
        }
        assert!(verify_all(&store).unwrap().is_sound(), "{which}");
        if which == "data" {
            assert_eq!(stats.statistics.new_chunks, 1, "only what was damaged is written again");
            assert_eq!(stats.healed, [old]);
            assert!(
                stats.warnings.iter().any(|it| it.contains("once more")),
                "{:?}",
                stats.warnings
            );
        }
    }
}

#[test]
fn file_that_cannot_be_read_again_is_told() {
    let store = create(&SimulatedVfs::new(), 1).unwrap();
    let mut tree = MemoryTree::default();
    tree.write("sound", &[1; 5000]);
    tree.write("once", &[2; 5000]);
    tree.readable_once.insert("once".to_owned());
    let notes = Notes::default();
    let options = TreeBackupOptions::new(BackupOptions::new("tree".parse().unwrap()));
    ops::backup_tree(&store, &tree, &options, &notes).unwrap();
    assert!(notes.name("once is not compared with the source: cannot read it: the disk is broken"));
    assert!(!notes.name("sound"));
    assert!(verify_all(&store).unwrap().is_sound());
}

#[test]
fn tree_that_reads_differently_leaves_no_revision_and_bounded_evidence() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let mut tree = MemoryTree::default();
    for number in 0..30 {
        let name = format!("metric-{number:02}");
        tree.write(&name, &[number + 1; 10_000]);
        tree.unfaithful.insert(name);
    }
    let mismatch = match backup_tree(&store, "tree", &tree, &[]) {
        Err(BackupError::Mismatch(mismatch)) => *mismatch,
        other => panic!("a mismatch was expected: {other:?}"),
    };
    assert_eq!((mismatch.count, mismatch.reports.len()), (30, 30), "all files are compared");
    assert!(mismatch.evidence_lost.is_none());
    assert!(store.history(None).unwrap().revisions.is_empty());
    // The last chunk of a file is the one that differs; both sides are kept of the first 16 places, with a report of each.
    let first = &mismatch.reports[0];
    assert_eq!((first.offset, first.len), (8192, 10_000 - 8192));
    let files = quarantine(&vfs);
    let reports = files.iter().filter(|path| path.to_string_lossy().contains("mismatch-"));
    assert_eq!(reports.count(), 16);
    assert_eq!(files, mismatch.evidence);
    let path = Path::new("/store/quarantine").join(format!("bytes-{}", first.found));
    assert_eq!(ObjectKind::Data.chunk_id(&vfs.read_all(path).unwrap()), first.found);

    tree.unfaithful.clear();
    let stats = backup_tree(&store, "tree", &tree, &[]).unwrap();
    assert_eq!((stats.sample.count, stats.sample.in_doubt), (30, true));
}
