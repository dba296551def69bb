//! Ends transfers that hardly move: a client that holds memory must take or send 1 MiB in each interval.

use std::io;
use std::time::{Duration, Instant};

const WINDOW_LEN: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Pace {
    timeout: Duration,
    since: Instant,
    len: usize,
}

impl Pace {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, since: Instant::now(), len: 0 }
    }

    /// Takes note of progress.
    ///
    /// # Errors
    ///
    /// `TimedOut` if there was too little in the interval.
    pub(crate) fn advance(&mut self, len: usize) -> io::Result<()> {
        self.len += len;
        if WINDOW_LEN <= self.len {
            *self = Self::new(self.timeout);
        } else if self.timeout < self.since.elapsed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}
