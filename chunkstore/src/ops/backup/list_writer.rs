//! Writes pages and roots for others than backups, as backups do it: what the store has is not written again.

use std::num::NonZero;
use std::thread;

use super::chunk_writer::Worker;
use super::memory::Memory;
use super::pack_pipeline::PackPipeline;
use crate::error::Result;
use crate::format::{BackupStatistics, ObjectKind};
use crate::id::ChunkId;
use crate::limits::TREE_PAGE_LEN_MAX;
use crate::ops::page_bounds::PageBounds;
use crate::session::Session;
use crate::store::Store;

/// Takes pages and roots of trees.
pub(in crate::ops) struct ListWriter<'a> {
    worker: Worker<'a>,
}

impl ListWriter<'_> {
    /// Makes sure that the store has a page or a root, and returns its id. It is durable when [`write_lists`] returns.
    pub(in crate::ops) fn store(&mut self, kind: ObjectKind, plain: &[u8]) -> Result<ChunkId> {
        self.worker.store_list(kind, plain)
    }
}

/// Runs `write`, which stores lists of trees. All of them are durable and indexed when the call returns. Returns also how many bytes the new
/// ones take in packs.
pub(in crate::ops) fn write_lists<R>(
    store: &Store,
    session: &Session,
    memory: usize,
    write: impl FnOnce(&mut ListWriter<'_>) -> Result<R>,
) -> Result<(R, u64)> {
    let bounds = PageBounds::new(store.chunking(), TREE_PAGE_LEN_MAX as u64);
    let bounds = PageBounds { len_max: TREE_PAGE_LEN_MAX, ..bounds };
    let level = store.config().compression_level;
    let memory = Memory::divide(memory, NonZero::new(1), store.chunking(), level, bounds, 0)?;
    let pipeline = PackPipeline::new(store, session, false, memory.budget.clone());
    thread::scope(|scope| {
        let (writer, pack_threads) = pipeline.start(scope);
        let worked = Worker::new(store, &writer).and_then(|worker| {
            let mut lists = ListWriter { worker };
            let result = write(&mut lists)?;
            lists.worker.finish(&mut BackupStatistics::default())?;
            Ok(result)
        });
        // The pack threads end when the last writer is gone.
        drop(writer);
        // An error of the pack threads is the cause of the workers' failing to hand over.
        let written = pack_threads.join()?;
        Ok((worked?, written.stored_bytes))
    })
}
