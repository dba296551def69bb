//! Edits of the history, and what they may change.

use std::collections::BTreeSet;

use chunkstore::error::Error;
use chunkstore::format::Trust;
use chunkstore::id::RevisionId;
use chunkstore::ops::expire::{self, ExpireError, ExpireOptions};
use chunkstore::ops::{self, TagEdit, TagOptions};
use chunkstore::retention::{Decision, Schedule, TagRule};
use chunkstore::revision::Revision;

use super::SOURCES;
use super::world::{World, set};

/// What speaks against the revisions of a source.
#[derive(Debug)]
pub(super) struct Doubts {
    /// The next backup writes every chunk again.
    pub(super) is_in_doubt: bool,
    /// What is distrusted, or again when it is healed; newest first.
    distrusted: Vec<RevisionId>,
    /// Those of them that are damaged by now.
    damaged: BTreeSet<RevisionId>,
}

impl Doubts {
    /// Returns the revision that a backup verifies which has healed some.
    pub(super) fn rechecked(&self, healed: &[RevisionId]) -> Option<RevisionId> {
        let is_distrusted = |id: &&RevisionId| !self.damaged.contains(id) || healed.contains(id);
        self.distrusted.iter().find(is_distrusted).copied()
    }
}

impl World {
    pub(super) fn doubts(&self, source: usize) -> Doubts {
        let name = SOURCES[source].parse().unwrap();
        let revisions = self.store.history(Some(&name)).unwrap().revisions;
        let mut distrusted = Vec::new();
        let mut damaged = BTreeSet::new();
        for Revision { record, state } in revisions.iter().rev() {
            match (state.trust, state.heals_to) {
                (Trust::Distrusted, _) => distrusted.push(record.id),
                (Trust::Damaged, Some(Trust::Distrusted)) => {
                    distrusted.push(record.id);
                    damaged.insert(record.id);
                }
                _ => {}
            }
        }
        let is_in_doubt = revisions.iter().any(|revision| revision.state.is_in_doubt());
        Doubts { is_in_doubt, distrusted, damaged }
    }

    pub(super) fn lose(&mut self, id: &RevisionId) {
        self.truth.remove(id);
        for history in &mut self.history {
            history.retain(|known| known != id);
        }
    }

    pub(super) fn forget(&mut self, pick: usize) {
        let Some(id) = self.pick(pick) else { return };
        let result = ops::forget(&self.store, &[id]);
        if self.truth[&id].protected {
            assert!(matches!(result, Err(Error::Protected { .. })), "{result:?}");
            return;
        }
        assert_eq!(result.unwrap().forgotten, [id]);
        self.lose(&id);
        let again = ops::forget(&self.store, &[id]);
        assert!(matches!(again, Err(Error::NoSuchRevision { .. })));
    }

    pub(super) fn set_tags(&mut self, pick: usize, tags: &[&str]) {
        let Some(id) = self.pick(pick) else { return };
        let edit = TagEdit::Set(tags.iter().map(|&tag| tag.to_owned()).collect());
        ops::edit_tags(&self.store, &[id], &edit, &TagOptions::default()).unwrap();
        self.truth.get_mut(&id).unwrap().tags = set(tags);
    }

    pub(super) fn protect(&mut self, pick: usize, protected: bool) {
        let Some(id) = self.pick(pick) else { return };
        ops::protect(&self.store, &[id], protected).unwrap();
        self.truth.get_mut(&id).unwrap().protected = protected;
    }

    pub(super) fn distrust(&mut self, pick: usize) {
        let Some(id) = self.pick(pick) else { return };
        ops::distrust(&self.store, &[id]).unwrap();
        let state = self.store.revision(&id).unwrap().state;
        assert!(state.is_in_doubt(), "{state:?}");
    }

    /// What is decided is tested where it is decided; here that it is done, and that nothing goes which nobody could want
    /// to lose.
    pub(super) fn expire(&mut self, source: usize, keep: u64, force: bool) {
        let rule = TagRule::count("1d".parse().unwrap(), keep.try_into().unwrap());
        let schedule = Schedule::default().with_tag("daily", rule).unwrap();
        let options = ExpireOptions { schedule, force, ..ExpireOptions::default() };
        let name = SOURCES[source].parse().unwrap();
        let stats = match expire::plan(&self.store, &name, &options).unwrap().execute() {
            Ok(stats) => stats,
            Err(ExpireError::Refused { .. }) if !force => return,
            Err(error) => panic!("expire: {error:?}"),
        };
        for decision in &stats.verdict.decisions {
            self.check_decision(source, keep, decision);
        }
        for decision in stats.verdict.decisions {
            if decision.is_removed {
                assert!(stats.removed.contains(&decision.id));
                self.lose(&decision.id);
            } else {
                self.truth.get_mut(&decision.id).unwrap().tags = set(&decision.tags_after);
            }
        }
    }

    fn check_decision(&self, source: usize, keep: u64, decision: &Decision) {
        let truth = &self.truth[&decision.id];
        let (before, after) = (set(&decision.tags_before), set(&decision.tags_after));
        assert_eq!(before, truth.tags);
        assert!(after.is_subset(&before), "{decision:?}");
        let drops = |tag: &str| before.contains(tag) && !after.contains(tag);
        assert!(!drops("manual:x"), "{decision:?}");
        assert!(!truth.protected || !decision.is_removed && after == before, "{decision:?}");
        assert!(!decision.is_removed || after.is_empty(), "{decision:?}");
        if drops("daily") {
            let history = &self.history[source];
            let newer = history.iter().rev().take_while(|id| **id != decision.id);
            let same = newer.filter(|id| self.truth[id].tags.contains("daily"));
            assert!(keep <= same.count() as u64, "{decision:?}");
        }
    }
}
