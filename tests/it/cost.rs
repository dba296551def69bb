//! What operations cost: unchanged data costs reading and hashing, and nothing else.
//!
//! Counted are the calls on a simulated file system, not time.

use std::num::NonZero;
use std::time::{Duration, Instant};

use chunkstore::format::Trust;
use chunkstore::id::RevisionId;
use chunkstore::image_reader::{Extent, ImageReader};
use chunkstore::ops::{self, BackupOptions};
use chunkstore::progress::NoProgress;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::vfs::Vfs;
use chunkstore::vfs::simulated::{CallKind, FaultPlan, SimulatedVfs, environment};
use support::model_store::{
    ImageSource, Numbers, SparseImage, assert_restores, assert_revision, assert_sound, back_up,
    purge_now, random_image, small_chunks, try_backup,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SPAN_LEN: u64 = 64 * MIB;

fn new_store(options: &StoreOptions) -> (SimulatedVfs, Store) {
    let vfs = SimulatedVfs::new();
    let store = Store::create_in(environment(vfs.clone(), 1), "/store", options).unwrap();
    (vfs, store)
}

/// What an operation did to the files of a store.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cost {
    /// Packs that got their name.
    packs: usize,
    /// Revision records that got their name.
    records: usize,
    /// How often the index was opened to look something up, or to change it.
    index_opens: usize,
    index_writes: usize,
    /// Bytes written outside of locks.
    written: u64,
    /// Bytes read from packs.
    pack_bytes_read: u64,
}

/// Runs an operation and returns what it did.
fn cost_of<R>(vfs: &SimulatedVfs, operation: impl FnOnce() -> R) -> (R, Cost) {
    vfs.set_faults(FaultPlan::none());
    let result = operation();
    let mut cost = Cost::default();
    for call in vfs.calls() {
        let is_index = call.path.ends_with("index.redb");
        let is_renamed_to = |directory: &str| {
            call.to.as_ref().is_some_and(|to| to.starts_with(format!("/store/{directory}")))
        };
        match call.kind {
            CallKind::RenameNoReplace | CallKind::RenameReplace => {
                cost.packs += usize::from(is_renamed_to("packs"));
                cost.records += usize::from(is_renamed_to("revisions"));
            }
            CallKind::Open if is_index => cost.index_opens += 1,
            CallKind::WriteAllAt if is_index => cost.index_writes += 1,
            CallKind::WriteAllAt => cost.written += call.len,
            CallKind::ReadExactAt if call.path.starts_with("/store/packs") => {
                cost.pack_bytes_read += call.len;
            }
            _ => {}
        }
    }
    (result, cost)
}

#[test]
fn unchanged_image_writes_its_record_and_looks_nothing_up() {
    let (vfs, store) = new_store(&StoreOptions::default());
    let mut index_opens = Vec::new();
    for len in [2 * MIB, 40 * MIB] {
        let name = format!("disk-{len}");
        let image = random_image(len, usize::try_from(len).unwrap());
        back_up(&store, &name, &image);
        let source = ImageSource::new(&image);
        let (stats, cost) = cost_of(&vfs, || try_backup(&store, &name, &source).unwrap());
        assert_eq!((stats.statistics.new_chunks, stats.statistics.stored_bytes), (0, 0));
        assert_eq!((cost.packs, cost.records, cost.index_writes), (0, 1, 0), "{cost:?}");
        // The record and the file of the session.
        assert!(cost.written < 4 * KIB, "{cost:?}");
        // Once, and once more what is compared with the store.
        assert_eq!(source.reads().1, len + stats.sample.bytes);
        assert!(stats.sample.count <= 32, "{:?}", stats.sample);
        index_opens.push(cost.index_opens);
    }
    assert_eq!(index_opens[0], index_opens[1], "an index that is opened more often for more data");
    assert!(index_opens[0] <= 8, "{index_opens:?}");
}

#[test]
fn change_of_one_byte_writes_one_or_two_chunks_a_page_and_a_root() {
    let (vfs, store) = new_store(&StoreOptions::default());
    let mut image = random_image(1, 20 << 20);
    back_up(&store, "disk", &image);
    let mut numbers = Numbers(5);
    for _ in 0..10 {
        let offset = numbers.below(image.len());
        let mut byte = [0];
        image.read(offset, &mut byte);
        image.write(offset, &[byte[0] ^ 1]);
        let (stats, cost) = cost_of(&vfs, || back_up(&store, "disk", &image));
        let statistics = stats.statistics;
        assert!((1..=2).contains(&statistics.new_chunks), "{statistics:?}");
        assert!(statistics.new_bytes <= 512 * KIB, "{statistics:?}");
        // One pack with data, one with lists; one transaction for each.
        assert_eq!((cost.packs, cost.records), (2, 1), "{cost:?}");
        assert!(cost.written < statistics.new_bytes + 32 * KIB, "{cost:?}");
        assert_revision(&store, &stats.id, &image);
    }
}

