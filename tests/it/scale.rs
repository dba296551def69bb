//! What must not grow with the size of a store or of an image: counted in bytes and calls, not in time.
//!
//! The measurements are `benches/scale` (`docs/performance.md`, section "Scale"); these tests keep what they found.

use std::env;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use chunkstore::chunking::ChunkingParams;
use chunkstore::image_reader::ImageReader;
use chunkstore::ops::{self, BackupOptions, RestoreOptions, VerifyOptions, purge};
use chunkstore::progress::NoProgress;
use chunkstore::source::FileSource;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::target::{FileTarget, FileTargetOptions};
use chunkstore::vfs::simulated::{CallKind, FaultPlan, SimulatedVfs, environment};
use support::model_store::{Numbers, SparseImage, back_up};

use crate::own_process::{CHILD_DIRECTORY, peak_memory, run_child};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Promise of the project: no operation takes more memory than this.
const MEMORY_MAX: u64 = 256 * MIB;

/// Most bytes of index for each chunk as it grows: a transaction leaves the pages behind that it replaced.
const GROWN_BYTES_MAX: u64 = 400;

/// Most bytes of index for each chunk when it was just built: 56 are key and value, and the file has room to grow.
const REBUILT_BYTES_MAX: u64 = 130;

/// The smallest chunks that a store permits, about 310 bytes long.
fn smallest_chunks() -> StoreOptions {
    let chunking = ChunkingParams::new(64, 256, 1024).unwrap();
    StoreOptions { chunking, ..StoreOptions::default() }
}

/// File system calls of some kind, on files whose path contains `part`.
fn calls(vfs: &SimulatedVfs, part: &str) -> usize {
    let calls = vfs.calls();
    let is_read = |kind| matches!(kind, CallKind::ReadExactAt | CallKind::Open);
    let of_part = calls.iter().filter(|call| call.path.to_string_lossy().contains(part));
    of_part.filter(|call| is_read(call.kind)).count()
}

/// Opens the revision that was just made in a new handle, as a new process would, and reads both ends.
fn read_ends(vfs: &SimulatedVfs, id: &chunkstore::id::RevisionId) {
    let store = Store::open_in(environment(vfs.clone(), 2), "/store").unwrap();
    vfs.set_faults(FaultPlan::none());
    let reader = ImageReader::open(&store, id).unwrap();
    let mut block = [0; 4096];
    for offset in [0, reader.len() - 4096] {
        reader.read_exact_at(&mut block, offset).unwrap();
        assert!(block.iter().any(|byte| *byte != 0));
    }
}

#[test]
fn opening_a_revision_and_reading_both_ends_costs_the_same_calls_whatever_the_size_of_the_image() {
    let mut counts = Vec::new();
    for len in [GIB, 1 << 10 << 30, 16 << 10 << 30] {
        let vfs = SimulatedVfs::new();
        let store =
            Store::create_in(environment(vfs.clone(), 1), "/store", &StoreOptions::default())
                .unwrap();
        let mut image = SparseImage::new(len);
        for (place, seed) in [(0, 1), (len / 2, 2), (len - 70 * KIB, 3)] {
            image.write(place, &Numbers(seed).bytes(70 << 10));
        }
        let id = back_up(&store, "disk", &image).id;
        read_ends(&vfs, &id);
        counts.push((calls(&vfs, "/store/packs"), calls(&vfs, "/store/revisions")));
        assert!(vfs.calls().len() < 400, "{} calls", vfs.calls().len());
    }
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

#[test]
fn many_chunks_take_little_memory_and_an_index_of_known_size() {
    run_child("scale::child_works_on_many_chunks");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
#[expect(clippy::print_stderr, reason = "the figures are of interest to whoever runs it by hand")]
fn child_works_on_many_chunks() {
    let Ok(directory) = env::var(CHILD_DIRECTORY) else { return };
    let path = |name: &str| Path::new(&directory).join(name);
    let check = |what: &str| {
        eprintln!("{what}: {} MiB", peak_memory() / MIB);
        assert!(peak_memory() < MEMORY_MAX, "{what} took {} bytes", peak_memory());
    };
    {
        let image = fs::File::create(path("image")).unwrap();
        for part in 0..96 {
            image.write_all_at(&Numbers(part).bytes(1 << 20), part * MIB).unwrap();
        }
    }
    let store = Store::create(path("store"), &smallest_chunks()).unwrap();
    let source = FileSource::open(&path("image")).unwrap();
    let options = BackupOptions::new("disk".parse().unwrap());
    let first = ops::backup(&store, &source, &options, &NoProgress).unwrap();
    assert!(300_000 < first.statistics.new_chunks, "{:?}", first.statistics);
    check("the first backup");
    let bytes_for_each_chunk =
        || fs::metadata(store.index_path()).unwrap().len() / first.statistics.new_chunks;
    assert!(bytes_for_each_chunk() < GROWN_BYTES_MAX, "{}", bytes_for_each_chunk());

    let options = BackupOptions::new("other".parse().unwrap());
    let second = ops::backup(&store, &source, &options, &NoProgress).unwrap();
    assert_eq!(second.statistics.new_chunks, 0);
    check("the same bytes as another source");
    assert!(
        ops::verify(&store, &[first.id], &VerifyOptions::default(), &NoProgress)
            .unwrap()
            .is_sound()
    );
    check("a verification");
    let plan = purge::plan(&store, &purge::PurgeOptions::default(), &NoProgress).unwrap();
    assert_eq!(plan.summary().unwrap().free_bytes, 0);
    drop(plan);
    check("the plan of a purge");
    let rebuilt = ops::rebuild_index(&store, &NoProgress).unwrap();
    assert!(first.statistics.new_chunks < rebuilt.chunks);
    check("a rebuild of the index");
    eprintln!("{} bytes of index for each chunk", bytes_for_each_chunk());
    assert!(bytes_for_each_chunk() < REBUILT_BYTES_MAX, "{}", bytes_for_each_chunk());
    let target = FileTarget::open(&path("restored"), &FileTargetOptions::default()).unwrap();
    ops::restore(&store, &first.id, &target, &RestoreOptions::default(), &NoProgress).unwrap();
    check("a restore");
    assert!(fs::read(path("image")).unwrap() == fs::read(path("restored")).unwrap());
}
