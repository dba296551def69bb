//! The ledger of a store: reading it, and entering what was read.
//!
//! File: `docs/format.md`, section "Ledger". Losing it costs work, never data, so nothing fails because of it: damaged, it
//! is the same as empty; where it cannot be written, that is a note. One that a newer program wrote is left alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ObjectName, Result, unsupported_or_damaged};
use crate::format::{Ledger, LedgerEntry};
use crate::id::PackId;
use crate::lock;
use crate::progress::Progress;
use crate::storage::{Existing, ObjectKey, Storage, get_table};
use crate::store::Store;
use crate::time::Timestamp;
use crate::vfs::LockMode;

/// A pack that was read: when that began if all of it was sound, `None` if not.
pub(crate) type PackRead = (PackId, Option<Timestamp>);

impl Store {
    /// Returns the ledger, an empty one if there is none or if it is damaged; then also what is wrong.
    pub(crate) fn ledger(&self) -> Result<(Ledger, Option<Error>)> {
        let (len_max, check) = (Ledger::LEN_MAX, Ledger::check_len);
        let bytes = match get_table(self.storage(), &ObjectKey::Ledger, len_max, check) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok((Ledger::default(), None)),
            Err(error @ Error::Damaged { .. }) => return Ok((Ledger::default(), Some(error))),
            Err(other) => return Err(other),
        };
        let object = ObjectName::File { path: self.layout().ledger() };
        match Ledger::decode(&bytes).map_err(|source| unsupported_or_damaged(object, source)) {
            Ok(ledger) => Ok((ledger, None)),
            Err(error @ Error::Damaged { .. }) => Ok((Ledger::default(), Some(error))),
            Err(other) => Err(other),
        }
    }

    /// Enters packs that were read, and drops those that are gone.
    pub(crate) fn enter_reads(&self, reads: &[PackRead], progress: &dyn Progress) -> Result<()> {
        if reads.is_empty() {
            return Ok(());
        }
        match self.replace_ledger(reads, progress) {
            Err(error @ (Error::Storage { .. } | Error::UnsupportedFormat { .. })) => {
                progress.note(&format!("what was read is not entered in the ledger: {error}"));
                Ok(())
            }
            other => other,
        }
    }

    fn replace_ledger(&self, reads: &[PackRead], progress: &dyn Progress) -> Result<()> {
        // What is replaced is read under the same lock: others enter their packs, too.
        let path = self.layout().lock("ledger");
        let _lock = lock::wait(self.environment(), &path, LockMode::Exclusive)?;
        let (ledger, damage) = self.ledger()?;
        if let Some(damage) = damage {
            progress.note(&format!("{damage} and is begun anew"));
        }
        let present: BTreeSet<PackId> = self.storage().list_packs()?.into_iter().collect();
        let mut entries: BTreeMap<PackId, Timestamp> =
            ledger.entries.into_iter().map(|entry| (entry.pack, entry.read)).collect();
        for (pack, read) in reads {
            match read {
                Some(read) => drop(entries.insert(*pack, *read)),
                None => drop(entries.remove(pack)),
            }
        }
        entries.retain(|pack, _| present.contains(pack));
        let entries = entries.into_iter().map(|(pack, read)| LedgerEntry { pack, read });
        let ledger = Ledger { entries: entries.collect() };
        self.storage().put(&ObjectKey::Ledger, &ledger.encode(), Existing::Replace)
    }
}
