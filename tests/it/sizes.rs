//! Images of awkward sizes, on the real file system; and the memory that a large one takes.

use std::env;
use std::fs::{self, File};
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use chunkstore::chunking::ChunkingParams;
use chunkstore::image_reader::{Extent, ImageReader};
use chunkstore::ops::{self, BackupOptions, RestoreOptions, VerifyOptions};
use chunkstore::progress::NoProgress;
use chunkstore::source::{FileSource, Source, SourceError};
use chunkstore::store::{Store, StoreOptions};
use chunkstore::target::{FileTarget, FileTargetOptions, Target, TargetError};
use support::long_tests::choose;
use support::model_store::{Numbers, SparseImage, assert_sound, try_backup};

use crate::own_process::{CHILD_DIRECTORY, peak_memory, run_child};

#[path = "../../chunkstore/examples/embed.rs"]
#[expect(dead_code, reason = "its main function is for the command line")]
mod embed;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SPAN_LEN: u64 = 64 * MIB;

/// Promise of the project: no operation takes more memory than this, whatever the size of the image.
const MEMORY_MAX: u64 = 256 * MIB;

const SIZES: [u64; 14] = [
    0,
    1,
    511,
    513,
    4 * KIB - 1,
    4 * KIB + 1,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    4 * MIB + 1,
    SPAN_LEN - 1,
    SPAN_LEN,
    SPAN_LEN + 1,
    2 * SPAN_LEN + 4097,
];

/// What an image of some size holds.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// No byte is zero.
    Full,
    Zeros,
    /// A few bytes at both ends.
    Ends,
    /// Ends in zeros that begin within a block.
    ZeroTail,
}

fn image(content: Content, len: u64) -> SparseImage {
    let mut image = SparseImage::new(len);
    let mut numbers = Numbers(len);
    match content {
        Content::Full => {
            let bytes = numbers.bytes(usize::try_from(len).unwrap());
            image.write(0, &bytes.iter().map(|byte| byte | 1).collect::<Vec<_>>());
        }
        Content::Zeros => {}
        Content::Ends => {
            image.write(0, &numbers.bytes(10));
            image.write(len.saturating_sub(10), &[0xee; 10]);
        }
        Content::ZeroTail => {
            let len = (len / 3).min(200 * KIB);
            image.write(0, &numbers.bytes(usize::try_from(len).unwrap()));
        }
    }
    image
}

/// Writes an image to a new file, with holes.
fn write_file(path: &Path, image: &SparseImage) {
    let file = File::create_new(path).unwrap();
    file.set_len(image.len()).unwrap();
    let bytes = image.to_vec();
    for (block, bytes) in bytes.chunks(4096).enumerate() {
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(bytes, block as u64 * 4096).unwrap();
        }
    }
}

fn restore(store: &Store, id: &chunkstore::id::RevisionId, path: &Path, overwrite: bool) {
    let options = FileTargetOptions { overwrite, ..FileTargetOptions::default() };
    let target = FileTarget::open(path, &options).unwrap();
    let options = RestoreOptions { read_back: true, ..RestoreOptions::default() };
    ops::restore(store, id, &target, &options, &NoProgress).unwrap();
}

/// Returns whether the file system knows holes.
fn has_holes(directory: &Path) -> bool {
    let path = directory.join("hole");
    File::create(&path).unwrap().set_len(MIB).unwrap();
    fs::metadata(&path).unwrap().blocks() == 0
}

fn check(directory: &Path, content: Content, len: u64) {
    let what = format!("{content:?} {len}");
    let path = |name: &str| directory.join(format!("{content:?}-{len}-{name}"));
    let store = Store::open(directory.join("store")).unwrap();
    let image = image(content, len);
    let truth = image.to_vec();
    write_file(&path("source"), &image);
    let source = FileSource::open(&path("source")).unwrap();
    let stats = try_backup(&store, &format!("{content:?}"), &source).unwrap();
    assert_eq!((stats.size, stats.warnings.len()), (len, 0), "{what}");

    restore(&store, &stats.id, &path("new"), false);
    assert!(fs::read(path("new")).unwrap() == truth, "{what}");
    let longer = usize::try_from(len + 100_000).unwrap();
    fs::write(path("existing"), vec![0xff; longer]).unwrap();
    restore(&store, &stats.id, &path("existing"), true);
    assert!(fs::read(path("existing")).unwrap() == truth, "{what}");

    let reader = ImageReader::open(&store, &stats.id).unwrap();
    let extents = reader.extents(0, len).unwrap();
    let allocated: u64 = extents
        .iter()
        .map(|extent| match extent {
            Extent::Data { range, .. } => (range.end - range.start) + 2 * 4096,
            Extent::Zero { .. } => 0,
        })
        .sum();
    if has_holes(directory) {
        let blocks = fs::metadata(path("new")).unwrap().blocks() * 512;
        assert!(blocks <= allocated, "{what}: {blocks} bytes on disk, {allocated} of data");
    }
    check_reads(&reader, &truth, &extents);
    assert_sound(&store, &[stats.id]);
    for name in ["source", "new", "existing"] {
        fs::remove_file(path(name)).unwrap();
    }
}

