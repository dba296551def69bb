//! The index: chunk id to place in a pack. A cache that can be deleted at any time.
//!
//! Packs are the truth (`docs/format.md`); the index is rebuilt from their footers. It is opened for one short
//! transaction at a time under `locks/index`: shared to look up, exclusive to change (`docs/concurrency.md`).
//!
//! redb does not check its pages when it reads them, so they are checked before it gets them (`checked_blocks`). And still nothing is
//! believed that the index says alone: a place is checked against the record header in the pack, and what purge concludes
//! against the footers. Any error or panic of redb means "damaged, rebuild".

mod backend;
mod change;
mod checked_blocks;
mod kept;
mod quarantine;
mod rebuild;
mod reconcile;
mod record_buckets;
mod tables;
mod view;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, Durability};

pub(crate) use self::change::{Change, Origin};
pub(crate) use self::quarantine::Quarantine;
pub(crate) use self::reconcile::Condemned;
pub(crate) use self::tables::PackRow;
pub(crate) use self::view::{Location, View};

use self::backend::{FileBackend, FileState, ViewBackend};
use self::kept::KeptView;
use self::record_buckets::Overflow;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::id::StoreId;
use crate::layout::Layout;
use crate::lock;
use crate::storage::{Existing, LocalStorage, Storage};
use crate::vfs::LockMode;

/// Memory in bytes that redb may use for its pages while the index is open.
pub(crate) const CACHE_LEN: usize = 24 << 20;

/// How often a damaged index is rebuilt for one call before giving up.
const REBUILD_ATTEMPTS: u32 = 2;

/// Why a transaction on the index failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The index contradicts itself, redb gave up, or there is no index: it must be rebuilt.
    Damaged(String),
    /// The operating system refused something.
    Io(io::Error),
    /// Something outside of the index failed.
    Store(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Turns any error of redb into a [`Fault`].
pub(crate) fn fault(error: impl Into<redb::Error>) -> Fault {
    match error.into() {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Fault::Damaged("the index file ends too early".to_owned())
        }
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Fault::Damaged(error.to_string())
        }
        redb::Error::Io(error) => Fault::Io(error),
        other => Fault::Damaged(other.to_string()),
    }
}

/// The index of one store.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    environment: Environment,
    layout: Layout,
    storage: LocalStorage,
    store_id: StoreId,
    /// Stands in for the file where the store cannot be written and the file cannot be used.
    in_memory: Arc<Mutex<Option<Database>>>,
    /// Whether this handle has built the index anew because a chunk was not to be found.
    was_renewed: Arc<Mutex<bool>>,
    /// The database of those who look up often.
    kept: KeptView,
    /// What was read last of the quarantine.
    quarantine: Arc<Mutex<Arc<Quarantine>>>,
}

impl Index {
    pub(crate) fn new(
        environment: Environment,
        layout: Layout,
        storage: LocalStorage,
        store_id: StoreId,
    ) -> Self {
        Self {
            environment,
            layout,
            storage,
            store_id,
            in_memory: Arc::default(),
            was_renewed: Arc::default(),
            kept: KeptView::default(),
            quarantine: Arc::default(),
        }
    }

