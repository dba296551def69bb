//! Reading at random through a cache that readers share: it never lies, stays in its bound, and survives damage and purges.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use chunkstore::error::{Error, ObjectName};
use chunkstore::format::{FormatError, RecordHeader, Trust};
use chunkstore::id::{ChunkId, PackId, RevisionId};
use chunkstore::image_reader::{Allocation, ChunkCache, Extent, ImageReader, Run};
use chunkstore::ops;
use chunkstore::progress::NoProgress;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::vfs::simulated::{CallKind, FaultPlan, SimulatedVfs, environment};
use proptest::prelude::*;
use support::model_store::{
    Numbers, SparseImage, assert_reads, back_up, purge_now, random_image, small_chunks,
};
use support::simulated_store::{describe, files_below};

use crate::quarantine::find_records;

const MIB: u64 = 1 << 20;
const SPAN_LEN: u64 = 64 * MIB;

fn new_store(options: &StoreOptions) -> (SimulatedVfs, Store) {
    let vfs = SimulatedVfs::new();
    let store = Store::create_in(environment(vfs.clone(), 1), "/store", options).unwrap();
    (vfs, store)
}

fn open(store: &Store, id: &RevisionId, cache: &Arc<ChunkCache>) -> ImageReader {
    ImageReader::open_with_cache(store, id, Arc::clone(cache)).unwrap()
}

/// Runs an operation and returns how many bytes it read from packs.
fn pack_bytes_read<R>(vfs: &SimulatedVfs, operation: impl FnOnce() -> R) -> (R, u64) {
    vfs.set_faults(FaultPlan::none());
    let result = operation();
    let calls = vfs.calls().into_iter();
    let reads = calls
        .filter(|call| call.kind == CallKind::ReadExactAt && call.path.starts_with("/store/packs"));
    (result, reads.map(|call| call.len).sum())
}

fn truth(image: &SparseImage, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    image.read(offset, &mut bytes);
    bytes
}

/// Some spans: data, zeros, a span without data, and an end that is no multiple of anything.
fn mixed_image() -> SparseImage {
    let mut image = SparseImage::new(3 * SPAN_LEN + 12_345);
    for (seed, offset) in [0, SPAN_LEN - 150_000, SPAN_LEN, 3 * SPAN_LEN].into_iter().enumerate() {
        image.write(offset, &Numbers(seed as u64).bytes(200_000));
    }
    image
}

/// Returns offsets at which something of [`mixed_image`] happens.
fn places() -> impl Strategy<Value = (u64, u64)> {
    let near = prop::sample::select(vec![0, SPAN_LEN, 2 * SPAN_LEN, 3 * SPAN_LEN]);
    (near, 0..400_000_u64, 0..20_000_u64).prop_map(|(near, shift, len)| {
        let offset = (near + shift).saturating_sub(200_000).min(3 * SPAN_LEN + 12_345);
        (offset, len.min(3 * SPAN_LEN + 12_345 - offset))
    })
}

#[test]
fn quick_read_gives_what_a_read_gives_or_nothing() {
    let (vfs, store) = new_store(&small_chunks());
    let image = mixed_image();
    let id = back_up(&store, "disk", &image).id;
    // Room for a part of the chunks: some are at hand, some not.
    let cache = Arc::new(ChunkCache::new(400_000));
    let reader = open(&store, &id, &cache);
    let (hits, misses) = (Cell::new(0), Cell::new(0));
    proptest!(ProptestConfig::with_cases(800), |(place in places(), is_read in any::<bool>())| {
        let (offset, len) = place;
        let expected = truth(&image, offset, len);
        let mut buffer = vec![0xaa; expected.len()];
        let (is_there, read) = pack_bytes_read(&vfs, || reader.try_read_at(&mut buffer, offset));
        prop_assert_eq!(read, 0, "nothing is read");
        if is_there.unwrap() {
            prop_assert!(buffer == expected, "{} bytes at {}", len, offset);
            hits.set(hits.get() + 1);
        } else {
            prop_assert!(buffer.iter().all(|byte| *byte == 0xaa), "the buffer is as it was");
            misses.set(misses.get() + 1);
            if is_read {
                reader.read_exact_at(&mut buffer, offset).unwrap();
                prop_assert!(buffer == expected, "{} bytes at {}", len, offset);
            }
        }
        prop_assert!(cache.byte_len() <= cache.byte_len_max());
    });
    let counts = (hits.get(), misses.get());
    assert!(100 < counts.0 && 100 < counts.1, "{counts:?}");
    let mut one = [0];
    for offset in [image.len(), u64::MAX] {
        let result = reader.try_read_at(&mut one, offset);
        assert!(matches!(result, Err(Error::InvalidOption { .. })), "{result:?}");
    }
    assert!(reader.try_read_at(&mut [], image.len()).unwrap());
}

