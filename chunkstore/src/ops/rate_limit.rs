//! Limits how many bytes are read in a second: a token bucket that all threads of an operation share.
//!
//! The bucket holds what may be read in one second. Whoever finds something in it takes as much as he needs, also more than
//! there is; the others then wait until the debt is paid. So a record that is longer than the bucket needs no special care.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::environment::Clock;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Longest wait before it is asked whether to stop.
const WAIT_MAX: Duration = Duration::from_millis(200);

const NANOSECONDS: i128 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: i128,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Below 0 if more was taken than there was. In bytes times [`NANOSECONDS`], so that nothing is lost by rounding.
    available: i128,
    filled: Duration,
}

impl RateLimit {
    pub(super) fn new(bytes_per_second: NonZero<u64>, clock: &dyn Clock) -> Self {
        let bytes_per_second = i128::from(bytes_per_second.get());
        let available = bytes_per_second * NANOSECONDS;
        Self {
            bytes_per_second,
            bucket: Mutex::new(Bucket { available, filled: clock.monotonic() }),
        }
    }

    /// Waits until `len` bytes may be read.
    pub(super) fn take(&self, len: u64, clock: &dyn Clock, progress: &dyn Progress) -> Result<()> {
        while let Some(wait) = self.try_take(len, clock.monotonic()) {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            clock.sleep(wait.min(WAIT_MAX));
        }
        Ok(())
    }

    /// Takes `len` bytes, or returns after which time that is worth another try.
    fn try_take(&self, len: u64, now: Duration) -> Option<Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_sub(bucket.filled).as_nanos();
        let elapsed = i128::try_from(elapsed).unwrap_or(i128::MAX);
        let gained = elapsed.saturating_mul(self.bytes_per_second);
        let full = self.bytes_per_second * NANOSECONDS;
        bucket.available = bucket.available.saturating_add(gained).min(full);
        bucket.filled = bucket.filled.max(now);
        if 0 < bucket.available {
            bucket.available -= i128::from(len) * NANOSECONDS;
            return None;
        }
        let missing = (1 - bucket.available).div_euclid(self.bytes_per_second) + 1;
        Some(Duration::from_nanos(u64::try_from(missing).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::NoProgress;
    use crate::time::Timestamp;
    use crate::vfs::simulated::SimulatedClock;

    /// Returns how much simulated time passes until `lens` are taken.
    fn time_for(bytes_per_second: u64, lens: &[u64]) -> Duration {
        let clock = SimulatedClock::new(Timestamp(0), Duration::ZERO);
        let limit = RateLimit::new(NonZero::new(bytes_per_second).unwrap(), &clock);
        for len in lens {
            limit.take(*len, &clock, &NoProgress).unwrap();
        }
        clock.monotonic()
    }

    #[test]
    fn what_one_second_permits_is_taken_at_once_and_more_at_the_rate() {
        assert_eq!(time_for(1000, &[500, 500]), Duration::ZERO);
        for (bytes_per_second, len, count) in [(1000, 100, 100), (1 << 20, 4 << 20, 20), (7, 3, 50)]
        {
            let lens = vec![len; count];
            // Of the first second's bytes and of the last length nobody has to wait for.
            let sum = len * (count as u64 - 1);
            let expected = sum.saturating_sub(bytes_per_second) * 1000 / bytes_per_second;
            let milliseconds =
                u64::try_from(time_for(bytes_per_second, &lens).as_millis()).unwrap();
            assert!(
                expected <= milliseconds && milliseconds <= expected + 1,
                "{bytes_per_second} {len}: {milliseconds}, not {expected}"
            );
        }
    }

    #[test]
    fn largest_and_smallest_rate_and_length_do_not_overflow() {
        assert!(time_for(u64::MAX, &[u64::MAX, 1]) < Duration::from_secs(1));
        assert!(Duration::from_secs(1 << 12) <= time_for(1, &[1 << 12, 1 << 4, 1]));
    }

    struct Stopped;

    impl Progress for Stopped {
        fn is_cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn waiting_ends_when_the_operation_is_cancelled() {
        let clock = SimulatedClock::new(Timestamp(0), Duration::ZERO);
        let limit = RateLimit::new(NonZero::new(1).unwrap(), &clock);
        limit.take(100, &clock, &Stopped).unwrap();
        assert!(matches!(limit.take(1, &clock, &Stopped), Err(Error::Cancelled)));
    }
}
