//! What redb stands on: the file of the index with its checked blocks, or a private view of it.
//!
//! [`FileBackend`] reads and writes the file. [`ViewBackend`] reads it and keeps every write in memory, so that
//! looking something up under a shared lock never changes the file, even if redb wants to repair it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend};

use super::checked_blocks::{BLOCK_LEN, CheckedBlocks};
use super::is_refusal;
use crate::vfs::VfsFile;

/// The file itself. After the first write or sync that fails it is not changed any more: a second sync could say
/// that all is well although bytes are gone, and redb makes one when it closes.
#[derive(Debug)]
pub(super) struct FileBackend {
    file: CheckedBlocks,
    failure: Arc<Failure>,
}

/// The first failure of a [`FileBackend`], also of those calls whose errors redb does not report.
#[derive(Debug, Default)]
pub(super) struct Failure {
    first: Mutex<Option<(io::Error, FileState)>>,
}

/// What is in a file after a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// The last committed state: a write was refused, and what it left is in unused space.
    Committed,
    /// Nobody knows: a sync failed, or a write for another reason than being refused.
    Unknown,
}

impl Failure {
    /// Returns the first failure, if there was one. All handles of the backend must be gone.
    pub(super) fn take(&self) -> Option<(io::Error, FileState)> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl FileBackend {
    pub(super) fn new(file: Box<dyn VfsFile>) -> (Self, Arc<Failure>) {
        let failure = Arc::<Failure>::default();
        (Self { file: CheckedBlocks::new(file), failure: Arc::clone(&failure) }, failure)
    }

    /// Makes a call that changes the file, unless an earlier one failed.
    fn change(
        &self,
        state_if_refused: FileState,
        call: impl FnOnce(&CheckedBlocks) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut first = self.failure.first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((error, _)) = first.as_ref() {
            return Err(same(error));
        }
        call(&self.file).inspect_err(|error| {
            let state = if is_refusal(error) { state_if_refused } else { FileState::Unknown };
            *first = Some((same(error), state));
        })
    }
}

/// Returns a copy of an error.
fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(
        || io::Error::new(error.kind(), error.to_string()),
        io::Error::from_raw_os_error,
    )
}

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(FileState::Committed, |file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(FileState::Unknown, |file| file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(FileState::Committed, |file| file.write_all_at(data, offset))
    }
}

/// The file of a view, as long as somebody reads it.
#[derive(Debug, Default)]
pub(super) struct FileSlot {
    state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    file: Option<Arc<CheckedBlocks>>,
    readers: usize,
}

/// Keeps the file in its slot.
#[derive(Debug)]
pub(super) struct Reading {
    slot: Arc<FileSlot>,
}

impl FileSlot {
    /// Puts the file there, unless another reader has it there already: that one is the same.
    pub(super) fn put(self: &Arc<Self>, file: Box<dyn VfsFile>) -> Reading {
        let mut state = self.state();
        state.readers += 1;
        state.file.get_or_insert_with(|| Arc::new(CheckedBlocks::new(file)));
        Reading { slot: Arc::clone(self) }
    }

    fn get(&self) -> io::Result<Arc<CheckedBlocks>> {
        let no_reader = || io::Error::new(io::ErrorKind::NotFound, "nobody reads the index");
        self.state().file.clone().ok_or_else(no_reader)
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// Leaves the file there as long as there is the slot.
    fn leave(self) {
        self.slot.state().readers += 1;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.slot.state();
        state.readers -= 1;
        if state.readers == 0 {
            state.file = None;
        }
    }
}

/// A view of the file; writes stay in memory and end with it.
#[derive(Debug)]
pub(super) struct ViewBackend {
    file: Arc<FileSlot>,
    state: Mutex<ViewState>,
    end: ViewEnd,
}

/// Ends a view without the work of a last commit, which nobody would read.
#[derive(Clone, Debug, Default)]
pub(super) struct ViewEnd {
    is_over: Arc<AtomicBool>,
}

impl ViewEnd {
    /// Closes the database of a view. All transactions must be gone.
    ///
    /// redb commits once more when it closes, which takes longer than most lookups, but not after an error of its storage. The check that
    /// is begun here asks for a sync before it reads anything, and gets that error.
    pub(super) fn close(&self, mut database: Database) {
        self.is_over.store(true, Ordering::Release);
        let _failed = database.check_integrity();
    }
}

#[derive(Debug)]
struct ViewState {
    /// Length of the view.
    len: u64,
    /// Bytes at the start of the view that still come from the file; set_len may have cut it.
    file_len: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl ViewBackend {
    /// Returns a view of a file that nobody else uses.
    pub(super) fn new(file: Box<dyn VfsFile>) -> io::Result<Self> {
        let slot = Arc::<FileSlot>::default();
        slot.put(file).leave();
        Self::of_slot(slot)
    }

    pub(super) fn of_slot(file: Arc<FileSlot>) -> io::Result<Self> {
        let len = file.get()?.len()?;
        Ok(Self {
            file,
            state: Mutex::new(ViewState { len, file_len: len, blocks: BTreeMap::new() }),
            end: ViewEnd::default(),
        })
    }

    /// Returns what ends the view.
    pub(super) fn end(&self) -> ViewEnd {
        self.end.clone()
    }

    /// Reads the file, and zeros behind its end.
    fn read_file(&self, file_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let available = file_len.saturating_sub(offset).min(out.len() as u64);
        let available = usize::try_from(available).map_err(io::Error::other)?;
        let (from_file, behind) = out.split_at_mut(available);
        behind.fill(0);
        if from_file.is_empty() {
            return Ok(());
        }
        self.file.get()?.read_exact_at(from_file, offset)
    }
}

impl StorageBackend for ViewBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= state.len);
        let Some(end) = end else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let mut position = offset;
        while position < end {
            let start = position - position % BLOCK_LEN;
            // Up to where all bytes are in memory, or all in the file.
            let (block, to) = match state.blocks.range(start..end).next() {
                Some((first, block)) if *first == start => (Some(block), start + BLOCK_LEN),
                Some((first, _)) => (None, *first),
                None => (None, end),
            };
            let to = to.min(end);
            let part = &mut out[place(position - offset)?..place(to - offset)?];
            match block {
                Some(block) => {
                    part.copy_from_slice(&block[place(position - start)?..place(to - start)?]);
                }
                None => self.read_file(state.file_len, position, part)?,
            }
            position = to;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if len < state.len {
            state.file_len = state.file_len.min(len);
            state.blocks.retain(|start, _| *start < len);
            if let Some(mut last) = state.blocks.last_entry()
                && len < last.key() + BLOCK_LEN
            {
                let kept = place(len - last.key())?;
                last.get_mut()[kept..].fill(0);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.end.is_over.load(Ordering::Acquire) {
            return Err(io::Error::other("the view is over"));
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let file_len = state.file_len;
        let end = offset.checked_add(data.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let mut position = offset;
        while position < end {
            let start = position - position % BLOCK_LEN;
            let to = (start + BLOCK_LEN).min(end);
            let block = match state.blocks.entry(start) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place_for) => {
                    let mut block = vec![0; place(BLOCK_LEN)?].into_boxed_slice();
                    // What is written whole may not be there yet.
                    if (position, to) != (start, start + BLOCK_LEN) {
                        self.read_file(file_len, start, &mut block)?;
                    }
                    place_for.insert(block)
                }
            };
            block[place(position - start)?..place(to - start)?]
                .copy_from_slice(&data[place(position - offset)?..place(to - offset)?]);
            position = to;
        }
        state.len = state.len.max(end);
        Ok(())
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}
