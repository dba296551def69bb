//! Decides which chunks are new, compresses those, and hands them to the pack writer.
//!
//! Invariant: a chunk that is in no pack yet is in `claims`, from before the index is asked until the index has
//! it. So two workers that meet the same new bytes store them once.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::Sender;

use super::batch::{BATCH_LEN, Batch, BatchChunk, Helpers};
use super::compression_failed;
use crate::budget::{Budget, Share};
use crate::compression::{Compressor, denser_level};
use crate::error::{Error, Result};
use crate::format::{BackupStatistics, Codec, ObjectKind};
use crate::id::{ChunkId, SessionId};
use crate::index::Location;
use crate::limits::CHUNK_LEN_MAX;
use crate::pack::read_record_header;
use crate::planted::{Bug, has};
use crate::store::Store;

/// Stored bytes that a worker collects before it hands them over.
pub(super) const PARCEL_LEN: usize = 1 << 20;

/// A chunk in its stored form, on its way to a pack.
#[derive(Debug)]
pub(super) struct NewChunk {
    pub(super) kind: ObjectKind,
    pub(super) codec: Codec,
    pub(super) id: ChunkId,
    pub(super) plain_len: u32,
    pub(super) payload: Vec<u8>,
}

/// New chunks on their way to the pack writer, with the memory that they take.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) chunks: Vec<NewChunk>,
    pub(super) _share: Share,
}

/// Ids of chunks that are on their way to the index, with their plain lengths.
pub(super) type Claims = Arc<Mutex<HashMap<ChunkId, u32>>>;

/// Where workers hand over new chunks. The pack threads end when all of them are gone.
#[derive(Clone, Debug)]
pub(super) struct ChunkWriter {
    pub(super) sender: Sender<Parcel>,
    /// What parcels are taken from. It is closed when the pack threads end.
    pub(super) budget: Budget,
    pub(super) claims: Claims,
    /// Held by who asks the index: one at a time needs memory for it.
    pub(super) index_turn: Arc<Mutex<()>>,
    /// What the workers have met so far.
    pub(super) met: Arc<Met>,
    /// Workers that have no more spans.
    pub(super) helpers: Arc<Helpers>,
    /// Session of the backup.
    pub(super) session: SessionId,
    /// Whether chunks are written although the store has them, unless this very backup has written them.
    pub(super) rewrites_all: bool,
}

/// Bytes of data that all workers of a backup have met so far: known to the store, and new.
#[derive(Debug, Default)]
pub(super) struct Met {
    known: AtomicU64,
    new: AtomicU64,
}

impl Met {
    /// Counts new bytes, and returns whether more of those before them were known than new.
    fn add_new(&self, len: u64) -> bool {
        self.new.fetch_add(len, Ordering::Relaxed) < self.known.load(Ordering::Relaxed)
    }
}

