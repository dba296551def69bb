//! Writes new chunks into packs, and seals and indexes full packs beside that.
//!
//! Two threads: one appends, one seals. A pack enters the index only after it is durable under its name, and a
//! claim ends only after the index has the chunk.

use std::sync::PoisonError;
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::chunk_writer::{ChunkWriter, Claims, NewChunk};
use crate::error::{Error, Result};
use crate::format::{ObjectKind, PackHeader, PackKind};
use crate::index::PackRow;
use crate::pack::{PackWriter, SealedPack};
use crate::session::Session;
use crate::storage::Storage;
use crate::store::Store;

/// Length in bytes at which a pack is sealed. One sync for each of these, and one object on a remote storage.
const PACK_LEN_TARGET: u64 = 64 << 20;

/// Records at which a pack is sealed, however short they are. Their number, not their length, is what a pack costs in memory
/// until its transaction on the index is over. Chunks that are stored in 1 KiB and more never get there.
const PACK_RECORD_COUNT_TARGET: usize = 1 << 16;

/// Stored bytes that may wait for the pack writer.
const QUEUE_LEN: usize = 8 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) new_bytes: u64,
    pub(super) new_chunks: u64,
    pub(super) stored_bytes: u64,
}

/// What the pack threads share.
#[derive(Clone, Copy)]
pub(super) struct PackPipeline<'a> {
    store: &'a Store,
    session: &'a Session,
    rewrites_all: bool,
}

/// The running pack threads.
pub(super) struct PackThreads<'scope> {
    appending: ScopedJoinHandle<'scope, Result<Written>>,
    sealing: ScopedJoinHandle<'scope, Result<()>>,
}

impl PackThreads<'_> {
    /// Waits until all packs are durable and indexed.
    pub(super) fn join(self) -> Result<Written> {
        let panicked = || Error::Bug { what: "a pack thread panicked".to_owned() };
        let appended = self.appending.join().unwrap_or_else(|_| Err(panicked()));
        let sealed = self.sealing.join().unwrap_or_else(|_| Err(panicked()));
        // Appending stops with "cancelled" when sealing failed: that is the cause.
        sealed.and(appended)
    }
}

impl<'a> PackPipeline<'a> {
    pub(super) fn new(store: &'a Store, session: &'a Session, rewrites_all: bool) -> Self {
        Self { store, session, rewrites_all }
    }

    /// Starts the threads. They end when all clones of the returned writer are gone.
    pub(super) fn start<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
    ) -> (ChunkWriter, PackThreads<'scope>)
    where
        'a: 'scope,
    {
        let chunk_len_max = self.store.chunking().max() as usize;
        let (sender, receiver) = bounded((QUEUE_LEN / chunk_len_max).max(1));
        let (full_packs, packs_to_seal) = bounded(1);
        let claims = Claims::default();
        let writer = ChunkWriter {
            sender,
            claims: Claims::clone(&claims),
            session: self.session.record.id,
            rewrites_all: self.rewrites_all,
        };
        let appending = scope.spawn(move || self.append(&receiver, &full_packs));
        let sealing = scope.spawn(move || self.seal(&packs_to_seal, &claims));
        (writer, PackThreads { appending, sealing })
    }

    fn append(
        &self,
        chunks: &Receiver<NewChunk>,
        full_packs: &Sender<PackWriter>,
    ) -> Result<Written> {
        let mut written = Written::default();
        let mut open: [Option<PackWriter>; 2] = [None, None];
        for chunk in chunks {
            let kind = chunk.kind.pack_kind();
            let slot = &mut open[usize::from(kind == PackKind::List)];
            let is_full = |pack: &PackWriter| {
                PACK_LEN_TARGET <= pack.file_len()
                    || PACK_RECORD_COUNT_TARGET <= pack.record_count()
                    || !pack.has_room_for(chunk.payload.len())
            };
            if slot.as_ref().is_some_and(is_full)
                && let Some(full) = slot.take()
            {
                full_packs.send(full).map_err(|_| Error::Cancelled)?;
            }
            let pack = match slot {
                Some(pack) => pack,
                None => slot.insert(self.begin_pack(kind)?),
            };
            written.stored_bytes += pack.append_record(
                chunk.kind,
                chunk.codec,
                chunk.id,
                chunk.plain_len,
                &chunk.payload,
            )?;
            if chunk.kind == ObjectKind::Data {
                written.new_bytes += u64::from(chunk.plain_len);
                written.new_chunks += 1;
            }
        }
        for pack in open.into_iter().flatten() {
            full_packs.send(pack).map_err(|_| Error::Cancelled)?;
        }
        Ok(written)
    }

    fn begin_pack(&self, kind: PackKind) -> Result<PackWriter> {
        let header = PackHeader {
            kind,
            store_id: self.store.id(),
            session_id: self.session.record.id,
            created: self.store.environment().clock.now(),
        };
        PackWriter::create(self.store.storage() as &dyn Storage, header)
    }

    fn seal(&self, packs: &Receiver<PackWriter>, claims: &Claims) -> Result<()> {
        for pack in packs {
            self.session.has_packs();
            let sealed = pack.seal(self.store.storage() as &dyn Storage)?;
            let row = row(&sealed)?;
            self.store.index().change(|change| {
                // This copy wins: it was checked a moment ago, and what the index had was not good enough.
                change.insert_pack(row, &sealed.records, true)
            })?;
            let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
            for record in &sealed.records {
                claims.remove(&record.id);
            }
        }
        Ok(())
    }
}

fn row(pack: &SealedPack) -> Result<PackRow> {
    Ok(PackRow {
        id: pack.id,
        session: pack.header.session_id,
        created: pack.header.created,
        file_len: pack.file_len,
        record_count: u32::try_from(pack.records.len())
            .map_err(|_| Error::Bug { what: "a pack has too many records".to_owned() })?,
        kind: pack.header.kind,
        is_missing: false,
        condemned: 0,
    })
}
