//! Revisions of a store: finding, reading, committing and editing their records.

use std::path::PathBuf;

use crate::error::{Error, ObjectName, Result, unsupported_or_damaged};
use crate::format::{FormatError, RevisionRecord, RevisionState};
use crate::id::{RevisionId, SourceName};
use crate::limits::DOCUMENT_LEN_MAX;
use crate::lock::HistoryLock;
use crate::planted::{Bug, has};
use crate::retention::Candidate;
use crate::storage::{Existing, ObjectKey, Storage};
use crate::store::Store;

/// One revision: what was written once, and what may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The immutable record.
    pub record: RevisionRecord,
    /// Tags, trust, protection.
    pub state: RevisionState,
}

/// What retention looks at.
impl From<&Revision> for Candidate {
    fn from(Revision { record, state }: &Revision) -> Self {
        Self {
            id: record.id,
            time: record.time,
            tags: state.tags.clone(),
            trust: state.trust,
            protected: state.protected,
        }
    }
}

/// The revisions of one source, or of all.
#[derive(Debug, Default)]
pub struct History {
    /// What can be read, oldest first.
    pub revisions: Vec<Revision>,
    /// What cannot: damaged records and states, each named. The revision of a damaged state is among `revisions`.
    pub damaged: Vec<Error>,
}

impl Store {
    /// Returns the revisions of `source`, or of all sources, oldest first.
    ///
    /// Those of one source are in the order of `sequence`, whatever the clock said. Where there are several
    /// sources, all revisions are in the order of their times.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`] if a directory cannot be listed. Damaged records are part of the result.
    ///
    /// # Examples
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// use chunkstore::store::{Store, StoreOptions};
    ///
    /// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
    /// assert!(store.history(None)?.revisions.is_empty());
    /// # Ok::<(), chunkstore::error::Error>(())
    /// ```
    pub fn history(&self, source: Option<&SourceName>) -> Result<History> {
        let sources = match source {
            Some(source) => vec![source.clone()],
            None => self.storage().list_sources()?,
        };
        let mut history = History::default();
        for source in &sources {
            for id in self.storage().list_records(source)? {
                match self.read_record_and_state(source, &id) {
                    Ok(Some((revision, damage))) => {
                        history.revisions.push(revision);
                        history.damaged.extend(damage);
                    }
                    // Forgotten a moment ago.
                    Ok(None) => {}
                    Err(error @ (Error::Damaged { .. } | Error::UnsupportedFormat { .. })) => {
                        history.damaged.push(error);
                    }
                    Err(other) => return Err(other),
                }
            }
        }
        let single = sources.len() == 1;
        history.revisions.sort_by(|left, right| {
            let key = |revision: &Revision| {
                let record = &revision.record;
                let time = if single { None } else { Some(record.time) };
                (time, record.source.clone(), record.sequence, record.id)
            };
            key(left).cmp(&key(right))
        });
        Ok(history)
    }

    /// Returns the revision with this id. If its state is damaged it is distrusted and protected, until it gets another.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchRevision`] if no source has it.
    /// - [`Error::Damaged`] if its record is.
    /// - [`Error::UnsupportedFormat`] if its record or its state is of a newer program.
    pub fn revision(&self, id: &RevisionId) -> Result<Revision> {
        let source = self.source_of(id)?;
        self.read_revision(&source, id)?.ok_or(Error::NoSuchRevision { id: *id })
    }

    /// Returns the path of the file with the record of a revision.
    #[must_use]
    pub fn revision_path(&self, record: &RevisionRecord) -> PathBuf {
        self.storage().path(&ObjectKey::Record(record.source.clone(), record.id))
    }

    /// Returns the source of a revision, also if its record cannot be read. A copy of a record that lies in the directory of
    /// another source hides nothing.
    pub(crate) fn source_of(&self, id: &RevisionId) -> Result<SourceName> {
        let mut unreadable = None;
        for source in self.storage().list_sources()? {
            if self.storage().object_len(&ObjectKey::Record(source.clone(), *id))?.is_some() {
                match self.read_revision(&source, id) {
                    Ok(Some(_)) => return Ok(source),
                    Ok(None) => {}
                    // What cannot be read may be the one: nothing is concluded from that.
                    Err(error @ Error::Storage { .. }) => return Err(error),
                    // Whoever asks reads it too, and says what is wrong with it.
                    Err(_) => drop(unreadable.get_or_insert(source)),
                }
            }
        }
        unreadable.ok_or(Error::NoSuchRevision { id: *id })
    }

    pub(crate) fn read_revision(
        &self,
        source: &SourceName,
        id: &RevisionId,
    ) -> Result<Option<Revision>> {
        let found = self.read_record_and_state(source, id)?;
        Ok(found.map(|(revision, _damage_of_state)| revision))
    }

