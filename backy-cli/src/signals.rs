//! Signals: the first SIGINT or SIGTERM asks the running operation to stop, the second one ends the process at once.
//!
//! A closed pipe is an error of a write here, because the runtime ignores SIGPIPE.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What signals have come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Handles signals from now on.
    pub(crate) fn install() -> io::Result<Self> {
        let signals = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in the order of their registration: this one sees the flag of an earlier signal only.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.stop))?;
            flag::register(signal, Arc::clone(&signals.stop))?;
            let number = usize::try_from(signal).map_err(io::Error::other)?;
            flag::register_usize(signal, Arc::clone(&signals.number), number)?;
        }
        Ok(signals)
    }

    /// Returns whether the operation shall stop.
    pub(crate) fn stop_wanted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns the number of the last signal, 0 if there was none.
    pub(crate) fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed)
    }
}
