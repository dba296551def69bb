//! Names of exports: any revision specification that means one revision; the empty name is the default.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use chunkstore::Overlay;
use chunkstore::id::RevisionId;
use nbd_server::{Exports, ListedExport, NamedExport, OpenError};

use super::catalog::Catalog;
use super::export::{RevisionExport, describe};
use crate::command_error::CommandError;

/// Revisions of a list, the newest: more make the list too long for clients.
const LISTED_COUNT_MAX: usize = 9_999;

/// Name of a named overlay in lists; no revision specification looks like it.
const OVERLAY_NAME: &str = "(overlay)";

/// What becomes of writes.
#[derive(Debug)]
pub(super) enum Writes {
    /// There are none.
    Refused,
    /// Each revision gets an overlay that is gone when the server ends.
    Thrown {
        /// Where their files lie; they have no names there.
        directory: PathBuf,
        overlays: Mutex<HashMap<RevisionId, Arc<Overlay>>>,
    },
    /// One overlay takes them, under the default name; revisions are read-only.
    Kept(Arc<Overlay>),
}

#[derive(Debug)]
pub(super) struct RevisionExports {
    catalog: Arc<Catalog>,
    default: String,
    writes: Writes,
}

impl RevisionExports {
    pub(super) fn new(catalog: Arc<Catalog>, default: String, writes: Writes) -> Self {
        Self { catalog, default, writes }
    }

    /// Opens a revision by its specification.
    pub(super) fn open_revision(&self, text: &str) -> Result<RevisionExport, CommandError> {
        let id = self.catalog.find(text)?.record.id;
        let reader = self.catalog.open(&id)?;
        let catalog = Arc::clone(&self.catalog);
        let Writes::Thrown { directory, overlays } = &self.writes else {
            return Ok(RevisionExport::read_only(catalog, reader));
        };
        let mut overlays = overlays.lock().unwrap_or_else(PoisonError::into_inner);
        let overlay = match overlays.get(&id) {
            Some(overlay) => Arc::clone(overlay),
            None => {
                let overlay = Arc::new(Overlay::throwaway(directory, reader)?);
                overlays.insert(id, Arc::clone(&overlay));
                overlay
            }
        };
        Ok(RevisionExport::writable(catalog, overlay))
    }

    /// Opens what the empty name stands for.
    pub(super) fn open_default(&self) -> Result<RevisionExport, CommandError> {
        match &self.writes {
            Writes::Kept(overlay) => {
                Ok(RevisionExport::writable(Arc::clone(&self.catalog), Arc::clone(overlay)))
            }
            Writes::Refused | Writes::Thrown { .. } => self.open_revision(&self.default),
        }
    }
}

impl Exports for RevisionExports {
    fn list(&self) -> Result<Vec<ListedExport>, OpenError> {
        let history = self.catalog.history().map_err(|error| open_error(&error))?;
        let listed = |name: &str, description| ListedExport { name: name.to_owned(), description };
        let overlay = match &self.writes {
            Writes::Kept(overlay) => {
                Some(listed(OVERLAY_NAME, format!("overlay of {}", describe(overlay.revision()))))
            }
            Writes::Refused | Writes::Thrown { .. } => None,
        };
        let revisions = history.revisions.iter().rev().take(LISTED_COUNT_MAX);
        let revisions = revisions.map(|one| listed(&one.record.id.to_string(), describe(one)));
        Ok(overlay.into_iter().chain(revisions).collect())
    }

    fn open(&self, name: &str) -> Result<NamedExport, OpenError> {
        let is_kept = matches!(self.writes, Writes::Kept(_));
        let is_overlay = is_kept && (name.is_empty() || name == OVERLAY_NAME);
        let opened = if name.is_empty() || is_overlay {
            self.open_default()
        } else {
            self.open_revision(name)
        };
        let export = opened.map_err(|error| open_error(&error))?;
        let name = if is_overlay {
            OVERLAY_NAME.to_owned()
        } else {
            export.reader().revision().record.id.to_string()
        };
        Ok(NamedExport { name, export: Arc::new(export) })
    }
}

fn open_error(error: &CommandError) -> OpenError {
    match error {
        CommandError::Spec { source, .. } if source.is_no_such_revision() => OpenError::Unknown,
        CommandError::Store(chunkstore::Error::NoSuchRevision { .. }) => OpenError::Unknown,
        CommandError::Spec { source, .. } => OpenError::Refused(source.to_string()),
        other => OpenError::Failed(other.to_string()),
    }
}
