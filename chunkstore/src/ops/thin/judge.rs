//! Which places of a file stay.
//!
//! - Of each version the newest place is kept, and every place in a revision that may not lose files.
//! - From the newest version on different contents are counted. The versions from the first one on whose content is one too many go.
//! - A file that is gone from the source for long enough goes from every revision that may lose files.
//!
//! Good is a revision that is neither distrusted nor damaged. A version is only dropped because of good ones: places in others count
//! neither as what keeps a version nor as a content, and no file is gone because a doubtful or thinned revision lacks it.

use std::num::NonZero;
use std::time::Duration;

use crate::format::PageEntry;
use crate::revision::Revision;
use crate::time::Timestamp;
use crate::versions::{FileVersions, Occurrence};

/// What there is to know about a revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact {
    /// Files may be removed from it.
    pub(super) is_candidate: bool,
    /// Nothing speaks against it.
    pub(super) is_good: bool,
    /// Its time, not before that of an older revision.
    time: Timestamp,
}

/// What the decisions are made from.
#[derive(Debug)]
pub(super) struct Facts {
    /// One for each revision, oldest first.
    pub(super) revisions: Vec<Fact>,
    /// Place of the revision that tells which files are gone, because it would have them.
    present: Option<usize>,
    versions: Option<NonZero<u32>>,
    gone_after: Option<Duration>,
    now: Timestamp,
}

/// What becomes of a file.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// One for each occurrence, newest first: whether it stays.
    pub(super) is_kept: Vec<bool>,
    /// Whether the file counts as gone from the source.
    pub(super) is_gone: bool,
}

impl Facts {
    pub(super) fn new(
        revisions: &[Revision],
        is_candidate: impl Fn(&Revision) -> bool,
        versions: Option<NonZero<u32>>,
        gone_after: Option<Duration>,
        now: Timestamp,
    ) -> Self {
        let mut latest = Timestamp(i64::MIN);
        let fact = |revision: &Revision| {
            latest = latest.max(revision.record.time);
            Fact { is_candidate: is_candidate(revision), is_good: is_good(revision), time: latest }
        };
        let facts = revisions.iter().map(fact).collect();
        let present = revisions.iter().rposition(is_complete);
        Self { revisions: facts, present, versions, gone_after, now }
    }

    pub(super) fn decide(&self, file: &FileVersions) -> Decision {
        if self.is_gone(file) {
            let is_kept = |found: &Occurrence| !self.revisions[found.revision].is_candidate;
            return Decision {
                is_kept: file.occurrences.iter().map(is_kept).collect(),
                is_gone: true,
            };
        }
        let mut is_kept = Vec::with_capacity(file.occurrences.len());
        let mut contents: Vec<&[PageEntry]> = Vec::new();
        let mut is_over = false;
        for run in file.runs() {
            let content = run.first().map_or(&[][..], |found| &found.entry.content);
            let is_good = run.iter().any(|found| self.revisions[found.revision].is_good);
            if !is_over && is_good && !contents.contains(&content) {
                contents.push(content);
                is_over = self.versions.is_some_and(|max| is_more(contents.len(), max));
            }
            let mut is_held = is_over;
            for found in run {
                let fact = &self.revisions[found.revision];
                let stays = !fact.is_candidate || !is_held;
                is_held |= stays && fact.is_good;
                is_kept.push(stays);
            }
        }
        Decision { is_kept, is_gone: false }
    }

    fn is_gone(&self, file: &FileVersions) -> bool {
        let newest = file.occurrences.first().map(|found| found.revision);
        let (Some(newest), Some(present), Some(gone_after)) =
            (newest, self.present, self.gone_after)
        else {
            return false;
        };
        let age = self.now.milliseconds_since(self.revisions[newest].time);
        newest < present && gone_after <= Duration::from_millis(age)
    }
}

/// Returns whether nothing speaks against a revision.
pub(super) const fn is_good(revision: &Revision) -> bool {
    !revision.state.is_doubted()
}

/// Returns whether a revision tells which files there were: what it lacks was not there.
pub(super) const fn is_complete(revision: &Revision) -> bool {
    is_good(revision) && revision.record.thinned.is_none()
}

fn is_more(count: usize, max: NonZero<u32>) -> bool {
    usize::try_from(max.get()).is_ok_and(|max| max < count)
}
