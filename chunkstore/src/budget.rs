//! Bounds the memory of one operation: a counted number of bytes that buffers are taken from.
//!
//! Who needs a buffer takes a [`Share`] first, and waits if not enough is left. Dropping the share gives the bytes back.
//! Nobody can wait for ever, because of two rules that its users keep:
//!
//! - What lives as long as a thread is taken before any thread starts, by the one that starts them: as many threads are
//!   started as there are shares for ([`Budget::try_take`] does not wait).
//! - What is handed from thread to thread is taken by the one that hands it over, who then holds nothing of this kind, and
//!   is given back by one that never waits for a share.
//!
//! So whoever holds what others wait for goes on. A thread that fails closes the budget, which ends all waiting.
//! Invariant: the shares that exist never add up to more than the total.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// Returns the error of an operation that was given fewer bytes than the least that it needs in this store.
pub(crate) fn too_little_memory(total: usize, needed: usize) -> Error {
    Error::InvalidOption {
        what: format!("{total} bytes of memory do not suffice, this store needs {needed}"),
    }
}

/// A number of bytes that shares are taken from. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    state: Mutex<State>,
    /// Bytes were given back, or the budget was closed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    peak: usize,
    is_closed: bool,
}

impl Budget {
    pub(crate) fn new(total: usize) -> Self {
        let shared = Shared { total, state: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Takes `len` bytes, if they are left.
    pub(crate) fn try_take(&self, len: usize) -> Option<Share> {
        let mut state = self.state();
        (len <= self.shared.total - state.taken).then(|| self.taken(&mut state, len))
    }

    /// Takes `len` bytes; waits until they are left. More than the total counts as the total: such a buffer waits
    /// until it is the only one. `None` if the budget is closed.
    pub(crate) fn take(&self, len: usize) -> Option<Share> {
        let len = len.min(self.shared.total);
        let mut state = self.state();
        while !state.is_closed && self.shared.total - state.taken < len {
            let waited = self.shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        (!state.is_closed).then(|| self.taken(&mut state, len))
    }

    /// Ends all waiting, now and later: nobody gets a share by [`Self::take`] any more.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.shared.changed.notify_all();
    }

    /// Returns the bytes that are not taken.
    pub(crate) fn left(&self) -> usize {
        self.shared.total - self.state().taken
    }

    /// Returns the most bytes that were ever taken at once.
    pub(crate) fn peak(&self) -> usize {
        self.state().peak
    }

    fn taken(&self, state: &mut State, len: usize) -> Share {
        state.taken += len;
        state.peak = state.peak.max(state.taken);
        Share { budget: self.clone(), len }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a budget, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    len: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.state().taken -= self.len;
        self.budget.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn share_that_is_not_left_is_refused_or_waited_for() {
        let budget = Budget::new(10);
        let first = budget.try_take(7).expect("10 are left");
        assert!(budget.try_take(4).is_none());
        let second = budget.try_take(3).expect("3 are left");
        assert_eq!((budget.left(), budget.peak()), (0, 10));
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let third = budget.take(5);
                sender.send(budget.left()).unwrap();
                drop(third);
            });
            drop(second);
            assert!(receiver.try_recv().is_err(), "3 of 5 bytes are not enough");
            drop(first);
            assert_eq!(receiver.recv(), Ok(5));
        });
        assert_eq!((budget.left(), budget.peak()), (10, 10));
    }

    #[test]
    fn request_above_the_total_waits_until_it_is_alone() {
        let budget = Budget::new(10);
        let first = budget.take(1).expect("10 are left");
        assert!(budget.try_take(11).is_none());
        thread::scope(|scope| {
            let large = scope.spawn(|| budget.take(1000).expect("not closed"));
            drop(first);
            let large = large.join().unwrap();
            assert_eq!(budget.left(), 0);
            drop(large);
        });
        assert_eq!(budget.left(), 10);
    }

    #[test]
    fn closing_ends_all_waiting() {
        let budget = Budget::new(10);
        let all = budget.take(10).expect("10 are left");
        thread::scope(|scope| {
            let waiting = [1, 10, 100].map(|len| {
                let budget = &budget;
                scope.spawn(move || budget.take(len).is_none())
            });
            budget.close();
            assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        });
        drop(all);
        assert!(budget.take(1).is_none());
    }

    #[test]
    fn many_threads_never_take_more_than_there_is() {
        let budget = Budget::new(100);
        thread::scope(|scope| {
            for thread in 0..8 {
                let budget = &budget;
                scope.spawn(move || {
                    for round in 0..1000 {
                        let share = budget.take(1 + (thread * 31 + round * 17) % 120);
                        assert!(share.is_some());
                    }
                });
            }
        });
        assert_eq!(budget.left(), 100);
        assert!(budget.peak() <= 100);
    }
}
