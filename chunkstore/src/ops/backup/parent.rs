//! The revision that a backup predicts unchanged data from.

use std::collections::{BTreeSet, HashSet};

use super::BackupOptions;
use crate::chunk_reader::ChunkReader;
use crate::error::{Error, Result};
use crate::format::{PageEntry, RevisionKind, RevisionState, Root, SpanRef, TreeRoot, Trust};
use crate::id::{ChunkId, QuarantineId, RevisionId};
use crate::planted::{Bug, has};
use crate::revision::Revision;
use crate::store::Store;
use crate::tree_reader::TreeEntries;

/// What a backup builds on.
#[derive(Debug)]
pub(super) struct Parent {
    /// Where unchanged data is predicted from.
    pub(super) revision: Option<Revision>,
    /// Its chunk list, if it is an image.
    pub(super) root: Option<Root>,
    /// The tree whose entries are kept where nothing has changed. Also that of a revision in doubt: it tells since when files are what they
    /// are, and what to keep of those that cannot be read.
    pub(super) tree: Option<TreeRoot>,
    /// The revision of this tree.
    pub(super) tree_of: Option<Revision>,
    /// Place of the new revision in the history of the source.
    pub(super) next_sequence: u64,
    /// Every chunk is written again, although the store has it: a revision of this source is in doubt.
    pub(super) rewrites_all: bool,
    /// The revisions that are.
    pub(super) doubtful: Vec<Revision>,
    /// A revision of this source is distrusted or damaged, whether that has had its effect or not.
    pub(super) history_has_doubts: bool,
    /// What the parent refers to is known to be there. Otherwise every chunk is looked up.
    pub(super) is_complete: bool,
    /// Chunks in quarantine that the store lacks: they are looked up and written again, also if the parent has them.
    pub(super) unhealed: HashSet<ChunkId>,
    /// Files of given-up lists that were there.
    pub(super) given_up: Vec<ChunkId>,
    /// Quarantine files that were there.
    pub(super) quarantine: Vec<QuarantineId>,
    /// Revisions may be healed by this backup.
    pub(super) may_heal: bool,
    /// The index is to note that the new revision was made with it.
    pub(super) begins_complete: bool,
}

impl Parent {
    /// Chooses the revision that the options name, or the newest one of the source, unless one of them is in doubt.
    pub(super) fn choose(
        store: &Store,
        options: &BackupOptions,
        kind: RevisionKind,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let source = &options.source_name;
        let history = store.history(Some(source))?;
        warnings.extend(history.damaged.iter().map(ToString::to_string));
        let newest = history.revisions.last();
        if let Some(Revision { record, .. }) = newest
            && record.kind != kind
        {
            let (found, wanted) = (kind_name(record.kind), kind_name(kind));
            let what = format!("source {source} has revisions of {found}, not of {wanted}");
            return Err(Error::InvalidOption { what });
        }
        // A record that cannot be read has a sequence number too.
        let next_sequence = newest.map_or(0, |revision| revision.record.sequence)
            + history.damaged.len() as u64
            + 1;
        let doubtful: Vec<Revision> = history
            .revisions
            .iter()
            .filter(|revision| revision.state.is_in_doubt())
            .cloned()
            .collect();
        if let Some(Revision { record, state }) = doubtful.first() {
            let (id, trust) = (record.id, state.trust);
            warnings.push(format!("revision {id} is {trust}: every chunk is written again"));
        }
        let history_has_doubts = history.revisions.iter().any(|it| it.state.is_doubted());
        let has_damaged = history.revisions.iter().any(|it| it.state.trust == Trust::Damaged);
        let rewrites_all = !doubtful.is_empty() && !has(Bug::DoubtIgnored);
        let is_wanted = |revision: &&Revision| Some(revision.record.id) == options.parent;
        let wanted = history.revisions.iter().find(is_wanted).or(newest).cloned();
        let tree_of = wanted.clone().filter(|_| kind == RevisionKind::Tree);
        let revision = wanted.filter(|_| !rewrites_all);
        let predicts = |revision: &&Revision| revision.record.kind == RevisionKind::Image;
        let root = revision.as_ref().filter(predicts).and_then(|revision| {
            ChunkReader::new(store)
                .read_root(&revision.record.root)
                .inspect_err(|error| warnings.push(format!("nothing is predicted: {error}")))
                .ok()
        });
        let tree = tree_of.as_ref().and_then(|revision| {
            read_tree(store, &revision.record.root)
                .inspect_err(|error| warnings.push(format!("every file is read: {error}")))
                .ok()
        });
        let tree_of = tree_of.filter(|_| tree.is_some());
        let given_up = store.storage().list_given_up()?;
        let lost_lists = store.given_up()?;
        let quarantine = store.index().quarantine()?.names.clone();
        let unhealed = store.unhealed_chunks()?;
        let (packs, since) =
            store.index().view_current(|view| Ok((view.packs()?, view.complete_since(source)?)))?;
        // A new index does not know which packs went away before it was made. What was written since then is known.
        let is_known = |sequence| since.is_some_and(|since| since <= sequence);
        let has_lost = packs.iter().any(|(_, row)| row.is_missing);
        let is_complete = packs.iter().all(|(_, row)| !row.is_missing)
            && revision.as_ref().is_some_and(|revision| is_known(revision.record.sequence))
            && !root.as_ref().is_some_and(|root| has_lost_list(root, &lost_lists))
            && !tree.as_ref().is_some_and(|tree| has_lost_page(tree, &lost_lists));
        let may_heal = has_damaged || has_lost || !unhealed.is_empty();
        let begins_complete = !is_known(next_sequence);
        Ok(Self {
            revision,
            root,
            tree,
            tree_of,
            next_sequence,
            rewrites_all,
            doubtful,
            history_has_doubts,
            is_complete,
            unhealed,
            given_up,
            quarantine,
            may_heal,
            begins_complete,
        })
    }

