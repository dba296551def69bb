//! Kills commands at random moments of their work.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::machine::figure;
use super::running::Running;
use crate::scene::Scene;

/// Attempts for each kill that is wanted: a command may have ended before.
const ATTEMPTS: u32 = 6;

/// How many times as many commands are killed in long runs.
const LONG_RUN: u32 = 40;

/// Kills commands until it has killed enough of them.
#[derive(Debug)]
pub(crate) struct Killer {
    state: u64,
    /// Longest wait before a kill. Follows how long the command takes on this machine, as busy as
    /// it is.
    longest: Duration,
    wanted: u32,
    killed: u32,
    attempts: u32,
}

impl Killer {
    /// Returns one that kills `wanted` commands, or more of them with the variable
    /// `BACKY_LONG_TESTS`.
    pub(crate) fn new(wanted: u32) -> Self {
        let is_long = std::env::var_os("BACKY_LONG_TESTS").is_some();
        let wanted = if is_long { LONG_RUN * wanted } else { wanted };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let state = u64::from(time.subsec_nanos()) | 1;
        figure(&format!("random waits from {state}"));
        let longest = Duration::from_millis(100);
        Self { state, longest, wanted, killed: 0, attempts: 0 }
    }

    /// Returns the number of the next round, or nothing if enough commands were killed.
    #[track_caller]
    pub(crate) fn next_round(&mut self) -> Option<u32> {
        if self.wanted <= self.killed {
            figure(&format!("killed {} of {} commands", self.killed, self.attempts));
            return None;
        }
        assert!(self.attempts < ATTEMPTS * self.wanted, "only {} were killed", self.killed);
        Some(self.attempts)
    }

    /// Returns a random number.
    pub(crate) fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state >> 20
    }

    /// Starts a command and kills it after a while; if it ended before, then with success.
    #[track_caller]
    pub(crate) fn kill(&mut self, scene: &Scene, arguments: &[&str]) {
        self.kill_or_ends_with(scene, arguments, &[0]);
    }

    /// As [`Self::kill`], for a command that may end with one of these codes.
    #[track_caller]
    pub(crate) fn kill_or_ends_with(&mut self, scene: &Scene, arguments: &[&str], codes: &[i32]) {
        let thousandths = u32::try_from(self.random() % 1024).unwrap();
        let running = Running::start(&mut scene.command(arguments));
        std::thread::sleep(self.longest * thousandths / 1024);
        self.attempts += 1;
        let output = running.kill_or_finish();
        match output.code {
            None => {
                self.killed += 1;
                self.longest = (self.longest * 9 / 8).min(Duration::from_secs(2));
            }
            Some(code) => {
                assert!(codes.contains(&code), "{arguments:?}: {code}: {}", output.stderr);
                self.longest = (self.longest * 3 / 4).max(Duration::from_millis(5));
            }
        }
    }
}
