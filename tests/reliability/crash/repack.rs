//! A purge that repacks stops at any call.

use chunkstore::vfs::simulated::{CrashMode, FaultPlan, SimulatedVfs};
use support::attempt::Attempts;
use support::images;
use support::long_tests::choose;
use support::model::{Model, check_store};
use support::simulated_store::{self, purge_now};

const IMAGE_LEN: usize = 12 << 10;

/// A store of which a purge merges small packs, of data and of lists, and repacks one that is mostly dead.
fn store_to_repack() -> (SimulatedVfs, Model) {
    let vfs = SimulatedVfs::new();
    vfs.set_capacity(Some(1 << 30));
    let store = simulated_store::create(&vfs, 1).unwrap();
    let mut model = Model { is_created: true, ..Model::default() };
    let whole = images::image(50, IMAGE_LEN);
    let forgotten = model.backup(&store, "whole", &whole).unwrap();
    model.backup(&store, "part", &whole[..IMAGE_LEN / 4]).unwrap();
    for number in 0..8 {
        model.backup(&store, "disk", &images::image(60 + number, 1500)).unwrap();
    }
    model.forget(&store, forgotten).unwrap();
    drop(store);
    (vfs.kill(), model)
}

/// Returns the modes to try at a stop: a few in turn for a sample, each with several seeds for all.
fn modes_at(stop: u64) -> Vec<(Option<CrashMode>, u64)> {
    let modes: Vec<Option<CrashMode>> = CrashMode::all().map(Some).chain([None]).collect();
    if choose(false, true) {
        return modes.iter().flat_map(|mode| (0..4).map(|seed| (*mode, seed))).collect();
    }
    // 8 and 21 have no common divisor: neighbouring stops get different modes.
    let pick = |turn: u64| {
        let index = usize::try_from(stop * 8 + turn * 11).expect("small") % modes.len();
        (modes[index], stop * 3 + turn)
    };
    vec![pick(0), pick(1)]
}

#[test]
fn purge_that_repacks_survives_a_stop_at_any_call() {
    let (base, model) = store_to_repack();
    let end = {
        let vfs = base.kill();
        let stats = purge_now(&simulated_store::open(&vfs, 50).unwrap()).unwrap();
        assert!(17 <= stats.repacked_packs, "{stats:?}");
        assert_eq!(simulated_store::files_below(&vfs, "packs").len(), 2);
        vfs.mutating_call_count()
    };
    let mut attempts = Attempts::default();
    for stop in (0..end).step_by(choose(5, 1)) {
        let vfs = base.kill();
        vfs.set_faults(FaultPlan::stop_at_mutation(stop));
        let stopped = purge_now(&simulated_store::open(&vfs, 50).unwrap());
        assert!(stopped.is_err());
        for (mode, seed) in modes_at(stop) {
            let name = || format!("stop {stop}, mode {mode:?}, seed {seed}");
            attempts.attempt(name, || {
                let vfs = mode.map_or_else(|| vfs.kill(), |mode| vfs.crash(&mode, seed));
                check_store(&vfs, &model, 1000 + stop + seed);
                // Nothing of the attempt is left.
                let store = simulated_store::open(&vfs, 3000).unwrap();
                let again = purge_now(&store).unwrap();
                assert_eq!((again.freed_bytes, again.repacked_bytes), (0, 0), "{again:?}");
                let packs = simulated_store::files_below(&vfs, "packs");
                assert!(packs.len() <= 4, "{packs:?}");
            });
        }
    }
    attempts.finish("stopped while it repacks");
}
