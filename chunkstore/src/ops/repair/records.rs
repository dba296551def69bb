//! Revision records that cannot be decoded, and damaged states.
//!
//! States come first, before anything else can replace them: a mark for damage would.

use super::{AsideFile, RepairStats};
use crate::error::{Error, ObjectName, Result};
use crate::id::{RevisionId, SourceName};
use crate::store::Store;

/// What cannot be decoded, and the revisions whose records can.
#[derive(Default)]
struct Survey {
    records: Vec<(SourceName, RevisionId)>,
    states: Vec<(SourceName, RevisionId)>,
    readable: Vec<RevisionId>,
}

/// Says what [`settle`] would do.
pub(super) fn expect(store: &Store, expected: &mut RepairStats) -> Result<Vec<RevisionId>> {
    let survey = Survey::take(store)?;
    let file = |(source, id): (SourceName, RevisionId), end: &str| {
        let path = store.layout().aside_directory(&source).join(format!("{id}.{end}"));
        AsideFile { source, id, path }
    };
    expected.moved_records = survey.records.into_iter().map(|it| file(it, "rev")).collect();
    expected.replaced_states = survey.states.into_iter().map(|it| file(it, "state")).collect();
    Ok(survey.readable)
}

/// Moves records aside that cannot be decoded, and replaces damaged states by cautious ones. Returns the revisions that are left.
pub(super) fn settle(store: &Store, stats: &mut RepairStats) -> Result<Vec<RevisionId>> {
    let survey = Survey::take(store)?;
    if survey.records.is_empty() && survey.states.is_empty() {
        return Ok(survey.readable);
    }
    // Each is read again under the lock, which also confirms the damage.
    let lock = store.lock_history()?;
    for (source, id) in survey.states {
        if let Some(path) = store.replace_damaged_state(&lock, &source, &id)? {
            stats.replaced_states.push(AsideFile { source, id, path });
        }
    }
    for (source, id) in survey.records {
        if let Some(path) = store.move_damaged_record(&lock, &source, &id)? {
            stats.moved_records.push(AsideFile { source, id, path });
        }
    }
    drop(lock);
    let revisions = store.history(None)?.revisions;
    Ok(revisions.into_iter().map(|revision| revision.record.id).collect())
}

impl Survey {
    fn take(store: &Store) -> Result<Self> {
        // What is passed over there might be needed.
        store.storage().check_revisions()?;
        let history = store.history(None)?;
        let mut survey = Self::default();
        let mut newer = None;
        for error in history.damaged {
            match error {
                Error::Damaged { object: ObjectName::Revision { source, id }, .. } => {
                    survey.records.push((source, id));
                }
                Error::Damaged { object: ObjectName::State { source, id }, .. } => {
                    survey.states.push((source, id));
                }
                other => newer = newer.or(Some(other)),
            }
        }
        if let Some(newer) = newer {
            return Err(newer);
        }
        let ids = history.revisions.into_iter().map(|revision| revision.record.id);
        Ok(Self { readable: ids.collect(), ..survey })
    }
}
