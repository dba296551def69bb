//! Images that take no memory for what is zero, as sources, as targets and as the truth to compare with;
//! and the calls of the library that scenarios make again and again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chunkstore::chunking::ChunkingParams;
use chunkstore::error::Result;
use chunkstore::id::RevisionId;
use chunkstore::image_reader::{Extent, ImageReader};
use chunkstore::ops::purge::{self, PurgeOptions, PurgeStats};
use chunkstore::ops::{
    self, BackupError, BackupOptions, BackupStats, RestoreOptions, VerifyOptions,
};
use chunkstore::progress::NoProgress;
use chunkstore::source::{Source, SourceError};
use chunkstore::store::{Store, StoreOptions};
use chunkstore::target::{Target, TargetError};

/// Granularity of [`SparseImage`] in bytes; that of the zero blocks of the format.
pub const BLOCK_LEN: u64 = 4096;

const BLOCK_SIZE: usize = 4096;

/// The bytes of an image. Blocks that are not in the map read as zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseImage {
    len: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl SparseImage {
    /// Returns an image of `len` zeros.
    #[must_use]
    pub fn new(len: u64) -> Self {
        Self { len, blocks: BTreeMap::new() }
    }

    /// Returns the image of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut image = Self::new(bytes.len() as u64);
        image.write(0, bytes);
        image
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether the image has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes `bytes` at `offset`; what lies behind the end is left out.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let len = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(len)];
        for (block, in_block, in_bytes) in blocks_of(offset, bytes.len()) {
            let target =
                self.blocks.entry(block).or_insert_with(|| vec![0; BLOCK_SIZE].into_boxed_slice());
            target[in_block].copy_from_slice(&bytes[in_bytes]);
        }
    }

    /// Fills `buffer` with the bytes at `offset`.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (block, in_block, in_buffer) in blocks_of(offset, buffer.len()) {
            match self.blocks.get(&block) {
                Some(found) => buffer[in_buffer].copy_from_slice(&found[in_block]),
                None => buffer[in_buffer].fill(0),
            }
        }
    }

    /// Makes a range zero.
    pub fn clear(&mut self, range: Range<u64>) {
        let zeros = vec![0; usize::try_from(range.end - range.start).expect("a small range")];
        self.write(range.start, &zeros);
        self.blocks.retain(|_, block| block.iter().any(|byte| *byte != 0));
    }

    /// Cuts the image, or extends it by zeros.
    pub fn resize(&mut self, len: u64) {
        if len < self.len {
            self.blocks.retain(|block, _| block * BLOCK_LEN < len);
            if let Some(last) = self.blocks.get_mut(&(len / BLOCK_LEN)) {
                last[usize::try_from(len % BLOCK_LEN).expect("below a block")..].fill(0);
            }
        }
        self.len = len;
    }

    /// Returns whether every byte of a range is zero.
    #[must_use]
    pub fn is_zero(&self, range: Range<u64>) -> bool {
        let blocks = range.start / BLOCK_LEN..range.end.div_ceil(BLOCK_LEN);
        self.blocks.range(blocks).all(|(block, bytes)| {
            let start = (block * BLOCK_LEN).max(range.start) - block * BLOCK_LEN;
            let end = ((block + 1) * BLOCK_LEN).min(range.end) - block * BLOCK_LEN;
            let part = usize::try_from(start).expect("in a block")
                ..usize::try_from(end).expect("in a block");
            bytes[part].iter().all(|byte| *byte == 0)
        })
    }

    /// Returns all bytes; for small images.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("a small image")];
        self.read(0, &mut bytes);
        bytes
    }
}

/// Splits `len` bytes at `offset` into blocks: number, range in the block, range in the bytes.
fn blocks_of(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < len).then(|| {
            let position = offset + done as u64;
            let start = usize::try_from(position % BLOCK_LEN).expect("below a block");
            let count = (BLOCK_SIZE - start).min(len - done);
            let item = (position / BLOCK_LEN, start..start + count, done..done + count);
            done += count;
            item
        })
    })
}

/// A [`SparseImage`] as a source: it names its holes, counts reads, and fails or waits on demand.
pub struct ImageSource<'a> {
    image: &'a SparseImage,
    /// First byte that cannot be read.
    fails_at: Option<u64>,
    hook: Option<Box<dyn Fn(u64) + Send + Sync + 'a>>,
    reads: AtomicU64,
    read_bytes: AtomicU64,
}

