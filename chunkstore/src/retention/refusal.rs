//! What must not be done without being forced: the signs that the clock, the schedule or the history is not what somebody thinks.

use super::interval::{Age, Interval};
use super::schedule::Schedule;
use super::{Candidate, Decision, effective_times, is_good};
use crate::id::RevisionId;
use crate::time::Timestamp;

/// How far a revision may lie in the future: clocks of machines that share a store differ.
pub const CLOCK_SKEW_MAX_MILLISECONDS: u64 = 5 * 60 * 1000;

/// A pause up to this long is never suspicious.
const PAUSE_MILLISECONDS: u64 = 7 * 24 * 3600 * 1000;

/// A longer pause is suspicious if it is longer than the usual one this many times.
const PAUSE_FACTOR: u64 = 10;

/// From how many pauses, the newest ones, the usual one is taken.
const PAUSE_COUNT_MAX: usize = 9;

/// Why an expiry must not be carried out unless it is forced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The clock is behind, or was ahead when the revision was made.
    #[error("the clock says {now}, but revision {id} is of {time}")]
    FromTheFuture {
        /// The newest revision of this kind.
        id: RevisionId,
        /// When it was made, as it says.
        time: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// More time has passed, as the clock has it, than the history explains; and something would be dropped because of that.
    #[error(
        "the clock may be wrong: there is no revision between {from} and {until} ({pause}), {usual} is usual"
    )]
    Pause {
        /// The last revision before the pause.
        from: Timestamp,
        /// The next revision, or the clock.
        until: Timestamp,
        /// The time between them.
        pause: Age,
        /// The time that usually lies between two revisions.
        usual: Age,
    },
    /// Most of the history would go.
    #[error("{removed} of {total} revisions would be removed, more than half")]
    MoreThanHalf {
        /// How many would be removed.
        removed: usize,
        /// How many there are.
        total: usize,
    },
    /// Nothing would be left that can be relied on.
    #[error("revision {id}, the last good one, would be removed")]
    LastGood {
        /// The newest good revision.
        id: RevisionId,
    },
}

/// Returns all that speaks against carrying out `decisions`.
pub(super) fn refusals(
    history: &[Candidate],
    decisions: &[Decision],
    schedule: &Schedule,
    now: Timestamp,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    refusals.extend(from_the_future(history, now));
    // Where nothing is dropped the clock has no say.
    if decisions.iter().any(|decision| !decision.is_unchanged()) {
        refusals.extend(pause(history, schedule, now));
    }
    let total = decisions.len();
    let removed = decisions.iter().filter(|decision| decision.is_removed).count();
    if total / 2 < removed {
        refusals.push(Refusal::MoreThanHalf { removed, total });
    }
    let mut good = history.iter().zip(decisions).filter(|(candidate, _)| is_good(candidate)).rev();
    if let Some((newest, decision)) = good.next()
        && decision.is_removed
        && good.all(|(_, decision)| decision.is_removed)
    {
        refusals.push(Refusal::LastGood { id: newest.id });
    }
    refusals
}

/// Returns the signs that the clock is not to be believed, where there is no schedule: for what depends on the age of revisions.
pub(crate) fn clock_refusals(history: &[Candidate], now: Timestamp) -> Vec<Refusal> {
    let pause = pause(history, &Schedule::default(), now);
    from_the_future(history, now).into_iter().chain(pause).collect()
}

fn from_the_future(history: &[Candidate], now: Timestamp) -> Option<Refusal> {
    let is_future = |candidate: &&Candidate| {
        CLOCK_SKEW_MAX_MILLISECONDS < candidate.time.milliseconds_since(now)
    };
    let Candidate { id, time, .. } = history.iter().rev().find(is_future)?;
    Some(Refusal::FromTheFuture { id: *id, time: *time, now })
}

/// Looks at the last two pauses: that before the newest revision, and that since. A clock that jumped shows in one of them. What lies
/// further back was confirmed by two revisions.
fn pause(history: &[Candidate], schedule: &Schedule, now: Timestamp) -> Option<Refusal> {
    let mut times = effective_times(history, now);
    times.push(now);
    let between = |pair: &[Timestamp]| pair[1].milliseconds_since(pair[0]);
    let earlier = times.len().saturating_sub(3);
    let mut known: Vec<u64> = times[..=earlier].windows(2).rev().map(between).collect();
    known.truncate(PAUSE_COUNT_MAX);
    known.sort_unstable();
    let in_history = known.get(known.len() / 2).copied();
    let in_schedule = schedule.shortest_interval().map(milliseconds);
    // With a schedule or without, two revisions or fewer and no interval: nothing is usual yet.
    let usual = in_history.max(in_schedule)?;
    let limit = usual.saturating_mul(PAUSE_FACTOR).max(PAUSE_MILLISECONDS);
    let found = times[earlier..].windows(2).rev().find(|pair| limit < between(pair))?;
    Some(Refusal::Pause {
        from: found[0],
        until: found[1],
        pause: Age { milliseconds: between(found) },
        usual: Age { milliseconds: usual },
    })
}

fn milliseconds(interval: Interval) -> u64 {
    u64::try_from(interval.milliseconds()).unwrap_or(u64::MAX)
}