#[test]
fn same_image_under_another_name_writes_its_record_and_no_chunk() {
    let (vfs, store) = new_store(&StoreOptions::default());
    let image = random_image(1, 10 << 20);
    let first = back_up(&store, "disk", &image);
    let (stats, cost) = cost_of(&vfs, || back_up(&store, "other", &image));
    // The index notes that it knows all packs of the new source.
    assert_eq!((cost.packs, cost.records), (0, 1), "{cost:?}");
    assert_eq!((stats.parent, stats.statistics.reused_bytes), (None, image.len()));
    let roots = [first.id, stats.id].map(|id| store.revision(&id).unwrap().record.root);
    assert_eq!(roots[0], roots[1]);
}

#[test]
fn sparse_image_of_a_tebibyte_costs_its_data() {
    let (vfs, store) = new_store(&StoreOptions::default());
    let mut image = SparseImage::new(1 << 40);
    for (place, seed) in [(0, 1), (400 << 30, 2), ((1 << 40) - 70 * KIB, 3)] {
        image.write(place, &Numbers(seed).bytes(70 << 10));
    }
    let start = Instant::now();
    for attempt in 0..2 {
        let source = ImageSource::new(&image);
        let (stats, cost) = cost_of(&vfs, || try_backup(&store, "disk", &source).unwrap());
        let (reads, bytes) = source.reads();
        let sample = stats.sample;
        assert!(sample.count <= 32 + 8, "{sample:?}");
        assert!(bytes < 256 * KIB + sample.bytes, "{reads} reads of {bytes} bytes");
        assert!(reads <= 6 + sample.count, "{reads} reads of {bytes} bytes");
        assert!(cost.written < 512 * KIB, "{cost:?}");
        assert_eq!(stats.statistics.read_bytes + stats.statistics.hole_bytes, 1 << 40);
        assert_eq!(cost.packs, [2, 0][attempt]);
        let (reader, cost) = cost_of(&vfs, || ImageReader::open(&store, &stats.id).unwrap());
        assert!(cost.pack_bytes_read < 256 * KIB, "{cost:?}");
        let zeros = reader.extents(SPAN_LEN, 300 << 30).unwrap();
        assert_eq!(zeros, [Extent::Zero { range: SPAN_LEN..SPAN_LEN + (300 << 30) }]);
        assert_restores(&store, &stats.id, &image);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn same_bytes_in_another_span_are_stored_once() {
    let (vfs, store) = new_store(&StoreOptions::default());
    let content = Numbers(1).bytes(3 << 20);
    let mut image = SparseImage::new(5 * SPAN_LEN);
    image.write(0, &content);
    let first = back_up(&store, "disk", &image);
    image.write(2 * SPAN_LEN, &content);
    image.write(4 * SPAN_LEN, &content);
    let (stats, cost) = cost_of(&vfs, || back_up(&store, "disk", &image));
    assert_eq!(stats.statistics.new_bytes, 0);
    // The page is the same too: only the root is new.
    assert_eq!(cost.packs, 1);
    assert!(cost.written < 8 * KIB, "{cost:?}");
    let reader = ImageReader::open(&store, &stats.id).unwrap();
    let ids = |offset| -> Vec<_> {
        let extents = reader.extents(offset, 3 * MIB).unwrap();
        let id = |extent: &Extent| match extent {
            Extent::Data { id, .. } => Some(*id),
            Extent::Zero { .. } => None,
        };
        extents.iter().map(id).collect()
    };
    assert_eq!(ids(0), ids(2 * SPAN_LEN));
    assert_eq!(ids(0), ids(4 * SPAN_LEN));
    assert_revision(&store, &first.id, &{
        let mut old = SparseImage::new(5 * SPAN_LEN);
        old.write(0, &content);
        old
    });
}

#[test]
fn same_bytes_twice_in_one_backup_are_stored_once() {
    let (_vfs, store) = new_store(&small_chunks());
    let content = Numbers(1).bytes(1 << 20);
    let mut image = SparseImage::new(3 * SPAN_LEN);
    for span in 0..3 {
        image.write(span * SPAN_LEN, &content);
    }
    let stats = back_up(&store, "disk", &image);
    assert_eq!(stats.statistics.new_bytes, content.len() as u64);
    assert_eq!(stats.statistics.reused_bytes, 2 * content.len() as u64);
    assert_restores(&store, &stats.id, &image);
}

/// Returns bytes in which short strings come again: a compressor finds the more of them the more time it takes.
fn repeated_strings(seed: u64, len: usize) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&Numbers(numbers.below(4000)).next_number().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn what_is_added_to_a_mostly_known_image_is_compressed_more() {
    let stored_bytes = |level: i32, known_len: u64| {
        let options = StoreOptions { compression_level: level, ..StoreOptions::default() };
        let (_vfs, store) = new_store(&options);
        let mut image = SparseImage::new(4 * SPAN_LEN);
        image.write(0, &Numbers(1).bytes(usize::try_from(known_len).unwrap()));
        back_up(&store, "disk", &image);
        image.write(3 * SPAN_LEN, &repeated_strings(2, 2 << 20));
        // One thread meets what is known first. Several may meet what is new before.
        let threads = Some(NonZero::<usize>::MIN);
        let options = BackupOptions { threads, ..BackupOptions::new("disk".parse().unwrap()) };
        let source = ImageSource::new(&image);
        let stats = ops::backup(&store, &source, &options, &NoProgress).unwrap();
        assert_restores(&store, &stats.id, &image);
        assert_sound(&store, &[stats.id]);
        stats.statistics.stored_bytes
    };
    let (mostly_new, mostly_known) = (stored_bytes(1, 100 * KIB), stored_bytes(1, 6 * MIB));
    assert!(mostly_known < mostly_new * 9 / 10, "{mostly_known}, {mostly_new}");
    // Of each level above 2 there is one only.
    let (mostly_new, mostly_known) = (stored_bytes(5, 100 * KIB), stored_bytes(5, 6 * MIB));
    assert!(mostly_new.abs_diff(mostly_known) < 100, "{mostly_known}, {mostly_new}");
}

fn distrust(store: &Store, id: RevisionId) {
    assert_eq!(ops::distrust(store, &[id]).unwrap().changed, [id]);
    assert_eq!(store.revision(&id).unwrap().state.trust, Trust::Distrusted);
}

/// Flips a bit in the payload of the first record of each of these packs.
fn damage(vfs: &SimulatedVfs, packs: &[std::path::PathBuf]) {
    for pack in packs {
        vfs.flip(pack, 80 + 56 + 20, 1).unwrap();
    }
}

fn packs(vfs: &SimulatedVfs) -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new("/store/packs");
    let levels = vfs.list(root).unwrap().into_iter().map(|entry| root.join(entry.name));
    levels
        .flat_map(|level| {
            let entries = vfs.list(&level).unwrap();
            entries.into_iter().map(move |entry| level.join(entry.name))
        })
        .collect()
}

#[test]
fn backup_after_a_distrusted_one_writes_every_chunk_once_again() {
    let (vfs, store) = new_store(&StoreOptions::default());
    let content = Numbers(1).bytes(5 << 20);
    let mut image = SparseImage::new(2 * SPAN_LEN);
    image.write(0, &content);
    image.write(SPAN_LEN, &content);
    let first = back_up(&store, "disk", &image);
    let old_packs = packs(&vfs);
    distrust(&store, first.id);

    let (second, cost) = cost_of(&vfs, || back_up(&store, "disk", &image));
    assert_eq!(second.parent, None);
    assert_eq!(second.statistics.new_bytes, content.len() as u64, "every chunk, but once");
    assert_eq!(second.statistics.new_chunks, first.statistics.new_chunks);
    assert_eq!((cost.packs, packs(&vfs).len()), (2, 4));
    assert_eq!(second.warnings.len(), 1, "{:?}", second.warnings);

    // The new copy wins, in this index and in a new one.
    damage(&vfs, &old_packs);
    let store = Store::open_in(environment(vfs.clone(), 2), "/store").unwrap();
    assert_restores(&store, &second.id, &image);
    ops::rebuild_index(&store, &NoProgress).unwrap();
    assert_restores(&store, &second.id, &image);
    // The first revision is healed with it.
    assert_restores(&store, &first.id, &image);
    assert_eq!(purge_now(&store).removed_packs, 2);
    assert_restores(&store, &second.id, &image);
}

#[test]
fn distrust_has_its_effect_once() {
    let (vfs, store) = new_store(&StoreOptions::default());
    let image = random_image(1, 1 << 20);
    let first = back_up(&store, "disk", &image);
    distrust(&store, first.id);
    back_up(&store, "disk", &image);
    let (stats, cost) = cost_of(&vfs, || back_up(&store, "disk", &image));
    assert_eq!((stats.statistics.new_bytes, cost.packs), (0, 0));
}

#[test]
fn chunk_with_two_copies_survives_the_loss_of_either() {
    let (vfs, store) = new_store(&small_chunks());
    let image = random_image(1, 300_000);
    let first = back_up(&store, "disk", &image).id;
    let old_packs = packs(&vfs);
    distrust(&store, first);
    let second = back_up(&store, "disk", &image).id;
    let new_packs: Vec<_> =
        packs(&vfs).into_iter().filter(|pack| !old_packs.contains(pack)).collect();
    for lost in [old_packs, new_packs] {
        let vfs = vfs.snapshot();
        for pack in &lost {
            vfs.remove_file(pack).unwrap();
        }
        for id in [first, second] {
            // A new handle each time: none has found out yet what is missing.
            let store = Store::open_in(environment(vfs.clone(), 2), "/store").unwrap();
            assert_restores(&store, &id, &image);
        }
        let store = Store::open_in(environment(vfs, 3), "/store").unwrap();
        assert_sound(&store, &[first, second]);
    }
}
