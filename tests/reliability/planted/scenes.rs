//! Short scenes around one rule each.

use std::path::PathBuf;

use chunkstore::format::{FooterRecord, ObjectKind, PackFooter};
use chunkstore::image_reader::{Extent, ImageReader};
use chunkstore::ops;
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::SimulatedVfs;
use support::images;
use support::simulated_store::{backup, create, describe, files_below, open, restore, verify_all};

const INDEX: &str = "/store/index.redb";

/// Returns the records of a pack.
fn records(pack: &[u8]) -> Vec<FooterRecord> {
    let trailer = &pack[pack.len() - PackFooter::TRAILER_LEN..];
    let table = PackFooter::table_range(trailer, pack.len() as u64).unwrap();
    let start = usize::try_from(table.start).unwrap();
    PackFooter::decode(&pack[start..], pack.len() as u64).unwrap().records
}

/// Returns the packs of data, with their records.
fn data_packs(vfs: &SimulatedVfs) -> Vec<(PathBuf, Vec<FooterRecord>)> {
    let packs = files_below(vfs, "packs").into_iter();
    packs
        .map(|path| (path.clone(), records(&vfs.read_all(&path).unwrap())))
        .filter(|(_, records)| records[0].kind == ObjectKind::Data)
        .collect()
}

/// Reports what is not restored as it was.
fn differs(store: &Store, id: &chunkstore::id::RevisionId, image: &[u8]) -> Option<String> {
    match restore(store, id) {
        Ok(bytes) if bytes == image => None,
        Ok(_) => Some(format!("revision {id} restores other bytes")),
        Err(error) => Some(describe(&error)),
    }
}

/// An entry of the index leads to the record of another chunk.
pub(super) fn index_that_leads_elsewhere() -> Option<String> {
    let vfs = SimulatedVfs::new();
    let image = images::image(3, 6000);
    let id = backup(&create(&vfs, 1).unwrap(), "a", &image).unwrap().id;
    let (_, records) = data_packs(&vfs).remove(0);
    let entry = |(number, record): (usize, &FooterRecord)| -> Vec<u8> {
        let number = u32::try_from(number).unwrap();
        let fields = [number, record.offset.0, record.plain_len, record.stored_len];
        fields.iter().flat_map(|field| field.to_le_bytes()).collect()
    };
    let entries: Vec<Vec<u8>> = records.iter().enumerate().map(entry).collect();
    let bytes = vfs.read_all(INDEX).unwrap();
    let mut bent = 0;
    for pair in entries.windows(2) {
        let places = bytes.windows(pair[0].len()).enumerate();
        let places: Vec<usize> =
            places.filter(|(_, found)| *found == pair[0]).map(|(place, _)| place).collect();
        bent += places.len();
        let mut changed = bytes.clone();
        for place in places {
            changed[place..place + pair[1].len()].copy_from_slice(&pair[1]);
        }
        let vfs = vfs.kill();
        vfs.write_raw(INDEX, changed).unwrap();
        if let Some(reason) = differs(&open(&vfs, 2).unwrap(), &id, &image) {
            return Some(reason);
        }
    }
    assert!(entries.len() <= bent + 1, "all entries were found in the index");
    None
}

/// A damaged chunk is in quarantine, and the index is made anew: the next backup must not rely on the damaged copy.
pub(super) fn healed_chunk_with_a_new_index() -> Option<String> {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let image = images::image(3, 4000);
    let id = backup(&store, "a", &image).unwrap().id;
    damage_first_chunk(&vfs);
    assert!(!verify_all(&store).unwrap().is_sound());
    assert_eq!(files_below(&vfs, "quarantine").len(), 1);
    ops::rebuild_index(&store, &NoProgress).unwrap();
    match backup(&store, "a", &image) {
        Ok(stats) if stats.statistics.new_chunks == 0 => Some("no chunk is written".to_owned()),
        Ok(_) => differs(&store, &id, &image),
        Err(error) => Some(describe(&error)),
    }
}

/// Flips a bit in the last byte of the first data chunk.
fn damage_first_chunk(vfs: &SimulatedVfs) {
    let (path, records) = data_packs(vfs).remove(0);
    let last = u64::from(records[0].offset.0) + u64::from(records[0].stored_len);
    vfs.flip(&path, last, 1).unwrap();
}

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
