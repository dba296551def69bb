//! Throughput of the verbs on a store in memory (or where `BACKY_BENCH_DIR` says), with all
//! processors.

use std::path::PathBuf;

use backy_benches::{MIB, random_bytes, scratch_directory, write_image};
use chunkstore::chunking::ChunkingParams;
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, BackupOptions, BackupStats, RestoreOptions, VerifyOptions};
use chunkstore::progress::NoProgress;
use chunkstore::source::FileSource;
use chunkstore::target::{FileTarget, FileTargetOptions, StreamTarget, Target};
use chunkstore::vfs::real::RealVfs;
use chunkstore::vfs::{AlignedBuffer, Vfs};
use chunkstore::{Store, StoreOptions};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use tempfile::TempDir;

const IMAGE_MIB: u64 = 256;
const IMAGE_LEN: usize = 256 * MIB;

fn main() {
    divan::main();
}

/// An image, and a store beside it.
struct Place {
    directory: TempDir,
    options: StoreOptions,
}

impl Place {
    fn new(options: StoreOptions) -> Self {
        let directory = scratch_directory();
        write_image(&directory.path().join("image"), IMAGE_MIB, 1).expect("there is space");
        Self { directory, options }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns an empty store in the place of the one before.
    fn new_store(&self) -> Store {
        let path = self.path("store");
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("a store can be removed");
        }
        Store::create(&path, &self.options).expect("a store can be made")
    }

    fn back_up(&self, store: &Store) -> BackupStats {
        let source = FileSource::open(&self.path("image")).expect("the image is there");
        let options = BackupOptions::new("image".parse().expect("a name"));
        ops::backup(store, &source, &options, &NoProgress).expect("a backup succeeds")
    }

    fn with_revision(&self) -> (Store, RevisionId) {
        let store = self.new_store();
        let id = self.back_up(&store).id;
        (store, id)
    }
}

fn restore(store: &Store, id: &RevisionId, target: &dyn Target) {
    ops::restore(store, id, target, &RestoreOptions::default(), &NoProgress)
        .expect("a restore succeeds");
}

/// Everything: reading, cutting, compressing, packs, index, syncs.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn back_up_first(bencher: Bencher<'_, '_>) {
    let place = Place::new(StoreOptions::default());
    bencher
        .counter(BytesCount::new(IMAGE_LEN))
        .with_inputs(|| place.new_store())
        .bench_local_values(|store| place.back_up(&store));
}

/// Reading and hashing, and one more revision record.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn back_up_unchanged(bencher: Bencher<'_, '_>) {
    let place = Place::new(StoreOptions::default());
    let (store, _) = place.with_revision();
    bencher.counter(BytesCount::new(IMAGE_LEN)).bench_local(|| place.back_up(&store));
}

/// The bytes of another source: cut and found in the index.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn back_up_known_bytes_as_another_source(bencher: Bencher<'_, '_>) {
    let place = Place::new(StoreOptions::default());
    let (store, _) = place.with_revision();
    let mut number = 0;
    bencher.counter(BytesCount::new(IMAGE_LEN)).bench_local(|| {
        number += 1;
        let source = FileSource::open(&place.path("image")).expect("the image is there");
        let name = format!("other-{number}").parse().expect("a name");
        ops::backup(&store, &source, &BackupOptions::new(name), &NoProgress)
            .expect("a backup succeeds")
    });
}

/// Many small chunks: what packs and the index cost for each.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn store_small_chunks(bencher: Bencher<'_, '_>) {
    let chunking = ChunkingParams::new(1 << 10, 4 << 10, 16 << 10).expect("permitted lengths");
    let place = Place::new(StoreOptions { chunking, ..StoreOptions::default() });
    let chunk_count = place.back_up(&place.new_store()).statistics.new_chunks;
    bencher
        .counter(ItemsCount::new(chunk_count))
        .with_inputs(|| place.new_store())
        .bench_local_values(|store| place.back_up(&store));
}

/// A file as long as a pack, made durable: as other files are written, and in bulk as packs are.
#[divan::bench(args = ["usual", "bulk"], sample_count = 5, sample_size = 1)]
fn write_pack_file(bencher: Bencher<'_, '_>, how: &str) {
    const PACK_LEN: usize = 64 * MIB;
    let directory = scratch_directory();
    let path = directory.path().join("pack");
    let vfs = RealVfs::new();
    let mut buffer = AlignedBuffer::new(2 * MIB);
    assert!(buffer.fill(&random_bytes(2 * MIB, 1)).is_empty());
    bencher.counter(BytesCount::new(PACK_LEN)).bench_local(|| {
        let file = vfs.create_new(&path).expect("a file can be made");
        for offset in (0..PACK_LEN as u64).step_by(2 * MIB) {
            match how {
                "bulk" => file.write_bulk_at(buffer.as_slice(), offset),
                _ => file.write_all_at(buffer.as_slice(), offset),
            }
            .expect("there is space");
        }
        file.sync_data().expect("a file can be synced");
        vfs.remove_file(&path).expect("a file can be removed");
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn rebuild_index(bencher: Bencher<'_, '_>) {
    let chunking = ChunkingParams::new(1 << 10, 4 << 10, 16 << 10).expect("permitted lengths");
    let place = Place::new(StoreOptions { chunking, ..StoreOptions::default() });
    let (store, _) = place.with_revision();
    let rebuild = || ops::rebuild_index(&store, &NoProgress).expect("an index can be made");
    bencher.counter(ItemsCount::new(rebuild().chunks)).bench_local(rebuild);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn restore_to_a_file(bencher: Bencher<'_, '_>) {
    let place = Place::new(StoreOptions::default());
    let (store, id) = place.with_revision();
    let out = place.path("out");
    bencher.counter(BytesCount::new(IMAGE_LEN)).bench_local(|| {
        if out.exists() {
            std::fs::remove_file(&out).expect("a file can be removed");
        }
        let target = FileTarget::open(&out, &FileTargetOptions::default());
        restore(&store, &id, &target.expect("a file can be made"));
    });
}

/// In order, as `restore -` does it, to nowhere.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn restore_to_a_stream(bencher: Bencher<'_, '_>) {
    let place = Place::new(StoreOptions::default());
    let (store, id) = place.with_revision();
    bencher.counter(BytesCount::new(IMAGE_LEN)).bench_local(|| {
        let target = StreamTarget::new("nowhere".to_owned(), Box::new(std::io::sink()));
        restore(&store, &id, &target);
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn verify(bencher: Bencher<'_, '_>) {
    let place = Place::new(StoreOptions::default());
    let (store, id) = place.with_revision();
    bencher.counter(BytesCount::new(IMAGE_LEN)).bench_local(|| {
        ops::verify(
            &store,
            &[id],
            &VerifyOptions { all_data: true, ..VerifyOptions::default() },
            &NoProgress,
        )
        .expect("a verification succeeds")
    });
}
