//! What a store takes from the outside world: files, the clock, randomness, who we are.
//!
//! They are values, so that a test can replace each of them.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;
use crate::vfs::Vfs;
use crate::vfs::real::RealVfs;

/// Tells the time.
pub trait Clock: Debug + Send + Sync {
    /// Returns the wall-clock time, for labels and ages.
    fn now(&self) -> Timestamp;

    /// Returns the time since some fixed instant; never goes back.
    fn monotonic(&self) -> Duration;

    /// Waits until about this much monotonic time has passed.
    fn sleep(&self, duration: Duration);
}

/// Makes random numbers for identifiers and samples.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `bytes` with random bytes that no other process gets.
    fn fill(&self, bytes: &mut [u8]);
}

/// Who runs this process; for lock holders and records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Host name.
    pub host: String,
    /// Process id.
    pub process: u32,
    /// Command, as a person would type it.
    pub command: String,
}

/// Files, clock, randomness and identity of a store.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The file system.
    pub vfs: Arc<dyn Vfs>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Who we are.
    pub identity: Identity,
}

impl Environment {
    /// Returns the real environment: the operating system's files, clock and randomness.
    #[must_use]
    pub fn system() -> Self {
        Self {
            vfs: Arc::new(RealVfs::new()),
            clock: Arc::new(crate::vfs::real::SystemClock::new()),
            entropy: Arc::new(crate::vfs::real::SystemEntropy),
            identity: crate::vfs::real::identity(),
        }
    }
}