    /// Notes that the doubt has had its effect: every chunk was written again for revision `id`. A doubt that came or
    /// changed meanwhile stays. If this fails, the next backup writes everything once more.
    pub(super) fn settle_doubt(&self, store: &Store, id: RevisionId) -> Result<()> {
        if self.doubtful.is_empty() {
            return Ok(());
        }
        let lock = store.lock_history()?;
        for Revision { record, state } in &self.doubtful {
            let Some(current) = store.read_revision(&record.source, &record.id)? else { continue };
            // Tags and protection are no doubts.
            let (tags, protected) = (current.state.tags.clone(), current.state.protected);
            if current.state == (RevisionState { tags, protected, ..state.clone() }) {
                let state = RevisionState { rewritten: Some(id), ..current.state };
                store.write_state(&lock, &record.source, &state)?;
            }
        }
        Ok(())
    }

    /// Returns the revision whose root a session pins.
    pub(super) fn pinned(&self) -> Option<&Revision> {
        self.revision.as_ref().or(self.tree_of.as_ref())
    }

    /// Returns what a session pins.
    pub(super) fn pins(&self) -> Vec<ChunkId> {
        self.pinned().map(|revision| revision.record.root).into_iter().collect()
    }

    pub(super) fn revision_id(&self) -> Option<RevisionId> {
        self.revision.as_ref().map(|revision| revision.record.id)
    }

    /// Returns whether the store is known to have a chunk that the parent has.
    pub(super) fn is_reliable(&self, id: &ChunkId) -> bool {
        self.is_complete && !self.unhealed.contains(id)
    }

    /// Returns the reference of a span of the parent, if it was cut with the same span length.
    pub(super) fn span(&self, span: usize, span_len: u64) -> Option<&SpanRef> {
        let root = self.root.as_ref().filter(|root| root.span_len == span_len)?;
        root.spans.get(span)
    }

    /// Returns the entries of a span of the parent; none if it has none or if they cannot be read.
    pub(super) fn entries(
        &self,
        reader: &mut ChunkReader,
        span: usize,
        span_len: u64,
    ) -> Vec<PageEntry> {
        let Some(root) = &self.root else { return Vec::new() };
        let range = root.span_range(span);
        match self.span(span, span_len) {
            Some(SpanRef::Page(id)) => reader
                .read_page(id, None, range.end - range.start)
                .map_or_else(|_nothing_to_predict_from| Vec::new(), |page| page.entries),
            Some(SpanRef::Zero) => vec![PageEntry::Zero { len: range.end - range.start }],
            None => Vec::new(),
        }
    }
}

/// Returns whether a page was given up. Purges have not kept what lies below it, be it that it can be read again.
fn has_lost_list(root: &Root, lost_lists: &BTreeSet<ChunkId>) -> bool {
    root.spans.iter().any(|span| matches!(span, SpanRef::Page(id) if lost_lists.contains(id)))
}

fn has_lost_page(tree: &TreeRoot, lost_lists: &BTreeSet<ChunkId>) -> bool {
    tree.pages.iter().any(|page| lost_lists.contains(&page.id))
}

/// Reads a tree, all pages included: what cannot be read is better known before the backup begins than in the middle of it.
fn read_tree(store: &Store, id: &ChunkId) -> Result<TreeRoot> {
    let root = ChunkReader::new(store).read_tree_root(id)?;
    TreeEntries::new(store, &root).try_for_each(|entry| entry.map(drop))?;
    Ok(root)
}

const fn kind_name(kind: RevisionKind) -> &'static str {
    match kind {
        RevisionKind::Image => "an image",
        RevisionKind::Tree => "a tree of files",
    }
}
