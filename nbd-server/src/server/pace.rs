//! Ends transfers that hardly move: a client that holds memory must take or send 1 MiB in each interval, and in a shorter one while
//! others wait for that memory.

use std::io;
use std::time::{Duration, Instant};

use super::budget::Budget;
use crate::limits::Limits;

const WINDOW_LEN: usize = 1 << 20;

/// Longest wait in one call, so that it is noticed when others begin to wait.
const TICK: Duration = Duration::from_millis(500);

/// How long an interval is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience<'a> {
    limits: &'a Limits,
    budget: &'a Budget,
}

impl<'a> Patience<'a> {
    /// Takes the limits of a server, and the memory that its clients share.
    pub(crate) fn new(limits: &'a Limits, budget: &'a Budget) -> Self {
        Self { limits, budget }
    }

    /// Returns the timeout that sockets need, so that [`Pace`] sees in time that nothing moves.
    pub(crate) fn tick(self) -> Duration {
        TICK.min(self.limits.write_timeout).min(self.limits.contended_timeout)
    }

    fn interval(self) -> Duration {
        let timeout = self.limits.write_timeout;
        if self.budget.is_contended() {
            timeout.min(self.limits.contended_timeout)
        } else {
            timeout
        }
    }
}

/// One transfer.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    patience: Patience<'a>,
    since: Instant,
    len: usize,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(patience: Patience<'a>) -> Self {
        Self { patience, since: Instant::now(), len: 0 }
    }

    /// Takes note of what was transferred in one call, perhaps nothing.
    ///
    /// # Errors
    ///
    /// `TimedOut` if there was too little in the interval.
    pub(crate) fn advance(&mut self, len: usize) -> io::Result<()> {
        self.len += len;
        if WINDOW_LEN <= self.len {
            *self = Self::new(self.patience);
        } else if self.patience.interval() < self.since.elapsed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}
