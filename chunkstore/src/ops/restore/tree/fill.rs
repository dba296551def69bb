//! Reads the chunks of a window into memory, in the order in which packs have them.

use super::Lost;
use super::memory::WindowMemory;
use super::window::Window;
use crate::chunk_reader::{ChunkReader, to_usize};
use crate::compression::Expander;
use crate::damage::chunk_of;
use crate::error::Error;
use crate::format::{ObjectKind, PageEntry};
use crate::image_reader::check_len;
use crate::ops::findings::with_causes;
use crate::ops::restore::RestoreResult;
use crate::ops::restore::by_plan::expand;
use crate::ops::restore::plan::{Batch, Placement, Plan};
use crate::pack::read_record;
use crate::store::Store;

/// What one thread reads with.
pub(super) struct Filler {
    store: Store,
    expander: Expander,
    /// For chunks that are not where they were expected.
    reader: ChunkReader,
    plain: Vec<u8>,
}

impl Filler {
    pub(super) fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            expander: Expander::new(),
            reader: ChunkReader::new(store),
            plain: Vec::new(),
        }
    }

    /// Reads all files of a window. Returns for each what it lacks; `None` if the restore is to be ended.
    pub(super) fn fill(
        &mut self,
        window: &Window,
        memory: &mut WindowMemory,
        goes_on: &dyn Fn() -> RestoreResult<bool>,
    ) -> RestoreResult<Option<Vec<Option<Lost>>>> {
        let WindowMemory { arena, stored } = memory;
        let mut lost = vec![None; window.entries.len()];
        let mut plan = plan(window, arena);
        plan.sort();
        let batches = plan.batches();
        while let Some(batch) = batches.next() {
            if !goes_on()? {
                return Ok(None);
            }
            let is_read = self.read(&batch, stored);
            for places in batch.placements.chunk_by(Placement::shares_record_with) {
                let Some(first) = places.first() else { continue };
                let record = is_read.then(|| batch.record(first, stored));
                if let Err(error) = self.place(record, places, arena) {
                    note_lost(window, places, error, &mut lost)?;
                }
            }
        }
        Ok(Some(lost))
    }

    /// Reads neighbouring records at once. What cannot be read so is read chunk by chunk, which also says what is wrong.
    fn read(&self, batch: &Batch<'_>, stored: &mut Vec<u8>) -> bool {
        batch.pack.is_some_and(|pack| {
            let (start, len) = batch.range();
            if stored.len() < len {
                stored.resize(len, 0);
            }
            read_record(self.store.storage(), &pack, &mut stored[..len], start).is_ok()
        })
    }

    /// Puts one chunk where it belongs.
    fn place(
        &mut self,
        record: Option<&[u8]>,
        places: &[Placement],
        arena: &mut [u8],
    ) -> Result<(), Error> {
        let Some((first, others)) = places.split_first() else { return Ok(()) };
        let (start, len) = (in_memory(first.offset), to_usize(first.len));
        let plain = &mut arena[start..start + len];
        let is_expanded =
            record.is_some_and(|record| expand(&mut self.expander, first, record, plain).is_ok());
        if !is_expanded {
            // It may have moved meanwhile. If it is damaged, this says so.
            self.reader.read(ObjectKind::Data, &first.id, None, &mut self.plain)?;
            check_len(&first.id, self.plain.len(), u64::from(first.len))?;
            plain.copy_from_slice(&self.plain);
        }
        for other in others {
            arena.copy_within(start..start + len, in_memory(other.offset));
        }
        Ok(())
    }
}

/// Plans the chunks of a window, and clears its zeros.
fn plan(window: &Window, arena: &mut [u8]) -> Plan {
    let mut plan = Plan::default();
    let mut locations = window.locations.iter();
    for (entry, range) in window.places() {
        let mut start = range.start;
        for part in &entry.content {
            let end = start + in_memory(part.len());
            match part {
                PageEntry::Zero { .. } => arena[start..end].fill(0),
                PageEntry::Data { id, len } => {
                    let location = locations.next().copied().flatten();
                    plan.add(*id, *len, location, start as u64);
                }
            }
            start = end;
        }
    }
    plan
}

/// Notes damage for all files that it costs; any other error is returned.
fn note_lost(
    window: &Window,
    places: &[Placement],
    error: Error,
    lost: &mut [Option<Lost>],
) -> RestoreResult<()> {
    let chunk = chunk_of(&error).filter(|_| error.is_damage());
    let Some(chunk) = chunk else { return Err(error.into()) };
    let reason = with_causes(&error);
    for ((_, range), lost) in window.places().zip(lost) {
        if places.iter().any(|place| range.contains(&in_memory(place.offset))) {
            lost.get_or_insert_with(|| Lost { chunk, reason: reason.clone() });
        }
    }
    Ok(())
}

fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a window fits into memory")
}
