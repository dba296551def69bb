//! Where a history stops, what is left then, and how a failure names it.

use std::fmt;
use std::str::FromStr;

use chunkstore::vfs::simulated::{CrashMode, SimulatedVfs};

/// A stop at a call, and what it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The step that is stopped: 0 creates the store, the others are the operations.
    pub step: usize,
    /// The call of this step that changes something and is not made any more, from 0.
    pub stop: u64,
    /// How the power cut treats what was not synced; `None` if only the process dies.
    pub mode: Option<CrashMode>,
    /// What is left to chance.
    pub seed: u64,
    /// A power cut while the store recovers from the first.
    pub second: Option<SecondCut>,
}

/// A stop at a call of the recovery, and what it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondCut {
    /// The call of the recovery.
    pub stop: u64,
    /// How the power cut treats what was not synced.
    pub mode: CrashMode,
}

impl SecondCut {
    /// Returns one of the stops of a recovery of so many calls, for each first one another.
    pub(super) fn of(first: &Cut, call_count: u64) -> Self {
        let modes: Vec<CrashMode> = CrashMode::all().collect();
        let turn = (first.stop + first.step as u64)
            .wrapping_mul(7)
            .wrapping_add(first.seed.wrapping_mul(13));
        let mode = modes[usize::try_from(turn % 20).expect("few")];
        Self { stop: turn % call_count.max(1), mode }
    }
}

impl Cut {
    /// Returns what the first stop leaves.
    pub(super) fn aftermath(&self, stopped: &SimulatedVfs) -> SimulatedVfs {
        self.mode.map_or_else(|| stopped.kill(), |mode| stopped.crash(&mode, self.seed))
    }

    /// Returns the seed of the environment in which the store is recovered: no history has come that far.
    pub(super) fn environment(&self) -> u64 {
        100_000 + self.stop * 4 + self.seed % 4
    }
}

/// Number of a mode: its place among all, and behind them the death of the process.
fn number(mode: Option<CrashMode>) -> usize {
    CrashMode::all().position(|other| Some(other) == mode).unwrap_or(CrashMode::all().count())
}

impl fmt::Display for Cut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}:{}", self.step, self.stop, number(self.mode), self.seed)?;
        match self.second {
            Some(second) => write!(formatter, ":{}:{}", second.stop, number(Some(second.mode))),
            None => Ok(()),
        }
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u64>, _> = text.split(':').map(str::parse).collect();
        let mode =
            |number: u64| CrashMode::all().nth(usize::try_from(number).unwrap_or(usize::MAX));
        let wrong = || format!("not STEP:STOP:MODE:SEED or STEP:STOP:MODE:SEED:STOP:MODE: {text}");
        let numbers = numbers.map_err(|_| wrong())?;
        let (&[step, stop, first_mode, seed], rest) =
            numbers.split_first_chunk().ok_or_else(wrong)?;
        let second = match rest {
            [] => None,
            &[stop, second] => Some(SecondCut { stop, mode: mode(second).ok_or_else(wrong)? }),
            _ => return Err(wrong()),
        };
        let step = usize::try_from(step).map_err(|_| wrong())?;
        Ok(Self { step, stop, mode: mode(first_mode), seed, second })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_is_read_as_it_was_written() {
        for (turn, mode) in CrashMode::all().map(Some).chain([None]).enumerate() {
            let second = CrashMode::all().nth(turn / 2).map(|mode| SecondCut { stop: 9, mode });
            for second in [None, second] {
                let cut = Cut { step: 3, stop: 12, mode, seed: turn as u64, second };
                assert_eq!(cut.to_string().parse(), Ok(cut));
            }
        }
        assert!("1:2:3".parse::<Cut>().is_err());
        assert!("1:2:3:x".parse::<Cut>().is_err());
    }
}
