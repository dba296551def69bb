//! Notices that a client reads in order, and says what it will read next.
//!
//! The kernel's client deals requests out to its connections in turns, so one of them sees gaps. What lies a little
//! further on counts as the next; what jumps does not. The window grows while that goes on, as in the
//! kernel's own read-ahead (Linux, mm/readahead.c).

use std::ops::Range;

/// A gap that is not a jump.
const GAP_LEN_MAX: u64 = 2 << 20;

/// Reads in a row before anything is read ahead.
const STREAK_MIN: u32 = 3;

const WINDOW_LEN_MIN: u64 = 1 << 20;
const WINDOW_LEN_MAX: u64 = 8 << 20;

/// Length of one piece of work, so that several workers can share a window.
pub(crate) const PIECE_LEN: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    /// End of the last read.
    end: u64,
    streak: u32,
    /// What was asked for already, up to here.
    asked_end: u64,
    window_len: u64,
}

impl ReadAhead {
    /// Takes note of a read of an export of `size` bytes. Returns what to read ahead: mostly nothing.
    pub(crate) fn read(&mut self, range: Range<u64>, size: u64) -> Range<u64> {
        let goes_on = self.end <= range.start && range.start - self.end <= GAP_LEN_MAX;
        self.end = range.end;
        if !goes_on {
            *self = Self { end: range.end, ..Self::default() };
            return 0..0;
        }
        self.streak = self.streak.saturating_add(1);
        if self.streak < STREAK_MIN {
            return 0..0;
        }
        let start = self.asked_end.max(range.end);
        if self.window_len / 2 < start - range.end {
            return 0..0;
        }
        self.window_len = (2 * self.window_len).clamp(WINDOW_LEN_MIN, WINDOW_LEN_MAX);
        let end = (range.end + self.window_len).min(size);
        self.asked_end = end.max(start);
        start.min(end)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 100 << 20;
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    #[test]
    fn reading_in_order_asks_for_everything_once_and_in_time() {
        let mut ahead = ReadAhead::default();
        let mut asked = 0..0;
        for start in (0..SIZE).step_by(128 << 10) {
            let end = start + 128 * KIB;
            let next = ahead.read(start..end, SIZE);
            if !next.is_empty() {
                assert!(asked.is_empty() || next.start == asked.end, "{next:?} after {asked:?}");
                assert!(next.end - start <= WINDOW_LEN_MAX + 128 * KIB);
                asked = if asked.is_empty() { next } else { asked.start..next.end };
            }
            if 4 * MIB < start {
                assert!(end.min(SIZE - 1) < asked.end, "read to {end}, asked to {}", asked.end);
            }
        }
        assert_eq!(asked.end, SIZE);
    }

    #[test]
    fn gaps_of_a_client_with_several_connections_are_no_jumps() {
        let mut ahead = ReadAhead::default();
        let reads = (0..64).map(|turn| turn * 512 * KIB);
        let asked = reads.map(|start| ahead.read(start..start + 128 * KIB, SIZE));
        assert!(asked.filter(|range| !range.is_empty()).count() > 4);
    }

    #[test]
    fn jumps_ask_for_nothing() {
        let mut ahead = ReadAhead::default();
        for turn in 0..1000_u64 {
            let start = (turn * 37 * MIB) % (SIZE - MIB);
            assert_eq!(ahead.read(start..start + 4 * KIB, SIZE), 0..0);
        }
    }

    #[test]
    fn backwards_asks_for_nothing_and_a_new_start_begins_anew() {
        let mut ahead = ReadAhead::default();
        for turn in 0..20 {
            let start = (20 - turn) * MIB;
            assert_eq!(ahead.read(start..start + MIB, SIZE), 0..0);
        }
        let next: Vec<_> = (50..56).map(|at| ahead.read(at * MIB..(at + 1) * MIB, SIZE)).collect();
        assert_eq!(next[..3], [0..0, 0..0, 0..0]);
        assert_eq!(next[3], 54 * MIB..55 * MIB);
    }

    #[test]
    fn the_end_of_the_export_is_not_passed() {
        let mut ahead = ReadAhead::default();
        for start in (SIZE - 4 * MIB..SIZE).step_by(64 << 10) {
            let next = ahead.read(start..start + 64 * KIB, SIZE);
            assert!(next.start <= next.end && next.end <= SIZE);
        }
    }
}
