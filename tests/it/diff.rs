//! Diff of two revisions: what it finds, what it reads, and what it says of damage.

use std::ops::Range;

use chunkstore::error::Error;
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, DiffStats};
use chunkstore::progress::NoProgress;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::vfs::simulated::{CallKind, FaultPlan, SimulatedVfs, environment};
use support::model_store::{Numbers, SparseImage, back_up, small_chunks};
use support::simulated_store::{files_below, open};

const MIB: u64 = 1 << 20;
const SPAN_LEN: u64 = 64 * MIB;

/// Longest chunk of [`small_chunks`].
const CHUNK_LEN_MAX: u64 = 4096;

fn new_store(options: &StoreOptions) -> (SimulatedVfs, Store) {
    let vfs = SimulatedVfs::new();
    let store = Store::create_in(environment(vfs.clone(), 1), "/store", options).unwrap();
    (vfs, store)
}

fn diff(store: &Store, old: &RevisionId, new: &RevisionId) -> (Vec<Range<u64>>, DiffStats) {
    let mut diff = ops::diff(store, old, new, &NoProgress).unwrap();
    let ranges = diff.by_ref().collect::<Result<Vec<_>, _>>().unwrap();
    let stats = diff.stats();
    assert_eq!(stats.range_count, ranges.len() as u64);
    let sum: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert_eq!(stats.changed_bytes, sum);
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
    assert!(ranges.iter().all(|range| range.start < range.end), "{ranges:?}");
    (ranges, stats)
}

/// Returns an image of some spans with data at the start of each.
fn spans(count: u64) -> SparseImage {
    let mut image = SparseImage::new(count * SPAN_LEN);
    for span in 0..count {
        image.write(span * SPAN_LEN, &Numbers(span).bytes(100_000));
    }
    image
}

#[test]
fn all_that_differs_is_in_ranges_and_ranges_are_no_longer_than_chunks() {
    let (_, store) = new_store(&small_chunks());
    let mut numbers = Numbers(3);
    let mut image = SparseImage::of(&Numbers(1).bytes(1 << 20));
    let mut old = back_up(&store, "disk", &image).id;
    for round in 0..8 {
        let before = image.to_vec();
        let change_count = 1 + numbers.below(4);
        for _ in 0..change_count {
            let offset = numbers.below(image.len());
            image.write(offset, &numbers.bytes(10));
        }
        let new = back_up(&store, "disk", &image).id;
        let (ranges, stats) = diff(&store, &old, &new);
        for (offset, (one, other)) in (0..).zip(before.iter().zip(&image.to_vec())) {
            let is_in = ranges.iter().any(|range| range.contains(&offset));
            assert!(one == other || is_in, "round {round}: byte {offset} is not in {ranges:?}");
        }
        // A cut that moved may take the next chunks with it until the cuts meet again.
        assert!(stats.changed_bytes <= change_count * 8 * CHUNK_LEN_MAX, "{stats:?}");
        assert_eq!(diff(&store, &new, &old).0, ranges, "the other way round");
        old = new;
    }
}

#[test]
fn revision_does_not_differ_from_itself_or_its_like() {
    let (vfs, store) = new_store(&small_chunks());
    let first = back_up(&store, "a", &spans(2)).id;
    let second = back_up(&store, "b", &spans(2)).id;
    for other in [&first, &second] {
        let (ranges, stats) = diff(&store, &first, other);
        assert_eq!(ranges, Vec::<Range<u64>>::new());
        assert_eq!((stats.page_count, stats.old_size), (0, 2 * SPAN_LEN));
    }
    drop(vfs);
}

#[test]
fn only_pages_of_spans_that_differ_are_read_and_no_data() {
    let (vfs, store) = new_store(&small_chunks());
    let mut read_bytes = Vec::new();
    for count in [4, 16] {
        let mut image = spans(count);
        let name = format!("disk-{count}");
        let old = back_up(&store, &name, &image).id;
        image.write(2 * SPAN_LEN + 5000, b"changed");
        let new = back_up(&store, &name, &image).id;
        vfs.set_faults(FaultPlan::none());
        let (ranges, stats) = diff(&store, &old, &new);
        assert_eq!((ranges.len(), stats.page_count), (1, 2), "{ranges:?}");
        assert!(ranges[0].contains(&(2 * SPAN_LEN + 5000)), "{ranges:?}");
        let reads = vfs.calls().into_iter().filter(|call| {
            call.kind == CallKind::ReadExactAt && call.path.starts_with("/store/packs")
        });
        read_bytes.push(reads.map(|call| call.len).sum::<u64>());
    }
    // Two roots, whose references are 33 bytes each, and two pages.
    assert!(read_bytes[1] < read_bytes[0] + 2 * 12 * 40, "{read_bytes:?}");
}

