//! After a backup: the newest revision that is still distrusted is verified, so that no doubt stays for ever.

use super::BackupOptions;
use crate::error::Result;
use crate::format::Trust;
use crate::id::RevisionId;
use crate::ops::{VerifyOptions, verify};
use crate::progress::Progress;
use crate::store::Store;

/// What became of a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recheck {
    /// The revision that was distrusted.
    pub id: RevisionId,
    /// Whether all that it needs was read and is sound: it is verified now. Otherwise it is damaged.
    pub is_sound: bool,
}

/// Verifies the newest distrusted revision of the source, if there is one.
pub(super) fn recheck(
    store: &Store,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<Option<Recheck>> {
    let history = store.history(Some(&options.source_name))?;
    let distrusted =
        history.revisions.iter().rev().find(|revision| revision.state.trust == Trust::Distrusted);
    let Some(revision) = distrusted else { return Ok(None) };
    let id = revision.record.id;
    let verify_options = VerifyOptions {
        threads: options.threads,
        memory: options.memory,
        ..VerifyOptions::default()
    };
    let stats = verify(store, &[id], &verify_options, progress)?;
    Ok(Some(Recheck { id, is_sound: stats.damaged.is_empty() }))
}
