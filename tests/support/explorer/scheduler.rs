//! Lets one operation run at a time.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use chunkstore::vfs::Vfs;
use chunkstore::vfs::simulated::SimulatedVfs;

use crate::explorer::point::Point;
use crate::explorer::schedule::{Schedule, Step, Strategy};

/// Time after which an operation that comes to no point is taken for hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// Decisions after which a run is taken for endless.
const DECISIONS_MAX: usize = 20_000;

/// Where an operation is.
#[derive(Debug)]
enum Place {
    Nowhere,
    At(Arc<Point>),
    Running,
    Over,
}

#[derive(Debug)]
struct State {
    places: Vec<Place>,
    /// Points that each operation has come to.
    point_counts: Vec<usize>,
    is_dead: Vec<bool>,
    active: Option<usize>,
    strategy: Strategy,
    trace: Vec<Step>,
    /// Files in `tmp/` of threads inside an operation.
    hidden: BTreeMap<PathBuf, usize>,
    /// The highest of a condemned list.
    generation: u64,
    failure: Option<String>,
}

/// Decides who runs.
#[derive(Debug)]
pub struct Scheduler {
    vfs: SimulatedVfs,
    names: Vec<&'static str>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Why an operation does not go on: it died, or the run has failed.
#[derive(Clone, Copy, Debug)]
pub struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the schedule has ended this operation")
    }
}

impl Error for Ended {}

impl From<Ended> for io::Error {
    fn from(ended: Ended) -> Self {
        Self::other(ended)
    }
}

