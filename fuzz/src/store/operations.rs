//! Random histories against the model: what bytes stand for is carried out, and must hold at its end.

use chunkstore::vfs::simulated::SimulatedVfs;
use support::history::{History, Operation, World};
use support::model::check_store;
use support::simulated_store::describe;

use super::hook;

/// Operations of one history: a run takes milliseconds for each.
const OPERATIONS_MAX: usize = 24;

/// Carries a history out; all bytes are one.
pub(crate) fn operations(bytes: &[u8]) -> bool {
    hook::install();
    let bytes = &bytes[..bytes.len().min(OPERATIONS_MAX * Operation::LEN)];
    let history = History::from_bytes(bytes);
    let mut world = World::new(SimulatedVfs::new());
    if let Err(error) = world.live(&history) {
        panic!("{history:?}: {}", describe(&error));
    }
    check_store(&world.vfs.kill(), &world.model, 10_000);
    !history.operations.is_empty()
}

/// Returns histories to begin with.
pub(crate) fn operations_seeds() -> Vec<Vec<u8>> {
    let random = (0..8).map(|seed| History::random(seed, 12));
    let histories = random.chain([History::of_everything()]);
    let bytes = |history: History| {
        let operations = history.operations.iter().take(OPERATIONS_MAX);
        operations.flat_map(Operation::encode).collect()
    };
    histories.map(bytes).collect()
}
