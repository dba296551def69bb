//! Stops a history at any of its calls, looks at what a power cut may leave, and makes what fails small.
//!
//! A **state** is what is left when a [`History`] stops at one of the calls that change something, in one of the ways of
//! [`CrashMode`] or as a killed process leaves it, with one seed for what is left to chance; or that and a second stop while production
//! code recovers. Each state is opened by production code and must hold what was acknowledged. States whose bytes are the same as
//! those of one before, with the same acknowledgements, are counted and not looked at again.

mod cut;
mod shrink;

use std::collections::{HashMap, HashSet};
use std::fmt;

use chunkstore::error::{self, Error};
use chunkstore::vfs::simulated::{CrashMode, FaultPlan, SimulatedVfs, UnsyncedData, UnsyncedNames};

pub use cut::{Cut, SecondCut};

use crate::attempt::panic_of;
use crate::history::{History, World};
use crate::images;
use crate::model::{Model, check_contents, check_store};
use crate::simulated_store::{self, purge_now};

/// Which states of a history are looked at.
#[derive(Clone, Debug)]
pub struct Depth {
    /// Of the calls every so manieth.
    pub step: u64,
    /// Which of them: below `step`.
    pub first: u64,
    /// Ways of a stop at each call, in turn; all of them if there are as many.
    pub modes: usize,
    /// Seeds for each way that leaves something to chance.
    pub seeds: u64,
    /// Every so manieth state stops once more while it recovers; none if 0.
    pub second_step: u64,
    /// Every so manieth state is purged, verified, backed up to and purged again; the others are opened and restored.
    pub full_step: u64,
}

/// How many states there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Histories that were stopped.
    pub histories: u64,
    /// Calls at which they were stopped.
    pub stops: u64,
    /// States.
    pub states: u64,
    /// States that differ from all others in their bytes or in what was acknowledged.
    pub distinct: u64,
    /// States in which recovery was stopped once more.
    pub second: u64,
}

impl std::ops::AddAssign for Explored {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.stops += other.stops;
        self.states += other.states;
        self.distinct += other.distinct;
        self.second += other.second;
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { histories, stops, states, distinct, second } = self;
        write!(
            formatter,
            "{states} states of {histories} histories at {stops} stops, {distinct} of them distinct, \
             {second} stopped once more in recovery"
        )
    }
}

/// A state in which something does not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The history that was stopped.
    pub history: History,
    /// Where, and what was left.
    pub cut: Cut,
    /// What does not hold.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { history, cut, reason } = self;
        writeln!(formatter, "{reason}")?;
        writeln!(formatter, "history: {history:?}")?;
        writeln!(formatter, "cut: {cut:?}")?;
        write!(
            formatter,
            "to see it again: BACKY_CRASH='{history} {cut}' cargo nextest run -p backy-tests \
             --run-ignored all crash::failing_state_that_is_named"
        )
    }
}

/// Looks at the states of one history.
///
/// Each operation is a process of its own, and is run once for each of its stops, from a copy of the world before it. What
/// the operations before it have not synced may be lost too.
///
/// # Errors
///
/// The first state in which something does not hold, made small.
///
/// # Panics
///
/// If the history fails although nothing stops it.
pub fn explore(history: &History, depth: &Depth) -> Result<Explored, Box<Failure>> {
    search(history, depth).map_err(|failure| Box::new(shrink::shrink(*failure)))
}

/// Looks at the states of one history, as [`explore`] does, and leaves what fails as large as it is.
///
/// # Errors
///
/// The first state in which something does not hold.
///
/// # Panics
///
/// If the history fails although nothing stops it.
pub fn search(history: &History, depth: &Depth) -> Result<Explored, Box<Failure>> {
    let mut search = Search {
        seen: HashSet::new(),
        recovery_calls: HashMap::new(),
        explored: Explored::default(),
        depth,
    };
    search.explored.histories = 1;
    let mut before = World::new(SimulatedVfs::new());
    // Stops are chosen among the calls of all operations, so that each has its share.
    let mut turn = 0;
    for step in 0..=history.operations.len() {
        let after = step_of(&before, history, step);
        // The two pack threads may make a few calls in another order: the last stop is the first that is not reached.
        for stop in 0..=after.vfs.mutating_call_count() {
            turn += 1;
            if turn % depth.step != depth.first {
                continue;
            }
            let world = stopped(&before, history, step, stop);
            search.explored.stops += 1;
            for cut in search.cuts_at(step, stop, turn) {
                if let Some((cut, reason)) = search.look_at(&world, &cut) {
                    let failure = Failure { history: history.clone(), cut, reason };
                    return Err(Box::new(failure));
                }
            }
        }
        before = after;
    }
    Ok(search.explored)
}

/// Looks at one state of a history. Returns what does not hold, if there is something.
#[must_use]
pub fn replay(history: &History, cut: &Cut) -> Option<String> {
    let mut before = World::new(SimulatedVfs::new());
    for step in 0..cut.step {
        before = step_of(&before, history, step);
    }
    panic_of(|| check(&stopped(&before, history, cut.step, cut.stop), cut, true))
}

/// Returns the world after a step: the first creates the store, the others are the operations.
///
/// # Panics
///
/// If the step fails.
#[must_use]
pub fn step_of(before: &World, history: &History, step: usize) -> World {
    let mut world = before.copy();
    take(&mut world, history, step).unwrap_or_else(|error| {
        panic!("step {step} of {history:?}: {}", simulated_store::describe(&error))
    });
    world
}

/// Returns the world in which a step was stopped at a call.
fn stopped(before: &World, history: &History, step: usize, stop: u64) -> World {
    let mut world = before.copy();
    world.vfs.set_faults(FaultPlan::stop_at_mutation(stop));
    // It is stopped, or done: the model knows which.
    let _stopped = take(&mut world, history, step);
    world
}

