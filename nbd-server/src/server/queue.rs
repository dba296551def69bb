//! Requests that wait for a worker. Connections take turns, so that one with many requests does not hold up the others.
//! Reading ahead is done when there is nothing else to do.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::connection::{Connection, Job};
use crate::export::Export;

/// Ranges that wait for being read ahead. More are forgotten: their time is over by then.
const AHEAD_COUNT_MAX: usize = 64;

/// What a worker does next.
#[derive(Debug)]
pub(crate) enum Work {
    /// A request.
    Request(Arc<Connection>, Job),
    /// A range of the export that will probably be read.
    ReadAhead(Arc<dyn Export>, Range<u64>),
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Work that waits or is being done.
    work_count: AtomicUsize,
    /// A connection polls its socket.
    is_polled: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Connections with waiting jobs, each of them once.
    turns: VecDeque<Arc<Connection>>,
    ahead: VecDeque<(Arc<dyn Export>, Range<u64>)>,
    idle_count: usize,
    is_closed: bool,
}

impl Queue {
    /// Takes note that the caller does a piece of work itself, if nothing else waits or is being done.
    pub(crate) fn begin_if_idle(&self) -> bool {
        self.work_count.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes note that the caller polls a socket, if it takes the processor from nobody: one at a time, while there is no work.
    pub(crate) fn begin_polling(&self) -> bool {
        self.work_count.load(Ordering::Relaxed) == 0
            && !self.is_polled.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn end_polling(&self) {
        self.is_polled.store(false, Ordering::Relaxed);
    }

    /// Takes note that a piece of work from [`Self::pop`] is done.
    pub(crate) fn done(&self) {
        self.work_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds a job of a connection.
    pub(crate) fn push(&self, connection: &Arc<Connection>, job: Job) {
        let mut state = self.lock();
        let mut waiting = connection.waiting();
        if waiting.is_empty() {
            state.turns.push_back(Arc::clone(connection));
        }
        waiting.push_back(job);
        drop(waiting);
        self.work_count.fetch_add(1, Ordering::Relaxed);
        self.wake(state);
    }

    /// Adds a range that is worth reading ahead.
    pub(crate) fn push_ahead(&self, export: &Arc<dyn Export>, range: Range<u64>) {
        let mut state = self.lock();
        if AHEAD_COUNT_MAX <= state.ahead.len() {
            state.ahead.pop_front();
            self.done();
        }
        self.work_count.fetch_add(1, Ordering::Relaxed);
        state.ahead.push_back((Arc::clone(export), range));
        self.wake(state);
    }

    /// Waits for the next work; `None` once the queue is closed and no request waits.
    pub(crate) fn pop(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if let Some(connection) = state.turns.pop_front() {
                let mut waiting = connection.waiting();
                let job = waiting.pop_front();
                if !waiting.is_empty() {
                    state.turns.push_back(Arc::clone(&connection));
                }
                drop(waiting);
                let job = job.expect("only connections with jobs have turns");
                return Some(Work::Request(connection, job));
            }
            if state.is_closed {
                return None;
            }
            if let Some((export, range)) = state.ahead.pop_front() {
                return Some(Work::ReadAhead(export, range));
            }
            state.idle_count += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_count -= 1;
        }
    }

    /// Lets workers end when all requests are done.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        // They keep exports open.
        let ahead = std::mem::take(&mut state.ahead);
        drop(state);
        drop(ahead);
        self.changed.notify_all();
    }

    fn wake(&self, state: MutexGuard<'_, State>) {
        let has_idle = 0 < state.idle_count;
        drop(state);
        if has_idle {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
