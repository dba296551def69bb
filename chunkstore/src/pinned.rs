//! Revisions that stay readable while an operation works on them, whatever is forgotten and purged meanwhile.
//!
//! Protocol of a reader: `docs/concurrency.md`, section "The protocol".

use crate::error::{Error, Result};
use crate::format::SessionKind;
use crate::id::{ChunkId, RevisionId};
use crate::revision::Revision;
use crate::session::Session;
use crate::store::Store;

/// Roots that one session pins: its record must stay below the limit of a document.
const PINS_MAX: usize = 8192;

/// Revisions whose roots are pinned until this value is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) revisions: Vec<Revision>,
    _sessions: Vec<Session>,
}

impl Pinned {
    /// Registers sessions that pin the revisions, and reads their records again once purge knows it.
    pub(crate) fn new(store: &Store, ids: &[RevisionId]) -> Result<Self> {
        Self::with(store, || ids.iter().map(|id| store.revision(id)).collect())
    }

    /// Pins those of the revisions that are not forgotten meanwhile.
    pub(crate) fn of_those_left(store: &Store, ids: &[RevisionId]) -> Result<Self> {
        let read = |id: &RevisionId| match store.revision(id) {
            Err(Error::NoSuchRevision { .. }) => None,
            other => Some(other),
        };
        Self::with(store, || ids.iter().filter_map(read).collect())
    }

    fn with(store: &Store, read: impl Fn() -> Result<Vec<Revision>>) -> Result<Self> {
        let pins: Vec<ChunkId> = read()?.iter().map(|revision| revision.record.root).collect();
        let sessions = pins
            .chunks(PINS_MAX)
            .map(|pins| store.begin_reading_session(SessionKind::Verify, pins.to_vec()))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { revisions: read()?, _sessions: sessions.into_iter().flatten().collect() })
    }
}
