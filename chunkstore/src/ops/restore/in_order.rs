//! Writes an image from its first byte to its last, as a stream wants it.
//!
//! Threads take windows of neighbouring chunks, read and expand them side by side, and write them when it is their turn. Memory
//! is one window for each thread. A thread that fails lets the others know, so none waits for a turn that
//! does not come.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{RestoreResult, Run};
use crate::chunk_reader::{ChunkReader, to_usize};
use crate::format::{ObjectKind, PageEntry};
use crate::image_reader::{check_len, locate_entries};
use crate::index::Location;

/// Bytes of the image that a thread expands before it writes them, unless one chunk is longer.
pub(super) const WINDOW_LEN: u64 = 4 << 20;

/// Entries that are looked up in the index at once.
const LOOKUP_LEN: usize = 8192;

pub(super) fn write(run: &Run<'_>) -> RestoreResult<()> {
    let windows = Mutex::new(Windows::new(run));
    let turn = Turn::default();
    run.on_threads(run.threads.write, run.image.root().spans.len(), || {
        let _panics_are_noticed = EndsOnPanic(&turn);
        let mut worker = Worker { run, reader: ChunkReader::new(run.store), plain: Vec::new() };
        worker.write_windows(&windows, &turn).inspect_err(|_| turn.end())
    })
}

/// Ends all turns if its thread panics: the others would wait for ever.
struct EndsOnPanic<'a>(&'a Turn);

impl Drop for EndsOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
        }
    }
}

/// Neighbouring entries, and when it is their turn.
struct Window {
    number: u64,
    offset: u64,
    entries: Vec<(PageEntry, Option<Location>)>,
}

/// Cuts the image into windows, one after another.
struct Windows<'a> {
    run: &'a Run<'a>,
    reader: ChunkReader,
    next_span: usize,
    next_number: u64,
    offset: u64,
    /// Entries that are read and not yet looked up.
    entries: VecDeque<PageEntry>,
    /// Entries that belong to no window yet.
    located: VecDeque<(PageEntry, Option<Location>)>,
}

impl<'a> Windows<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        Self {
            run,
            reader: ChunkReader::new(run.store),
            next_span: 0,
            next_number: 0,
            offset: 0,
            entries: VecDeque::new(),
            located: VecDeque::new(),
        }
    }

    /// Returns the next window; `None` at the end of the image.
    fn next(&mut self) -> RestoreResult<Option<Window>> {
        let mut window =
            Window { number: self.next_number, offset: self.offset, entries: Vec::new() };
        let mut len = 0;
        while let Some(next) = self.peek()? {
            let is_zero = matches!(next, PageEntry::Zero { .. });
            // Zeros need no memory, so they may be as long as they like, in a window of their own.
            let is_full = is_zero || WINDOW_LEN < len + next.len();
            if !window.entries.is_empty() && is_full {
                break;
            }
            window.entries.extend(self.located.pop_front());
            self.offset += next.len();
            len += next.len();
            if is_zero {
                break;
            }
        }
        self.next_number += 1;
        Ok((!window.entries.is_empty()).then_some(window))
    }

    fn peek(&mut self) -> RestoreResult<Option<PageEntry>> {
        while self.located.is_empty() {
            if self.entries.is_empty() {
                if self.run.image.root().spans.len() <= self.next_span {
                    return Ok(None);
                }
                self.entries = self.run.entries(&mut self.reader, self.next_span)?.into();
                self.next_span += 1;
            }
            let count = self.entries.len().min(LOOKUP_LEN);
            let part: Vec<PageEntry> = self.entries.drain(..count).collect();
            let locations = locate_entries(self.run.store, &part)?;
            self.located = part.into_iter().zip(locations).collect();
        }
        Ok(self.located.front().map(|(entry, _)| *entry))
    }
}

/// Whose turn it is to write.
#[derive(Default)]
struct Turn {
    state: Mutex<TurnState>,
    changed: Condvar,
}

#[derive(Default)]
struct TurnState {
    /// Number of the window that comes next.
    number: u64,
    /// There will be no more turns.
    is_over: bool,
}

impl Turn {
    /// Waits until window `number` may be written; returns `false` if that will not be.
    fn wait_for(&self, number: u64) -> bool {
        let waits = |state: &mut TurnState| state.number != number && !state.is_over;
        let state = self.changed.wait_while(self.state(), waits);
        !state.unwrap_or_else(PoisonError::into_inner).is_over
    }

    fn pass_on(&self) {
        self.state().number += 1;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker<'a> {
    run: &'a Run<'a>,
    reader: ChunkReader,
    plain: Vec<u8>,
}

/// What is written in one turn.
enum Content {
    Bytes(Vec<u8>),
    Zeros(u64),
}

impl Worker<'_> {
    fn write_windows(&mut self, windows: &Mutex<Windows<'_>>, turn: &Turn) -> RestoreResult<()> {
        let mut buffer = Vec::new();
        while self.run.goes_on()? {
            let window = windows.lock().unwrap_or_else(PoisonError::into_inner).next()?;
            let Some(Window { number, offset, entries }) = window else { break };
            let content = self.expand(&entries, offset, buffer)?;
            if !turn.wait_for(number) {
                break;
            }
            buffer = match content {
                Content::Bytes(bytes) => {
                    self.run.target.write_all_at(&bytes, offset)?;
                    self.run.progress.advance(bytes.len() as u64);
                    bytes
                }
                Content::Zeros(len) => {
                    self.run.target.zero_at(offset, len)?;
                    self.run.totals.zero_bytes.fetch_add(len, Ordering::Relaxed);
                    self.run.progress.advance(len);
                    Vec::new()
                }
            };
            turn.pass_on();
        }
        Ok(())
    }

    /// Returns the bytes of a window, in the memory of `buffer`.
    fn expand(
        &mut self,
        entries: &[(PageEntry, Option<Location>)],
        offset: u64,
        mut buffer: Vec<u8>,
    ) -> RestoreResult<Content> {
        buffer.clear();
        for (entry, location) in entries {
            let (id, len) = match entry {
                PageEntry::Zero { len } => return Ok(Content::Zeros(*len)),
                PageEntry::Data { id, len } => (id, *len),
            };
            if self.run.progress.is_cancelled() {
                return Err(super::RestoreError::CANCELLED);
            }
            let place = offset + buffer.len() as u64;
            let read = self.reader.read(ObjectKind::Data, id, *location, &mut self.plain);
            let read = read.and_then(|()| check_len(id, self.plain.len(), u64::from(len)));
            let total = match read {
                Ok(()) => {
                    buffer.extend_from_slice(&self.plain);
                    &self.run.totals.written_bytes
                }
                Err(error) => {
                    self.run.note_lost(*id, error, place, u64::from(len))?;
                    buffer.resize(buffer.len() + to_usize(len), 0);
                    &self.run.totals.zero_bytes
                }
            };
            total.fetch_add(u64::from(len), Ordering::Relaxed);
        }
        Ok(Content::Bytes(buffer))
    }
}
