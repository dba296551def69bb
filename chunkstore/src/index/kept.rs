//! Lookups of readers that go on for long: the database stays open in memory as long as the index file says that nothing was committed.
//!
//! To open a database takes some hundred microseconds, and its cache begins empty. Between two lookups neither the lock nor the file is
//! held. What shows a commit is the header of the file: it has the number of the last transaction and checksums over all that the tables hold.
//! It is read under the shared lock, before what is in memory is believed. What fails here is done again in the ordinary way.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::Database;

use super::backend::{FileSlot, ViewBackend, ViewEnd};
use super::view::{Location, View};
use super::{CACHE_LEN, Fault, Index, fault, guarded, missing_or_io};
use crate::error::Result;
use crate::id::ChunkId;
use crate::vfs::{LockMode, VfsFile};

/// Bytes at the start of the file that change with each commit: the first page, of which redb uses the first 320.
const HEADER_LEN: usize = 4096;

/// The database of the last lookup.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptView {
    last: Arc<Mutex<Option<Arc<Kept>>>>,
}

struct Kept {
    /// Only taken when this is dropped.
    database: Option<Database>,
    end: ViewEnd,
    file: Arc<FileSlot>,
    header: Vec<u8>,
}

impl Index {
    /// Returns where each of `ids` is, for one who will ask again: the database stays open in memory.
    pub(crate) fn locate_often(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        match self.try_locate(ids) {
            Ok(locations) => Ok(locations),
            Err(_) => {
                *self.kept.last() = None;
                // It fails there for the same reason, or repairs what is damaged.
                self.view(|view| view.locate(ids))
            }
        }
    }

    fn try_locate(&self, ids: &[ChunkId]) -> std::result::Result<Vec<Option<Location>>, Fault> {
        let look = |view: &View<'_>| view.locate(ids);
        if let Some(found) = self.try_view_stand_in(&look) {
            return found;
        }
        let _lock = self.lock(LockMode::Shared)?;
        let file = self.environment.vfs.open(&self.layout.index(), false).map_err(missing_or_io)?;
        let mut header = vec![0; HEADER_LEN];
        file.read_exact_at(&mut header, 0).map_err(Fault::Io)?;
        let kept = self.kept.last().clone().filter(|kept| kept.header == header);
        guarded(|| {
            let (kept, _reading) = match kept {
                Some(kept) => {
                    let reading = kept.file.put(file);
                    (kept, reading)
                }
                None => self.kept.open(file, header)?,
            };
            let database = kept.database.as_ref().expect("it is taken when this is dropped");
            View::run(database, self.store_id, &look)
        })
    }
}

impl KeptView {
    fn last(&self) -> MutexGuard<'_, Option<Arc<Kept>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the database and puts it in the place of the last one.
    fn open(
        &self,
        file: Box<dyn VfsFile>,
        header: Vec<u8>,
    ) -> std::result::Result<(Arc<Kept>, super::backend::Reading), Fault> {
        let slot = Arc::<FileSlot>::default();
        let reading = slot.put(file);
        let backend = ViewBackend::of_slot(Arc::clone(&slot)).map_err(Fault::Io)?;
        let end = backend.end();
        let database = Database::builder().set_cache_size(CACHE_LEN).create_with_backend(backend);
        let database = Some(database.map_err(fault)?);
        let kept = Arc::new(Kept { database, end, file: slot, header });
        let replaced = self.last().replace(Arc::clone(&kept));
        drop(replaced);
        Ok((kept, reading))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            let _closed_or_not = catch_unwind(AssertUnwindSafe(|| self.end.close(database)));
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Kept")
    }
}
