//! Runs operations of one store as threads in every order that matters, one schedule after the other.
//!
//! The operations are those of production. Each sees the simulated file system through a [`ScheduledVfs`] of its own, whose calls
//! on what operations share are **points**: there the operation stops, and the [`Scheduler`] decides who goes on. Exactly one
//! operation runs at a time, so a schedule determines all that happens, and running it again shows the same.
//!
//! # What is a point, and why that is enough
//!
//! Operations meet in the names below `sessions/`, `condemned/`, `revisions/`, `packs/`, `trash/`, `quarantine/`, in `tmp/`, in
//! the ledger, and in the locks. Every call that reads or changes one of these names, or takes such a lock, is a point. What lies
//! between two points commutes with whatever others do: bytes of an open file that has its name are never changed, a file
//! in `tmp/` is its owner's alone, and the index is only touched under `locks/index`, whose taking is a point. A wait for
//! a lock is a point too; who waits cannot be chosen until the lock is free, and when nobody can be chosen that is a deadlock.
//!
//! Threads inside an operation belong to it. With one worker, and images that are shorter than a pack, at most one of them is
//! at a point at any time, which is checked; the others only work in files in `tmp/` of their own. The names of these are
//! hidden from other operations as long as theirs lives, because they would come and go at random; a cleaner would find
//! them locked and pass over them. Files in `tmp/` of the thread that began the operation are seen, before they are locked too.
//!
//! A death (`kill -9`) is the failure of all calls from a point on; what the operation held is then released as it unwinds.
//!
//! # Which schedules
//!
//! [`explore`] runs all schedules with at most so many preemptions, fewer first (Musuvathi and Qadeer, "Iterative context bounding
//! for systematic testing of multithreaded programs", PLDI 2007). A switch where an operation ends, waits for a lock
//! or [pauses](Operation::pause) is no preemption; all of these are tried. An operation is not preempted at a point where what it touches is
//! touched by no other in a way that conflicts: the switch could as well come later. What conflicts is learned from the
//! schedules that were run, and the search goes on until it learns no more. [`sample`] runs random schedules with few changes of
//! priority (Burckhardt, Kothari, Musuvathi and Nagarakatte, "A randomized scheduler with probabilistic guarantees of finding
//! bugs", ASPLOS 2010).

mod footprint;
mod invariants;
mod planted;
mod point;
mod report;
mod schedule;
mod scheduler;
mod search;
mod vfs;

pub use invariants::Truth;
pub use planted::Bug;
pub use point::{Access, Point};
pub use report::{Explored, Failure};
pub use schedule::{Schedule, Step};
pub use scheduler::Scheduler;
pub use search::{explore, repeats, sample};
pub use vfs::ScheduledVfs;

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use chunkstore::environment::Environment;
use chunkstore::id::RevisionId;
use chunkstore::store::Store;
use chunkstore::vfs::read_file;
use chunkstore::vfs::simulated::{SimulatedClock, SimulatedVfs, environment};

use crate::attempt::panic_of;
use crate::explorer::schedule::Strategy;
use crate::simulated_store;

/// Seed of the environment of the first operation; the others follow.
const FIRST_SEED: u64 = 1000;

