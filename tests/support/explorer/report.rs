//! What a search has to say.

use std::fmt;

use crate::explorer::schedule::Schedule;

/// Names a schedule that is run instead of all others.
pub(super) const SCHEDULE_VARIABLE: &str = "BACKY_SCHEDULE";

/// What was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Schedules that were run, by the number of their preemptions.
    pub counts: Vec<usize>,
    /// Up to how many preemptions these are all.
    pub complete: Option<usize>,
    /// Most decisions of one schedule.
    pub decisions: usize,
    /// Different states that they ended in.
    pub ends: usize,
}

impl fmt::Display for Explored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: usize = self.counts.iter().sum();
        write!(formatter, "{total} schedules ({:?} by preemptions", self.counts)?;
        match self.complete {
            Some(bound) => write!(formatter, ", all of up to {bound})")?,
            None => write!(formatter, ", not all)")?,
        }
        write!(formatter, " of up to {} decisions, {} ends", self.decisions, self.ends)
    }
}

/// A schedule after which something was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The schedule.
    pub schedule: Schedule,
    /// What was wrong.
    pub reason: String,
    /// What was tried before.
    pub explored: Explored,
    /// Who did what, from switch to switch.
    pub story: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedule, reason, explored, story } = self;
        write!(formatter, "{reason}\n{SCHEDULE_VARIABLE}=\"{schedule}\" after {explored}\n{story}")
    }
}