/// One thread's way to the store: collects chunks and finds out in batches which are new.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    store: &'a Store,
    writer: &'a ChunkWriter,
    compressor: Compressor,
    /// For new chunks as long as most of the image is known, if they get another level.
    denser_compressor: Option<Compressor>,
    batch: Batch,
    /// New chunks, and what they take.
    parcel: Vec<NewChunk>,
    parcel_len: usize,
    reused_bytes: u64,
    reused_chunks: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn new(store: &'a Store, writer: &'a ChunkWriter) -> Result<Self> {
        let level = store.config().compression_level;
        let denser = Some(denser_level(level)).filter(|denser| *denser != level);
        let denser = denser.map(Compressor::new).transpose().map_err(compression_failed)?;
        Ok(Self {
            store,
            writer,
            compressor: Compressor::new(level).map_err(compression_failed)?,
            denser_compressor: denser,
            batch: Batch::default(),
            parcel: Vec::new(),
            parcel_len: 0,
            reused_bytes: 0,
            reused_chunks: 0,
        })
    }

    /// Counts a chunk that the store is known to have.
    pub(super) fn reuse(&mut self, len: u64) {
        self.reused_bytes += len;
        self.reused_chunks += 1;
        self.writer.met.known.fetch_add(len, Ordering::Relaxed);
    }

    /// Makes sure that the store has a chunk, at the latest after [`Self::finish`].
    pub(super) fn store_chunk(
        &mut self,
        kind: ObjectKind,
        id: ChunkId,
        plain: &[u8],
    ) -> Result<()> {
        self.store_shaped(kind, id, false, plain)
    }

    /// As [`Self::store_chunk`], for a data chunk that consists of points.
    pub(super) fn store_points(&mut self, id: ChunkId, plain: &[u8]) -> Result<()> {
        self.store_shaped(ObjectKind::Data, id, true, plain)
    }

    fn store_shaped(
        &mut self,
        kind: ObjectKind,
        id: ChunkId,
        is_points: bool,
        plain: &[u8],
    ) -> Result<()> {
        if self.batch.is_full_for(plain.len(), self.writer.helpers.is_anybody_free()) {
            self.flush()?;
        }
        if BATCH_LEN < plain.len() {
            let chunk = BatchChunk { kind, id, is_points, range: 0..plain.len() };
            return self.store_batch(&[chunk], plain);
        }
        self.batch.push(kind, id, is_points, plain);
        Ok(())
    }

    /// Makes sure that the store has a page or a root, and returns its id.
    pub(super) fn store_list(&mut self, kind: ObjectKind, plain: &[u8]) -> Result<ChunkId> {
        if (CHUNK_LEN_MAX as usize) < plain.len() {
            return Err(too_many_chunks());
        }
        let id = kind.chunk_id(plain);
        self.store_chunk(kind, id, plain)?;
        Ok(id)
    }

    /// Works on what others have cut, until nobody cuts any more.
    pub(super) fn help(&mut self) -> Result<()> {
        self.flush()?;
        // What is given takes the place of the own batch.
        self.batch = Batch::default();
        while let Some(batch) = self.writer.helpers.wait() {
            self.store_batch(&batch.chunks, &batch.plain)?;
        }
        Ok(())
    }

    /// Hands over what is left and adds to the statistics.
    pub(super) fn finish(mut self, statistics: &mut BackupStatistics) -> Result<()> {
        self.flush()?;
        self.send_parcel()?;
        statistics.reused_bytes += self.reused_bytes;
        statistics.reused_chunks += self.reused_chunks;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.writer.helpers.offer(&mut self.batch) {
            return Ok(());
        }
        let mut batch = mem::take(&mut self.batch);
        self.store_batch(&batch.chunks, &batch.plain)?;
        // Keep the buffers for the next batch.
        batch.clear();
        self.batch = batch;
        Ok(())
    }

    fn store_batch(&mut self, batch: &[BatchChunk], plain: &[u8]) -> Result<()> {
        let claimed = self.claim(batch)?;
        let locations = self.locate(batch, &claimed)?;
        let mut claimed = claimed.into_iter().zip(locations);
        let mut next = claimed.next();
        for (index, BatchChunk { kind, id, is_points, range }) in batch.iter().enumerate() {
            let bytes = &plain[range.clone()];
            let is_known = match next {
                Some((mine, location)) if mine == index => {
                    next = claimed.next();
                    let is_known = self.is_stored(*kind, id, bytes.len(), location)?;
                    if is_known {
                        self.claims().remove(id);
                    }
                    is_known
                }
                // Claimed before: by another worker, or by an equal chunk of this batch.
                _ => true,
            };
            match (is_known, kind) {
                (true, ObjectKind::Data) => self.reuse(bytes.len() as u64),
                (true, _) => {}
                (false, _) => self.hand_over(*kind, *id, *is_points, bytes)?,
            }
        }
        Ok(())
    }

    /// Claims the chunks that nobody has claimed and returns their places in the batch.
    fn claim(&self, batch: &[BatchChunk]) -> Result<Vec<usize>> {
        let mut claims = self.claims();
        let mut claimed = Vec::new();
        for (index, BatchChunk { id, range, .. }) in batch.iter().enumerate() {
            let len = chunk_len(range.len())?;
            match claims.get(id) {
                Some(stored) if *stored != len => {
                    return Err(Error::LengthMismatch { id: *id, found: len, stored: *stored });
                }
                Some(_) => {}
                None => {
                    claims.insert(*id, len);
                    claimed.push(index);
                }
            }
        }
        Ok(claimed)
    }

    fn locate(&self, batch: &[BatchChunk], claimed: &[usize]) -> Result<Vec<Option<Location>>> {
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = self.writer.index_turn.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<ChunkId> = claimed.iter().map(|index| batch[*index].id).collect();
        let locations = self.store.index().view_current(|view| view.locate(&ids))?;
        if !self.writer.rewrites_all {
            return Ok(locations);
        }
        let is_own = |location: &Location| location.session == self.writer.session;
        Ok(locations.into_iter().map(|location| location.filter(is_own)).collect())
    }

    /// Returns whether the chunk is where the index says, in a pack that a new revision may rely on. What the index says
    /// is checked against the header of the record; a place that is wrong counts as none, so the chunk is written anew.
    fn is_stored(
        &self,
        kind: ObjectKind,
        id: &ChunkId,
        len: usize,
        location: Option<Location>,
    ) -> Result<bool> {
        let Some(location) = location.filter(|location| location.accepts_new_references) else {
            return Ok(false);
        };
        if has(Bug::HitUnchecked) {
            return Ok(true);
        }
        let header = read_record_header(self.store.storage(), &location.pack, location.offset);
        let header = match header {
            Ok(header) => header,
            Err(error) if error.is_damage() => return Ok(false),
            Err(other) => return Err(other),
        };
        if header.id != *id || header.kind != kind || header.stored_len != location.stored_len {
            return Ok(false);
        }
        let found = chunk_len(len)?;
        if header.plain_len != found {
            return Err(Error::LengthMismatch { id: *id, found, stored: header.plain_len });
        }
        Ok(true)
    }

    /// Compresses a new chunk and puts it into the parcel.
    fn hand_over(
        &mut self,
        kind: ObjectKind,
        id: ChunkId,
        is_points: bool,
        plain: &[u8],
    ) -> Result<()> {
        let mut payload = Vec::new();
        // Why and how much: docs/decisions/0006-denser-increments.md.
        let is_mostly_known = self.writer.met.add_new(plain.len() as u64);
        let compressor = match &mut self.denser_compressor {
            Some(denser) if is_mostly_known => denser,
            _ => &mut self.compressor,
        };
        let codec = if is_points {
            compressor.compress_points(kind, &id, plain, &mut payload)
        } else {
            compressor.compress(kind, &id, plain, &mut payload)
        };
        let codec = codec.map_err(compression_failed)?;
        payload.shrink_to_fit();
        let plain_len = chunk_len(plain.len())?;
        let len = payload.len() + size_of::<NewChunk>();
        // A long chunk does not wait for others, and does not add to them.
        if PARCEL_LEN < self.parcel_len + len {
            self.send_parcel()?;
        }
        self.parcel_len += len;
        self.parcel.push(NewChunk { kind, codec, id, plain_len, payload });
        if PARCEL_LEN <= self.parcel_len { self.send_parcel() } else { Ok(()) }
    }

    /// Hands the parcel over to the pack writer; waits if that is behind.
    fn send_parcel(&mut self) -> Result<()> {
        let (chunks, len) = (mem::take(&mut self.parcel), mem::take(&mut self.parcel_len));
        // The pack threads are gone only after an error of their own, which is the one to report.
        let share = self.writer.budget.take(len).ok_or(Error::Cancelled)?;
        self.writer.sender.send(Parcel { chunks, _share: share }).map_err(|_| Error::Cancelled)
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, HashMap<ChunkId, u32>> {
        self.writer.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a page or a root would be longer than a chunk.
pub(super) fn too_many_chunks() -> Error {
    let what = "the image is too large for chunks as small as those of this store";
    Error::InvalidOption { what: what.to_owned() }
}

fn chunk_len(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::Bug { what: format!("a chunk of {len} bytes") })
}
