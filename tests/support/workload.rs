//! The life of a small store, for tests that stop it or make it fail at every step.

use std::sync::Arc;

use chunkstore::error::Result;
use chunkstore::ops;
use chunkstore::progress::NoProgress;
use chunkstore::vfs::simulated::SimulatedVfs;

use crate::images;
use crate::model::Model;
use crate::simulated_store::create;

/// The images of the workload.
#[derive(Clone, Debug)]
pub struct Images {
    /// Of source A.
    pub first: Arc<Vec<u8>>,
    /// The same with changes.
    pub second: Arc<Vec<u8>>,
    /// Of source B; shares data with A.
    pub other: Arc<Vec<u8>>,
}

impl Images {
    /// Returns images of about `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let first = images::image(7, len);
        let second = images::changed(&first, 8);
        let mut other = images::image(9, len / 2);
        other.extend_from_slice(&first[..len / 4]);
        Self { first: Arc::new(first), second: Arc::new(second), other: Arc::new(other) }
    }
}

/// Creates a store, makes four revisions of three sources, forgets one, purges, makes another one, builds the
/// index anew, verifies all, forgets two, and purges again, which repacks.
///
/// # Errors
///
/// The first error of any of these; `model` says what was acknowledged before it.
pub fn run(vfs: &SimulatedVfs, images: &Images, seed: u64, model: &mut Model) -> Result<()> {
    // Enough for a ballast.
    vfs.set_capacity(Some(1 << 30));
    let store = create(vfs, seed)?;
    model.is_created = true;
    let first = model.backup(&store, "a", &images.first)?;
    model.backup(&store, "a", &images.second)?;
    let other = model.backup(&store, "b", &images.other)?;
    // Of the pack of B's first revision this needs little.
    model.backup(&store, "c", &images.other[..images.other.len() / 8])?;
    model.forget(&store, first)?;
    model.purge(&store)?;
    model.backup(&store, "b", &images.first)?;
    ops::rebuild_index(&store, &NoProgress)?;
    model.verify(&store)?;
    // After this purge nothing of the first image's own chunks is needed by A.
    let forgotten = model.acknowledged.iter().find(|(_, expected)| expected.source == "a");
    let forgotten = forgotten.map(|(id, _)| *id);
    if let Some(id) = forgotten {
        model.forget(&store, id)?;
    }
    model.forget(&store, other)?;
    model.purge(&store)?;
    Ok(())
}