#[test]
fn allocation_says_what_extents_say_up_to_a_count() {
    let (_, store) = new_store(&small_chunks());
    let image = mixed_image();
    let id = back_up(&store, "disk", &image).id;
    let reader = ImageReader::open(&store, &id).unwrap();
    proptest!(ProptestConfig::with_cases(200), |(place in places(), count_max in 0..4_usize)| {
        let (offset, _) = place;
        let mut expected: Vec<Allocation> = Vec::new();
        for extent in reader.extents(offset, image.len() - offset).unwrap() {
            let (range, is_zero) = match extent {
                Extent::Data { range, .. } => (range, false),
                Extent::Zero { range } => (range, true),
            };
            let len = range.end - range.start;
            match expected.last_mut() {
                Some(last) if last.is_zero == is_zero => last.len += len,
                _ => expected.push(Allocation { len, is_zero }),
            }
        }
        let len = image.len() - offset;
        prop_assert_eq!(&reader.allocation(offset, len, usize::MAX).unwrap(), &expected);
        expected.truncate(count_max);
        prop_assert_eq!(&reader.allocation(offset, len, count_max).unwrap(), &expected);
    });
}

#[test]
fn readers_of_revisions_share_what_these_have_in_common() {
    let (vfs, store) = new_store(&small_chunks());
    let mut image = random_image(1, 100_000);
    let first = back_up(&store, "disk", &image).id;
    image.write(50_000, b"changed");
    let second = back_up(&store, "disk", &image).id;
    let cache = Arc::new(ChunkCache::new(8 << 20));
    let readers = [&first, &second].map(|id| open(&store, id, &cache));
    let mut buffer = vec![0; 100_000];
    let (_, whole) = pack_bytes_read(&vfs, || readers[0].read_exact_at(&mut buffer, 0).unwrap());
    let (_, again) = pack_bytes_read(&vfs, || readers[1].read_exact_at(&mut buffer, 0).unwrap());
    assert!(buffer == image.to_vec());
    assert!(0 < again && again < whole / 5, "{again} of {whole}");
    let held = cache.byte_len();
    drop(readers);
    assert_eq!(cache.byte_len(), held, "what is in the cache outlives the readers");
    let (_, third) = pack_bytes_read(&vfs, || {
        assert!(open(&store, &second, &cache).try_read_at(&mut buffer, 0).unwrap());
    });
    assert!(third < 1000, "the root only: {third}");
    let other = Store::create_in(environment(vfs, 2), "/other", &small_chunks()).unwrap();
    let id = back_up(&other, "disk", &image).id;
    let refused = ImageReader::open_with_cache(&other, &id, cache);
    assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{refused:?}");
}

#[test]
fn prefetch_brings_what_is_read_next_and_no_more_than_a_part_of_the_cache() {
    let (vfs, store) = new_store(&small_chunks());
    let mut image = random_image(1, 300_000);
    image.resize(2 * SPAN_LEN);
    let id = back_up(&store, "disk", &image).id;
    let cache = Arc::new(ChunkCache::new(1 << 20));
    let reader = open(&store, &id, &cache);
    assert_eq!(reader.prefetch(1000, 20_000), 20_000);
    let mut buffer = vec![0; 20_000];
    assert!(reader.try_read_at(&mut buffer, 1000).unwrap());
    assert!(buffer == truth(&image, 1000, 20_000));
    let (_, read) = pack_bytes_read(&vfs, || reader.prefetch(1000, 20_000));
    assert_eq!(read, 0, "it is there already");
    let held = cache.byte_len();
    let passed = reader.prefetch(0, u64::MAX);
    assert!((50_000..150_000).contains(&passed), "{passed}");
    assert!(cache.byte_len() - held < (1 << 20) / 8);
    // What lies beyond is empty, and costs nothing.
    assert_eq!(reader.prefetch(SPAN_LEN + 7, u64::MAX), SPAN_LEN - 7);
    assert_eq!(reader.prefetch(2 * SPAN_LEN, 100), 0);
    assert_eq!(reader.prefetch(u64::MAX, u64::MAX), 0);
}

