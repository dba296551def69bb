//! Roots and pages that were given up because nobody can serve them.
//!
//! What that means for a purge and for a backup: `docs/concurrency.md`, section "Repair". Files are named by their digest, never
//! changed, and never removed by a program.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::format::GivenUp;
use crate::id::ChunkId;
use crate::limits::{DOCUMENT_LEN_MAX, GIVEN_UP_COUNT_MAX};
use crate::storage::{Existing, ObjectKey, Storage};
use crate::store::Store;

impl Store {
    /// Returns all lists that were given up, whether they can be read again by now or not.
    ///
    /// A file that is damaged, or of a newer program, has no effect: what it names is needed as ever.
    pub(crate) fn given_up(&self) -> Result<BTreeSet<ChunkId>> {
        let mut lists = BTreeSet::new();
        for name in self.storage().list_given_up()? {
            let bytes = match self.storage().get(&ObjectKey::GivenUp(name), DOCUMENT_LEN_MAX) {
                Ok(Some(bytes)) => bytes,
                // Removed by a person a moment ago, or damaged.
                Ok(None) | Err(Error::Damaged { .. }) => continue,
                Err(other) => return Err(other),
            };
            if let Ok(file) = GivenUp::decode(&bytes) {
                lists.extend(file.lists);
            }
        }
        Ok(lists)
    }

    /// Gives lists up, durably.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`]; some of them may then be given up.
    pub(crate) fn give_up(&self, lists: &BTreeSet<ChunkId>) -> Result<(), Error> {
        let lists: Vec<ChunkId> = lists.iter().copied().collect();
        for lists in lists.chunks(GIVEN_UP_COUNT_MAX) {
            let file = GivenUp {
                time: self.environment().clock.now(),
                command: crate::quarantine::cut(&self.environment().identity.command),
                lists: lists.to_vec(),
            };
            let bytes = file.encode();
            let name = ChunkId::from_bytes(*blake3::hash(&bytes).as_bytes());
            self.storage().put(&ObjectKey::GivenUp(name), &bytes, Existing::Replace)?;
        }
        Ok(())
    }
}
