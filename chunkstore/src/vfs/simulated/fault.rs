//! Faults on order: which call fails, and how; and the counters that say which call is which.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::vfs::simulated::call::{Call, CallKind};

/// An error of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// `EIO`: the device failed.
    Device,
    /// `ENOSPC`: the file system is full.
    NoSpace,
    /// `EDQUOT`: the quota is used up.
    Quota,
    /// `EROFS`: the file system was remounted read-only.
    ReadOnly,
    /// `EACCES`: not permitted.
    Access,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Device, Self::NoSpace, Self::Quota, Self::ReadOnly, Self::Access];

    /// Returns the error as the operating system would.
    #[must_use]
    pub fn error(self) -> io::Error {
        io::Error::from(match self {
            Self::Device => Errno::IO,
            Self::NoSpace => Errno::NOSPC,
            Self::Quota => Errno::DQUOT,
            Self::ReadOnly => Errno::ROFS,
            Self::Access => Errno::ACCESS,
        })
    }
}

/// What to count to find the call that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Every call.
    Calls,
    /// Calls that change live or durable state, syncs included.
    Mutations,
    /// Syncs of files and directories.
    Syncs,
}

/// What happens to the call that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It fails and changes nothing, except that a failed sync loses what it should have saved.
    Fail(FaultKind),
    /// A read or write moves half of its bytes, then fails. Any other call fails with `EIO`.
    Short,
    /// It fails with [`Stopped`], changes nothing, and so does every call after it.
    Stop,
    /// A sync says that all is well and does nothing. Any other call is not affected.
    DropSync,
}

/// The error of every call from a stop on: to the program the disk is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulation has stopped")]
pub struct Stopped;

impl Stopped {
    /// Returns whether `error` says that the simulation has stopped.
    #[must_use]
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// The faults of one run. Calls are numbered from 0, beginning when the plan is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    faults: Vec<(Counter, u64, Effect)>,
    unreadable: Option<Unreadable>,
}

/// A file of which something cannot be read, however often it is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unreadable {
    path: PathBuf,
    /// `None`: it cannot even be opened.
    bytes: Option<Range<u64>>,
    kind: FaultKind,
}

impl Unreadable {
    /// Returns whether a call fails because of it.
    fn hits(&self, call: &Call) -> bool {
        let is_hit = match &self.bytes {
            None => call.kind == CallKind::Open,
            Some(bytes) => {
                call.kind == CallKind::ReadExactAt
                    && call.offset < bytes.end
                    && bytes.start < call.offset.saturating_add(call.len)
            }
        };
        is_hit && call.path == self.path
    }
}

impl FaultPlan {
    /// Returns a plan without faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns a plan in which call `n` of those counted suffers `effect`.
    #[must_use]
    pub fn at(counter: Counter, n: u64, effect: Effect) -> Self {
        Self::none().and(counter, n, effect)
    }

    /// Adds a fault. If several hit the same call, the first added counts.
    #[must_use]
    pub fn and(mut self, counter: Counter, n: u64, effect: Effect) -> Self {
        self.faults.push((counter, n, effect));
        self
    }

    /// Returns a plan in which call `n` fails.
    #[must_use]
    pub fn fail_call(n: u64, kind: FaultKind) -> Self {
        Self::at(Counter::Calls, n, Effect::Fail(kind))
    }

    /// Returns a plan in which mutating call `n` fails.
    #[must_use]
    pub fn fail_mutation(n: u64, kind: FaultKind) -> Self {
        Self::at(Counter::Mutations, n, Effect::Fail(kind))
    }

    /// Returns a plan in which nothing happens from mutating call `n` on.
    #[must_use]
    pub fn stop_at_mutation(n: u64) -> Self {
        Self::at(Counter::Mutations, n, Effect::Stop)
    }

    /// Returns a plan in which the file at `path` cannot be opened.
    #[must_use]
    pub fn fail_open(path: &Path, kind: FaultKind) -> Self {
        Self::fail_at(path, None, kind)
    }

    /// Returns a plan in which each read of some of these bytes fails, if the file was opened as `path`.
    #[must_use]
    pub fn fail_reads(path: &Path, bytes: Range<u64>, kind: FaultKind) -> Self {
        Self::fail_at(path, Some(bytes), kind)
    }

    fn fail_at(path: &Path, bytes: Option<Range<u64>>, kind: FaultKind) -> Self {
        Self {
            unreadable: Some(Unreadable { path: path.to_path_buf(), bytes, kind }),
            ..Self::none()
        }
    }

    /// Returns a plan in which sync `n` is a lie.
    #[must_use]
    pub fn drop_sync(n: u64) -> Self {
        Self::at(Counter::Syncs, n, Effect::DropSync)
    }
}

/// The plan in force, and what has been counted since it was set.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    plan: FaultPlan,
    pub(super) call_count: u64,
    pub(super) mutating_call_count: u64,
    pub(super) sync_count: u64,
    pub(super) stopped: bool,
    pub(super) log: Vec<Call>,
    pub(super) dropped_syncs: Vec<PathBuf>,
}

impl Faults {
    /// Returns a plan with every counter at 0.
    pub(super) fn new(plan: FaultPlan) -> Self {
        Self { plan, ..Self::default() }
    }

    /// Counts and logs a call, and returns what is to happen to it, except for a stop.
    ///
    /// # Errors
    ///
    /// [`Stopped`], now and in every later call.
    pub(super) fn begin(&mut self, call: Call) -> io::Result<Option<Effect>> {
        self.refuse_if_stopped()?;
        let kind = call.kind;
        let hit = |&&(counter, n, _): &&(Counter, u64, Effect)| match counter {
            Counter::Calls => n == self.call_count,
            Counter::Mutations => kind.is_mutating() && n == self.mutating_call_count,
            Counter::Syncs => kind.is_sync() && n == self.sync_count,
        };
        let effect = self.plan.faults.iter().find(hit).map(|&(_, _, effect)| effect);
        let unreadable = self.plan.unreadable.as_ref().filter(|unreadable| unreadable.hits(&call));
        let effect = effect.or(unreadable.map(|unreadable| Effect::Fail(unreadable.kind)));
        self.call_count += 1;
        self.mutating_call_count += u64::from(kind.is_mutating());
        self.sync_count += u64::from(kind.is_sync());
        if effect == Some(Effect::DropSync) && kind.is_sync() {
            self.dropped_syncs.push(call.path.clone());
        }
        self.log.push(call);
        self.stopped = effect == Some(Effect::Stop);
        self.refuse_if_stopped()?;
        Ok(effect)
    }

    /// Fails from the stop on.
    pub(super) fn refuse_if_stopped(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other(Stopped)) } else { Ok(()) }
    }
}