#[test]
fn many_threads_read_through_a_small_cache_while_packs_are_moved_and_swept() {
    let (_, store) = new_store(&small_chunks());
    let mut image = random_image(1, 400_000);
    let mut ids = vec![back_up(&store, "disk", &image).id];
    for round in 0..4 {
        image.write(round * 90_000, &Numbers(round).bytes(40_000));
        ids.push(back_up(&store, "disk", &image).id);
    }
    let cache = Arc::new(ChunkCache::new(150_000));
    let reader = open(&store, ids.last().unwrap(), &cache);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..3 {
            let (reader, image, is_over, cache) = (&reader, &image, &is_over, &cache);
            scope.spawn(move || {
                let mut numbers = Numbers(seed);
                let mut count = 0;
                while count < 300 || !is_over.load(Ordering::Relaxed) {
                    let offset = numbers.below(390_000);
                    let len = numbers.below(9000);
                    let mut buffer = vec![0; usize::try_from(len).unwrap()];
                    if !reader.try_read_at(&mut buffer, offset).unwrap() {
                        reader.read_exact_at(&mut buffer, offset).unwrap();
                    }
                    assert!(buffer == truth(image, offset, len), "{len} bytes at {offset}");
                    reader.prefetch(numbers.below(400_000), 10_000);
                    assert!(cache.byte_len() <= cache.byte_len_max());
                    count += 1;
                }
            });
        }
        // All go, also the one that is read: it is pinned.
        for id in &ids {
            ops::forget(&store, &[*id]).unwrap();
            purge_now(&store);
        }
        ops::rebuild_index(&store, &NoProgress).unwrap();
        is_over.store(true, Ordering::Relaxed);
    });
    assert_reads(&reader, &image);
}

#[test]
fn places_that_a_purge_has_changed_are_looked_up_again_once() {
    let (vfs, store) = new_store(&small_chunks());
    let image = random_image(1, 400_000);
    let old = back_up(&store, "old", &image).id;
    let mut kept = image.clone();
    kept.write(40_000, &Numbers(2).bytes(360_000));
    let id = back_up(&store, "disk", &kept).id;
    // Pages stay in the cache, chunks do not.
    let cache = Arc::new(ChunkCache::new(40_000));
    let reader = open(&store, &id, &cache);
    assert_reads(&reader, &kept);
    ops::forget(&store, &[old]).unwrap();
    assert!(0 < purge_now(&store).repacked_packs);
    assert_reads(&reader, &kept);
    vfs.set_faults(FaultPlan::none());
    assert_reads(&reader, &kept);
    let missed = vfs.calls().into_iter().filter(|call| {
        call.kind == CallKind::Open
            && call.path.starts_with("/store/packs")
            && vfs.read_all(&call.path).is_err()
    });
    assert_eq!(missed.count(), 0, "nobody looks for a pack that is gone");
}

#[test]
fn lookups_see_what_other_handles_have_committed() {
    let (vfs, store) = new_store(&small_chunks());
    let image = random_image(1, 300_000);
    let mut kept = image.clone();
    kept.write(40_000, &Numbers(2).bytes(260_000));
    let mut olds = vec![back_up(&store, "old", &image).id];
    let id = back_up(&store, "disk", &kept).id;
    let other = |seed| Store::open_in(environment(vfs.clone(), seed), "/store").unwrap();
    // Nothing is kept but the database of the index.
    let reader = open(&store, &id, &Arc::new(ChunkCache::new(1)));
    for round in 0..3 {
        assert_reads(&reader, &kept);
        ops::forget(&other(10 + round), &[olds.pop().unwrap()]).unwrap();
        let repacked = purge_now(&other(20 + round)).repacked_packs;
        assert!(round != 0 || 0 < repacked);
        vfs.set_faults(FaultPlan::none());
        assert_reads(&reader, &kept);
        let strayed = vfs.calls().into_iter().filter(|call| {
            call.path.starts_with("/store/packs") && vfs.read_all(&call.path).is_err()
        });
        assert_eq!(strayed.count(), 0, "nobody looks for a pack that is gone");
        ops::rebuild_index(&other(30 + round), &NoProgress).unwrap();
        let mut more = kept.clone();
        more.write(0, &Numbers(50 + round).bytes(30_000));
        olds.push(back_up(&other(40 + round), "old", &more).id);
    }
}

/// Returns the chunk with a byte, and its range.
fn chunk_at(reader: &ImageReader, offset: u64) -> (ChunkId, Range<u64>) {
    let extents = reader.extents(offset, 1).unwrap();
    let [Extent::Data { id, .. }] = &extents[..] else { panic!("{extents:?}") };
    let all = reader.extents(0, reader.len()).unwrap().into_iter();
    let mut found = all.filter_map(|extent| match extent {
        Extent::Data { range, .. } if range.contains(&offset) => Some(range),
        Extent::Data { .. } | Extent::Zero { .. } => None,
    });
    (*id, found.next().unwrap())
}

