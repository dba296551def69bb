//! Bytes whose checksums are right and whose lengths and counts are hostile: whoever wrote them meant harm. The chunk or pack is named, and
//! neither memory nor work grows with what is claimed.

mod crafted;
mod frames;

use chunkstore::error::Error;
use chunkstore::format::{Codec, ObjectKind, Page, PageEntry, Root, SpanRef};
use chunkstore::id::ChunkId;
use chunkstore::image_reader::ImageReader;
use chunkstore::ops::{self, RestoreError, RestoreOptions, ScrubOptions};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::SimulatedVfs;
use support::attempt::Attempts;
use support::damage::{Sparse, SparseTarget, is_named};
use support::simulated_store::{create, describe, open, verify_all};

use self::crafted::{Crafted, PackBytes, Record, patch_and_seal};
use crate::own_process::{peak_memory, run_child};

/// Promise of the project: no operation takes more memory than this.
const MEMORY_MAX: u64 = 256 << 20;

/// Most calls of the file system for one case: a few for each record, and not for each that is claimed.
const CALLS_MAX: u64 = 5_000;

/// Length of the chunk that is hostile, unless the case says otherwise.
const LEN: u32 = 1 << 20;

/// What must come of a case.
enum Expected {
    /// Restoring fails and names the chunk, and so does a scrub.
    Named,
    /// What is there is unusual, and right.
    Right(Sparse),
    /// Either of both: the bytes are right, or it is named.
    RightOrNamed(Sparse),
    /// It is too large to be read as a whole here: it opens, and reads as zeros at both ends.
    Zeros(u64),
}

struct Case {
    name: &'static str,
    crafted: Crafted,
    expected: Expected,
}

/// Returns the bytes of the chunk that frames are made of.
fn plain() -> Vec<u8> {
    vec![b'x'; usize::try_from(LEN).unwrap()]
}

/// Returns a revision of one chunk whose record is what `change` makes of a sound one, in a pack that is changed by `change_pack`.
fn one_chunk(store: &Store, record: Record, change_pack: impl FnOnce(&mut PackBytes)) -> Crafted {
    let id = record.id;
    let mut crafted = Crafted::new(store);
    let mut pack = PackBytes::data(store, vec![record]);
    change_pack(&mut pack);
    crafted.add_pack(pack.bytes);
    crafted.add_image(store, &[PageEntry::Data { len: LEN, id }], u64::from(LEN));
    crafted
}

fn sound_record() -> Record {
    Record::new(ObjectKind::Data, Codec::Zstd, &plain(), frames::run(LEN, true))
}

fn frame_cases(store: &Store) -> Vec<Case> {
    let image = || Sparse::of(&plain());
    frames::all(LEN)
        .into_iter()
        .map(|(name, frame, is_right)| {
            let record = Record::new(ObjectKind::Data, Codec::Zstd, &plain(), frame);
            let crafted = one_chunk(store, record, |_| {});
            let expected = if is_right { Expected::RightOrNamed(image()) } else { Expected::Named };
            Case { name, crafted, expected }
        })
        .collect()
}

fn pack_cases(store: &Store) -> Vec<Case> {
    let image = || Sparse::of(&plain());
    let max = u32::MAX.to_le_bytes();
    let case = |name, change: &dyn Fn(&mut PackBytes), expected| Case {
        name,
        crafted: one_chunk(store, sound_record(), change),
        expected,
    };
    vec![
        case("sound", &|_| {}, Expected::Right(image())),
        case("plain length 2^32-1", &|pack| pack.patch_record(0, 40, &max), Expected::Named),
        case("stored length 2^32-1", &|pack| pack.patch_record(0, 44, &max), Expected::Named),
        case(
            "both lengths 2^32-1, in the table, too",
            &|pack| {
                pack.patch_record(0, 40, &[max, max].concat());
                pack.patch_entry(0, 36, &[max, max].concat());
            },
            Expected::Named,
        ),
        // Every record can still be found without the table.
        case("record count 2^32-1", &|pack| pack.patch_trailer(32, &max), Expected::Right(image())),
        case(
            "table beyond the end",
            &|pack| pack.patch_trailer(36, &max),
            Expected::Right(image()),
        ),
        case(
            "table in the header",
            &|pack| pack.patch_trailer(36, &[0; 4]),
            Expected::Right(image()),
        ),
        case(
            "table without its record",
            &|pack| pack.patch_entry(0, 32, &[0; 4]),
            Expected::Right(image()),
        ),
        case(
            "plain total 2^64-1",
            &|pack| pack.patch_trailer(40, &[0xff; 8]),
            Expected::Right(image()),
        ),
    ]
}

