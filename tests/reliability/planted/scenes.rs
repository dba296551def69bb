//! Short scenes around one rule each.

use chunkstore::image_reader::{Extent, ImageReader};
use chunkstore::ops::{self, BackupOptions, SampleSize};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::SimulatedVfs;
use support::images;
use support::memory::MemorySource;
use support::simulated_store::{backup, create, files_below, open, restore};

/// The second revision of an image has the chunk list that it would have without the first.
pub(super) fn chunk_list_after_a_change() -> Option<String> {
    let first = images::image(3, 20_000);
    (0..40).find_map(|seed| {
        let second = images::changed(&first, seed);
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, 1).unwrap();
        backup(&store, "a", &first).unwrap();
        let predicted = chunk_list(&store, &second);
        let canonical = chunk_list(&create(&SimulatedVfs::new(), 2).unwrap(), &second);
        (predicted != canonical).then(|| format!("change {seed} gives another chunk list"))
    })
}

fn chunk_list(store: &Store, image: &[u8]) -> Vec<Extent> {
    let id = backup(store, "a", image).unwrap().id;
    let reader = ImageReader::open(store, &id).unwrap();
    reader.extents(0, image.len() as u64).unwrap()
}

/// A revision is distrusted: the next backup writes all chunks again, although the store has them.
pub(super) fn backup_after_a_doubt() -> Option<String> {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let image = images::image(3, 4000);
    let first = backup(&store, "a", &image).unwrap();
    ops::distrust(&store, &[first.id]).unwrap();
    let stats = backup(&store, "a", &image).unwrap();
    let (written, all) = (stats.statistics.new_chunks, first.statistics.new_chunks);
    (written != all).then(|| format!("{written} of {all} chunks are written"))
}

/// A pack holds what another one held: the next backup of what is gone writes it again, although the index has it.
pub(super) fn backup_of_what_the_index_has_alone() -> Option<String> {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let [image, other] = [3, 4].map(|seed| images::image(seed, 4000));
    backup(&store, "a", &image).unwrap();
    let packs = files_below(&vfs, "packs");
    backup(&store, "b", &other).unwrap();
    let later = files_below(&vfs, "packs").into_iter().find(|pack| !packs.contains(pack)).unwrap();
    let bytes = vfs.read_all(&later).unwrap();
    for pack in packs {
        vfs.write_raw(&pack, bytes.clone()).unwrap();
    }
    // The other one has these packs open, as they were.
    let store = open(&vfs, 2).unwrap();
    // A sample would find it, if it is where the sample looks.
    let options = BackupOptions {
        sample: SampleSize::Percent(0),
        ..BackupOptions::new("c".parse().unwrap())
    };
    let second = ops::backup(&store, &MemorySource::new(&image), &options, &NoProgress).unwrap();
    match restore(&store, &second.id) {
        Ok(bytes) => (bytes != image).then(|| "other bytes come back".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// An image of data and zeros comes back.
pub(super) fn image_with_zeros() -> Option<String> {
    // With a run of zeros that is long enough to take no chunk.
    let image = images::image(3, 200_000);
    let store = create(&SimulatedVfs::new(), 1).unwrap();
    let id = backup(&store, "a", &image).unwrap().id;
    match restore(&store, &id) {
        Ok(bytes) => (bytes != image).then(|| "other bytes come back".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}