/// Flips a bit of the only copy of a chunk.
fn flip(vfs: &SimulatedVfs, chunk: &ChunkId) -> PackId {
    let records = find_records(vfs, chunk);
    let [(path, pack, record)] = &records[..] else { panic!("one copy") };
    vfs.flip(path, u64::from(record.offset.0) + RecordHeader::LEN as u64 + 3, 4).unwrap();
    *pack
}

#[test]
fn damaged_chunk_is_named_set_aside_and_marked_when_it_is_met() {
    let (vfs, store) = new_store(&small_chunks());
    let image = random_image(1, 200_000);
    let ids = ["a", "b"].map(|source| back_up(&store, source, &image).id);
    let trusts = || ids.map(|id| store.revision(&id).unwrap().state.trust);
    let cache = Arc::new(ChunkCache::new(8 << 20));
    let reader = open(&store, &ids[0], &cache);
    let ((at_hand, cached), (lost, range)) = (chunk_at(&reader, 1000), chunk_at(&reader, 100_000));
    let mut buffer = [0; 10];
    reader.read_exact_at(&mut buffer, 1000).unwrap();
    let packs = [at_hand, lost].map(|chunk| flip(&vfs, &chunk));
    // What was read and checked before is still right.
    assert!(reader.try_read_at(&mut buffer, 1000).unwrap());
    assert!(buffer[..] == truth(&image, 1000, 10)[..] && cached.contains(&1000));

    assert_eq!(reader.prefetch(100_000, 10), 0, "no error, but not passed either");
    assert_eq!(trusts(), [Trust::Damaged; 2], "of all that need it");
    for _ in 0..200 {
        assert!(!reader.try_read_at(&mut buffer, range.start).unwrap());
        let error = reader.read_exact_at(&mut buffer, range.start).unwrap_err();
        let Error::Damaged { object: ObjectName::Chunk { id, pack }, source } = &error else {
            panic!("{}", describe(&error));
        };
        assert_eq!((*id, *pack), (lost, Some(packs[1])));
        assert!(matches!(source, FormatError::Quarantined { .. }), "{}", describe(&error));
    }
    assert_eq!(files_below(&vfs, "quarantine").len(), 1, "it is set aside once");
    let mut before = [0; 10];
    reader.read_exact_at(&mut before, range.start - 10).unwrap();
    assert!(before[..] == truth(&image, range.start - 10, 10)[..], "its neighbours are read");

    // A backup of the same bytes heals it for readers that are open, too.
    let healed = back_up(&store, "c", &image).healed;
    assert_eq!(healed.len(), 2);
    reader.read_exact_at(&mut buffer, 100_000).unwrap();
    assert!(buffer[..] == truth(&image, 100_000, 10)[..]);
    // The other chunk is damaged still, and found by a reader that has not read it before.
    let fresh = ImageReader::open(&store, &ids[1]).unwrap();
    let error = fresh.read_exact_at(&mut buffer, 1000).unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { object: ObjectName::Chunk { id, pack }, .. }
        if (*id, *pack) == (at_hand, Some(packs[0]))),
        "{}",
        describe(&error)
    );
    assert_eq!(trusts(), [Trust::Damaged; 2]);
}

#[test]
fn lost_packs_end_no_reader_and_all_threads_get_the_error() {
    let (vfs, store) = new_store(&small_chunks());
    let image = random_image(1, 200_000);
    let id = back_up(&store, "disk", &image).id;
    let cache = Arc::new(ChunkCache::new(8 << 20));
    // Another handle, which has no pack open.
    let store = Store::open_in(environment(vfs.clone(), 2), "/store").unwrap();
    let reader = open(&store, &id, &cache);
    let (chunk, range) = chunk_at(&reader, 100_000);
    let [(path, pack, _)] = &find_records(&vfs, &chunk)[..] else { panic!("one copy") };
    let bytes = vfs.read_all(path).unwrap();
    vfs.remove(path).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let error = reader.read_exact_at(&mut [0; 10], range.start).unwrap_err();
                let Error::Missing { object: ObjectName::Chunk { id, pack: found } } = &error
                else {
                    panic!("{}", describe(&error));
                };
                assert_eq!((*id, *found), (chunk, Some(*pack)));
            });
        }
    });
    assert_eq!(store.revision(&id).unwrap().state.trust, Trust::Damaged);
    // Whoever puts it back is believed at once.
    vfs.write_raw(path, bytes).unwrap();
    assert_reads(&reader, &image);
}

