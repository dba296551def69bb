//! A point: a call on something that operations share.

use std::fmt;
use std::path::{Path, PathBuf};

use chunkstore::vfs::{LockMode, parent_of};

/// A name or lock that a call touches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The name; of a directory if what it lists is meant.
    pub path: PathBuf,
    /// Whether the call changes it.
    pub is_write: bool,
}

/// A place where an operation stops.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    what: &'static str,
    /// What the call touches; first what it was made with.
    pub accesses: Vec<Access>,
    /// The call waits for a lock on its first name.
    pub waits: Option<LockMode>,
    /// Switching here is no preemption.
    pub is_free: bool,
}

impl Point {
    /// Returns the point before the first call.
    #[must_use]
    pub fn start() -> Self {
        Self { what: "starts", accesses: Vec::new(), waits: None, is_free: true }
    }

    /// Returns a pause that the operation makes of its own accord.
    #[must_use]
    pub fn pause() -> Self {
        Self { what: "pauses", ..Self::start() }
    }

    /// Returns a call that reads a name.
    #[must_use]
    pub fn read(what: &'static str, path: &Path) -> Self {
        Self::of(what, vec![Access { path: path.to_path_buf(), is_write: false }])
    }

    /// Returns a call that changes names, and with them the directories that they are in.
    #[must_use]
    pub fn write(what: &'static str, paths: &[&Path]) -> Self {
        let names = paths.iter().map(|path| path.to_path_buf());
        let directories = paths.iter().map(|path| parent_of(path));
        let access = |path| Access { path, is_write: true };
        Self::of(what, names.chain(directories).map(access).collect())
    }

    /// Returns the taking of a lock.
    #[must_use]
    pub fn lock(path: &Path, mode: LockMode, waits: bool) -> Self {
        let is_write = mode == LockMode::Exclusive;
        let access = Access { path: path.to_path_buf(), is_write };
        let what = match mode {
            LockMode::Exclusive => "locks",
            LockMode::Shared => "shares",
        };
        Self { waits: waits.then_some(mode), ..Self::of(what, vec![access]) }
    }

    fn of(what: &'static str, accesses: Vec<Access>) -> Self {
        Self { what, accesses, waits: None, is_free: false }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.what)?;
        match self.accesses.first() {
            Some(access) => write!(formatter, " {}", access.path.display()),
            None => Ok(()),
        }
    }
}
