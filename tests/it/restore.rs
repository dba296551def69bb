//! How a restore reads and writes: in the order of storage, each chunk once, by several threads.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use chunkstore::error::Error;
use chunkstore::format::PackHeader;
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, RestoreError, RestoreOptions, RestoreStats};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::target::{BLOCK_LEN, StreamTarget, Target, TargetError};
use chunkstore::vfs::simulated::{CallKind, FaultPlan, SimulatedVfs, environment};
use support::model_store::{ImageTarget, Numbers, SparseImage, assert_same, back_up, small_chunks};

const MIB: u64 = 1 << 20;
const SPAN_LEN: u64 = 64 * MIB;

fn new_store() -> (SimulatedVfs, Store) {
    let vfs = SimulatedVfs::new();
    let store = Store::create_in(environment(vfs.clone(), 1), "/store", &small_chunks()).unwrap();
    (vfs, store)
}

fn options(threads: usize) -> RestoreOptions {
    RestoreOptions { threads: NonZero::new(threads), ..RestoreOptions::default() }
}

/// Returns the ranges of data packs that an operation reads, in its order.
fn pack_reads<R>(vfs: &SimulatedVfs, operation: impl FnOnce() -> R) -> Vec<(PathBuf, Range<u64>)> {
    vfs.set_faults(FaultPlan::none());
    operation();
    let header_len = PackHeader::LEN as u64;
    vfs.calls()
        .into_iter()
        .filter(|call| call.kind == CallKind::ReadExactAt && call.path.starts_with("/store/packs"))
        // What the opening of a store and its index reads is no chunk.
        .filter(|call| header_len <= call.offset)
        .map(|call| (call.path, call.offset..call.offset + call.len))
        .collect()
}

/// Returns an image whose pieces of 1 MiB lie in the opposite order of the store, in every second span.
fn reversed_image(store: &Store) -> (SparseImage, RevisionId) {
    let content = Numbers(7).bytes(12 << 20);
    let pieces: Vec<&[u8]> = content.chunks(1 << 20).collect();
    let mut image = SparseImage::new(25 * SPAN_LEN);
    for (place, piece) in (0..).zip(&pieces) {
        image.write(2 * place * SPAN_LEN, piece);
    }
    back_up(store, "forward", &image);
    let mut reversed = SparseImage::new(25 * SPAN_LEN);
    for (place, piece) in (0..).zip(pieces.iter().rev()) {
        reversed.write(2 * place * SPAN_LEN, piece);
    }
    let stats = back_up(store, "backward", &reversed);
    assert_eq!(stats.statistics.new_chunks, 0);
    (reversed, stats.id)
}

#[test]
fn packs_are_read_in_the_order_of_storage_and_neighbours_at_once() {
    let (vfs, store) = new_store();
    let (image, id) = reversed_image(&store);
    let target = ImageTarget::default();
    let reads =
        pack_reads(&vfs, || ops::restore(&store, &id, &target, &options(1), &NoProgress).unwrap());
    assert_same(&target.into_image(), &image);
    let mut by_pack: BTreeMap<PathBuf, Vec<Range<u64>>> = BTreeMap::new();
    for (path, range) in reads {
        by_pack.entry(path).or_default().push(range);
    }
    // The pack with the data is the one that most bytes are read from.
    let data = by_pack
        .into_values()
        .max_by_key(|reads| reads.iter().map(|r| r.end - r.start).sum::<u64>());
    let data = data.unwrap();
    assert!(data.iter().is_sorted_by(|one, next| one.end <= next.start), "{data:?}");
    let bytes: u64 = data.iter().map(|read| read.end - read.start).sum();
    assert!(12 * MIB <= bytes, "{bytes}");
    assert!(data.len() <= 4, "{} reads of {bytes} bytes", data.len());
}

#[test]
fn chunk_that_is_needed_in_many_places_is_read_once() {
    let (vfs, store) = new_store();
    let content = Numbers(3).bytes(1 << 20);
    let mut image = SparseImage::new(9 * SPAN_LEN);
    for span in 0..9 {
        image.write(span * SPAN_LEN + 4096 * span, &content);
    }
    let id = back_up(&store, "disk", &image).id;
    for threads in [1, 4] {
        let target = ImageTarget::default();
        let reads = pack_reads(&vfs, || {
            ops::restore(&store, &id, &target, &options(threads), &NoProgress).unwrap()
        });
        assert_same(&target.into_image(), &image);
        let bytes: u64 = reads.iter().map(|(_, read)| read.end - read.start).sum();
        assert!(bytes < 3 * MIB / 2, "{bytes} bytes");
    }
}