/// Takes a step: the first creates the store, the others are the operations.
///
/// # Errors
///
/// That of the operation.
pub fn take(world: &mut World, history: &History, step: usize) -> error::Result<()> {
    match step.checked_sub(1).map(|index| history.operations[index]) {
        None => world.create(),
        Some(operation) => world.run(operation),
    }
}

/// A search through the states of one history.
struct Search<'a> {
    seen: HashSet<[u8; 32]>,
    /// Calls of a recovery after a stop in each step. That of each state would take as long as to look at it, and they hardly differ.
    recovery_calls: HashMap<usize, u64>,
    explored: Explored,
    depth: &'a Depth,
}

impl Search<'_> {
    /// Returns the ways in which the world may be left at a stop.
    fn cuts_at(&self, step: usize, stop: u64, turn: u64) -> Vec<Cut> {
        let modes: Vec<Option<CrashMode>> = CrashMode::all().map(Some).chain([None]).collect();
        // 8 and 21 have no common divisor: neighbouring stops get different modes.
        let first = usize::try_from(turn).expect("small") * 8;
        let chosen = (0..self.depth.modes.min(modes.len()))
            .map(|turn| modes[(first + turn * 11) % modes.len()]);
        chosen
            .flat_map(|mode| {
                let seeds = if mode.is_some_and(has_chance) { self.depth.seeds } else { 1 };
                (0..seeds).map(move |seed| Cut {
                    step,
                    stop,
                    mode,
                    seed: turn * 3 + seed,
                    second: None,
                })
            })
            .collect()
    }

    /// Looks at the state that a cut leaves, and at that of a second one if it is its turn. Returns which of the two fails, and
    /// what does not hold.
    fn look_at(&mut self, world: &World, cut: &Cut) -> Option<(Cut, String)> {
        self.explored.states += 1;
        let count = self.explored.states;
        let vfs = cut.aftermath(&world.vfs);
        if self.seen.insert(fingerprint(&vfs, &world.model)) {
            self.explored.distinct += 1;
            let is_full = count.is_multiple_of(self.depth.full_step);
            let reason = panic_of(|| check_state(&vfs.kill(), &world.model, cut, is_full));
            if let Some(reason) = reason {
                return Some((*cut, reason));
            }
        }
        let is_second = self.depth.second_step != 0 && count.is_multiple_of(self.depth.second_step);
        if !is_second {
            return None;
        }
        let calls = self.recovery_calls.entry(cut.step);
        let call_count = *calls.or_insert_with(|| recovery_call_count(&vfs, world));
        let second = SecondCut::of(cut, call_count);
        let cut = Cut { second: Some(second), ..*cut };
        self.explored.states += 1;
        self.explored.second += 1;
        panic_of(|| check(world, &cut, false)).map(|reason| (cut, reason))
    }
}

/// Returns whether a mode leaves something to chance.
fn has_chance(mode: CrashMode) -> bool {
    matches!(mode.data, UnsyncedData::AnyWrites | UnsyncedData::AnySectors)
        || matches!(mode.names, UnsyncedNames::Prefix | UnsyncedNames::AnySubset)
}

/// Returns a digest of all that a check looks at.
fn fingerprint(vfs: &SimulatedVfs, model: &Model) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    vfs.for_each_file(|path, bytes| {
        hasher.update(path.as_os_str().as_encoded_bytes()).update(&[0]);
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    });
    hasher.update(&model.fingerprint().to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// Checks the state that a cut leaves of a stopped world.
///
/// # Panics
///
/// If something does not hold.
fn check(world: &World, cut: &Cut, is_full: bool) {
    let vfs = cut.aftermath(&world.vfs);
    let Some(second) = &cut.second else {
        return check_state(&vfs, &world.model, cut, is_full);
    };
    let mut model = world.model.clone();
    vfs.set_faults(FaultPlan::stop_at_mutation(second.stop));
    // It is stopped, or recovers without a fault: what it may have made is in the model.
    let _stopped = recover(&vfs, &mut model, world.last_image(), cut.environment());
    check_state(&vfs.crash(&second.mode, cut.seed), &model, cut, is_full);
}

fn check_state(vfs: &SimulatedVfs, model: &Model, cut: &Cut, is_full: bool) {
    let seed = cut.environment() + 3;
    if is_full { check_store(vfs, model, seed) } else { check_contents(vfs, model, seed) }
}

/// What a user does after a crash: purge, and the backup that was stopped, once more. It relies on what that one has left.
///
/// # Errors
///
/// Those of the operations.
fn recover(
    vfs: &SimulatedVfs,
    model: &mut Model,
    (source, image): (&str, &[u8]),
    seed: u64,
) -> error::Result<()> {
    let store = match simulated_store::open(vfs, seed) {
        Err(Error::NotAStore { .. }) => simulated_store::create(vfs, seed)?,
        other => other?,
    };
    model.is_created = true;
    let has_rotten = !model.rotten.is_empty();
    if seed.is_multiple_of(2) && !has_rotten {
        purge_now(&store)?;
    }
    // What was doubted may be settled by a backup of its source.
    model.doubted.clear();
    if has_rotten {
        // What it would rely on may be what has rotted.
        return model.backup(&store, "a", &images::image(77, 4000)).map(drop);
    }
    model.backup(&store, source, image)?;
    purge_now(&store).map(drop)
}

fn recovery_call_count(vfs: &SimulatedVfs, world: &World) -> u64 {
    let vfs = vfs.kill();
    // Where it fails, the check of the second stop says so.
    let _result = recover(&vfs, &mut world.model.clone(), world.last_image(), 5000);
    vfs.mutating_call_count()
}
