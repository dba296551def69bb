//! Tags: change what gives revisions a reason to be kept.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::format::{RevisionState, is_tag};
use crate::id::RevisionId;
use crate::revision::Revision;
use crate::store::Store;

/// What becomes of the tags of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagEdit {
    /// These and no others.
    Set(Vec<String>),
    /// These too.
    Add(Vec<String>),
    /// Without these.
    Remove(Vec<String>),
}

/// How to change tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagOptions {
    /// Nothing happens unless each revision has just these tags, in whatever order.
    pub expect: Option<Vec<String>>,
    /// Drop the revisions that are left without tags, unless they are protected.
    pub autoremove: bool,
}

/// What an edit of tags did to one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagChange {
    /// The revision.
    pub id: RevisionId,
    /// The tags that it had.
    pub before: Vec<String>,
    /// The tags that it has now.
    pub after: Vec<String>,
    /// Whether it was dropped.
    pub is_removed: bool,
}

/// What an edit of tags did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagStats {
    /// One change for each revision, in the order in which they were named; also where nothing changed.
    pub changes: Vec<TagChange>,
}

/// Changes the tags of revisions. Nothing happens unless all of them exist and have the tags that are expected.
///
/// A crash changes some of them or all.
///
/// # Errors
///
/// - [`Error::NoSuchRevision`] if one of them does not exist.
/// - [`Error::OtherTags`] if one of them has other tags than expected.
/// - [`Error::InvalidOption`] if a tag is none.
/// - [`Error::Damaged`], [`Error::UnsupportedFormat`] if the record of one cannot be read.
/// - [`Error::Storage`] if a state cannot be written, or a revision not dropped.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::ops::{self, BackupOptions, TagEdit, TagOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let id = ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?.id;
///
/// let edit = TagEdit::Add(vec!["manual:before-upgrade".to_owned()]);
/// ops::edit_tags(&store, &[id], &edit, &TagOptions::default())?;
/// assert_eq!(store.revision(&id)?.state.tags, ["manual:before-upgrade"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn edit_tags(
    store: &Store,
    ids: &[RevisionId],
    edit: &TagEdit,
    options: &TagOptions,
) -> Result<TagStats> {
    if let Some(tag) = edit.tags().iter().find(|tag| !is_tag(tag)) {
        return Err(Error::InvalidOption { what: format!("not a tag: {tag:?}") });
    }
    let lock = store.lock_history()?;
    let revisions = ids.iter().map(|id| store.revision(id)).collect::<Result<Vec<_>>>()?;
    if let Some(expected) = &options.expect {
        revisions.iter().try_for_each(|revision| refuse_other_tags(revision, expected))?;
    }
    let mut stats = TagStats::default();
    for Revision { record, state } in revisions {
        let after = edit.apply(&state.tags);
        let change = TagChange {
            id: record.id,
            is_removed: options.autoremove && after.is_empty() && !state.protected,
            before: state.tags.clone(),
            after: after.clone(),
        };
        if change.is_removed {
            store.remove_revision(&lock, &record.source, &record.id)?;
        } else if change.before != change.after {
            let state = RevisionState { tags: after, ..state };
            store.write_state(&lock, &record.source, &state)?;
        }
        stats.changes.push(change);
    }
    Ok(stats)
}

impl TagEdit {
    fn tags(&self) -> &[String] {
        match self {
            Self::Set(tags) | Self::Add(tags) | Self::Remove(tags) => tags,
        }
    }

    /// Returns the tags after the edit, each once; those that stay are in their old order.
    fn apply(&self, before: &[String]) -> Vec<String> {
        let (kept, added): (Vec<&String>, &[String]) = match self {
            Self::Set(tags) => (Vec::new(), tags),
            Self::Add(tags) => (before.iter().collect(), tags),
            Self::Remove(tags) => (before.iter().filter(|tag| !tags.contains(tag)).collect(), &[]),
        };
        let mut after: Vec<String> = Vec::new();
        for tag in kept.into_iter().chain(added) {
            if !after.contains(tag) {
                after.push(tag.clone());
            }
        }
        after
    }
}

fn refuse_other_tags(revision: &Revision, expected: &[String]) -> Result<()> {
    let found = &revision.state.tags;
    let set = |tags: &[String]| tags.iter().cloned().collect::<BTreeSet<_>>();
    if set(found) == set(expected) {
        return Ok(());
    }
    Err(Error::OtherTags {
        id: revision.record.id,
        found: found.join(","),
        expected: expected.join(","),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn edit_keeps_the_order_and_has_each_tag_once() {
        let before = words("daily weekly");
        for (edit, after) in [
            (TagEdit::Set(words("weekly manual:x weekly")), "weekly manual:x"),
            (TagEdit::Set(words("")), ""),
            (TagEdit::Add(words("manual:x daily")), "daily weekly manual:x"),
            (TagEdit::Remove(words("daily hourly")), "weekly"),
            (TagEdit::Remove(words("weekly daily")), ""),
        ] {
            assert_eq!(edit.apply(&before), words(after), "{edit:?}");
        }
    }
}