    /// Returns a revision, and what is wrong with its state if that had to be replaced by a cautious one.
    fn read_record_and_state(
        &self,
        source: &SourceName,
        id: &RevisionId,
    ) -> Result<Option<(Revision, Option<Error>)>> {
        let object = ObjectName::Revision { source: source.clone(), id: *id };
        let key = ObjectKey::Record(source.clone(), *id);
        let bytes = self.storage().get(&key, DOCUMENT_LEN_MAX);
        let bytes = bytes.map_err(|error| error.of_object(object.clone()))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let record = RevisionRecord::decode(&bytes).and_then(|record| {
            if record.id == *id && record.source == *source {
                Ok(record)
            } else {
                Err(FormatError::Inconsistent { what: "it is the record of another revision" })
            }
        });
        let record = record.map_err(|reason| unsupported_or_damaged(object, reason))?;
        let (state, damage) = match self.read_state(&record) {
            Ok(state) => (state, None),
            Err(error @ Error::Damaged { .. }) => (RevisionState::cautious(&record), Some(error)),
            Err(other) => return Err(other),
        };
        Ok(Some((Revision { record, state }, damage)))
    }

    fn read_state(&self, record: &RevisionRecord) -> Result<RevisionState> {
        let key = ObjectKey::State(record.source.clone(), record.id);
        let object = ObjectName::State { source: record.source.clone(), id: record.id };
        let bytes = self.storage().get(&key, DOCUMENT_LEN_MAX);
        let bytes = bytes.map_err(|error| error.of_object(object.clone()))?;
        let Some(bytes) = bytes else {
            return Ok(RevisionState::initial(record));
        };
        let state = RevisionState::decode(&bytes).and_then(|state| {
            if state.id == record.id {
                Ok(state)
            } else {
                Err(FormatError::Inconsistent { what: "it is the state of another revision" })
            }
        });
        state.map_err(|reason| unsupported_or_damaged(object, reason))
    }

    /// Makes a revision durable: the commit point of a backup.
    pub(crate) fn commit_record(&self, record: &RevisionRecord) -> Result<()> {
        let key = ObjectKey::Record(record.source.clone(), record.id);
        self.storage().put(&key, &record.encode(), Existing::Refuse)
    }

    /// Removes a revision, durably.
    pub(crate) fn remove_revision(
        &self,
        _lock: &HistoryLock,
        source: &SourceName,
        id: &RevisionId,
    ) -> Result<()> {
        if has(Bug::StateRemovedFirst) {
            self.storage().delete(&ObjectKey::State(source.clone(), *id))?;
        }
        // The record first: a state without a record is nothing.
        self.storage().delete(&ObjectKey::Record(source.clone(), *id))?;
        self.storage().delete(&ObjectKey::State(source.clone(), *id))
    }

    /// Replaces a damaged state by a cautious one, once its bytes are in quarantine. Returns where they are; `None` if it is not damaged.
    pub(crate) fn replace_damaged_state(
        &self,
        lock: &HistoryLock,
        source: &SourceName,
        id: &RevisionId,
    ) -> Result<Option<PathBuf>> {
        let found = self.read_record_and_state(source, id)?;
        let Some((Revision { state, .. }, Some(_damage))) = found else { return Ok(None) };
        let key = ObjectKey::State(source.clone(), *id);
        let kept = match self.storage().get(&key, DOCUMENT_LEN_MAX) {
            Ok(Some(bytes)) => Some(self.storage().keep_aside(source, &key, &bytes)?),
            // It is too long to be copied.
            Err(Error::Damaged { .. }) => self.storage().move_aside(source, &key)?,
            other => other.map(|_none| None)?,
        };
        let Some(path) = kept else { return Ok(None) };
        self.write_state(lock, source, &state)?;
        Ok(Some(path))
    }

    /// Moves a record that cannot be decoded to quarantine, with its state, durably. Returns where it is; `None` if it is not damaged.
    pub(crate) fn move_damaged_record(
        &self,
        _lock: &HistoryLock,
        source: &SourceName,
        id: &RevisionId,
    ) -> Result<Option<PathBuf>> {
        match self.read_record_and_state(source, id) {
            Err(Error::Damaged { object: ObjectName::Revision { .. }, .. }) => {}
            other => return other.map(|_found| None),
        }
        // The state first: whoever goes on after a stop finds the record.
        self.storage().move_aside(source, &ObjectKey::State(source.clone(), *id))?;
        self.storage().move_aside(source, &ObjectKey::Record(source.clone(), *id))
    }

    /// Replaces the state of a revision, durably. What is replaced was read under the same lock.
    pub(crate) fn write_state(
        &self,
        _lock: &HistoryLock,
        source: &SourceName,
        state: &RevisionState,
    ) -> Result<()> {
        let key = ObjectKey::State(source.clone(), state.id);
        self.storage().put(&key, &state.encode(), Existing::Replace)
    }
}
