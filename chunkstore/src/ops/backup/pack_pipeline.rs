//! Writes new chunks into packs, and seals and indexes full packs beside that.
//!
//! Two threads: one appends, one seals. A pack enters the index only after it is durable under its name, and a
//! claim ends only after the index has the chunk.

use std::sync::{Arc, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::chunk_writer::{ChunkWriter, Claims, NewChunk, Parcel};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::format::{ObjectKind, PackHeader, PackKind};
use crate::index::{Origin, PackRow};
use crate::pack::{PackWriter, SealedPack};
use crate::planted::{Bug, has};
use crate::session::Session;
use crate::storage::Storage;
use crate::store::Store;

/// Packs that are not sealed yet: one of each kind open, one waiting, one being sealed.
pub(super) const PACK_COUNT_MAX: usize = 4;

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) new_bytes: u64,
    pub(super) new_chunks: u64,
    pub(super) stored_bytes: u64,
}

impl Written {
    /// Appends a chunk to a pack and counts it.
    fn add(&mut self, chunk: &NewChunk, pack: &mut PackWriter) -> Result<()> {
        let NewChunk { kind, codec, id, plain_len, ref payload } = *chunk;
        self.stored_bytes += pack.append_record(kind, codec, id, plain_len, payload)?;
        if kind == ObjectKind::Data {
            self.new_bytes += u64::from(plain_len);
            self.new_chunks += 1;
        }
        Ok(())
    }
}

/// What the pack threads share.
#[derive(Clone)]
pub(super) struct PackPipeline<'a> {
    store: &'a Store,
    session: &'a Session,
    rewrites_all: bool,
    budget: Budget,
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
    /// Chunks on their way to a pack are taken from `budget`.
    pub(super) fn new(
        store: &'a Store,
        session: &'a Session,
        rewrites_all: bool,
        budget: Budget,
    ) -> Self {
        Self { store, session, rewrites_all, budget }
    }

    /// Starts the threads. They end when all clones of the returned writer are gone.
    pub(super) fn start<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
    ) -> (ChunkWriter, PackThreads<'scope>)
    where
        'a: 'scope,
    {
        // Bounded by the memory of the parcels.
        let (sender, receiver) = unbounded();
        let (full_packs, packs_to_seal) = bounded(1);
        let claims = Claims::default();
        let writer = ChunkWriter {
            sender,
            budget: self.budget.clone(),
            claims: Claims::clone(&claims),
            index_turn: Arc::default(),
            met: Arc::default(),
            helpers: Arc::default(),
            session: self.session.record.id,
            rewrites_all: self.rewrites_all,
        };
        let other = self.clone();
        let appending = scope.spawn(move || {
            // Nobody may wait for this thread when it has ended, whatever ended it.
            let _closing = CloseOnDrop(&self.budget);
            self.append(&receiver, &full_packs)
        });
        let sealing = scope.spawn(move || other.seal(&packs_to_seal, &claims));
        (writer, PackThreads { appending, sealing })
    }

    fn append(
        &self,
        parcels: &Receiver<Parcel>,
        full_packs: &Sender<PackWriter>,
    ) -> Result<Written> {
        let mut written = Written::default();
        let mut open: [Option<PackWriter>; 2] = [None, None];
        for parcel in parcels {
            for chunk in &parcel.chunks {
                let slot = &mut open[usize::from(chunk.kind.pack_kind() == PackKind::List)];
                if slot.as_ref().is_some_and(|pack| pack.is_full_for(chunk.payload.len()))
                    && let Some(full) = slot.take()
                {
                    full_packs.send(full).map_err(|_| Error::Cancelled)?;
                }
                let pack = match slot {
                    Some(pack) => pack,
                    None => slot.insert(self.begin_pack(chunk.kind.pack_kind())?),
                };
                written.add(chunk, pack)?;
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
            let complete = pack.complete()?;
            let is_early = has(Bug::IndexBeforePack);
            if is_early {
                self.enter(&complete.pack)?;
            }
            let sealed = complete.publish(self.store.storage() as &dyn Storage)?;
            if !is_early {
                self.enter(&sealed)?;
            }
            let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
            for record in &sealed.records {
                claims.remove(&record.id);
            }
        }
        Ok(())
    }

    fn enter(&self, pack: &SealedPack) -> Result<()> {
        self.store.index().change(|change| {
            // This copy wins: it was checked a moment ago, and what the index had was not good enough.
            change.insert_pack(PackRow::of(pack), &pack.records, Origin::Written, |_| false)
        })
    }
}

/// Ends all waiting for memory.
struct CloseOnDrop<'a>(&'a Budget);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