    /// Runs `look` on the index under the shared lock; rebuilds the index if it is damaged or not there. Where that
    /// cannot be written, an index in memory stands in: it is as old as when it was made, so only reading relies on it.
    pub(crate) fn view<R>(
        &self,
        look: impl Fn(&View<'_>) -> std::result::Result<R, Fault>,
    ) -> Result<R> {
        for _ in 0..REBUILD_ATTEMPTS {
            match self.try_view_stand_in(&look).unwrap_or_else(|| self.try_view(&look)) {
                Ok(found) => return Ok(found),
                Err(Fault::Store(error)) if !is_refused(&error) => return Err(error),
                Err(_) => self.renew()?,
            }
        }
        let last = self.try_view_stand_in(&look).unwrap_or_else(|| self.try_view(&look));
        last.map_err(|fault| self.give_up(fault))
    }

    /// Like [`Self::view`], but sees what all processes have written until now, or fails. For those whose safety
    /// depends on it: who writes revisions, and purge.
    pub(crate) fn view_current<R>(
        &self,
        look: impl Fn(&View<'_>) -> std::result::Result<R, Fault>,
    ) -> Result<R> {
        for _ in 0..REBUILD_ATTEMPTS {
            match self.try_view(&look) {
                Ok(found) => return Ok(found),
                Err(Fault::Store(error)) => return Err(error),
                Err(Fault::Damaged(_) | Fault::Io(_)) => {
                    self.rebuild(&crate::progress::NoProgress)?;
                }
            }
        }
        self.try_view(&look).map_err(|fault| self.give_up(fault))
    }

    /// Runs `edit` in one transaction under the exclusive lock; the change is durable when the call returns.
    /// Rebuilds the index and runs `edit` again if it is damaged or not there.
    pub(crate) fn change<R>(
        &self,
        edit: impl Fn(&mut Change<'_>) -> std::result::Result<R, Fault>,
    ) -> Result<R> {
        for _ in 0..REBUILD_ATTEMPTS {
            match self.try_change(&edit) {
                Ok(result) => return Ok(result),
                Err(Fault::Damaged(_)) => drop(self.rebuild(&crate::progress::NoProgress)?),
                Err(other) => return Err(self.give_up(other)),
            }
        }
        self.try_change(&edit).map_err(|fault| self.give_up(fault))
    }

    /// Looks into the index in memory, if there is one.
    fn try_view_stand_in<R>(
        &self,
        look: &impl Fn(&View<'_>) -> std::result::Result<R, Fault>,
    ) -> Option<std::result::Result<R, Fault>> {
        let in_memory = self.in_memory.lock().unwrap_or_else(PoisonError::into_inner);
        let database = in_memory.as_ref()?;
        Some(guarded(|| View::run(database, self.store_id, look)))
    }

    fn try_view<R>(
        &self,
        look: &impl Fn(&View<'_>) -> std::result::Result<R, Fault>,
    ) -> std::result::Result<R, Fault> {
        let _lock = self.lock(LockMode::Shared)?;
        let file = self.environment.vfs.open(&self.layout.index(), false).map_err(missing_or_io)?;
        guarded(|| {
            let backend = ViewBackend::new(file).map_err(Fault::Io)?;
            let end = backend.end();
            let database =
                Database::builder().set_cache_size(CACHE_LEN).create_with_backend(backend);
            let database = database.map_err(fault)?;
            let found = View::run(&database, self.store_id, look);
            end.close(database);
            found
        })
    }

    fn try_change<R>(
        &self,
        edit: &impl Fn(&mut Change<'_>) -> std::result::Result<R, Fault>,
    ) -> std::result::Result<R, Fault> {
        let _lock = self.lock(LockMode::Exclusive)?;
        let file = self.environment.vfs.open(&self.layout.index(), true).map_err(missing_or_io)?;
        let (backend, failure) = FileBackend::new(file);
        let result = guarded(|| {
            let database = Database::builder()
                .set_cache_size(CACHE_LEN)
                .create_with_backend(backend)
                .map_err(fault)?;
            self.transact(&database, edit)
        });
        let Some((error, state)) = failure.take() else {
            if result.is_ok() {
                self.end_stand_in();
            }
            return result;
        };
        if state == FileState::Unknown {
            // The file may say one thing now and another one after a crash.
            // It is a cache: without it the next user starts from the packs.
            let _next_user_rebuilds = self.environment.vfs.remove_file(&self.layout.index());
        }
        // Where only closing the file failed, the change is made.
        result.map_err(|_| Fault::Io(error))
    }

    fn transact<R>(
        &self,
        database: &Database,
        edit: &impl Fn(&mut Change<'_>) -> std::result::Result<R, Fault>,
    ) -> std::result::Result<R, Fault> {
        let mut transaction = database.begin_write().map_err(fault)?;
        transaction.set_durability(Durability::Immediate).map_err(fault)?;
        // Two crashes in a row may not roll a commit back, and opening after a crash may not take long.
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        let result = {
            let mut change =
                Change::open(&transaction, self.store_id, self.environment.clock.now())?;
            edit(&mut change)?
        };
        transaction.commit().map_err(fault)?;
        Ok(result)
    }

    fn lock(&self, mode: LockMode) -> std::result::Result<lock::Lock, Fault> {
        Ok(lock::wait(&self.environment, &self.layout.lock("index"), mode)?)
    }

    /// Rebuilds the index file, or builds one in memory if that cannot be written.
    pub(crate) fn renew(&self) -> Result<()> {
        match self.rebuild(&crate::progress::NoProgress) {
            Err(error) if is_refused(&error) => self.stand_in(),
            other => other.map(drop),
        }
    }

    /// Removes the index, so that its space can be used; the next user makes it again, and denser. Returns whether
    /// there was one.
    pub(crate) fn discard(&self) -> Result<bool> {
        let _lock = self.lock(LockMode::Exclusive).map_err(|fault| self.give_up(fault))?;
        let path = self.layout.index();
        match self.environment.vfs.remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true).map_err(Error::storage("remove", path)),
        }
    }

    /// Goes back to the index file, if an index in memory stands in for it.
    fn end_stand_in(&self) {
        *self.in_memory.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn stand_in(&self) -> Result<()> {
        let built = guarded(|| {
            let backend = redb::backends::InMemoryBackend::new();
            let database =
                Database::builder().set_cache_size(CACHE_LEN).create_with_backend(backend);
            let database = database.map_err(fault)?;
            self.fill(&database, Overflow::Memory, &crate::progress::NoProgress)?;
            Ok(database)
        });
        let database = built.map_err(|fault| self.give_up(fault))?;
        *self.in_memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(database);
        Ok(())
    }

    /// Builds a new index from the packs and puts it in the place of the old one.
    pub(crate) fn rebuild(
        &self,
        progress: &dyn crate::progress::Progress,
    ) -> Result<rebuild::Rebuilt> {
        let _lock = self.lock(LockMode::Exclusive).map_err(|fault| self.give_up(fault))?;
        let mut temporary = self.storage.temporary()?;
        let file = self
            .environment
            .vfs
            .open(temporary.path(), true)
            .map_err(Error::storage("open", temporary.path()))?;
        let (backend, failure) = FileBackend::new(file);
        let rebuilt = guarded(|| {
            let database = Database::builder()
                .set_cache_size(CACHE_LEN)
                .create_with_backend(backend)
                .map_err(fault)?;
            self.fill(&database, Overflow::File(&self.storage), progress)
        });
        // Closing the file writes too, and redb does not say how that went.
        let rebuilt = match (rebuilt, failure.take()) {
            (Err(Fault::Store(error)), _) => return Err(error),
            (_, Some((error, _))) => return Err(self.give_up(Fault::Io(error))),
            (rebuilt, None) => rebuilt.map_err(|fault| self.give_up(fault))?,
        };
        // A backup relies on what the index leads to. There may be more by now than it knows.
        self.storage.sync_packs(&self.storage.list_packs()?)?;
        self.storage.publish(&mut temporary, &self.layout.index(), Existing::Replace)?;
        self.end_stand_in();
        Ok(rebuilt)
    }

    /// Builds the index anew, once for each handle, because a chunk is not in it at all; what it lacks afterwards, no
    /// pack has.
    pub(crate) fn renew_once(&self) -> Result<()> {
        let mut was_renewed = self.was_renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if !*was_renewed {
            self.renew()?;
            *was_renewed = true;
        }
        Ok(())
    }

    /// Returns whether [`Self::renew_once`] has nothing more to do.
    pub(crate) fn was_renewed(&self) -> bool {
        *self.was_renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the index in the error of a transaction that is not tried again.
    fn give_up(&self, fault: Fault) -> Error {
        let action = "use index";
        match fault {
            Fault::Store(error) => error,
            Fault::Io(source) => Error::Storage { action, path: self.layout.index(), source },
            Fault::Damaged(reason) => Error::Storage {
                action,
                path: self.layout.index(),
                source: io::Error::new(io::ErrorKind::InvalidData, reason),
            },
        }
    }
}

/// Runs code of redb: a panic in it is damage, not the end of the program.
fn guarded<R>(
    code: impl FnOnce() -> std::result::Result<R, Fault>,
) -> std::result::Result<R, Fault> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Fault::Damaged(format!("it made redb panic: {text}")))
    })
}

fn missing_or_io(error: io::Error) -> Fault {
    if error.kind() == io::ErrorKind::NotFound {
        Fault::Damaged("there is no index".to_owned())
    } else {
        Fault::Io(error)
    }
}

/// Returns whether the system refused a write: nothing may be written, or there is no space. What was there before is
/// whole.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
    )
}

/// Returns whether the store could not be written, which reading can do without.
fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Storage { source, .. } if is_refusal(source))
}