impl std::fmt::Debug for ImageSource<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ImageSource").finish_non_exhaustive()
    }
}

impl<'a> ImageSource<'a> {
    /// Returns the source of an image.
    #[must_use]
    pub fn new(image: &'a SparseImage) -> Self {
        let (reads, read_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { image, fails_at: None, hook: None, reads, read_bytes }
    }

    /// Lets every read that reaches `offset` fail.
    #[must_use]
    pub fn failing_at(self, offset: u64) -> Self {
        Self { fails_at: Some(offset), ..self }
    }

    /// Calls `hook` with the offset before each read.
    #[must_use]
    pub fn with_hook(self, hook: impl Fn(u64) + Send + Sync + 'a) -> Self {
        Self { hook: Some(Box::new(hook)), ..self }
    }

    /// Returns how many reads were made, and of how many bytes.
    #[must_use]
    pub fn reads(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.read_bytes.load(Ordering::Relaxed))
    }
}

impl Source for ImageSource<'_> {
    fn name(&self) -> &'static str {
        "model image"
    }

    fn len(&self) -> u64 {
        self.image.len
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        let mut blocks = self.image.blocks.range(offset / BLOCK_LEN..).map(|(block, _)| *block);
        let Some(first) = blocks.next() else { return Ok(None) };
        let mut end = first + 1;
        while blocks.next() == Some(end) {
            end += 1;
        }
        let start = (first * BLOCK_LEN).max(offset);
        Ok(Some(start..(end * BLOCK_LEN).min(self.image.len)))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        if let Some(hook) = &self.hook {
            hook(offset);
        }
        let len = buffer.len() as u64;
        if self.fails_at.is_some_and(|bad| bad < offset + len) {
            let source = std::io::Error::other("bad sector");
            return Err(SourceError::Read { name: self.name().to_owned(), offset, len, source });
        }
        self.image.read(offset, buffer);
        Ok(())
    }
}

/// Takes a restored image. It checks that every byte was written exactly once.
#[derive(Debug, Default)]
pub struct ImageTarget {
    state: Mutex<(SparseImage, BTreeMap<u64, u64>)>,
}

impl ImageTarget {
    /// Returns what was restored.
    ///
    /// # Panics
    ///
    /// If a byte was written twice or not at all.
    #[must_use]
    pub fn into_image(self) -> SparseImage {
        let (image, written) = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut covered = 0;
        for (start, len) in written {
            assert_eq!(start, covered, "ranges must neither overlap nor leave gaps");
            covered += len;
        }
        assert_eq!(covered, image.len, "the image must be written to its end");
        image
    }

    fn note(&self, offset: u64, len: u64, edit: impl FnOnce(&mut SparseImage)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(state.1.insert(offset, len).is_none(), "byte {offset} is written twice");
        edit(&mut state.0);
    }
}

impl Target for ImageTarget {
    fn name(&self) -> &'static str {
        "model target"
    }

    fn prepare(&self, len: u64) -> Result<(), TargetError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.resize(len);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError> {
        self.note(offset, bytes.len() as u64, |image| image.write(offset, bytes));
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        self.note(offset, len, |_| {});
        Ok(())
    }

    fn finish(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), TargetError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.read(offset, buffer);
        Ok(())
    }
}

/// Random numbers that a seed determines (SplitMix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    /// Returns the next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_number() % end
    }

    /// Returns random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next_number().to_le_bytes());
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }
}

/// Returns an image of `len` random bytes.
#[must_use]
pub fn random_image(seed: u64, len: usize) -> SparseImage {
    SparseImage::of(&Numbers(seed).bytes(len))
}

/// Returns options of a store whose chunks are small, so that small images have many of them.
///
/// # Panics
///
/// Never: the parameters are valid.
#[must_use]
pub fn small_chunks() -> StoreOptions {
    let chunking = ChunkingParams::new(256, 1024, 4096).expect("the parameters are valid");
    StoreOptions { chunking, ..StoreOptions::default() }
}

/// Backs an image up.
///
/// # Errors
///
/// Those of [`ops::backup`].
///
/// # Panics
///
/// If `name` is not the name of a source.
pub fn try_backup(
    store: &Store,
    name: &str,
    source: &dyn Source,
) -> std::result::Result<BackupStats, BackupError> {
    let options = BackupOptions::new(name.parse().expect("a name of a source"));
    ops::backup(store, source, &options, &NoProgress)
}

