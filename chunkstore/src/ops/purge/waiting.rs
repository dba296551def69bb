//! For whom and for what space waits that is not given back yet.

use std::fmt;

use super::PurgeOptions;
use crate::format::SessionRecord;
use crate::id::SessionId;
use crate::session::FoundSession;
use crate::time::Timestamp;

/// Space that is not given back yet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Why.
    pub reason: WaitReason,
    /// Bytes of packs. A pack that waits for several reasons counts for each.
    pub bytes: u64,
}

/// Why space is not given back yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitReason {
    /// Condemned packs: this session began before, and may rely on them until it ends.
    OlderSession(Box<SessionRecord>),
    /// Condemned packs: their grace is not over.
    Grace {
        /// When it is.
        until: Timestamp,
    },
    /// This running session has written or reads what no revision needs.
    InUse(Box<SessionRecord>),
    /// A session that did not finish has written what no revision needs; its next attempt may build on that.
    Unfinished {
        /// The session.
        session: Box<SessionRecord>,
        /// Until when its packs are kept for it.
        until: Timestamp,
    },
    /// A session whose record cannot be read.
    UnknownSession(SessionId),
}

impl WaitReason {
    /// Returns the session that is waited for, if it is one that can be read.
    #[must_use]
    pub fn session(&self) -> Option<&SessionRecord> {
        match self {
            Self::OlderSession(session)
            | Self::InUse(session)
            | Self::Unfinished { session, .. } => Some(session),
            Self::Grace { .. } | Self::UnknownSession(_) => None,
        }
    }

    /// Returns when the waiting ends by itself.
    #[must_use]
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Grace { until } | Self::Unfinished { until, .. } => Some(*until),
            Self::OlderSession(_) | Self::InUse(_) | Self::UnknownSession(_) => None,
        }
    }

    /// Returns the reason for a session of which packs must be kept while it runs.
    pub(super) fn older(found: &FoundSession) -> Self {
        match &found.record {
            Ok(record) => Self::OlderSession(Box::new(record.clone())),
            Err(_) => Self::UnknownSession(found.id),
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |session: &SessionRecord| {
            let SessionRecord { kind, process, host, started, .. } = session;
            format!("the {kind} of process {process} on {host} since {started}")
        };
        match self {
            Self::OlderSession(session) => write!(formatter, "the end of {}", name(session)),
            Self::Grace { until } => write!(formatter, "the grace, until {until}"),
            Self::InUse(session) => write!(formatter, "{}, which uses it", name(session)),
            Self::Unfinished { session, until } => {
                write!(formatter, "{}, which did not finish, until {until}", name(session))
            }
            Self::UnknownSession(id) => write!(formatter, "session {id}, which cannot be read"),
        }
    }
}

/// Adds up bytes by reason.
#[derive(Debug, Default)]
pub(super) struct WaitingSum(Vec<Waiting>);

impl WaitingSum {
    pub(super) fn add(&mut self, reason: WaitReason, bytes: u64) {
        match self.0.iter_mut().find(|known| known.reason == reason) {
            Some(known) => known.bytes += bytes,
            None => self.0.push(Waiting { reason, bytes }),
        }
    }

    /// Returns the reasons, those for the most bytes first.
    pub(super) fn finish(mut self) -> Vec<Waiting> {
        self.0.sort_by_cached_key(|waiting| {
            (std::cmp::Reverse(waiting.bytes), waiting.reason.to_string())
        });
        self.0
    }
}

/// Returns when the grace of something from `since` ends, if it is not over.
///
/// A time that lies further ahead than the grace is of a clock that was wrong. It says nothing, and to wait for it could
/// take for ever; so it counts as over. A clock that jumped back by less makes the grace longer by as much.
pub(super) fn grace_end(
    since: Timestamp,
    now: Timestamp,
    options: &PurgeOptions,
) -> Option<Timestamp> {
    let grace = u64::try_from(options.grace.as_millis()).unwrap_or(u64::MAX);
    let is_over = grace <= now.milliseconds_since(since) || grace <= since.milliseconds_since(now);
    let length = i64::try_from(grace).unwrap_or(i64::MAX);
    (!is_over).then(|| Timestamp(since.0.saturating_add(length)))
}
