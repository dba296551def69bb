//! What conflicts with what, learned from the schedules that were run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::explorer::point::Point;
use crate::explorer::schedule::Step;

/// Which operations read and change each name.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    touched: BTreeMap<PathBuf, BTreeMap<usize, bool>>,
}

impl Footprint {
    pub(super) fn learn(&mut self, trace: &[Step]) {
        for step in trace {
            for access in &step.does.accesses {
                let by = self.touched.entry(access.path.clone()).or_default();
                *by.entry(step.chosen).or_default() |= access.is_write;
            }
        }
    }

    /// Returns whether another operation touches what the point does, and one of the two changes it.
    fn is_contended(&self, operation: usize, point: &Point) -> bool {
        let conflicts = |path: &Path, is_write: bool| {
            let by = self.touched.get(path).into_iter().flatten();
            by.into_iter().any(|(other, writes)| *other != operation && (is_write || *writes))
        };
        point.accesses.iter().any(|access| conflicts(&access.path, access.is_write))
    }

    /// Returns the other ways to go on from a decision, and whether they are preemptions.
    pub(super) fn alternatives(&self, step: &Step) -> (Vec<usize>, bool) {
        let costs = step.costs();
        let is_idle = match (costs, step.current, &step.point) {
            (true, Some(current), Some(point)) => !self.is_contended(current, point),
            _ => false,
        };
        let others = step.runnable.iter().copied().filter(|other| *other != step.chosen);
        (if is_idle { Vec::new() } else { others.collect() }, costs)
    }
}
