//! The map in memory: pages are read when they are needed, and let go when nothing in them has to be written.
//!
//! Invariant: a page that is not in memory is in the file as it is, or was never written and tells of nothing but the revision.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::directory::Directory;
use super::file::Backing;
use crate::error::Result;
use crate::format::{BlockState, BlockStates, FormatError, OverlayMapKind, OverlayMapPage};

/// Pages that are kept in memory, 2 KiB each. More only if more have to be written.
const PAGES_KEPT: usize = 4096;

/// Pages that are read at once where all are looked at.
const PAGES_READ: u64 = 128;

/// What is known of a page of the map.
#[derive(Debug, Default)]
pub(super) struct PageState {
    /// The states as they are now.
    pub(super) states: BlockStates,
    /// The slot that is in force, and its sequence number.
    pub(super) newest: Option<(u64, u64)>,
    /// Its states have to be written.
    pub(super) is_dirty: bool,
    /// Space for its slots is set aside.
    has_slots: bool,
}

/// A page of the map.
#[derive(Debug)]
pub(super) struct MapPage {
    pub(super) number: u64,
    state: Mutex<PageState>,
}

impl MapPage {
    pub(super) fn lock(&self) -> MutexGuard<'_, PageState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets space aside for the slots, so that a flush does not fail for want of it. Under the lock: where the file system has no
    /// such call zeros are written, and never over a page.
    pub(super) fn ensure_slots(&self, file: &Backing) -> Result<()> {
        let mut state = self.lock();
        if !state.has_slots && state.newest.is_none() {
            file.reserve_slots(OverlayMapKind::Map, self.number)?;
            state.has_slots = true;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Cache {
    /// By number, with the time of their last use.
    pages: HashMap<u64, (Arc<MapPage>, u64)>,
    now: u64,
    /// How often pages were let go: what was read from the file before is not believed after.
    evictions: u64,
}

impl Cache {
    fn get(&mut self, number: u64) -> Option<Arc<MapPage>> {
        self.now += 1;
        let (page, last_use) = self.pages.get_mut(&number)?;
        *last_use = self.now;
        Some(Arc::clone(page))
    }

    fn insert(&mut self, number: u64, state: PageState) -> Arc<MapPage> {
        if PAGES_KEPT <= self.pages.len() {
            self.evict();
        }
        let page = Arc::new(MapPage { number, state: Mutex::new(state) });
        self.pages.insert(number, (Arc::clone(&page), self.now));
        page
    }

    /// Lets go of the older half of the pages that nobody uses and that need not be written.
    fn evict(&mut self) {
        let is_idle = |page: &Arc<MapPage>| Arc::strong_count(page) == 1 && !page.lock().is_dirty;
        let mut idle: Vec<(u64, u64)> = self
            .pages
            .iter()
            .filter(|(_, (page, _))| is_idle(page))
            .map(|(number, (_, last_use))| (*last_use, *number))
            .collect();
        idle.sort_unstable();
        for (_, number) in &idle[..idle.len().div_ceil(2)] {
            self.pages.remove(number);
        }
        self.evictions += 1;
    }
}

/// The map of an overlay.
#[derive(Debug)]
pub(super) struct Map {
    cache: Mutex<Cache>,
    pub(super) directory: Directory,
    dirty_count: AtomicUsize,
}

impl Map {
    /// Returns the map of an overlay. If that was not left in good order, all pages are looked at, and those that were being
    /// written are written again.
    pub(super) fn new(file: &Backing, directory: Directory) -> Result<Self> {
        let map = Self { cache: Mutex::default(), directory, dirty_count: AtomicUsize::new(0) };
        if !map.directory.is_closed() {
            map.recover(file)?;
        }
        Ok(map)
    }

    /// Finds the pages that a crash has left torn, or written and not yet in the directory.
    fn recover(&self, file: &Backing) -> Result<()> {
        let page_count = file.geometry.page_count;
        for first in (0..page_count).step_by(usize::try_from(PAGES_READ).expect("small")) {
            let count = PAGES_READ.min(page_count - first);
            let slots = file.read_slots(OverlayMapKind::Map, first, count)?;
            for (number, slots) in (first..).zip(slots) {
                let is_torn = slots.unreadable.is_some();
                let is_known = self.directory.contains(number);
                if slots.was_durable && !is_known {
                    self.directory.note_found(number);
                }
                // Where nothing can be read that once was durable, whoever needs it gets an error.
                if is_torn && (slots.newest.is_some() || !is_known && !slots.was_durable) {
                    let mut state = state_of(slots.newest);
                    state.has_slots = true;
                    self.mark_dirty(&mut state);
                    self.lock().insert(number, state);
                }
            }
        }
        Ok(())
    }

    /// Returns a page to be read; `None` if all its blocks are those of the revision.
    pub(super) fn for_reading(&self, file: &Backing, number: u64) -> Result<Option<Arc<MapPage>>> {
        self.find(file, number, false)
    }

    /// Returns a page to be changed.
    pub(super) fn for_writing(&self, file: &Backing, number: u64) -> Result<Arc<MapPage>> {
        let page = self.find(file, number, true)?;
        Ok(page.expect("a page that is not there was made"))
    }

    fn find(&self, file: &Backing, number: u64, make: bool) -> Result<Option<Arc<MapPage>>> {
        loop {
            let mut cache = self.lock();
            if let Some(page) = cache.get(number) {
                return Ok(Some(page));
            }
            // Under the lock: a page is in the directory before it can be let go.
            let is_written = self.directory.contains(number);
            if !is_written && !make {
                return Ok(None);
            }
            let evictions = cache.evictions;
            drop(cache);
            let state = if is_written { load(file, number) } else { load_unwritten(file, number) };
            let mut cache = self.lock();
            if let Some(page) = cache.get(number) {
                return Ok(Some(page));
            }
            // Only now an error counts: somebody else may have made the page, and written it.
            if cache.evictions == evictions {
                return Ok(Some(cache.insert(number, state?)));
            }
        }
    }

    /// Returns a page without reading anything: `None` if that cannot be done, `Some(None)` if all its blocks are those of the revision.
    pub(super) fn in_memory(&self, number: u64) -> Option<Option<Arc<MapPage>>> {
        let mut cache = self.lock();
        match cache.get(number) {
            Some(page) => Some(Some(page)),
            None => (!self.directory.contains(number)).then_some(None),
        }
    }

    /// Returns the pages that have to be written.
    pub(super) fn dirty(&self) -> Vec<Arc<MapPage>> {
        if self.dirty_count() == 0 {
            return Vec::new();
        }
        let cache = self.lock();
        let pages = cache.pages.values().map(|(page, _)| page);
        pages.filter(|page| page.lock().is_dirty).cloned().collect()
    }

    /// Returns how many pages have to be written.
    pub(super) fn dirty_count(&self) -> usize {
        self.dirty_count.load(Ordering::SeqCst)
    }

    pub(super) fn mark_dirty(&self, state: &mut PageState) {
        if !state.is_dirty {
            state.is_dirty = true;
            self.dirty_count.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(super) fn mark_clean(&self, state: &mut PageState) {
        if state.is_dirty {
            state.is_dirty = false;
            self.dirty_count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Notes where the bytes of blocks are now.
    pub(super) fn set(&self, page: &MapPage, blocks: Range<usize>, state: BlockState) {
        let mut page = page.lock();
        for index in blocks {
            if page.states.get(index) != state {
                page.states.set(index, state);
                self.mark_dirty(&mut page);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a page that was never written. If something lies there although the directory says so, it is refused: a page would win over
/// what is written now, anything else would make it damaged. What a crash has torn was found when the overlay was opened.
fn load_unwritten(file: &Backing, number: u64) -> Result<PageState> {
    let slots = file.read_slots_of(OverlayMapKind::Map, number)?;
    match (slots.newest, slots.unreadable) {
        (None, None) => Ok(PageState::default()),
        (Some(_), _) => {
            let what = "the directory does not know it";
            Err(file.damaged_page(number, Some(FormatError::Inconsistent { what })))
        }
        (None, unreadable) => Err(file.damaged_page(number, unreadable)),
    }
}

/// Reads a page that was written.
fn load(file: &Backing, number: u64) -> Result<PageState> {
    let slots = file.read_slots_of(OverlayMapKind::Map, number)?;
    // What a crash has torn was found when the overlay was opened. What is unreadable now is damage, also if the other slot can be
    // read: it may be the older one.
    if slots.newest.is_none() || slots.unreadable.is_some() {
        return Err(file.damaged_page(number, slots.unreadable));
    }
    Ok(state_of(slots.newest))
}

fn state_of(newest: Option<(u64, OverlayMapPage)>) -> PageState {
    match newest {
        None => PageState::default(),
        Some((slot, page)) => PageState {
            newest: Some((slot, page.sequence)),
            states: page.states,
            ..PageState::default()
        },
    }
}