/// What an operation does, from the opening of its store to its end.
pub type Work = Box<dyn Fn(&Operation<'_>) + Send + Sync>;

/// A check of what a scenario promises beyond what every one does.
pub type EndCheck = Box<dyn Fn(&Store, &Truth) + Send + Sync>;

/// Operations that run beside each other, from a prepared store on.
pub struct Scenario {
    /// Its name, for messages.
    pub name: &'static str,
    /// The store before the operations; each schedule begins with a copy.
    base: SimulatedVfs,
    truth: Truth,
    operations: Vec<(&'static str, Work)>,
    /// The operation that dies, at each of its points in turn.
    mortal: Option<usize>,
    end_check: Option<EndCheck>,
    bug: Option<Bug>,
    /// Digests of the states that schedules have ended in and that were checked.
    ends: Mutex<HashSet<blake3::Hash>>,
}

impl fmt::Debug for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Scenario").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Scenario {
    /// Returns a scenario whose store `prepare` fills, and remembers in the truth.
    ///
    /// # Panics
    ///
    /// If the store cannot be created.
    pub fn new<R>(name: &'static str, prepare: impl FnOnce(&Store, &Truth) -> R) -> (Self, R) {
        let base = SimulatedVfs::new();
        let store = simulated_store::create(&base, 1).expect("a store can be created");
        let truth = Truth::default();
        let prepared = prepare(&store, &truth);
        drop(store);
        let (operations, mortal, end_check, bug) = (Vec::new(), None, None, None);
        let ends = Mutex::default();
        (Self { name, base, truth, operations, mortal, end_check, bug, ends }, prepared)
    }

    /// Adds an operation.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        work: impl Fn(&Operation<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.operations.push((name, Box::new(work)));
        self
    }

    /// Lets the operation that was added last die, at each of its points in turn.
    #[must_use]
    pub fn which_dies(self) -> Self {
        Self { mortal: self.operations.len().checked_sub(1), ..self }
    }

    /// Adds a check of the store after each schedule, before any other.
    #[must_use]
    pub fn ending_with(self, check: impl Fn(&Store, &Truth) + Send + Sync + 'static) -> Self {
        Self { end_check: Some(Box::new(check)), ..self }
    }

    /// Plants a bug.
    #[must_use]
    pub fn with_bug(self, bug: Bug) -> Self {
        Self { bug: Some(bug), ..self }
    }

    /// Runs one schedule and checks the store after it.
    fn run(&self, strategy: Strategy) -> Run {
        let vfs = self.base.kill();
        let truth = self.truth.clone();
        let scheduler = Arc::new(Scheduler::new(vfs.clone(), self.names(), strategy));
        let panics: Vec<Option<String>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.operations.len())
                .map(|id| {
                    let (vfs, truth, scheduler) = (&vfs, &truth, &scheduler);
                    scope.spawn(move || self.run_operation(id, vfs, truth, scheduler))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(None)).collect()
        });
        let (trace, schedule, failure) = scheduler.end();
        let failure = failure.or_else(|| {
            let named = panics.into_iter().zip(self.names());
            named.filter_map(|(panic, name)| Some(format!("{name}: {}", panic?))).next()
        });
        let failure = failure.or_else(|| {
            // The same end again has nothing new to tell.
            let is_new = self.ends.lock().expect("no check panics").insert(end_of(&vfs, &truth));
            let check = || invariants::check(&vfs, &truth, self.end_check.as_ref());
            if is_new { panic_of(check) } else { None }
        });
        Run { trace, schedule, failure }
    }

    fn run_operation(
        &self,
        id: usize,
        vfs: &SimulatedVfs,
        truth: &Truth,
        scheduler: &Arc<Scheduler>,
    ) -> Option<String> {
        scheduler.start(id);
        let seed = FIRST_SEED + id as u64;
        let clock = SimulatedClock::default();
        // Later than all that the preparation did, and each at a time of its own.
        clock.advance(Duration::from_secs(3600 * (1 + id as u64)));
        let scheduled = ScheduledVfs::new(vfs.clone(), Arc::clone(scheduler), id, self.bug);
        let environment = Environment {
            vfs: Arc::new(scheduled.clone()),
            clock: Arc::new(clock.clone()),
            ..environment(vfs.clone(), seed)
        };
        let panic = panic_of(|| {
            let store = Store::open_in(environment, simulated_store::STORE_PATH);
            let store = store.expect("the configuration is no point");
            (self.operations[id].1)(&Operation {
                store,
                truth,
                vfs: scheduled,
                clock,
                scheduler,
                id,
            });
        });
        scheduler.finish(id);
        // What a dead operation says nobody hears.
        panic.filter(|_| !scheduler.is_dead(id))
    }

    fn end_count(&self) -> usize {
        self.ends.lock().expect("no check panics").len()
    }

    fn names(&self) -> Vec<&'static str> {
        self.operations.iter().map(|(name, _)| *name).collect()
    }
}

/// Returns a digest of all that the check after a schedule looks at.
fn end_of(vfs: &SimulatedVfs, truth: &Truth) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (path, len) in vfs.all_files() {
        let bytes = read_file(vfs, &path, len).expect("a file that is there can be read");
        hasher.update(format!("{} {len}", path.display()).as_bytes()).update(&bytes);
    }
    hasher.update(format!("{truth:?}").as_bytes()).finalize()
}

/// What became of one schedule.
#[derive(Debug)]
struct Run {
    trace: Vec<Step>,
    schedule: Schedule,
    failure: Option<String>,
}

/// A running operation, for the closure that does its work.
#[derive(Debug)]
pub struct Operation<'a> {
    /// The store, on the operation's own file system, clock and entropy.
    pub store: Store,
    /// What must be in the store.
    pub truth: &'a Truth,
    /// The file system as this operation sees it.
    pub vfs: ScheduledVfs,
    /// The operation's clock.
    pub clock: SimulatedClock,
    scheduler: &'a Scheduler,
    id: usize,
}

impl Operation<'_> {
    /// Lets others run for as long as they want: a switch here is no preemption.
    pub fn pause(&self) {
        // An operation that is to end finds out with its next call.
        let _ends = self.scheduler.arrive(self.id, Point::pause());
    }

    /// Runs `call` and gives its result, or `None` if the operation died in it.
    pub fn survives<R>(&self, call: impl FnOnce() -> R) -> Option<R> {
        let result = catch_unwind(AssertUnwindSafe(call));
        if self.scheduler.is_dead(self.id) {
            return None;
        }
        match result {
            Ok(result) => Some(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Backs up, and remembers that.
    ///
    /// # Errors
    ///
    /// As [`simulated_store::backup`].
    pub fn backup(&self, source: &str, bytes: &[u8]) -> chunkstore::error::Result<RevisionId> {
        self.truth.backup(&self.store, source, bytes)
    }
}