/// Reads around every place where something begins or ends.
fn check_reads(reader: &ImageReader, truth: &[u8], extents: &[Extent]) {
    let len = truth.len() as u64;
    let mut places = vec![0, 4096, 64 * KIB, SPAN_LEN, 2 * SPAN_LEN, len / 2, len];
    places.extend(extents.iter().take(20).map(|extent| match extent {
        Extent::Data { range, .. } | Extent::Zero { range } => range.end,
    }));
    for place in places.into_iter().filter(|place| *place <= len) {
        for (before, behind) in [(0, 0), (0, 1), (1, 0), (1, 1), (513, 4097), (70_000, 70_000)] {
            let (start, end) = (place.saturating_sub(before), (place + behind).min(len));
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            let mut found = vec![0x55; range.len()];
            reader.read_exact_at(&mut found, start).unwrap();
            assert!(found == truth[range.clone()], "{range:?} differs");
        }
    }
    assert!(reader.read_exact_at(&mut [0], len).is_err());
    assert!(reader.read_exact_at(&mut [], len + 1).is_err());
    assert!(reader.read_exact_at(&mut [0; 2], u64::MAX).is_err());
}

fn check_all(content: Content, sizes: impl Iterator<Item = u64>) {
    let directory = tempfile::tempdir().unwrap();
    Store::create(directory.path().join("store"), &StoreOptions::default()).unwrap();
    // One history, so that each image is also predicted from one of another size.
    for len in sizes {
        check(directory.path(), content, len);
    }
}

#[test]
fn full_images_come_back() {
    check_all(Content::Full, SIZES.into_iter().filter(|len| *len <= SPAN_LEN + 1));
}

#[test]
fn zero_images_come_back() {
    check_all(Content::Zeros, SIZES.into_iter());
}

#[test]
fn images_with_data_at_both_ends_come_back() {
    check_all(Content::Ends, SIZES.into_iter());
}

#[test]
fn images_that_end_in_zeros_come_back() {
    check_all(Content::ZeroTail, SIZES.into_iter());
}

#[test]
fn shrinking_images_come_back() {
    check_all(Content::ZeroTail, SIZES.into_iter().rev());
}

#[test]
fn example_of_embedding_works() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (name, len) in [("first", 300_000), ("second", 5), ("third", 0)] {
        let bytes = Numbers(7).bytes(len);
        fs::write(path("file"), &bytes).unwrap();
        embed::run(&path("store"), &path("file"), &path(name)).unwrap();
        assert_eq!(fs::read(path(name)).unwrap(), bytes);
    }
}

/// An image that is computed: as a source, and as a target that compares.
#[derive(Clone, Copy, Debug)]
struct ComputedImage {
    len: u64,
    seed: u64,
}

impl ComputedImage {
    /// Returns a block: one half is random, so compression halves it.
    fn block(&self, block: u64) -> [u8; 4096] {
        let mut bytes = [(block % 251) as u8; 4096];
        bytes[..2048].copy_from_slice(&Numbers(self.seed + block).bytes(2048));
        bytes
    }
}

impl Source for ComputedImage {
    fn name(&self) -> &'static str {
        "computed image"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        Ok((offset < self.len).then_some(offset..self.len))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let mut position = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let start = usize::try_from(position % 4096).unwrap();
            let len = (4096 - start).min(rest.len());
            let (part, behind) = rest.split_at_mut(len);
            part.copy_from_slice(&self.block(position / 4096)[start..start + len]);
            position += len as u64;
            rest = behind;
        }
        Ok(())
    }
}

