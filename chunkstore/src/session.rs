//! Sessions: running backups, restores, verifications and exports, known to purge.
//!
//! A session is a file that its owner holds locked. A file that nobody holds is a session that died, or that failed: its packs
//! keep the grace, so that the same backup can go on. Protocol: `docs/concurrency.md`, section "Sessions".

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::environment::Environment;
use crate::error::{Error, ObjectName, Result};
use crate::format::{SessionKind, SessionRecord};
use crate::id::{ChunkId, SessionId};
use crate::layout::Layout;
use crate::limits::DOCUMENT_LEN_MAX;
use crate::storage::{Existing, LocalStorage, TemporaryFile};
use crate::vfs::{EntryKind, LockMode, read_file};

/// A running session; it ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    environment: Environment,
    layout: Layout,
    pub(crate) record: SessionRecord,
    /// Holds the lock.
    _file: TemporaryFile,
    /// Whether the file stays behind as the mark of a session that did not finish.
    leaves_mark: AtomicBool,
}

impl Session {
    /// Registers a session. When the call returns, purge knows it and what it pins.
    pub(crate) fn begin(
        environment: &Environment,
        layout: &Layout,
        storage: &LocalStorage,
        kind: SessionKind,
        start_generation: u64,
        pinned_roots: Vec<ChunkId>,
    ) -> Result<Self> {
        let mut random = [0; SessionId::LEN];
        environment.entropy.fill(&mut random);
        let record = SessionRecord {
            id: SessionId::from_bytes(random),
            kind,
            start_generation,
            pinned_roots,
            host: environment.identity.host.clone(),
            process: environment.identity.process,
            command: environment.identity.command.clone(),
            started: environment.clock.now(),
        };
        let mut file = storage.temporary()?;
        file.write_all_at(&record.encode(), 0)?;
        let path = layout.session(&record.id);
        if kind.is_writer() {
            // Durable, so that a power cut does not take the grace from its packs.
            storage.publish(&mut file, &path, Existing::Refuse)?;
        } else {
            storage.publish_volatile(&mut file, &path)?;
        }
        Ok(Self {
            environment: environment.clone(),
            layout: layout.clone(),
            record,
            _file: file,
            leaves_mark: AtomicBool::new(false),
        })
    }

    /// Notes that packs of this session exist that no revision needs yet.
    pub(crate) fn has_packs(&self) {
        self.leaves_mark.store(true, Ordering::Relaxed);
    }

    /// Ends a session whose revision is committed.
    pub(crate) fn finish(self) {
        self.leaves_mark.store(false, Ordering::Relaxed);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.leaves_mark.load(Ordering::Relaxed) {
            // A file that stays is a dead session: purge removes it.
            let path = self.layout.session(&self.record.id);
            let _left_for_purge = self.environment.vfs.remove_file(&path);
        }
    }
}

/// A session file that was found.
#[derive(Debug)]
pub(crate) struct FoundSession {
    pub(crate) id: SessionId,
    /// What it says, if it can be read.
    pub(crate) record: Result<SessionRecord>,
    /// Whether a process holds it.
    pub(crate) is_alive: bool,
}

/// Lists the sessions, sorted by id.
pub(crate) fn list(environment: &Environment, layout: &Layout) -> Result<Vec<FoundSession>> {
    let vfs = environment.vfs.as_ref();
    let directory = layout.directory("sessions");
    let entries = vfs.list(&directory).map_err(Error::storage("list", &directory))?;
    let mut sessions = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
        let Ok(id) = entry.name.parse::<SessionId>() else { continue };
        let path = layout.session(&id);
        // The record first: what is found locked then was read while its owner lived. A session that ends between the
        // calls is passed over, and what it committed is among the records that are read after.
        let record = match read_file(vfs, &path, DOCUMENT_LEN_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(Error::storage("read", &path)).and_then(|bytes| {
                SessionRecord::decode(&bytes).map_err(|source| Error::Damaged {
                    object: ObjectName::File { path: path.clone() },
                    source,
                })
            }),
        };
        let is_alive = match vfs.lock(&path, LockMode::Shared, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(Error::storage("lock", &path))?.is_none(),
        };
        sessions.push(FoundSession { id, record, is_alive });
    }
    Ok(sessions)
}

/// Returns the highest generation at which a session that can be read began, 0 if there is none.
pub(crate) fn newest_start_generation(environment: &Environment, layout: &Layout) -> Result<u64> {
    let sessions = list(environment, layout)?;
    let generations = sessions.iter().filter_map(|session| session.record.as_ref().ok());
    Ok(generations.map(|record| record.start_generation).max().unwrap_or(0))
}