impl Scheduler {
    pub(super) fn new(vfs: SimulatedVfs, names: Vec<&'static str>, strategy: Strategy) -> Self {
        let count = names.len();
        let state = State {
            places: (0..count).map(|_| Place::Nowhere).collect(),
            point_counts: vec![0; count],
            is_dead: vec![false; count],
            active: None,
            strategy,
            trace: Vec::new(),
            hidden: BTreeMap::new(),
            generation: 0,
            failure: None,
        };
        Self { vfs, names, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all operations are here and this one is the first to go.
    pub(super) fn start(&self, operation: usize) {
        let mut state = self.state();
        state.places[operation] = Place::At(Arc::new(Point::start()));
        if !state.places.iter().any(|place| matches!(place, Place::Nowhere)) {
            self.decide(&mut state);
        }
        let _begun = self.wait(state, operation);
    }

    /// Stops at a point until it is this operation's turn again.
    ///
    /// # Errors
    ///
    /// - [`Ended`] if it is not to go on; all later calls fail too.
    pub(super) fn arrive(&self, operation: usize, point: Point) -> Result<(), Ended> {
        let mut state = self.state();
        self.refuse_if_ended(&state, operation)?;
        state.point_counts[operation] += 1;
        if state.strategy.death() == Some((operation, state.point_counts[operation])) {
            state.is_dead[operation] = true;
            return Err(Ended);
        }
        if !matches!(state.places[operation], Place::Running) {
            let text = format!("two threads of {} are at points", self.names[operation]);
            self.fail(&mut state, text);
            return Err(Ended);
        }
        state.places[operation] = Place::At(Arc::new(point));
        self.decide(&mut state);
        self.wait(state, operation)
    }

    /// Notes that an operation is over.
    pub(super) fn finish(&self, operation: usize) {
        let mut state = self.state();
        state.places[operation] = Place::Over;
        self.decide(&mut state);
    }

    /// Refuses a call that is no point, of an operation that does not go on.
    pub(super) fn check(&self, operation: usize) -> Result<(), Ended> {
        self.refuse_if_ended(&self.state(), operation)
    }

    pub(super) fn is_dead(&self, operation: usize) -> bool {
        self.state().is_dead[operation]
    }

    /// Notes a file that others are not to see while its operation lives.
    pub(super) fn hide(&self, operation: usize, path: &Path) {
        self.state().hidden.insert(path.to_path_buf(), operation);
    }

    /// Returns whether an operation must not see a file.
    pub(super) fn is_hidden(&self, operation: usize, path: &Path) -> bool {
        let state = self.state();
        state.hidden.get(path).is_some_and(|owner| {
            *owner != operation
                && !state.is_dead[*owner]
                && !matches!(state.places[*owner], Place::Over)
        })
    }

    /// Notes the number of a new condemned list, `highest` being that of those that are there.
    pub(super) fn note_generation(&self, highest: Option<u64>, number: u64) -> Result<(), Ended> {
        let mut state = self.state();
        let highest = highest.unwrap_or(0).max(state.generation);
        if number <= highest {
            let text = format!("the generation falls from {highest} to {number}");
            self.fail(&mut state, text);
            return Err(Ended);
        }
        state.generation = number;
        Ok(())
    }

    /// Returns what happened: the decisions, the schedule that shows them again, and what went wrong.
    pub(super) fn end(&self) -> (Vec<Step>, Schedule, Option<String>) {
        let mut state = self.state();
        let departs = |(decision, step): (usize, &Step)| {
            (step.chosen != step.usual()).then_some((decision, step.chosen))
        };
        let switches = state.trace.iter().enumerate().filter_map(departs).collect();
        let schedule = Schedule { switches, death: state.strategy.death() };
        (std::mem::take(&mut state.trace), schedule, state.failure.take())
    }

    fn refuse_if_ended(&self, state: &State, operation: usize) -> Result<(), Ended> {
        if state.failure.is_some() || state.is_dead[operation] { Err(Ended) } else { Ok(()) }
    }

    /// Chooses who goes on.
    fn decide(&self, state: &mut State) {
        let before = state.active.take();
        if state.failure.is_some() {
            return;
        }
        let can_go = |operation: &usize| match &state.places[*operation] {
            Place::At(point) => self.is_free(point),
            Place::Nowhere | Place::Running | Place::Over => false,
        };
        let runnable: Vec<usize> = (0..state.places.len()).filter(can_go).collect();
        if runnable.is_empty() {
            if !state.places.iter().all(|place| matches!(place, Place::Over)) {
                let text = format!("deadlock: {}", self.describe_places(state));
                self.fail(state, text);
            }
            return;
        }
        if DECISIONS_MAX <= state.trace.len() {
            self.fail(state, "the operations do not come to an end".to_owned());
            return;
        }
        let current = before.filter(|before| runnable.contains(before));
        let decision = state.trace.len();
        let chosen = state.strategy.choose(decision, current, &runnable);
        let point_of = |operation: usize| match &state.places[operation] {
            Place::At(point) => Some(Arc::clone(point)),
            Place::Nowhere | Place::Running | Place::Over => None,
        };
        let (point, does) = (current.and_then(point_of), point_of(chosen));
        let does = does.expect("who can go on is at a point");
        state.trace.push(Step { current, point, runnable, chosen, does });
        state.active = Some(chosen);
        self.changed.notify_all();
    }

    /// Returns whether the call at a point would not wait.
    fn is_free(&self, point: &Point) -> bool {
        let Some(mode) = point.waits else { return true };
        let path = &point.accesses[0].path;
        !matches!(self.vfs.lock(path, mode, false), Ok(None))
    }

    fn wait(&self, mut state: MutexGuard<'_, State>, operation: usize) -> Result<(), Ended> {
        while state.active != Some(operation) {
            self.refuse_if_ended(&state, operation)?;
            let waited = self.changed.wait_timeout(state, PATIENCE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if timeout.timed_out() && state.active != Some(operation) {
                let text = format!("nothing happens: {}", self.describe_places(&state));
                self.fail(&mut state, text);
            }
        }
        self.refuse_if_ended(&state, operation)?;
        state.places[operation] = Place::Running;
        Ok(())
    }

    /// Ends all operations.
    fn fail(&self, state: &mut State, text: String) {
        state.failure.get_or_insert(text);
        self.changed.notify_all();
    }

    fn describe_places(&self, state: &State) -> String {
        let describe = |(place, name): (&Place, &&str)| match place {
            Place::At(point) => format!("{name} {point}"),
            Place::Nowhere => format!("{name} has not begun"),
            Place::Running => format!("{name} runs"),
            Place::Over => format!("{name} is over"),
        };
        let places: Vec<String> = state.places.iter().zip(&self.names).map(describe).collect();
        places.join(", ")
    }
}
