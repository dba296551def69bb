//! Clock and randomness that a test decides upon.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::environment::{Clock, Entropy, Environment, Identity};
use crate::time::Timestamp;
use crate::vfs::simulated::SimulatedVfs;
use crate::vfs::simulated::random::Random;

/// Where simulated clocks start: 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp(1_767_225_600_000);

/// How much simulated clocks advance at each reading.
const STEP: Duration = Duration::from_millis(1);

/// A clock that advances by a fixed step at each reading. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct SimulatedClock {
    readings: Arc<Mutex<Readings>>,
}

#[derive(Clone, Debug)]
struct Readings {
    now: Timestamp,
    monotonic: Duration,
    step: Duration,
}

impl SimulatedClock {
    /// Returns a clock that shows `start` and advances by `step` after each reading.
    #[must_use]
    pub fn new(start: Timestamp, step: Duration) -> Self {
        let readings = Readings { now: start, monotonic: Duration::ZERO, step };
        Self { readings: Arc::new(Mutex::new(readings)) }
    }

    /// Returns a clock of its own that shows the same times. Nothing is read, so neither advances.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { readings: Arc::new(Mutex::new(self.readings().clone())) }
    }

    /// Sets the wall clock, back too. Monotonic time is not affected.
    pub fn set(&self, now: Timestamp) {
        self.readings().now = now;
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        self.readings().advance(duration);
    }

    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self::new(START, STEP)
    }
}

impl Readings {
    fn advance(&mut self, duration: Duration) {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.now = Timestamp(self.now.0.saturating_add(milliseconds));
        self.monotonic = self.monotonic.saturating_add(duration);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let mut readings = self.readings();
        let (now, step) = (readings.now, readings.step);
        readings.advance(step);
        now
    }

    fn monotonic(&self) -> Duration {
        let mut readings = self.readings();
        let (monotonic, step) = (readings.monotonic, readings.step);
        readings.advance(step);
        monotonic
    }

    /// Lets time pass, and does not wait.
    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

/// Randomness that a seed determines. Environments of one test need different seeds, or their
/// identifiers collide.
#[derive(Debug)]
pub struct SeededEntropy {
    random: Mutex<Random>,
}

impl SeededEntropy {
    /// Returns the entropy of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: Mutex::new(Random::new(seed)) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&random.next().to_le_bytes()[..piece.len()]);
        }
    }
}

/// Returns an environment on a simulated file system: a default [`SimulatedClock`], entropy of the
/// seed, a fixed identity.
///
/// A test that sets the clock replaces it: `Environment { clock, ..environment(vfs, seed) }`.
#[must_use]
pub fn environment(vfs: SimulatedVfs, seed: u64) -> Environment {
    Environment {
        vfs: Arc::new(vfs),
        clock: Arc::new(SimulatedClock::default()),
        entropy: Arc::new(SeededEntropy::new(seed)),
        identity: Identity {
            host: "simulated".to_owned(),
            process: 1,
            command: "simulation".to_owned(),
        },
    }
}