#[test]
fn index_that_is_wrong_about_a_place_costs_no_byte() {
    let (vfs, store) = new_store();
    let (image, id) = reversed_image(&store);
    let packs: Vec<PathBuf> = vfs
        .all_files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.starts_with("/store/packs"))
        .collect();
    // Every pack in turn is gone when it is read and comes back with its bytes damaged in one place.
    for path in packs {
        let damaged = vfs.snapshot();
        let len = damaged.read_all(&path).unwrap().len() as u64;
        damaged.flip(&path, len / 2, 0x10).unwrap();
        let store = Store::open_in(environment(damaged, 2), "/store").unwrap();
        let target = ImageTarget::default();
        let result = ops::restore(&store, &id, &target, &options(2), &NoProgress);
        match result {
            Ok(_) => assert_same(&target.into_image(), &image),
            Err(RestoreError::Store(error)) => assert!(error.is_damage(), "{error}"),
            Err(other) => panic!("{other}"),
        }
    }
    drop(store);
}

/// A target in memory that an option of the restore is about.
struct MemoryDisk {
    bytes: Mutex<Vec<u8>>,
    /// Reads back something else than was written.
    lies: AtomicBool,
    /// The same of one byte only.
    lies_about: AtomicU64,
    /// Bytes whose address did not agree with their offset, and all others.
    misaligned: Mutex<(u64, u64)>,
}

impl MemoryDisk {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Mutex::new(bytes),
            lies: AtomicBool::new(false),
            lies_about: AtomicU64::new(u64::MAX),
            misaligned: Mutex::default(),
        }
    }
}

impl Target for MemoryDisk {
    fn name(&self) -> &'static str {
        "disk in memory"
    }

    fn prepare(&self, len: u64) -> Result<(), TargetError> {
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0xee);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError> {
        let is_aligned =
            bytes.as_ptr().addr() % BLOCK_LEN == usize::try_from(offset).unwrap() % BLOCK_LEN;
        let mut counts = self.misaligned.lock().unwrap();
        let count = if is_aligned { &mut counts.1 } else { &mut counts.0 };
        *count += bytes.len() as u64;
        let start = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
        self.bytes.lock().unwrap()[range].fill(0);
        Ok(())
    }

    fn read_current_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool, TargetError> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes.lock().unwrap()[start..start + buffer.len()]);
        Ok(true)
    }

    fn finish(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), TargetError> {
        self.read_current_at(buffer, offset)?;
        if self.lies.load(Ordering::Relaxed) {
            buffer[0] ^= 1;
        }
        let lie = self.lies_about.load(Ordering::Relaxed).checked_sub(offset);
        let lie = lie.and_then(|lie| usize::try_from(lie).ok()).and_then(|lie| buffer.get_mut(lie));
        if let Some(byte) = lie {
            *byte ^= 1;
        }
        Ok(())
    }
}

fn image_of_data_and_zeros() -> SparseImage {
    let mut image = SparseImage::new(20 * MIB + 1234);
    image.write(0, &Numbers(5).bytes(3 << 20));
    image.write(8 * MIB + 4096, &Numbers(6).bytes((2 << 20) + 77));
    image.write(20 * MIB + 1000, &Numbers(8).bytes(234));
    image
}