impl Target for ComputedImage {
    fn name(&self) -> &'static str {
        "computed image"
    }

    fn prepare(&self, len: u64) -> Result<(), TargetError> {
        assert_eq!(len, self.len);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError> {
        let mut expected = vec![0; bytes.len()];
        Source::read_exact_at(self, &mut expected, offset).unwrap();
        assert!(bytes == expected, "{} bytes at {offset} differ", bytes.len());
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        panic!("{len} bytes at {offset} are not zero");
    }

    fn finish(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), TargetError> {
        Source::read_exact_at(self, buffer, offset).unwrap();
        Ok(())
    }
}

/// Compares the peak of memory with what is promised.
#[track_caller]
#[expect(clippy::print_stderr, reason = "the figures are of interest to whoever runs it by hand")]
fn check_memory(what: &str) {
    eprintln!("{what}: {} MiB", peak_memory() / MIB);
    assert!(peak_memory() < MEMORY_MAX, "{what} took {} bytes", peak_memory());
}

#[test]
fn a_gibibyte_is_worked_on_in_little_memory() {
    run_child("sizes::child_works_on_a_gibibyte");
}

#[test]
fn smallest_chunks_are_backed_up_in_little_memory() {
    run_child("sizes::child_backs_up_the_smallest_chunks");
}

#[test]
fn longest_chunks_are_backed_up_in_little_memory() {
    run_child("sizes::child_backs_up_the_longest_chunks");
}

/// Backs up an image, the same again, and another one that the first does not predict.
fn back_up_in_little_memory(chunking: ChunkingParams, len: u64) {
    let Ok(directory) = env::var(CHILD_DIRECTORY) else { return };
    let options = StoreOptions { chunking, ..StoreOptions::default() };
    let store = Store::create(Path::new(&directory).join("store"), &options).unwrap();
    for threads in choose(vec![64], vec![2, 64]) {
        for seed in [0, 0, 1 << 40] {
            let image = ComputedImage { len, seed: seed + threads };
            let threads = NonZero::new(usize::try_from(threads).unwrap());
            let options = BackupOptions { threads, ..BackupOptions::new("disk".parse().unwrap()) };
            let stats = ops::backup(&store, &image, &options, &NoProgress).unwrap();
            assert!(0 < stats.memory_peak && stats.memory_peak <= options.memory);
            check_memory(&format!("{} new chunks, {threads:?}", stats.statistics.new_chunks));
        }
    }
}

#[test]
#[ignore = "run by a test above in a process of its own"]
fn child_backs_up_the_smallest_chunks() {
    back_up_in_little_memory(ChunkingParams::new(64, 256, 1 << 10).unwrap(), 130 * MIB);
}

#[test]
#[ignore = "run by a test above in a process of its own"]
fn child_backs_up_the_longest_chunks() {
    back_up_in_little_memory(ChunkingParams::new(1 << 20, 4 << 20, 16 << 20).unwrap(), 300 * MIB);
}

#[test]
#[ignore = "run by a test above in a process of its own"]
fn child_works_on_a_gibibyte() {
    let Ok(directory) = env::var(CHILD_DIRECTORY) else { return };
    let image = ComputedImage { len: 1 << 30, seed: 0 };
    let threads = NonZero::new(2);
    let path = Path::new(&directory).join("store");
    let store = Store::create(&path, &StoreOptions::default()).unwrap();
    let options = BackupOptions { threads, ..BackupOptions::new("disk".parse().unwrap()) };
    let id = ops::backup(&store, &image, &options, &NoProgress).unwrap().id;
    check_memory("the first backup");
    let stats = ops::backup(&store, &image, &options, &NoProgress).unwrap();
    assert_eq!(stats.statistics.new_chunks, 0);
    check_memory("a backup without changes");
    let options = RestoreOptions { threads, ..RestoreOptions::default() };
    ops::restore(&store, &id, &image, &options, &NoProgress).unwrap();
    check_memory("a restore");
    let options = VerifyOptions { threads, ..VerifyOptions::default() };
    assert!(ops::verify(&store, &[id], &options, &NoProgress).unwrap().is_sound());
    check_memory("a verification");
    let reader = ImageReader::open(&store, &id).unwrap();
    let mut numbers = Numbers(1);
    let (mut found, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    for _ in 0..2000 {
        let offset = numbers.below(image.len - (64 << 10));
        reader.read_exact_at(&mut found, offset).unwrap();
        Source::read_exact_at(&image, &mut expected, offset).unwrap();
        assert!(found == expected);
    }
    check_memory("random reads");
}
