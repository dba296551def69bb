//! Bytes of a store at rest change: each byte of each file, and whole files. Nothing ever gives wrong bytes.

use std::path::Path;
use std::time::Instant;

use chunkstore::format::{FooterRecord, PackFooter};
use support::attempt::Attempts;
use support::damage::{FileKind, SmallStore};
use support::images::Numbers;
use support::long_tests::choose;

/// What is tried with a damaged store.
#[derive(Clone, Copy, Debug)]
enum Depth {
    /// History and restore.
    Reading,
    /// Every operation.
    All,
}

/// Flips bits in the bytes of all files of some kinds.
fn flip_all(kinds: &[FileKind]) {
    let (store, start) = (SmallStore::new(), Instant::now());
    let mut attempts = Attempts::default();
    for (turn, (path, kind, len)) in store.files().into_iter().enumerate() {
        if !kinds.contains(&kind) {
            continue;
        }
        // Packs are the many: a third of each, and another one in each.
        let is_sample = kind == FileKind::Pack && choose(true, false);
        let (first, step) = if is_sample { (turn as u64 % 3, 3) } else { (0, 1) };
        for offset in (first..len).step_by(step) {
            let bit = 1 << (offset % 8);
            let all_bits = [1, 2, 4, 8, 16, 32, 64, 128, 0xff];
            // Each byte changes; every few bytes everything is tried with the result.
            let few = [if offset % 2 == 0 { 0xff } else { bit }];
            for mask in choose(&few[..], &all_bits[..]) {
                let depth = choose(
                    if offset.is_multiple_of(12) { Depth::All } else { Depth::Reading },
                    Depth::All,
                );
                flip(&store, &mut attempts, &path, (kind, depth), offset, *mask);
            }
        }
    }
    attempts.finish(&format!("flips of {kinds:?} in {:?}", start.elapsed()));
}

fn flip(
    store: &SmallStore,
    attempts: &mut Attempts,
    path: &Path,
    (kind, depth): (FileKind, Depth),
    offset: u64,
    mask: u8,
) {
    let name = || format!("{} byte {offset} mask {mask:#x}", path.display());
    attempts.attempt(name, || {
        let vfs = store.vfs.kill();
        vfs.flip(path, offset, mask).unwrap();
        let seed = 2000 + offset / 12 + u64::from(mask & 1);
        match depth {
            Depth::Reading => store.check_reading(&vfs, kind, seed),
            Depth::All => store.check(&vfs, kind, seed),
        }
    });
}

#[test]
fn no_flip_in_a_pack_gives_wrong_bytes() {
    flip_all(&[FileKind::Pack]);
}

#[test]
fn no_flip_in_a_record_or_state_gives_wrong_bytes() {
    flip_all(&[FileKind::Record, FileKind::State]);
}

#[test]
fn no_flip_in_a_small_file_gives_wrong_bytes() {
    flip_all(&[FileKind::Config, FileKind::Condemned, FileKind::Ledger]);
    flip_all(&[FileKind::Session, FileKind::Lock]);
}

const INDEX: &str = "/store/index.redb";
const INDEX_IN_ALL: (FileKind, Depth) = (FileKind::Index, Depth::All);

#[test]
fn no_flip_in_the_index_costs_anything() {
    let (store, start) = (SmallStore::new(), Instant::now());
    let bytes = store.vfs.read_all(INDEX).unwrap();
    let used: Vec<usize> = (0..bytes.len()).filter(|offset| bytes[*offset] != 0).collect();
    let mut numbers = Numbers::new(11);
    let mut attempts = Attempts::default();
    let step = choose(used.len().div_ceil(200), 1);
    let random = (0..choose(60, 5000)).map(|_| numbers.below(bytes.len())).collect::<Vec<_>>();
    for offset in used.into_iter().step_by(step).chain(random) {
        let mask = if offset % 2 == 0 { 0xff } else { 1 << (offset / 2 % 8) };
        flip(&store, &mut attempts, INDEX.as_ref(), INDEX_IN_ALL, offset as u64, mask);
    }
    attempts.finish(&format!("flips of the index in {:?}", start.elapsed()));
}

/// Returns the records of a pack.
fn records(pack: &[u8]) -> Vec<FooterRecord> {
    let trailer = &pack[pack.len() - PackFooter::TRAILER_LEN..];
    let table = PackFooter::table_range(trailer, pack.len() as u64).unwrap();
    let start = usize::try_from(table.start).unwrap();
    PackFooter::decode(&pack[start..], pack.len() as u64).unwrap().records
}

/// An entry of the index that leads to another record than it should is the damage that could make a purge remove a
/// pack that is needed: each entry is bent in its pack number and in its record number.
#[test]
fn no_index_entry_that_leads_elsewhere_costs_anything() {
    let store = SmallStore::new();
    let bytes = store.vfs.read_all(INDEX).unwrap();
    let mut attempts = Attempts::default();
    for (path, ..) in store.files().into_iter().filter(|(_, kind, _)| *kind == FileKind::Pack) {
        let pack = store.vfs.read_all(&path).unwrap();
        for (number, record) in records(&pack).into_iter().enumerate() {
            let fields = [
                u32::try_from(number).unwrap(),
                record.offset.0,
                record.plain_len,
                record.stored_len,
            ];
            let pattern: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
            let places = bytes.windows(pattern.len()).enumerate();
            let places = places.filter(|(_, window)| *window == pattern).map(|(place, _)| place);
            for place in places.collect::<Vec<_>>() {
                for mask in choose(&[1, 2][..], &[1, 2, 3, 4, 5, 6, 7]) {
                    for field in [place - 4, place] {
                        let mask = *mask;
                        let index = INDEX.as_ref();
                        flip(&store, &mut attempts, index, INDEX_IN_ALL, field as u64, mask);
                    }
                }
            }
        }
    }
    attempts.finish("bent entries of the index");
}

#[test]
fn no_file_that_is_cut_extended_removed_or_swapped_gives_wrong_bytes() {
    let store = SmallStore::new();
    let mut attempts = Attempts::default();
    let files = store.files();
    for (turn, (path, kind, len)) in files.iter().enumerate() {
        for new_len in [0, 1, len / 2, len - 1, len + 1, len + 4096] {
            attempts.attempt(
                || format!("{} cut or extended to {new_len}", path.display()),
                || {
                    let vfs = store.vfs.kill();
                    vfs.truncate(path, new_len).unwrap();
                    store.check(&vfs, *kind, 3000 + turn as u64 + new_len);
                },
            );
        }
        for seed in [0, 1] {
            attempts.attempt(
                || format!("{} removed", path.display()),
                || {
                    let vfs = store.vfs.kill();
                    vfs.remove(path).unwrap();
                    store.check(&vfs, *kind, 4000 + seed);
                },
            );
        }
        for (other, _, _) in files[turn + 1..].iter().filter(|(_, other, _)| other == kind) {
            for seed in [0, 1] {
                attempts.attempt(
                    || format!("{} and {} swapped", path.display(), other.display()),
                    || {
                        let vfs = store.vfs.kill();
                        let [mine, theirs] = [path, other].map(|path| vfs.read_all(path).unwrap());
                        vfs.write_raw(path, theirs).unwrap();
                        vfs.write_raw(other, mine).unwrap();
                        store.check(&vfs, *kind, 5000 + seed);
                    },
                );
            }
        }
    }
    attempts.finish("files cut, extended, removed, swapped");
}
