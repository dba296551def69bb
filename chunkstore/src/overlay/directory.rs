//! Which pages of the map were ever written, so that one that is gone is not taken for one that never was.
//!
//! All of it is in memory: 2 KiB for each 256 GiB of the image. Invariant: what it says is durable before a flush returns, and never
//! before the pages that it tells about.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::file::Backing;
use crate::error::Result;
use crate::format::{BlockState, BlockStates, OverlayMapKind, OverlayMapPage};

/// A page of the directory.
#[derive(Clone, Debug)]
struct DirectoryPage {
    /// The slot of the page that is in force.
    slot: u64,
    page: OverlayMapPage,
    /// It must be written, although nothing in it changes: its other slot is torn, or it was found that pages were written.
    is_dirty: bool,
}

/// The directory of the map.
#[derive(Debug)]
pub(super) struct Directory {
    pages: Mutex<Vec<DirectoryPage>>,
}

impl Directory {
    /// Writes the directory of a new overlay: nothing was written.
    pub(super) fn create(file: &Backing) -> Result<Self> {
        let mut pages = Vec::new();
        for number in 0..file.geometry.directory_count {
            let page = OverlayMapPage {
                kind: OverlayMapKind::Directory,
                is_closed: number == 0,
                overlay: file.id,
                number,
                sequence: 1,
                states: BlockStates::new(),
            };
            file.write_slot(&page, 0)?;
            pages.push(DirectoryPage { slot: 0, page, is_dirty: false });
        }
        Ok(Self { pages: Mutex::new(pages) })
    }

    /// Reads the directory. Each page of it was written when the overlay was created, so one of two slots can be read.
    pub(super) fn open(file: &Backing) -> Result<Self> {
        let mut pages: Vec<DirectoryPage> = Vec::new();
        for number in 0..file.geometry.directory_count {
            let slots = file.read_slots_of(OverlayMapKind::Directory, number)?;
            let Some((slot, page)) = slots.newest else {
                return Err(file.damaged(slots.unreadable));
            };
            let is_closed = pages.first().is_some_and(|first| first.page.is_closed);
            if is_closed && let Some(reason) = slots.unreadable {
                return Err(file.damaged(Some(reason)));
            }
            let is_dirty = slots.unreadable.is_some();
            pages.push(DirectoryPage { slot, page, is_dirty });
        }
        Ok(Self { pages: Mutex::new(pages) })
    }

    /// Returns whether the overlay was left in good order: no write of a page can have been torn.
    pub(super) fn is_closed(&self) -> bool {
        self.lock()[0].page.is_closed
    }

    /// Returns whether a page of the map was ever written.
    pub(super) fn contains(&self, number: u64) -> bool {
        let (page, index) = place(number);
        self.lock()[page].page.states.get(index) == BlockState::Data
    }

    /// Notes that a page of the map was found, which was written before a crash.
    pub(super) fn note_found(&self, number: u64) {
        let (page, index) = place(number);
        let page = &mut self.lock()[page];
        page.page.states.set(index, BlockState::Data);
        page.is_dirty = true;
    }

    /// Writes whether the overlay is in good order; the caller syncs.
    pub(super) fn write_closed(&self, file: &Backing, is_closed: bool) -> Result<()> {
        let mut next = self.lock()[0].clone();
        next.page.is_closed = is_closed;
        write_next(file, &mut next)?;
        self.lock()[0] = next;
        Ok(())
    }

    /// Writes that these pages of the map, which are durable, were written; durable when the call returns. Nobody else changes the
    /// directory meanwhile.
    pub(super) fn add(&self, file: &Backing, numbers: &[u64]) -> Result<()> {
        let mut pages = self.lock().clone();
        for number in numbers {
            let (page, index) = place(*number);
            if pages[page].page.states.get(index) != BlockState::Data {
                pages[page].page.states.set(index, BlockState::Data);
                pages[page].is_dirty = true;
            }
        }
        if !pages.iter().any(|page| page.is_dirty) {
            return Ok(());
        }
        for page in pages.iter_mut().filter(|page| page.is_dirty) {
            write_next(file, page)?;
        }
        file.sync()?;
        *self.lock() = pages;
        Ok(())
    }

    /// Returns whether [`Self::add`] has something to write even for no page.
    pub(super) fn is_dirty(&self) -> bool {
        self.lock().iter().any(|page| page.is_dirty)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DirectoryPage>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a page to the slot that is not in force.
fn write_next(file: &Backing, page: &mut DirectoryPage) -> Result<()> {
    let slot = 1 - page.slot;
    let next = OverlayMapPage::sequence_after(page.page.sequence);
    page.page.sequence = next.map_err(|reason| file.damaged(Some(reason)))?;
    page.slot = slot;
    page.is_dirty = false;
    file.write_slot(&page.page, page.slot)
}

/// Returns the page of the directory that tells about a page of the map, and the place in it.
fn place(number: u64) -> (usize, usize) {
    let number = usize::try_from(number).expect("a map has at most 2^25 pages");
    (number / BlockStates::COUNT, number % BlockStates::COUNT)
}
