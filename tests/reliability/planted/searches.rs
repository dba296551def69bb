//! Searches through a short history: power cuts, failing calls, repairs, flips.

use chunkstore::vfs::simulated::{
    CallKind, Counter, CrashMode, Effect, FaultKind, FaultPlan, SimulatedVfs, UnsyncedData,
    UnsyncedNames,
};
use support::attempt::panic_of;
use support::crash::{Depth, search, step_of, take};
use support::history::{Fate, History, Operation, World};
use support::model::{Model, check_contents};
use support::simulated_store::{files_below, open, restore};

use crate::faults::fail_call_of_step;
use crate::syncs::{back_up_then_die_then_back_up, forget_then_die_then_purge};

/// Two revisions of one source and one of another, marks, a forget, a purge.
fn short_history() -> History {
    use Operation::{BackUp, Forget, Protect, Purge, Tag};
    let operations = vec![
        BackUp { source: 0, edit: 2 },
        BackUp { source: 1, edit: 3 },
        BackUp { source: 0, edit: 4 },
        Tag { pick: 0, tags: 3, autoremove: false },
        Tag { pick: 1, tags: 1, autoremove: false },
        Tag { pick: 0, tags: 1, autoremove: false },
        Tag { pick: 1, tags: 2, autoremove: false },
        Protect { pick: 2, is_protected: true },
        Forget { pick: 2 },
        Forget { pick: 0 },
        Purge { has_grace: false },
        Tag { pick: 0, tags: 2, autoremove: false },
        Forget { pick: 0 },
        Purge { has_grace: false },
    ];
    History { operations }
}

/// Power cuts at every call; and the history itself.
pub(super) fn power_cuts() -> Option<String> {
    let depth = Depth { step: 1, first: 0, modes: 3, seeds: 1, second_step: 0, full_step: 40 };
    search(&short_history(), &depth).err().map(|failure| failure.reason)
}

/// Records and states rot and are repaired: what is moved aside is there afterwards.
pub(super) fn repairs() -> Option<String> {
    let mut world = World::new(SimulatedVfs::new());
    world.create().expect("a new store");
    for edit in 0..4 {
        world.must_run(Operation::BackUp { source: 0, edit });
    }
    for place in [3, 100] {
        world.must_run(Operation::Rot { fate: Fate::Record, place });
        world.must_run(Operation::Repair);
    }
    panic_of(|| check_contents(&world.vfs.kill(), &world.model, 1000))
}

/// A record is removed by a process that dies, and a purge relies on it.
pub(super) fn removals_that_come_back() -> Option<String> {
    let (vfs, model) = forget_then_die_then_purge(false);
    panic_of(|| check_contents(&vfs, &model, 4))
}

/// A backup relies on the pack of one that died before the name was durable.
pub(super) fn packs_of_a_dead_backup() -> Option<String> {
    [true, false].into_iter().find_map(|has_index| {
        let (vfs, model) = back_up_then_die_then_back_up(has_index);
        panic_of(|| check_contents(&vfs, &model, 4))
    })
}

/// Each sync of a backup fails, and the power goes afterwards.
pub(super) fn failing_syncs() -> Option<String> {
    let history = History { operations: vec![Operation::BackUp { source: 0, edit: 2 }] };
    let before = step_of(&World::new(SimulatedVfs::new()), &history, 0);
    let after = step_of(&before, &history, 1);
    (0..after.vfs.sync_count()).find_map(|sync| {
        let mut world = before.copy();
        let fault = Effect::Fail(FaultKind::Device);
        world.vfs.set_faults(FaultPlan::at(Counter::Syncs, sync, fault));
        // Whether it is acknowledged is what the model knows.
        let _result = take(&mut world, &history, 1);
        [UnsyncedNames::Lost, UnsyncedNames::Kept].into_iter().find_map(|names| {
            let mode = CrashMode { data: UnsyncedData::Lost, names };
            let vfs = world.vfs.crash(&mode, sync);
            panic_of(|| check_contents(&vfs, &world.model, 1000 + sync))
        })
    })
}

/// Each write and each listing of a history fails.
pub(super) fn failing_calls() -> Option<String> {
    let history = short_history();
    let mut before = World::new(SimulatedVfs::new());
    for step in 0..=history.operations.len() {
        let after = step_of(&before, &history, step);
        let is_meant = |kind| matches!(kind, CallKind::WriteAllAt | CallKind::List);
        for (call, made) in (0..).zip(after.vfs.calls()) {
            let is_index = made.path.ends_with("index.redb");
            if !is_meant(made.kind) || is_index {
                continue;
            }
            let effect = Effect::Fail(FaultKind::Device);
            let run = || fail_call_of_step(&before, &history, step, call, effect);
            if let Some(reason) = panic_of(run) {
                return Some(reason);
            }
        }
        before = after;
    }
    None
}

/// Each byte of packs, records and states changes.
pub(super) fn flips() -> Option<String> {
    let mut world = World::new(SimulatedVfs::new());
    world.create().expect("a new store");
    for operation in [
        Operation::BackUp { source: 0, edit: 2 },
        Operation::Tag { pick: 0, tags: 3, autoremove: false },
    ] {
        world.must_run(operation);
    }
    let files = ["packs", "revisions"].map(|directory| files_below(&world.vfs, directory));
    for path in files.into_iter().flatten() {
        let bytes = world.vfs.read_all(&path).expect("it was listed");
        for offset in (0..bytes.len() as u64).step_by(3) {
            let vfs = world.vfs.kill();
            vfs.flip(&path, offset, 0x41).expect("the file is that long");
            if let Some(reason) = panic_of(|| check_flipped(&vfs, &world.model)) {
                return Some(format!("{} byte {offset}: {reason}", path.display()));
            }
        }
    }
    None
}

/// What is given out is right, or it is not given out.
fn check_flipped(vfs: &SimulatedVfs, model: &Model) {
    let store = open(vfs, 1000).expect("the configuration is sound");
    let history = store.history(None).expect("the directories can be listed");
    for (id, expected) in &model.acknowledged {
        if let Ok(bytes) = restore(&store, id) {
            assert!(bytes == expected.bytes(), "revision {id} restores other bytes");
        }
        let found = history.revisions.iter().find(|revision| revision.record.id == *id);
        match found {
            Some(revision) if history.damaged.is_empty() => {
                let tags = revision.state.tags.iter().cloned().collect();
                assert_eq!(model.marks[id][0].tags, tags, "tags of {id}");
                assert_eq!(revision.record.source.as_str(), expected.source);
                assert_eq!(revision.record.size, expected.bytes().len() as u64);
            }
            _ => assert!(!history.damaged.is_empty(), "{id} is gone without a word"),
        }
    }
}