/// Backs an image up.
///
/// # Panics
///
/// If that fails.
pub fn back_up(store: &Store, name: &str, image: &SparseImage) -> BackupStats {
    try_backup(store, name, &ImageSource::new(image)).expect("the backup succeeds")
}

/// Restores a revision and compares it with the truth.
///
/// # Panics
///
/// If they differ.
pub fn assert_restores(store: &Store, id: &RevisionId, truth: &SparseImage) {
    let target = ImageTarget::default();
    // Reading back a tebibyte of zeros takes minutes.
    let read_back = truth.len() < 1 << 30;
    let options = RestoreOptions { read_back, ..RestoreOptions::default() };
    let stats = ops::restore(store, id, &target, &options, &NoProgress)
        .unwrap_or_else(|error| panic!("revision {id} is not restored: {error:?}"));
    assert_eq!(stats.size, truth.len());
    assert_eq!(stats.written_bytes + stats.zero_bytes, truth.len());
    let found = target.into_image();
    assert_same(&found, truth);
}

/// Compares two images without regard to how their zeros are held.
///
/// # Panics
///
/// If they differ.
pub fn assert_same(found: &SparseImage, truth: &SparseImage) {
    assert_eq!(found.len(), truth.len());
    for block in found.blocks.keys().chain(truth.blocks.keys()) {
        let (mut left, mut right) = ([0; BLOCK_SIZE], [0; BLOCK_SIZE]);
        found.read(block * BLOCK_LEN, &mut left);
        truth.read(block * BLOCK_LEN, &mut right);
        assert!(left == right, "the images differ in the block at byte {}", block * BLOCK_LEN);
    }
}

/// Compares every byte of an open revision with the truth: chunks by reading them, zero extents
/// by the truth being zero there.
///
/// # Panics
///
/// If they differ.
pub fn assert_reads(reader: &ImageReader, truth: &SparseImage) {
    assert_eq!(reader.len(), truth.len());
    let mut end = 0;
    for extent in reader.extents(0, truth.len()).expect("extents are read") {
        let range = match extent {
            Extent::Zero { range } => {
                assert!(truth.is_zero(range.clone()), "{range:?} is not zero");
                range
            }
            Extent::Data { range, .. } => {
                let len = usize::try_from(range.end - range.start).expect("a chunk");
                let (mut found, mut expected) = (vec![0; len], vec![0; len]);
                reader.read_exact_at(&mut found, range.start).expect("a chunk is read");
                truth.read(range.start, &mut expected);
                assert!(found == expected, "{range:?} differs");
                range
            }
        };
        assert_eq!(range.start, end, "extents cover the image in order");
        end = range.end;
    }
    assert_eq!(end, truth.len());
}

/// Opens a revision and compares it with the truth.
///
/// # Panics
///
/// If they differ.
pub fn assert_revision(store: &Store, id: &RevisionId, truth: &SparseImage) {
    let reader = ImageReader::open(store, id).expect("the revision is opened");
    assert_reads(&reader, truth);
}

/// Verifies revisions, all of which must be sound.
///
/// # Panics
///
/// If one is not.
pub fn assert_sound(store: &Store, ids: &[RevisionId]) {
    let stats = ops::verify(
        store,
        ids,
        &VerifyOptions { all_data: true, ..VerifyOptions::default() },
        &NoProgress,
    )
    .expect("the verification ends");
    assert!(stats.is_sound(), "{stats:?}");
    assert_eq!(stats.verified.len(), ids.len());
}

/// Plans and runs a purge.
///
/// # Errors
///
/// Those of [`purge::plan`] and of running it.
pub fn try_purge(store: &Store, grace: Duration) -> Result<PurgeStats> {
    let options = PurgeOptions { grace, ballast_len: 0, ..PurgeOptions::default() };
    purge::plan(store, &options, &NoProgress)?.execute(&NoProgress)
}

/// Plans and runs a purge that grants no grace.
///
/// # Panics
///
/// If that fails.
pub fn purge_now(store: &Store) -> PurgeStats {
    try_purge(store, Duration::ZERO).expect("the purge succeeds")
}
