//! Makes durable what was written: `docs/durability.md`, section "An overlay".
//!
//! Invariants: a page of the map that says "data" is written after that data is durable; the slot that is in force is never
//! written.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::Overlay;
use super::file::Access;
use super::map::MapPage;
use crate::error::Result;
use crate::format::{OverlayMapKind, OverlayMapPage};

/// What flushes know of each other.
#[derive(Debug)]
pub(super) struct FlushState {
    /// The file says that no page of it is torn. It is not written to then.
    pub(super) is_closed: bool,
}

/// A page as it was when the flush began.
struct Snapshot {
    page: Arc<MapPage>,
    /// What to write, and the slot.
    next: OverlayMapPage,
    slot: u64,
}

impl Overlay {
    /// Makes durable all that was written, zeroed or trimmed before the call.
    ///
    /// # Errors
    ///
    /// - [`crate::Error::Storage`]. After a failed sync this overlay takes no further writes: what was written since the last flush
    ///   may be lost. For want of space ([`crate::Error::is_out_of_space`]) nothing is lost, and a later flush may succeed.
    pub fn flush(&self) -> Result<()> {
        let mut state = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush_locked(&mut state)
    }

    /// Flushes, and notes in the file that it was left in good order: opening it needs no search for torn pages, and every page that cannot be
    /// read is then known to be damaged. Dropping does the same, and has nobody to tell of errors. The overlay can be used further.
    ///
    /// # Errors
    ///
    /// As [`Self::flush`].
    pub fn close(&self) -> Result<()> {
        let mut state = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush_locked(&mut state)?;
        if state.is_closed || self.file.access != Access::Durable {
            return Ok(());
        }
        self.map.directory.write_closed(&self.file, true)?;
        self.file.sync()?;
        state.is_closed = true;
        Ok(())
    }

    fn flush_locked(&self, state: &mut FlushState) -> Result<()> {
        if self.file.access == Access::ReadOnly {
            return Ok(());
        }
        self.file.check_writable()?;
        // The states are looked at before the sync: a block that is data by now has its bytes in the file.
        let mut snapshots: Vec<Snapshot> = Vec::new();
        let taken = self.map.dirty().into_iter().try_for_each(|page| {
            snapshots.push(self.snapshot(page)?);
            Ok(())
        });
        let is_unsynced = self.is_unsynced.swap(false, Ordering::SeqCst);
        let result = taken.and_then(|()| self.write_back(state, &snapshots, is_unsynced));
        if result.is_err() {
            self.is_unsynced.store(true, Ordering::SeqCst);
            for snapshot in &snapshots {
                self.map.mark_dirty(&mut snapshot.page.lock());
            }
        }
        result
    }

    fn snapshot(&self, page: Arc<MapPage>) -> Result<Snapshot> {
        let mut state = page.lock();
        let (slot, sequence) = match state.newest {
            None => (0, 1),
            Some((slot, sequence)) => {
                let next = OverlayMapPage::sequence_after(sequence);
                let failed = |reason| self.file.damaged_page(page.number, Some(reason));
                (1 - slot, next.map_err(failed)?)
            }
        };
        let next = OverlayMapPage {
            kind: OverlayMapKind::Map,
            is_closed: false,
            overlay: self.file.id,
            number: page.number,
            sequence,
            states: state.states.clone(),
        };
        self.map.mark_clean(&mut state);
        drop(state);
        Ok(Snapshot { page, next, slot })
    }

    fn write_back(
        &self,
        state: &mut FlushState,
        snapshots: &[Snapshot],
        is_unsynced: bool,
    ) -> Result<()> {
        let writes_map = !snapshots.is_empty() || self.map.directory.is_dirty();
        let opens = writes_map && state.is_closed && self.file.access == Access::Durable;
        if opens {
            self.map.directory.write_closed(&self.file, false)?;
        }
        if is_unsynced || opens {
            self.file.sync()?;
        }
        state.is_closed &= !opens;
        if writes_map {
            for snapshot in snapshots {
                self.file.write_slot(&snapshot.next, snapshot.slot)?;
            }
            self.file.sync()?;
            let numbers: Vec<u64> = snapshots.iter().map(|snapshot| snapshot.next.number).collect();
            self.map.directory.add(&self.file, &numbers)?;
            for Snapshot { page, next, slot } in snapshots {
                page.lock().newest = Some((*slot, next.sequence));
            }
        }
        Ok(())
    }
}