#[test]
fn zeros_are_compared_with_zeros_and_with_data() {
    let (_, store) = new_store(&small_chunks());
    let mut image = SparseImage::new(3 * SPAN_LEN + 77);
    let empty = back_up(&store, "disk", &image).id;
    image.write(SPAN_LEN + MIB, &Numbers(1).bytes(8192));
    let written = back_up(&store, "disk", &image).id;
    let expected = SPAN_LEN + MIB..SPAN_LEN + MIB + 8192;
    assert_eq!(diff(&store, &empty, &written).0, std::slice::from_ref(&expected));
    image.clear(expected);
    let cleared = back_up(&store, "disk", &image).id;
    assert_eq!(diff(&store, &empty, &cleared).0, Vec::<Range<u64>>::new());
}

#[test]
fn images_of_different_size_are_compared_up_to_the_longer_end() {
    let (_, store) = new_store(&small_chunks());
    let mut image = spans(2);
    image.resize(SPAN_LEN + 50_000);
    let short = back_up(&store, "disk", &image).id;
    let mut longer = spans(2);
    longer.resize(SPAN_LEN + 90_000);
    let long = back_up(&store, "disk", &longer).id;
    let (ranges, stats) = diff(&store, &short, &long);
    let [range] = &ranges[..] else { panic!("{ranges:?}") };
    assert_eq!(range.end, SPAN_LEN + 90_000);
    assert!((SPAN_LEN + 50_000 - CHUNK_LEN_MAX..=SPAN_LEN + 50_000).contains(&range.start));
    assert_eq!((stats.old_size, stats.new_size), (SPAN_LEN + 50_000, SPAN_LEN + 90_000));

    let nothing = back_up(&store, "empty", &SparseImage::new(0)).id;
    let whole = 0..SPAN_LEN + 50_000;
    assert_eq!(diff(&store, &nothing, &short).0, [whole]);
    assert_eq!(diff(&store, &nothing, &nothing).0, Vec::<Range<u64>>::new());
}

#[test]
fn images_with_different_span_lengths_are_compared() {
    let (_, store) = new_store(&StoreOptions::default());
    // One span more than a root can have of the shortest ones: its spans are twice as long.
    let len = SPAN_LEN << 18;
    let data = Numbers(1).bytes(300_000);
    let mut image = SparseImage::new(len);
    image.write(SPAN_LEN, &data);
    let short = back_up(&store, "disk", &image).id;
    image.resize(len + 5 * MIB);
    let long = back_up(&store, "disk", &image).id;
    let (ranges, _) = diff(&store, &short, &long);
    assert_eq!(ranges.last(), Some(&(len..len + 5 * MIB)));
    // The data begins a span in one of them, and is behind zeros in the other: a run begins there in both.
    assert_eq!(ranges.len(), 1, "{ranges:?}");
}

#[test]
fn page_that_is_damaged_is_named_and_ends_the_comparison() {
    let (vfs, store) = new_store(&small_chunks());
    let mut image = spans(2);
    let old = back_up(&store, "disk", &image).id;
    image.write(100, b"changed");
    image.write(SPAN_LEN + 100, b"changed");
    let new = back_up(&store, "disk", &image).id;
    drop(store);
    let lists = files_below(&vfs, "packs").into_iter();
    for path in lists.filter(|path| vfs.read_all(path).unwrap().len() < 20_000) {
        // The first record of a pack with lists is a page.
        vfs.flip(&path, 200, 1).unwrap();
    }
    let store = open(&vfs, 2).unwrap();
    let mut diff = ops::diff(&store, &old, &new, &NoProgress).unwrap();
    let errors: Vec<Error> = diff.by_ref().filter_map(Result::err).collect();
    assert!(matches!(&errors[..], [Error::Damaged { .. }]), "{errors:?}");
    assert!(errors[0].to_string().starts_with("chunk "), "{errors:?}");
    assert!(diff.next().is_none());
}

#[test]
fn revisions_that_are_compared_are_kept_from_a_purge() {
    let (_, store) = new_store(&small_chunks());
    let old = back_up(&store, "disk", &spans(1)).id;
    let new = back_up(&store, "disk", &SparseImage::of(&Numbers(9).bytes(100_000))).id;
    let diff = ops::diff(&store, &old, &new, &NoProgress).unwrap();
    ops::forget(&store, &[old, new]).unwrap();
    support::model_store::purge_now(&store);
    assert!(diff.collect::<Result<Vec<_>, _>>().is_ok_and(|ranges| ranges.len() == 1));
    let gone = ops::diff(&store, &old, &new, &NoProgress);
    assert!(matches!(gone, Err(Error::NoSuchRevision { .. })));
}
