//! Retention: which tags of which revisions a schedule keeps, and why.
//!
//! - A tag of the schedule is kept by count and age: it is dropped only if at least `keep` newer good revisions have it, and its
//!   revision is older than `keep` intervals. Or it is kept by the calendar: by the newest revision of each of the newest days, weeks,
//!   months or years. One rule that keeps it is enough.
//! - A tag that is not in the schedule is dropped; one that begins with `manual:` never is.
//! - A revision that keeps no tag is removed, unless the schedule's own calendar keeps it.
//! - A protected revision is left as it is.
//!
//! Good is what is neither distrusted nor damaged. Others are never the reason why a tag is dropped elsewhere.
//!
//! The clock that dated the revisions may have been wrong, so a revision counts as at most as old as those before it in the
//! history. Whether the whole may be carried out without being forced says [`Refusal`].
//!
//! Pure: takes the history, the schedule, the time and the time zone; returns decisions. Invariants, whatever comes in: each
//! revision gets one decision, in the order of the history; no tag appears that was not there; every tag has a reason.

mod buckets;
mod decide;
mod interval;
mod reason;
mod refusal;
mod schedule;
#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;

pub use self::buckets::{Bucket, Period};
pub use self::interval::{Age, Interval, ParseIntervalError};
pub use self::reason::Reason;
pub(crate) use self::refusal::clock_refusals;
pub use self::refusal::{CLOCK_SKEW_MAX_MILLISECONDS, Refusal};
pub use self::schedule::{Calendar, MANUAL_PREFIX, Schedule, ScheduleError, TagRule, is_manual};
use crate::format::Trust;
use crate::id::RevisionId;
use crate::time::Timestamp;

/// What retention looks at in a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: RevisionId,
    /// When it was made.
    pub time: Timestamp,
    /// Its tags.
    pub tags: Vec<String>,
    /// How far it is trusted.
    pub trust: Trust,
    /// Whether it is kept whatever the schedule says.
    pub protected: bool,
}

/// What becomes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The revision.
    pub id: RevisionId,
    /// When it was made.
    pub time: Timestamp,
    /// The tags that it has, by how often they are due.
    pub tags_before: Vec<String>,
    /// The tags that it keeps, in the same order.
    pub tags_after: Vec<String>,
    /// Whether the revision is dropped.
    pub is_removed: bool,
    /// Why: one reason for each tag, and those that concern the revision as a whole.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// Returns whether the revision stays exactly as it is.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        !self.is_removed && self.tags_before.len() == self.tags_after.len()
    }
}

/// What becomes of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// One decision for each revision, oldest first.
    pub decisions: Vec<Decision>,
    /// Why this must not be done unless it is forced.
    pub refusals: Vec<Refusal>,
}

impl Verdict {
    /// Returns the revisions that are dropped, oldest first.
    pub fn removed(&self) -> impl Iterator<Item = RevisionId> {
        self.decisions.iter().filter(|decision| decision.is_removed).map(|decision| decision.id)
    }

    /// Returns whether nothing is dropped, neither tags nor revisions.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.decisions.iter().all(Decision::is_unchanged)
    }
}

/// Returns what becomes of the revisions of one source (`history`, oldest first) at the time `now`.
///
/// Days, weeks, months and years are those of `timezone`.
#[must_use]
pub fn decide(
    history: &[Candidate],
    schedule: &Schedule,
    now: Timestamp,
    timezone: &TimeZone,
) -> Verdict {
    let decisions = decide::decide(history, schedule, now, timezone);
    let refusals = refusal::refusals(history, &decisions, schedule, now);
    Verdict { decisions, refusals }
}

/// Returns whether nothing speaks against a revision.
const fn is_good(candidate: &Candidate) -> bool {
    matches!(candidate.trust, Trust::Trusted | Trust::Verified)
}

/// Returns for each revision the time that its age is counted from: its own, but not before that of an older revision, and
/// not after `now`. A revision from the future moves no other.
fn effective_times(history: &[Candidate], now: Timestamp) -> Vec<Timestamp> {
    let mut latest = Timestamp(i64::MIN);
    let mut times = Vec::with_capacity(history.len());
    for candidate in history {
        if candidate.time <= now {
            latest = latest.max(candidate.time);
            times.push(latest);
        } else {
            times.push(now);
        }
    }
    times
}
