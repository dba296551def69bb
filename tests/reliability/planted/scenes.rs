//! Short scenes around one rule each.

use chunkstore::image_reader::{Extent, ImageReader};
use chunkstore::ops;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::SimulatedVfs;
use support::images;
use support::simulated_store::{backup, create};

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
