//! The revisions that a server offers: found by specification, opened once, read through one cache.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use chunkstore::format::RevisionKind;
use chunkstore::id::RevisionId;
use chunkstore::{ChunkCache, History, ImageReader, Overlay, Revision, Store};

use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;

/// What all exports of a server have in common.
#[derive(Debug)]
pub(super) struct Catalog {
    directory: BackupDirectory,
    store: Store,
    cache: Arc<ChunkCache>,
    /// Connections to one revision share its reader, and with it the pin that keeps it from being purged.
    readers: Mutex<HashMap<RevisionId, Weak<ImageReader>>>,
}

impl Catalog {
    pub(super) fn new(directory: BackupDirectory, store: Store, cache_len: usize) -> Self {
        let cache = Arc::new(ChunkCache::new(cache_len));
        Self { directory, store, cache, readers: Mutex::default() }
    }

    /// Returns the images that are there now, damaged records apart.
    pub(super) fn history(&self) -> Result<History, CommandError> {
        let mut history = self.store.history(self.directory.source_name()?.as_ref())?;
        history.revisions.retain(|revision| revision.record.kind == RevisionKind::Image);
        Ok(history)
    }

    /// Returns the one revision that `text` means now.
    pub(super) fn find(&self, text: &str) -> Result<Revision, CommandError> {
        // Clients that list ask for each revision by its id. That need not read all records every time.
        if let Ok(id) = text.parse()
            && let Ok(revision) = self.store.revision(&id)
            && self.directory.source_name()?.is_none_or(|name| name == revision.record.source)
        {
            return Ok(revision);
        }
        self.directory.select_one_of(self.history()?, text)
    }

    /// Opens a revision, or returns the reader that has it open.
    pub(super) fn open(&self, id: &RevisionId) -> chunkstore::Result<Arc<ImageReader>> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = readers.get(id).and_then(Weak::upgrade) {
            return Ok(reader);
        }
        readers.retain(|_, reader| reader.strong_count() != 0);
        let cache = Arc::clone(&self.cache);
        let reader = Arc::new(ImageReader::open_with_cache(&self.store, id, cache)?);
        readers.insert(*id, Arc::downgrade(&reader));
        Ok(reader)
    }

    pub(super) fn open_overlay(&self, path: &Path) -> chunkstore::Result<Overlay> {
        Overlay::open_with_cache(path, &self.store, Arc::clone(&self.cache))
    }
}
