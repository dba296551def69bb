//! A file system in memory that loses what was not synced, and fails on demand; for tests.
//!
//! # Fault model
//!
//! 1. A write or a change of length is visible at once (live) and durable after
//!    [`VfsFile::sync_data`](crate::vfs::VfsFile::sync_data) on any open handle of that file. This
//!    says nothing of the file's name.
//! 2. A change of names (create, rename, remove, create directory) is visible at once and durable
//!    after `sync_dir` on the directory of the name, of either directory if a rename has two.
//!    Earlier changes of the same names go with it. This says nothing of the bytes: a new file
//!    is empty until it is synced, whatever it was renamed to. A directory counts only if its own
//!    name is durable.
//! 3. A power cut ([`SimulatedVfs::crash`]) keeps what is durable, and of the rest what the
//!    [`CrashMode`] says: of bytes none, any whole writes, any 512-byte sectors (with or without
//!    the growth in length), or lengths without bytes (zeros); of names none, a prefix of the
//!    journal, or any subset. A sector and a rename are never torn. A file never ends up under two
//!    names. Handles and locks are gone, and so are files without a name.
//! 4. The death of the process ([`SimulatedVfs::kill`]) keeps everything live; what was not durable
//!    still is not.
//! 5. A failed `sync_data` throws the pending changes of that file away: they stay visible until
//!    the power cut, and a second sync says that all is well. A failed `sync_dir` leaves the
//!    pending names to chance for good.
//! 6. A sync may lie ([`Effect::DropSync`]): it says that all is well and does nothing.
//! 7. A call may fail without effect, or move half of its bytes and fail, or stop the world, after
//!    which every call fails with [`Stopped`]. A file may refuse to be opened, or some of its bytes
//!    to be read, each time. Durable bytes do not change on their own; damage is
//!    done with [`SimulatedVfs::flip`] and its like, which act on live and durable state at once.
//! 8. Space is the sum of the live lengths of all files that have a name or are open. A write
//!    beyond the capacity is made as far as there is room, then fails with `ENOSPC`.
//!    Reserving makes a file longer where it ends before, by zeros; a hole is zeros, and gives nothing back.
//! 9. Locks are those of `flock`: between open file descriptions, gone when these are dropped. A
//!    failed conversion loses the lock. Waiting longer than 30 s is a deadlock and panics.
//!
//! Not modelled: links, permissions, times, removal and renaming of directories, and errors that
//! would show only when a file is closed. The working directory is the root.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod call;
mod calls;
mod crash;
mod environment;
mod fault;
mod file_data;
mod medium;
mod names;
mod open_file;
mod random;
mod state;
#[cfg(test)]
mod tests;

pub use call::{Call, CallKind};
pub use crash::{CrashMode, UnsyncedData, UnsyncedNames};
pub use environment::{SeededEntropy, SimulatedClock, environment};
pub use fault::{Counter, Effect, FaultKind, FaultPlan, Stopped};

use crate::vfs::simulated::fault::Faults;
use crate::vfs::simulated::state::State;

/// A file system in memory. Clones are handles to the same one.
#[derive(Clone)]
pub struct SimulatedVfs {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A lock may have become free, or the simulation has stopped.
    changed: Condvar,
}

impl SimulatedVfs {
    /// Returns an empty file system of unlimited size. Its root directory exists.
    #[must_use]
    pub fn new() -> Self {
        Self::of(State::new())
    }

    /// Returns what a power cut at this moment leaves behind. The same seed gives the same.
    ///
    /// The result is independent of this file system, which goes on as if nothing had happened. It
    /// has the same capacity, no faults, and an empty log.
    #[must_use]
    pub fn crash(&self, mode: &CrashMode, seed: u64) -> Self {
        Self::of(crash::after_crash(&self.state(), *mode, seed))
    }

    /// Returns what the death of the process at this moment leaves behind: all but open files,
    /// locks, faults and log.
    #[must_use]
    pub fn kill(&self) -> Self {
        Self::of(self.state().after_kill())
    }

    /// Returns a copy that goes its own way: like [`Self::kill`], but with the faults in force, the
    /// counters and the log.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let state = self.state();
        let mut copy = state.after_kill();
        copy.faults = state.faults.clone();
        Self::of(copy)
    }

    /// Sets the faults to come, ends a stop, and starts all counters at 0 with an empty log.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.state().faults = Faults::new(plan);
    }

    /// Limits the sum of all file lengths, in bytes; `None` lifts the limit.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state().capacity = capacity;
    }

    /// Sets how long a call waits for a lock before it panics.
    pub fn set_lock_wait_max(&self, duration: Duration) {
        self.state().lock_wait_max = duration;
    }

    /// Returns how many calls were made.
    #[must_use]
    pub fn call_count(&self) -> u64 {
        self.state().faults.call_count
    }

    /// Returns how many calls were made that change live or durable state, syncs included.
    #[must_use]
    pub fn mutating_call_count(&self) -> u64 {
        self.state().faults.mutating_call_count
    }

    /// Returns how many syncs of files and directories were asked for.
    #[must_use]
    pub fn sync_count(&self) -> u64 {
        self.state().faults.sync_count
    }

    /// Returns the calls made, failed ones included, up to a stop.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().faults.log.clone()
    }

    /// Returns the paths of the syncs that lied.
    #[must_use]
    pub fn dropped_syncs(&self) -> Vec<PathBuf> {
        self.state().faults.dropped_syncs.clone()
    }

    /// Returns whether a stop was reached.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().faults.stopped
    }

    fn of(state: State) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere says what is wrong; this would only hide it.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_released(&self) {
        self.shared.changed.notify_all();
    }
}

impl Default for SimulatedVfs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimulatedVfs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimulatedVfs").finish_non_exhaustive()
    }
}
