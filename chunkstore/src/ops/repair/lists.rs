//! Roots and pages of all revisions: which can be read, and what is known to be lost below them.

use std::collections::BTreeSet;

use crate::error::{Error, ObjectName, Result};
use crate::format::{FormatError, Trust};
use crate::id::{ChunkId, RevisionId};
use crate::mark::Marker;
use crate::ops::findings::Findings;
use crate::ops::verify::check::attribute;
use crate::progress::{Phase, Progress};
use crate::quarantine::Copy;
use crate::revision::Revision;
use crate::store::Store;

/// What reading all lists has told.
pub(super) struct Lists {
    /// What cannot be had.
    pub(super) findings: Findings,
    /// Damaged copies of lists that are not in quarantine.
    pub(super) damaged_copies: BTreeSet<Copy>,
    /// Lists without a place, or in quarantine.
    pub(super) unserved: BTreeSet<ChunkId>,
    /// Lists in packs that are gone. A new index has no place for them, unless there is another copy.
    pub(super) in_missing_packs: BTreeSet<ChunkId>,
    /// The index has no place for something, and nobody knows why.
    pub(super) lacks_a_place: bool,
}

impl Lists {
    /// Reads the lists of the revisions. `store` must be passive, so that what is damaged is not set aside one by one.
    pub(super) fn read(
        store: &Store,
        revisions: &[Revision],
        progress: &dyn Progress,
    ) -> Result<Self> {
        let mut marker = Marker::new(store, progress);
        progress.begin(Phase::Mark, None);
        for revision in revisions {
            marker.mark_root(&revision.record.root)?;
        }
        progress.end();
        let mut lists = Self {
            findings: Findings::default(),
            damaged_copies: BTreeSet::new(),
            unserved: BTreeSet::new(),
            in_missing_packs: BTreeSet::new(),
            lacks_a_place: false,
        };
        for (chunk, gap) in &marker.gaps {
            if let Some(newer) = as_newer_format(&gap.error) {
                return Err(newer);
            }
            lists.findings.add(*chunk, &gap.error);
            lists.lacks_a_place |= gap.has_no_place();
            if gap.is_list && gap.is_unserved() {
                lists.unserved.insert(*chunk);
            } else if gap.is_list && matches!(gap.error, Error::Missing { .. }) {
                lists.in_missing_packs.insert(*chunk);
            } else if gap.is_list
                && let Error::Damaged { object: ObjectName::Chunk { pack: Some(pack), .. }, .. } =
                    &gap.error
            {
                lists.damaged_copies.insert((*pack, *chunk));
            }
        }
        Ok(lists)
    }

    /// Returns whether there is a list that no pack has.
    pub(super) fn has_lost(&self) -> bool {
        self.lacks_a_place && !self.unserved.is_empty()
    }

    /// Finds out which bytes of which revisions the damage costs. Returns these revisions, and whether nothing of what is damaged is in
    /// the index any more.
    pub(super) fn attribute<'a>(
        &mut self,
        store: &Store,
        revisions: &'a [Revision],
    ) -> Result<(Vec<&'a Revision>, bool)> {
        let affected: BTreeSet<RevisionId> =
            attribute(store, revisions, &mut self.findings)?.into_iter().collect();
        let affected = revisions.iter().filter(|it| affected.contains(&it.record.id)).collect();
        let is_aside = store.are_aside(self.findings.chunks())?;
        Ok((affected, is_aside))
    }
}

/// Returns those of the revisions whose mark for damage is missing, or says too little.
pub(super) fn to_mark<'a>(
    affected: &[&'a Revision],
    is_aside: bool,
) -> impl Iterator<Item = &'a Revision> {
    let needs_mark = move |revision: &&Revision| {
        let state = &revision.state;
        state.trust != Trust::Damaged || state.heals_to.is_some() && !is_aside
    };
    affected.iter().copied().filter(needs_mark)
}

/// Returns the error anew if it says that a newer program wrote something.
pub(super) fn as_newer_format(error: &Error) -> Option<Error> {
    match error {
        Error::UnsupportedFormat { .. } => Some(error.again()),
        Error::Damaged { object, source: FormatError::Unsupported { found, supported, .. } } => {
            let (object, found, supported) = (object.clone(), *found, *supported);
            Some(Error::UnsupportedFormat { object, found, supported })
        }
        _ => None,
    }
}
