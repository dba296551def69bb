//! Bounds what is being worked on: a number of requests, and bytes of payload.
//!
//! Who comes first is served first, so that a large request is not kept waiting by small ones for ever.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Budget {
    count_max: usize,
    len_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    len: usize,
    next_ticket: u64,
    served_ticket: u64,
}

impl State {
    /// Whether somebody waits. Waking nobody would cost a system call for each request.
    fn is_contended(&self) -> bool {
        self.served_ticket != self.next_ticket
    }
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    len: usize,
}

impl Budget {
    pub(crate) fn new(count_max: usize, len_max: usize) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { count_max: count_max.max(1), len_max, state, changed })
    }

    /// Waits until there is room for one more request. One that is larger than the whole budget gets all of it.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Permit {
        let len = len.min(self.len_max);
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        while state.served_ticket != ticket
            || self.count_max <= state.count
            || self.len_max - len < state.len
        {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.served_ticket += 1;
        state.count += 1;
        state.len += len;
        let is_contended = state.is_contended();
        drop(state);
        if is_contended {
            self.changed.notify_all();
        }
        Permit { budget: Arc::clone(self), len }
    }

    /// As [`Self::take`], but does not wait: `None` if there is no room at once.
    pub(crate) fn try_take(self: &Arc<Self>, len: usize) -> Option<Permit> {
        let len = len.min(self.len_max);
        let mut state = self.lock();
        if state.is_contended() || self.count_max <= state.count || self.len_max - len < state.len {
            return None;
        }
        state.next_ticket += 1;
        state.served_ticket += 1;
        state.count += 1;
        state.len += len;
        Some(Permit { budget: Arc::clone(self), len })
    }

    /// Returns whether somebody waits.
    pub(crate) fn is_contended(&self) -> bool {
        self.lock().is_contended()
    }

    /// Returns how many requests are being worked on.
    pub(crate) fn count(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.count -= 1;
        state.len -= self.len;
        let is_contended = state.is_contended();
        drop(state);
        if is_contended {
            self.budget.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    impl Budget {
        fn is_free(&self) -> bool {
            let state = self.lock();
            state.count == 0 && state.len == 0
        }
    }

    #[test]
    fn a_large_request_waits_for_room_and_is_not_overtaken() {
        let budget = Budget::new(10, 100);
        let first = budget.take(60);
        let (sender, receiver) = mpsc::channel();
        let take = |len: usize| {
            let (budget, sender) = (Arc::clone(&budget), sender.clone());
            let tickets = budget.lock().next_ticket;
            let thread = std::thread::spawn({
                let budget = Arc::clone(&budget);
                move || {
                    let permit = budget.take(len);
                    sender.send(len).unwrap();
                    drop(permit);
                }
            });
            while budget.lock().next_ticket == tickets {
                std::thread::yield_now();
            }
            thread
        };
        let threads = [take(1000), take(1)];
        assert!(receiver.try_recv().is_err());
        assert!(budget.try_take(1).is_none());
        drop(first);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1000, 1]);
        assert!(budget.is_free());
    }

    #[test]
    fn without_room_nothing_is_taken_at_once() {
        let budget = Budget::new(2, 100);
        let first = budget.try_take(60).unwrap();
        assert!(budget.try_take(41).is_none());
        let second = budget.try_take(40).unwrap();
        assert!(budget.try_take(0).is_none());
        drop(first);
        assert_eq!(budget.count(), 1);
        drop(second);
        assert!(budget.is_free());
    }
}