/// A page that claims more entries than it has.
fn page_with_count(count: u32) -> Vec<u8> {
    let entry = PageEntry::Data { len: 1, id: ObjectKind::Data.chunk_id(b"x") };
    let mut bytes = Page { entries: vec![entry] }.encode();
    bytes[16..20].copy_from_slice(&count.to_le_bytes());
    bytes
}

fn list_cases(store: &Store) -> Vec<Case> {
    let byte = Record::raw(ObjectKind::Data, b"x");
    let id = byte.id;
    let with = |list: Vec<Record>, root: ChunkId, size: u64| {
        let mut crafted = Crafted::new(store);
        crafted.add_pack(PackBytes::data(store, vec![Record::raw(ObjectKind::Data, b"x")]).bytes);
        crafted.add_pack(PackBytes::list(store, list).bytes);
        crafted.add_record(store, root, size);
        crafted
    };
    let rooted = |page: Record, image_len: u64| {
        let root = Root { image_len, span_len: 64 << 20, spans: vec![SpanRef::Page(page.id)] };
        let root = Record::raw(ObjectKind::Root, &root.encode());
        let id = root.id;
        with(vec![page, root], id, image_len)
    };
    // As many entries as 16 MiB of page hold.
    let count: u32 = 453_000;
    let entries = vec![PageEntry::Data { len: 1, id }; usize::try_from(count).unwrap()];
    let page = Record::raw(ObjectKind::Page, &Page { entries }.encode());
    let many = rooted(page, count.into());
    let span_len = 64_u64 << 20;
    let zeros = Page { entries: vec![PageEntry::Zero { len: span_len }] };
    let zeros = Record::raw(ObjectKind::Page, &zeros.encode());
    // Spans that are listed, although they are zero as a whole.
    let of_zeros = |count_log: u32| {
        let image_len = span_len << count_log;
        let spans = vec![SpanRef::Page(zeros.id); 1 << count_log];
        let root = Root { image_len, span_len, spans };
        let root = Record::raw(ObjectKind::Root, &root.encode());
        let id = root.id;
        (with(vec![zeros.clone(), root], id, image_len), image_len)
    };
    let (some_pages, some_len) = of_zeros(7);
    let (most_pages, most_len) = of_zeros(18);
    let mut root_with_count = Root { image_len: 1, span_len, spans: vec![SpanRef::Zero] }.encode();
    root_with_count[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    let root_with_count = Record::raw(ObjectKind::Root, &root_with_count);
    let bad_root = root_with_count.id;
    vec![
        Case {
            name: "page of 453000 entries",
            crafted: many,
            expected: Expected::Right(Sparse::of(&vec![b'x'; usize::try_from(count).unwrap()])),
        },
        Case {
            name: "page that claims 2^32-1 entries",
            crafted: rooted(Record::raw(ObjectKind::Page, &page_with_count(u32::MAX)), 1),
            expected: Expected::Named,
        },
        Case {
            name: "page that claims 10^6 entries",
            crafted: rooted(Record::raw(ObjectKind::Page, &page_with_count(1_000_000)), 1),
            expected: Expected::Named,
        },
        Case {
            name: "root of 2^7 pages",
            crafted: some_pages,
            expected: Expected::Right(Sparse { len: some_len, runs: Vec::new() }),
        },
        Case {
            name: "root of 2^18 pages",
            crafted: most_pages,
            expected: Expected::Zeros(most_len),
        },
        Case {
            name: "root that claims 2^32-1 pages",
            crafted: with(vec![root_with_count], bad_root, 1),
            expected: Expected::Named,
        },
    ]
}

/// Restores, verifies and scrubs what was crafted.
fn check(base: &SimulatedVfs, case: &Case) {
    let vfs = base.kill();
    case.crafted.write(&vfs);
    let store = open(&vfs, 7).unwrap();
    let id = case.crafted.revision;
    if let Expected::Zeros(len) = case.expected {
        let reader = ImageReader::open(&store, &id).unwrap();
        assert_eq!(reader.len(), len);
        for offset in [0, len / 2 - 300, len - 600] {
            let mut bytes = [0xee; 600];
            reader.read_exact_at(&mut bytes, offset).unwrap();
            assert_eq!(bytes, [0; 600]);
        }
        return check_bounds(&vfs);
    }
    let target = SparseTarget::default();
    let result = ops::restore(&store, &id, &target, &RestoreOptions::default(), &NoProgress);
    let result: Result<(), Error> = match result {
        Ok(_) => Ok(()),
        Err(RestoreError::Store(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    };
    match (&case.expected, result) {
        (Expected::Right(image) | Expected::RightOrNamed(image), Ok(())) => {
            target.check(image, case.name);
        }
        (Expected::Named | Expected::RightOrNamed(_), Err(error)) => {
            assert!(is_named(&error), "{}", describe(&error));
        }
        (Expected::Right(_), Err(error)) => panic!("{}", describe(&error)),
        (_, Ok(())) => panic!("it is restored"),
        (Expected::Zeros(_), Err(_)) => unreachable!("it was read above"),
    }
    let is_named_by_scrub = {
        let vfs = base.kill();
        case.crafted.write(&vfs);
        let store = open(&vfs, 8).unwrap();
        let stats = ops::scrub(&store, &ScrubOptions::default(), &NoProgress).unwrap();
        verify_all(&store).unwrap_or_else(|error| panic!("verify: {}", describe(&error)));
        check_bounds(&vfs);
        !stats.is_sound()
    };
    // A list that is what its id says, and makes no sense, is sound as a record: whoever reads it as a list names it.
    let is_list = case.name.contains("claims");
    let must = matches!(case.expected, Expected::Named) && !is_list;
    assert!(!must || is_named_by_scrub, "scrub does not name it");
    check_bounds(&vfs);
}

fn check_bounds(vfs: &SimulatedVfs) {
    assert!(vfs.call_count() <= CALLS_MAX, "{} calls", vfs.call_count());
    let peak = peak_memory();
    assert!(peak <= MEMORY_MAX, "{peak} bytes of memory");
}

#[test]
#[ignore = "measures memory: run in a process of its own by the test of the same name without `child`"]
fn child_hostile_lengths() {
    let base = SimulatedVfs::new();
    let store = create(&base, 1).unwrap();
    let mut attempts = Attempts::default();
    let cases = [frame_cases(&store), pack_cases(&store), list_cases(&store)].concat_cases();
    drop(store);
    for case in &cases {
        attempts.attempt(|| case.name.to_owned(), || check(&base, case));
    }
    println!("peak of memory: {} MiB", peak_memory() >> 20);
    attempts.finish("hostile lengths");
}

trait ConcatCases {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> ConcatCases for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn hostile_lengths_are_named_and_take_no_memory() {
    run_child(concat!(module_path!(), "::child_hostile_lengths").split_once("::").unwrap().1);
}

/// Seals of structures that a crafted one needs are those of the format: a sound pack that is sealed again is the same.
#[test]
fn sealing_a_sound_pack_again_changes_nothing() {
    let base = SimulatedVfs::new();
    let store = create(&base, 1).unwrap();
    let sound = PackBytes::data(&store, vec![sound_record()]);
    let mut again = PackBytes { bytes: sound.bytes.clone() };
    let count = again.bytes[again.bytes.len() - 32..again.bytes.len() - 28].to_vec();
    again.patch_trailer(32, &count);
    let plain_len = LEN.to_le_bytes();
    again.patch_record(0, 40, &plain_len);
    again.patch_entry(0, 36, &plain_len);
    assert!(again.bytes == sound.bytes);
    let mut bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    patch_and_seal(&mut bytes, 0..1, 0, &[1]);
    assert_ne!(bytes[1..9], [2, 3, 4, 5, 6, 7, 8, 9]);
}
