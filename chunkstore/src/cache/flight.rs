//! Single flight: what several threads need at once is loaded by one of them.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{Cache, Entry};
use crate::error::{Error, Result};
use crate::id::ChunkId;

/// A value that one thread loads and others may wait for.
#[derive(Debug)]
pub(super) struct Flight<V> {
    state: Mutex<State<V>>,
    landed: Condvar,
}

#[derive(Debug)]
enum State<V> {
    Loading,
    Loaded(Arc<Entry<V>>),
    Failed(Error),
    /// The thread that was to load it has panicked, or has thought better of it.
    Abandoned,
}

impl<V> Flight<V> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::Loading), landed: Condvar::new() }
    }

    /// Waits until the value is there, or it is known why not. `None` if somebody else has to load it.
    pub(super) fn wait(&self) -> Option<Result<Arc<Entry<V>>>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                State::Loading => {}
                State::Loaded(entry) => return Some(Ok(Arc::clone(entry))),
                State::Failed(error) => return Some(Err(error.again())),
                State::Abandoned => return None,
            }
            state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn land(&self, end: State<V>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = end;
        self.landed.notify_all();
    }
}

/// The duty to load a value. Who drops it without a result leaves it to the next one who needs it.
#[derive(Debug)]
pub(crate) struct Duty<'a, V> {
    pub(super) cache: &'a Cache<V>,
    pub(super) id: ChunkId,
    pub(super) flight: Arc<Flight<V>>,
}

impl<V> Duty<'_, V> {
    /// Hands the value or the error to all who wait, and keeps the value. Errors are not kept.
    pub(crate) fn fulfil(self, loaded: Result<(V, usize)>) -> Result<Arc<Entry<V>>> {
        match loaded {
            Ok((value, byte_len)) => {
                let entry = Arc::new(Entry::new(self.id, value, byte_len));
                self.cache.keep(&entry, &self.flight);
                self.flight.land(State::Loaded(Arc::clone(&entry)));
                Ok(entry)
            }
            Err(error) => {
                self.cache.forget(&self.id, &self.flight);
                self.flight.land(State::Failed(error.again()));
                Err(error)
            }
        }
    }
}

impl<V> Drop for Duty<'_, V> {
    fn drop(&mut self) {
        let mut state = self.flight.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Loading) {
            *state = State::Abandoned;
            drop(state);
            self.cache.forget(&self.id, &self.flight);
            self.flight.landed.notify_all();
        }
    }
}
