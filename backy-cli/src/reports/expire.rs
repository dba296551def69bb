//! What was decided about revisions, and what became of them.

use chunkstore::id::{RevisionId, SourceName};
use chunkstore::ops::thin::ThinCounts;
use chunkstore::retention::{Decision, Reason, Verdict};
use chunkstore::time::Timestamp;
use serde::Serialize;

/// What an expiry did, or would do.
#[derive(Debug, Serialize)]
pub(crate) struct ExpireReport<'a> {
    source: &'a SourceName,
    dry_run: bool,
    removed: Vec<RevisionId>,
    refusals: Vec<String>,
    revisions: Vec<DecisionReport<'a>>,
    /// What became of the revisions that are dropped, if they are thinned and not removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinned: Option<ThinReport>,
}

impl<'a> ExpireReport<'a> {
    pub(crate) fn new(
        source: &'a SourceName,
        dry_run: bool,
        verdict: &'a Verdict,
        thinned: Option<ThinCounts>,
    ) -> Self {
        Self {
            source,
            dry_run,
            removed: verdict.removed().collect(),
            refusals: verdict.refusals.iter().map(ToString::to_string).collect(),
            revisions: verdict.decisions.iter().map(DecisionReport::from).collect(),
            thinned: thinned.map(ThinReport::from),
        }
    }
}

/// What was removed from revisions.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ThinReport {
    dropped_versions: u64,
    dropped_entries: u64,
    gone_files: u64,
    thinned_revisions: u64,
    removed_revisions: u64,
}

impl From<ThinCounts> for ThinReport {
    fn from(counts: ThinCounts) -> Self {
        Self {
            dropped_versions: counts.dropped_versions,
            dropped_entries: counts.dropped_entries,
            gone_files: counts.gone_files,
            thinned_revisions: counts.thinned_revisions,
            removed_revisions: counts.removed_revisions,
        }
    }
}

/// What becomes of one revision.
#[derive(Debug, Serialize)]
struct DecisionReport<'a> {
    id: RevisionId,
    time: Timestamp,
    tags_before: &'a [String],
    tags_after: &'a [String],
    removed: bool,
    reasons: Vec<ReasonReport<'a>>,
}

/// Why a tag or a revision is kept or dropped.
#[derive(Debug, Serialize)]
struct ReasonReport<'a> {
    tag: Option<&'a str>,
    keeps: bool,
    reason: String,
}

impl<'a> From<&'a Decision> for DecisionReport<'a> {
    fn from(decision: &'a Decision) -> Self {
        let reason = |reason: &'a Reason| ReasonReport {
            tag: reason.tag(),
            keeps: reason.keeps(),
            reason: reason.to_string(),
        };
        Self {
            id: decision.id,
            time: decision.time,
            tags_before: &decision.tags_before,
            tags_after: &decision.tags_after,
            removed: decision.is_removed,
            reasons: decision.reasons.iter().map(reason).collect(),
        }
    }
}
