//! Locks of a store: flocks, so they end with the process that holds them, however it ends.
//!
//! Table of who holds what: `docs/concurrency.md`. A lock file is never removed: two processes could
//! otherwise hold "the same" lock on two files.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::vfs::{LockMode, Vfs, VfsLock, parent_of, read_file};

/// Most bytes of a lock file that are shown to a person.
const HOLDER_LEN_MAX: u64 = 4096;

/// What the holder of an exclusive lock writes into the lock file, for those who find it locked.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    process: u32,
    host: String,
    command: String,
    since: String,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _lock: Box<dyn VfsLock>,
}

/// The right to condemn and to sweep. Only a store hands one out, to one process at a time.
#[derive(Debug)]
pub struct PurgeLock(#[expect(dead_code, reason = "held, not read")] pub(crate) Lock);

/// The right to add revisions of one source. Only a store hands one out.
#[derive(Debug)]
pub struct SourceLock(#[expect(dead_code, reason = "held, not read")] pub(crate) Lock);

/// The right to change states of revisions and to remove records. Held for a few small files, so that whoever
/// changes a state has read the one that is replaced.
#[derive(Debug)]
pub struct HistoryLock(#[expect(dead_code, reason = "held, not read")] pub(crate) Lock);

/// Takes the lock `path` and waits for it.
pub(crate) fn wait(environment: &Environment, path: &Path, mode: LockMode) -> Result<Lock> {
    match open(environment, path, mode, true)? {
        Some(lock) => Ok(lock),
        None => Err(Error::Bug { what: format!("waiting for {} ended early", path.display()) }),
    }
}

/// Takes the exclusive lock `path` without waiting; `what` names the thing that is locked.
pub(crate) fn try_exclusive(environment: &Environment, path: &Path, what: &str) -> Result<Lock> {
    match open(environment, path, LockMode::Exclusive, false)? {
        Some(lock) => {
            describe(environment, lock._lock.as_ref());
            Ok(lock)
        }
        None => {
            Err(Error::Locked { what: what.to_owned(), holder: describe_holder(environment, path) })
        }
    }
}

fn open(
    environment: &Environment,
    path: &Path,
    mode: LockMode,
    wait: bool,
) -> Result<Option<Lock>> {
    let vfs = environment.vfs.as_ref();
    let found = match vfs.lock(path, mode, wait) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(vfs, path).map_err(Error::storage("create", path))?;
            vfs.lock(path, mode, wait)
        }
        other => other,
    };
    let lock = found.map_err(Error::storage("lock", path))?;
    Ok(lock.map(|lock| Lock { _lock: lock }))
}

/// Creates a lock file, and its directory if a crash took that away: neither needs to be durable.
fn create(vfs: &dyn Vfs, path: &Path) -> io::Result<()> {
    let create_file = || match vfs.create_new(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    };
    match create_file() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match vfs.create_dir(&parent_of(path)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                Ok(()) | Err(_) => create_file(),
            }
        }
        other => other,
    }
}

/// Writes who we are into the lock file. It serves a message only, so a failure is of no consequence.
fn describe(environment: &Environment, lock: &dyn VfsLock) {
    let holder = Holder {
        process: environment.identity.process,
        host: environment.identity.host.clone(),
        command: environment.identity.command.clone(),
        since: environment.clock.now().to_string(),
    };
    if let Ok(text) = serde_json::to_string(&holder) {
        let _unimportant = lock.describe(&text);
    }
}

fn describe_holder(environment: &Environment, path: &Path) -> String {
    read_file(environment.vfs.as_ref(), path, HOLDER_LEN_MAX)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Holder>(&bytes).ok())
        .map_or_else(
            || "another process".to_owned(),
            |holder| {
                format!(
                    "process {} on {} since {} ({})",
                    holder.process, holder.host, holder.since, holder.command
                )
            },
        )
}