#[test]
fn delta_reads_back_what_it_wrote() {
    let (_vfs, store) = new_store();
    let image = image_of_data_and_zeros();
    let id = back_up(&store, "disk", &image).id;
    let mut other = image.to_vec();
    other[9 << 20] ^= 1;
    other[5 << 20] = 7;
    let delta = RestoreOptions { delta: true, ..options(2) };
    let disk = MemoryDisk::new(other);
    let stats = ops::restore(&store, &id, &disk, &delta, &NoProgress).unwrap();
    assert!(*disk.bytes.lock().unwrap() == image.to_vec());
    assert!(0 < stats.written_bytes && stats.written_bytes < MIB, "{stats:?}");

    // A second run finds nothing to write, so there is nothing to read back either.
    disk.lies.store(true, Ordering::Relaxed);
    let stats = ops::restore(&store, &id, &disk, &delta, &NoProgress).unwrap();
    assert_eq!(stats.written_bytes, 0);
    disk.bytes.lock().unwrap()[9 << 20] ^= 1;
    let result = ops::restore(&store, &id, &disk, &delta, &NoProgress);
    let Err(RestoreError::Target(TargetError::ReadBack { offset, .. })) = result else {
        panic!("{result:?}");
    };
    assert!(offset <= 9 << 20 && 9 << 20 < offset + MIB, "{offset}");

    // So are zeros.
    disk.lies.store(false, Ordering::Relaxed);
    ops::restore(&store, &id, &disk, &delta, &NoProgress).unwrap();
    disk.bytes.lock().unwrap()[5 << 20] = 7;
    disk.lies_about.store(5 << 20, Ordering::Relaxed);
    let result = ops::restore(&store, &id, &disk, &delta, &NoProgress);
    let Err(RestoreError::Target(TargetError::ReadBack { offset, .. })) = result else {
        panic!("{result:?}");
    };
    assert!(offset <= 5 << 20 && 5 << 20 < offset + 2 * MIB, "{offset}");
    disk.lies_about.store(u64::MAX, Ordering::Relaxed);
    ops::restore(&store, &id, &disk, &delta, &NoProgress).unwrap();
    assert!(*disk.bytes.lock().unwrap() == image.to_vec());
}

#[test]
fn reading_back_finds_data_and_zeros_that_differ() {
    let (_vfs, store) = new_store();
    let image = image_of_data_and_zeros();
    let id = back_up(&store, "disk", &image).id;
    let read_back = RestoreOptions { read_back: true, ..options(2) };
    let disk = MemoryDisk::new(Vec::new());
    ops::restore(&store, &id, &disk, &read_back, &NoProgress).unwrap();
    disk.lies.store(true, Ordering::Relaxed);
    let result = ops::restore(&store, &id, &disk, &read_back, &NoProgress);
    assert!(
        matches!(result, Err(RestoreError::Target(TargetError::ReadBack { .. }))),
        "{result:?}"
    );
    let zeros = back_up(&store, "zeros", &SparseImage::new(3 * MIB)).id;
    let result = ops::restore(&store, &zeros, &disk, &read_back, &NoProgress);
    assert!(
        matches!(result, Err(RestoreError::Target(TargetError::ReadBack { .. }))),
        "{result:?}"
    );
}

#[test]
fn memory_that_is_written_lies_like_the_bytes_of_the_target() {
    let (_vfs, store) = new_store();
    let image = image_of_data_and_zeros();
    let id = back_up(&store, "disk", &image).id;
    let disk = MemoryDisk::new(Vec::new());
    ops::restore(&store, &id, &disk, &options(2), &NoProgress).unwrap();
    let (misaligned, aligned) = *disk.misaligned.lock().unwrap();
    assert_eq!(misaligned, 0);
    assert!(5 * MIB <= aligned, "{aligned}");
}

