//! What operations do on a full disk.

use crate::format::RevisionRecord;
use crate::id::RevisionId;
use crate::image_reader::ImageReader;
use crate::ops::{self, BackupOptions, RestoreOptions, VerifyOptions};
use crate::progress::NoProgress;
use crate::source::{Source, SourceError};
use crate::store::{Store, StoreOptions};
use crate::target::StreamTarget;
use crate::vfs::Vfs;
use crate::vfs::simulated::{SimulatedVfs, environment};

const LEN: usize = 300_000;

struct Image;

impl Source for Image {
    fn name(&self) -> &str {
        "image"
    }

    fn len(&self) -> u64 {
        LEN as u64
    }

    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, SourceError> {
        Ok((offset < self.len()).then(|| offset..self.len()))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let mut reader = blake3::Hasher::new().finalize_xof();
        reader.set_position(offset);
        reader.fill(buffer);
        Ok(())
    }

    fn changes_since(
        &self,
        _parent: &RevisionRecord,
    ) -> Result<Option<Vec<std::ops::Range<u64>>>, SourceError> {
        Ok(None)
    }
}

fn store(vfs: &SimulatedVfs, seed: u64) -> Store {
    Store::open_in(environment(vfs.clone(), seed), "/store").unwrap()
}

fn backup(store: &Store) -> Result<RevisionId, ops::BackupError> {
    let options = BackupOptions::new("disk".parse().unwrap());
    ops::backup(store, &Image, &options, &NoProgress).map(|stats| stats.id)
}

#[test]
fn full_disk_without_an_index_can_be_read_and_verified_but_takes_no_backup() {
    let vfs = SimulatedVfs::new();
    let environment = environment(vfs.clone(), 1);
    Store::create_in(environment, "/store", &StoreOptions::default()).unwrap();
    let id = backup(&store(&vfs, 2)).unwrap();
    vfs.remove_file(&store(&vfs, 3).index_path()).unwrap();
    vfs.set_capacity(Some(0));
    let store = store(&vfs, 4);
    let target = StreamTarget::new("null".to_owned(), Box::new(std::io::sink()));
    let options = RestoreOptions::default();
    ops::restore(&store, &id, &target, &options, &NoProgress).unwrap();
    let stats = ops::verify(&store, &[id], &VerifyOptions::default(), &NoProgress).unwrap();
    assert!(stats.is_sound());
    // What stands in for the index is not good enough for who writes.
    match backup(&store) {
        Err(ops::BackupError::Store(error)) => assert!(error.is_out_of_space(), "{error:?}"),
        other => panic!("{other:?}"),
    }
    vfs.set_capacity(None);
    let id = backup(&store).unwrap();
    let reader = ImageReader::open(&store, &id).unwrap();
    reader.read_exact_at(&mut vec![0; LEN], 0).unwrap();
}
