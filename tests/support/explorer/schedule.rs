//! Schedules: which operation goes on at which decision; written down such that they can be run again.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::explorer::point::Point;
use crate::images::Numbers;

/// Where a run departs from the rule that who runs goes on, and else the first who can.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Schedule {
    /// Decision, counted from 0, to who goes on.
    pub switches: BTreeMap<usize, usize>,
    /// An operation that dies, and at which of its points, counted from 1.
    pub death: Option<(usize, usize)>,
}

impl Schedule {
    /// Returns the schedule with one more switch.
    #[must_use]
    pub fn and(&self, decision: usize, operation: usize) -> Self {
        let mut more = self.clone();
        more.switches.insert(decision, operation);
        more
    }
}

/// As `12>1 40>0 die2@17`, or `-` for the rule alone.
impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let switches = self.switches.iter().map(|(decision, next)| format!("{decision}>{next}"));
        let death = self.death.iter().map(|(operation, point)| format!("die{operation}@{point}"));
        let words: Vec<String> = switches.chain(death).collect();
        formatter.write_str(if words.is_empty() { "-" } else { "" })?;
        formatter.write_str(&words.join(" "))
    }
}

/// A text that is no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSchedule;

impl FromStr for Schedule {
    type Err = NoSchedule;

    fn from_str(text: &str) -> Result<Self, NoSchedule> {
        let mut schedule = Self::default();
        let number = |text: &str| text.parse::<usize>().map_err(|_| NoSchedule);
        for word in text.split_whitespace().filter(|word| *word != "-") {
            if let Some(death) = word.strip_prefix("die") {
                let (operation, point) = death.split_once('@').ok_or(NoSchedule)?;
                schedule.death = Some((number(operation)?, number(point)?));
            } else {
                let (decision, next) = word.split_once('>').ok_or(NoSchedule)?;
                schedule.switches.insert(number(decision)?, number(next)?);
            }
        }
        Ok(schedule)
    }
}

/// One decision of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who ran before, if that operation could go on.
    pub current: Option<usize>,
    /// What the operation that ran before is about to do, if it is not over.
    pub point: Option<Arc<Point>>,
    /// Who could go on.
    pub runnable: Vec<usize>,
    /// Who went on.
    pub chosen: usize,
    /// What that operation does now.
    pub does: Arc<Point>,
}

impl Step {
    /// Returns who goes on unless somebody else is chosen.
    #[must_use]
    pub fn usual(&self) -> usize {
        usual(self.current, &self.runnable)
    }

    /// Returns whether the choice of somebody else is a preemption.
    #[must_use]
    pub fn costs(&self) -> bool {
        self.current.is_some() && !self.point.as_ref().is_some_and(|point| point.is_free)
    }
}

/// Returns who goes on by the rule.
fn usual(current: Option<usize>, runnable: &[usize]) -> usize {
    current.unwrap_or(runnable[0])
}

/// Who decides.
#[derive(Clone, Debug)]
pub(super) enum Strategy {
    /// A schedule.
    Replay(Schedule),
    /// Priorities, and the decisions at which whoever runs gets the lowest.
    Priorities { of: Vec<usize>, changes: Vec<usize>, lowest: usize },
}

impl Strategy {
    /// Returns random priorities that change `count` times in `decisions` decisions.
    pub(super) fn random(seed: u64, operations: usize, count: usize, decisions: usize) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut of: Vec<usize> = (count..count + operations).collect();
        for place in (1..operations).rev() {
            of.swap(place, numbers.below(place + 1));
        }
        let changes = (0..count).map(|_| numbers.below(decisions.max(1))).collect();
        Self::Priorities { of, changes, lowest: count }
    }

    /// Chooses who goes on at a decision.
    pub(super) fn choose(
        &mut self,
        decision: usize,
        current: Option<usize>,
        runnable: &[usize],
    ) -> usize {
        match self {
            Self::Replay(schedule) => {
                let wanted = schedule.switches.get(&decision).copied();
                let wanted = wanted.filter(|wanted| runnable.contains(wanted));
                wanted.unwrap_or_else(|| usual(current, runnable))
            }
            Self::Priorities { of, changes, lowest } => {
                if changes.contains(&decision)
                    && let Some(current) = current
                {
                    *lowest = lowest.saturating_sub(1);
                    of[current] = *lowest;
                }
                let first = runnable.iter().max_by_key(|operation| of[**operation]);
                *first.expect("somebody can go on")
            }
        }
    }

    /// Returns who dies, and where.
    pub(super) fn death(&self) -> Option<(usize, usize)> {
        match self {
            Self::Replay(schedule) => schedule.death,
            Self::Priorities { .. } => None,
        }
    }
}
