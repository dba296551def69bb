//! Everything stops at any call, and the machine comes back with what a power cut may leave.
//!
//! What must hold: each byte of the image has a value that it was given since the last flush that returned, that of this flush
//! included. What was flushed is therefore there. (Not each sector: the file system may lose one of two writes to the same sector.)

use std::path::Path;

use chunkstore::Overlay;
use chunkstore::error::{Error, Result};
use chunkstore::vfs::simulated::{CrashMode, FaultPlan, SimulatedVfs};
use support::attempt::Attempts;
use support::images::Numbers;
use support::long_tests::choose;
use support::simulated_store;

use super::model::trim;
use super::{BLOCK_LEN, PATH, Scene, read_all};

/// What each byte may be after a crash.
pub(super) struct History {
    now: Vec<u8>,
    /// States of the whole image since the last flush, oldest first.
    states: Vec<Vec<u8>>,
}

impl History {
    pub(super) fn new(image: &[u8]) -> Self {
        Self { now: image.to_vec(), states: vec![image.to_vec()] }
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.now);
        self.states.push(self.now.clone());
    }

    pub(super) fn flushed(&mut self) {
        self.states = vec![self.now.clone()];
    }

    pub(super) fn check(&self, found: &[u8]) {
        assert_eq!(found.len(), self.now.len());
        for (place, byte) in found.iter().enumerate() {
            let is_known = self.states.iter().any(|state| state[place] == *byte);
            assert!(is_known, "byte {place} is {byte}");
        }
    }
}

/// Runs random calls until one fails. What a failed call has done is not known; it is a state that may be found.
pub(super) fn run(overlay: &Overlay, history: &mut History, seed: u64, count: usize) -> Result<()> {
    let mut numbers = Numbers::new(seed);
    for _ in 0..count {
        let len = history.now.len();
        let start = numbers.below(len);
        let part_len = (1 + numbers.below(3 * BLOCK_LEN)).min(len - start);
        let (start, end) = match numbers.below(3) {
            0 => (start, start + part_len),
            _ => {
                (start - start % BLOCK_LEN, (start + part_len).next_multiple_of(BLOCK_LEN).min(len))
            }
        };
        let (offset, count) = (start as u64, (end - start) as u64);
        match numbers.below(8) {
            0..3 => {
                let byte = u8::try_from(1 + numbers.below(250)).unwrap();
                history.change(|bytes| bytes[start..end].fill(byte));
                overlay.write(offset, &history.now[start..end])?;
            }
            3 => {
                history.change(|bytes| bytes[start..end].fill(0));
                overlay.write_zeroes(offset, count, numbers.below(2) == 0)?;
            }
            4 => {
                history.change(|bytes| trim(bytes, start, end));
                overlay.trim(offset, count)?;
            }
            _ => {
                overlay.flush()?;
                history.flushed();
            }
        }
    }
    Ok(())
}

/// Opens what a crash has left, and checks it; then goes on with it, and crashes again.
fn check(vfs: &SimulatedVfs, history: &History, seed: u64, mode: CrashMode) {
    let store = simulated_store::open(vfs, seed).unwrap();
    let found = {
        let overlay = Overlay::open_for_reading(Path::new(PATH), &store).unwrap();
        read_all(&overlay)
    };
    history.check(&found);
    let overlay = Overlay::open(Path::new(PATH), &store).unwrap();
    assert!(read_all(&overlay) == found);
    let mut history = History::new(&found);
    run(&overlay, &mut history, seed ^ 0xabc, 6).unwrap();
    let again = vfs.crash(&mode, seed);
    let store = simulated_store::open(&again, seed + 1).unwrap();
    history.check(&read_all(&Overlay::open(Path::new(PATH), &store).unwrap()));
    // In good order: the file says so, and nothing in it is torn.
    drop(overlay);
    let store = simulated_store::open(&vfs.kill(), seed + 2).unwrap();
    assert!(read_all(&Overlay::open(Path::new(PATH), &store).unwrap()) == history.now);
}

pub(super) fn image() -> Vec<u8> {
    let mut image = vec![0; 6 * BLOCK_LEN + 700];
    Numbers::new(3).fill(&mut image[..4 * BLOCK_LEN], false);
    image
}

#[test]
fn flushed_blocks_survive_a_stop_at_any_call() {
    let mut attempts = Attempts::default();
    let modes: Vec<CrashMode> = CrashMode::all().collect();
    for seed in 0..choose(12, 40) {
        let run = |plan| {
            let scene = Scene::new(&image());
            let overlay = scene.create();
            let mut history = History::new(&scene.image);
            scene.vfs.set_faults(plan);
            let result = run(&overlay, &mut history, seed, 30);
            // What is left of the program ends when everything has stopped.
            drop(overlay);
            (scene.vfs.clone(), history, result)
        };
        let (vfs, _, result) = run(FaultPlan::none());
        result.unwrap();
        for stop in 0..vfs.mutating_call_count() {
            let (vfs, history, _) = run(FaultPlan::stop_at_mutation(stop));
            let turns = choose(2, modes.len());
            for turn in 0..turns {
                let stop = usize::try_from(stop).unwrap();
                let mode =
                    modes[(stop * 8 + turn * 11 + usize::try_from(seed).unwrap()) % modes.len()];
                let crash_seed = seed * 1000 + stop as u64 + turn as u64;
                attempts.attempt(
                    || format!("seed {seed}, stop {stop}, {mode:?}"),
                    || check(&vfs.crash(&mode, crash_seed), &history, 1000 + crash_seed, mode),
                );
            }
        }
    }
    attempts.finish("overlay crash");
}

#[test]
fn interrupted_creation_leaves_no_overlay_or_a_whole_one() {
    let scene = Scene::new(&image());
    let start = scene.vfs.snapshot();
    let run = |plan| {
        let vfs = start.snapshot();
        let store = simulated_store::open(&vfs, 5).unwrap();
        let id = scene.revision.revision().record.id;
        let base = std::sync::Arc::new(chunkstore::ImageReader::open(&store, &id).unwrap());
        vfs.set_faults(plan);
        let result = Overlay::create(Path::new(PATH), base);
        (vfs, result)
    };
    let (vfs, result) = run(FaultPlan::none());
    drop(result.unwrap());
    let (mut whole, mut none) = (0, 0);
    for stop in 0..=vfs.mutating_call_count() {
        let (vfs, result) = run(FaultPlan::stop_at_mutation(stop));
        let is_created = result.is_ok();
        drop(result);
        for (seed, mode) in (0..).zip(CrashMode::all()) {
            let crashed = vfs.crash(&mode, seed);
            let store = simulated_store::open(&crashed, 100 + seed).unwrap();
            match Overlay::open(Path::new(PATH), &store) {
                Ok(overlay) => {
                    assert!(read_all(&overlay) == scene.image);
                    whole += 1;
                }
                Err(Error::Damaged { .. } | Error::Storage { action: "open", .. })
                    if !is_created =>
                {
                    none += 1
                }
                Err(error) => panic!("stop {stop}, {mode:?}: {error:?}"),
            }
        }
    }
    assert!(0 < whole && 0 < none);
}
