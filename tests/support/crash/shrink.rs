//! Makes a failing state small: fewer operations, while something still does not hold.
//!
//! Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", TSE 2002), over the operations. Where
//! operations are left out, calls have other numbers; so each shorter history is searched again.

use chunkstore::vfs::simulated::SimulatedVfs;

use super::{Cut, Failure, check, stopped, take};
use crate::attempt::panic_of;
use crate::history::{History, World};

/// Most states that are looked at to make one failure small.
const STATES_MAX: u64 = 6000;

/// Returns the smallest failing history that was found.
pub(super) fn shrink(failure: Failure) -> Failure {
    let mut shrinker = Shrinker { smallest: failure, state_count: 0 };
    let mut len = shrinker.smallest.history.operations.len() / 2;
    while 0 < len {
        if !shrinker.leave_out_some(len) {
            len /= 2;
        }
    }
    shrinker.smallest
}

struct Shrinker {
    smallest: Failure,
    state_count: u64,
}

impl Shrinker {
    /// Leaves out so many neighbours, the last ones first. Returns whether that worked somewhere.
    fn leave_out_some(&mut self, len: usize) -> bool {
        let count = self.smallest.history.operations.len();
        for start in (0..(count + 1).saturating_sub(len)).rev() {
            let history = self.smallest.history.without(start..start + len);
            if let Some(failure) = self.find(&history) {
                self.smallest = failure;
                return true;
            }
        }
        false
    }

    /// Returns a failing state of a history, in the ways of the one known.
    fn find(&mut self, history: &History) -> Option<Failure> {
        let known = self.smallest.cut;
        let mut before = World::new(SimulatedVfs::new());
        for step in 0..=history.operations.len() {
            let mut after = before.copy();
            take(&mut after, history, step).ok()?;
            for stop in 0..=after.vfs.mutating_call_count() {
                if STATES_MAX < self.state_count {
                    return None;
                }
                let world = stopped(&before, history, step, stop);
                for seed in [known.seed, 0, 1] {
                    self.state_count += 1;
                    let cut = Cut { step, stop, seed, ..known };
                    if let Some(reason) = panic_of(|| check(&world, &cut, true)) {
                        return Some(Failure { history: history.clone(), cut, reason });
                    }
                }
            }
            before = after;
        }
        None
    }
}