/// A pipe that may break.
#[derive(Clone, Default)]
struct Pipe {
    bytes: Arc<Mutex<Vec<u8>>>,
    breaks_at: Option<usize>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = self.bytes.lock().unwrap();
        if self.breaks_at.is_some_and(|end| end < taken.len() + bytes.len()) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn restore_to_pipe(
    store: &Store,
    id: &RevisionId,
    pipe: &Pipe,
    options: &RestoreOptions,
) -> Result<RestoreStats, RestoreError> {
    let target = StreamTarget::new("a pipe".to_owned(), Box::new(pipe.clone()));
    ops::restore(store, id, &target, options, &NoProgress)
}

/// Returns an image of many windows in several spans.
fn long_image() -> SparseImage {
    let mut image = SparseImage::new(2 * SPAN_LEN + 12345);
    image.write(0, &Numbers(1).bytes(13 << 20));
    image.write(SPAN_LEN - MIB, &Numbers(2).bytes(10 << 20));
    image.write(2 * SPAN_LEN + 300, &Numbers(3).bytes(12045));
    image
}

#[test]
fn stream_gets_the_image_in_order_from_any_number_of_threads() {
    let (_vfs, store) = new_store();
    let image = long_image();
    let id = back_up(&store, "disk", &image).id;
    let empty = back_up(&store, "empty", &SparseImage::new(0)).id;
    for threads in [1, 2, 3, 16] {
        let pipe = Pipe::default();
        let stats = restore_to_pipe(&store, &id, &pipe, &options(threads)).unwrap();
        assert!(*pipe.bytes.lock().unwrap() == image.to_vec());
        assert_eq!(stats.written_bytes + stats.zero_bytes, image.len());
        restore_to_pipe(&store, &empty, &Pipe::default(), &options(threads)).unwrap();
    }
}

#[test]
fn stream_that_breaks_ends_all_threads() {
    let (_vfs, store) = new_store();
    let image = long_image();
    let id = back_up(&store, "disk", &image).id;
    for breaks_at in [0, 5 << 20, 40 << 20, (2 << 26) + 12344] {
        for threads in [1, 4] {
            let pipe = Pipe { breaks_at: Some(breaks_at), ..Pipe::default() };
            let result = restore_to_pipe(&store, &id, &pipe, &options(threads));
            assert!(matches!(result, Err(RestoreError::Target(TargetError::Io { .. }))));
            let taken = pipe.bytes.lock().unwrap();
            assert!(*taken == image.to_vec()[..taken.len()], "what was written is a beginning");
        }
    }
}

#[test]
fn all_places_of_a_lost_chunk_are_named_whatever_the_target_is() {
    let (vfs, store) = new_store();
    let content = Numbers(3).bytes(100 << 10);
    let mut image = SparseImage::new(3 * SPAN_LEN);
    image.write(5 * MIB, &Numbers(4).bytes(300 << 10));
    for span in 0..3 {
        image.write(span * SPAN_LEN, &content);
    }
    let id = back_up(&store, "disk", &image).id;
    drop(store);
    // One byte in the record of the first chunk of the data pack, which is the longer one.
    let packs = vfs.all_files().into_iter().filter(|(path, _)| path.starts_with("/store/packs"));
    let (path, _) = packs.max_by_key(|(_, len)| *len).unwrap();
    let damaged = vfs.kill();
    damaged.flip(&path, PackHeader::LEN as u64 + 100, 1).unwrap();
    let store = Store::open_in(environment(damaged, 2), "/store").unwrap();

    let keep_going = RestoreOptions { keep_going: true, ..options(2) };
    let (disk, pipe) = (MemoryDisk::new(Vec::new()), Pipe::default());
    let to_disk = ops::restore(&store, &id, &disk, &keep_going, &NoProgress).unwrap();
    let to_pipe = restore_to_pipe(&store, &id, &pipe, &keep_going).unwrap();
    assert!(*disk.bytes.lock().unwrap() == *pipe.bytes.lock().unwrap());
    // The first one has set it aside, which the second one tells.
    let hit = |stats: &RestoreStats| -> Vec<_> {
        let damaged = stats.damaged.iter();
        damaged.map(|it| (it.chunk, it.pack, it.revisions.clone())).collect()
    };
    assert_eq!(hit(&to_disk), hit(&to_pipe));
    let [lost] = &to_disk.damaged[..] else { panic!("{:?}", to_disk.damaged) };
    let ranges = &lost.revisions[0].ranges;
    let mut expected = image.to_vec();
    for (offset, len) in ranges {
        let range = usize::try_from(*offset).unwrap()..usize::try_from(offset + len).unwrap();
        expected[range].fill(0);
    }
    assert!(*disk.bytes.lock().unwrap() == expected);
    assert!(ranges.len() == 3 || *ranges == [(5 * MIB, ranges[0].1)], "{ranges:?}");

    let read_back = RestoreOptions { read_back: true, ..keep_going };
    ops::restore(&store, &id, &disk, &read_back, &NoProgress).unwrap();
    let result = ops::restore(&store, &id, &disk, &options(2), &NoProgress);
    assert!(matches!(result, Err(RestoreError::Store(Error::Damaged { .. }))), "{result:?}");
}