/// Compares the runs with the truth of both images.
fn assert_changes(newer: (&ImageReader, &[u8]), older: (&ImageReader, &[u8]), part: Range<usize>) {
    let (offset, len) = (part.start as u64, part.len() as u64);
    let runs = newer.0.changes_since(older.0, offset, len, usize::MAX).unwrap();
    assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), len);
    assert!(runs.iter().all(|run| run.len != 0));
    assert!(runs.windows(2).all(|pair| pair[0].is_changed != pair[1].is_changed), "{runs:?}");
    let mut position = part.start;
    for run in &runs {
        let end = position + usize::try_from(run.len).unwrap();
        if !run.is_changed {
            let same = older.1.get(position..end).is_some_and(|old| old == &newer.1[position..end]);
            assert!(same, "{position}..{end}");
        }
        position = end;
    }
    for count_max in [0, 1, 2, 5] {
        let first = newer.0.changes_since(older.0, offset, len, count_max).unwrap();
        assert_eq!(first[..], runs[..runs.len().min(count_max)]);
    }
}

#[test]
fn changes_cover_all_that_differs() {
    let (_, store) = new_store(&small_chunks());
    let mut numbers = Numbers(5);
    let mut image = random_image(1, 150_000);
    let mut revisions = Vec::new();
    for round in 0..8 {
        let id = back_up(&store, ["a", "b"][round % 2], &image).id;
        revisions.push((ImageReader::open(&store, &id).unwrap(), image.to_vec()));
        image.resize(numbers.below(200_000));
        for _ in 0..numbers.below(4) {
            let start = numbers.below(image.len() + 1);
            if numbers.below(2) == 0 {
                image.clear(start..(start + numbers.below(90_000)).min(image.len()).max(start));
            } else {
                let len = usize::try_from(numbers.below(3000)).unwrap();
                image.write(start, &numbers.bytes(len));
            }
        }
    }
    for (newer, new) in &revisions {
        for (older, old) in &revisions {
            for _ in 0..10 {
                let start = usize::try_from(numbers.below(new.len() as u64 + 1)).unwrap();
                let len = usize::try_from(numbers.below((new.len() - start) as u64 + 1)).unwrap();
                assert_changes((newer, new), (older, old), start..start + len);
            }
            assert_changes((newer, new), (older, old), 0..new.len());
        }
        let same = newer.changes_since(newer, 0, newer.len(), 9).unwrap();
        assert!(same.iter().all(|run| !run.is_changed) && same.len() <= 1, "{same:?}");
        let beyond = newer.changes_since(newer, newer.len(), 1, 9);
        assert!(matches!(beyond, Err(Error::InvalidOption { .. })), "{beyond:?}");
    }
}

#[test]
fn changes_are_found_without_reading_what_is_shared() {
    let (vfs, store) = new_store(&small_chunks());
    let mut image = SparseImage::new(8 * SPAN_LEN);
    for span in 0..6 {
        image.write(span * SPAN_LEN, &Numbers(span).bytes(100_000));
    }
    let older = ImageReader::open(&store, &back_up(&store, "disk", &image).id).unwrap();
    image.write(3 * SPAN_LEN + 50_000, b"changed");
    image.write(7 * SPAN_LEN, &Numbers(9).bytes(4096));
    image.resize(9 * SPAN_LEN + 5);
    let newer = ImageReader::open(&store, &back_up(&store, "disk", &image).id).unwrap();
    let (runs, read) =
        pack_bytes_read(&vfs, || newer.changes_since(&older, 0, newer.len(), 100).unwrap());
    let [before, changed, between, written, after, beyond] = &runs[..] else { panic!("{runs:?}") };
    let is_changed = [before, changed, between, written, after, beyond].map(|run| run.is_changed);
    assert_eq!(is_changed, [false, true, false, true, false, true]);
    assert!((3 * SPAN_LEN..=3 * SPAN_LEN + 50_000).contains(&before.len), "{runs:?}");
    assert!(changed.len <= 5 * 4096, "{runs:?}");
    assert_eq!(before.len + changed.len + between.len, 7 * SPAN_LEN);
    assert_eq!([*written, *beyond].map(|run| run.len), [4096, SPAN_LEN + 5]);
    assert_eq!(*after, Run { len: SPAN_LEN - 4096, is_changed: false });
    // Three pages of at most 100000 / 64 entries.
    assert!(0 < read && read < 3 * 60_000, "{read}");
    let backwards = older.changes_since(&newer, 0, older.len(), 100).unwrap();
    assert_eq!(backwards[..], runs[..5]);
}
