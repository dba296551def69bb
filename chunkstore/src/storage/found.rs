//! What is found and may not be durable yet: whoever made or removed it can have died before its sync. It is made durable before
//! anything relies on it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::{LocalStorage, Storage};
use crate::error::{Error, Result};
use crate::id::{PackId, SourceName};
use crate::planted::{Bug, has};
use crate::vfs::{EntryKind, parent_of};

impl LocalStorage {
    /// Makes the names of packs durable that were found in their places: whoever gave them may have died before its sync, or not have got
    /// to it yet.
    pub(crate) fn sync_packs<'a>(&self, packs: impl IntoIterator<Item = &'a PackId>) -> Result<()> {
        if has(Bug::AdoptionNotSynced) {
            return Ok(());
        }
        let directories: BTreeSet<PathBuf> =
            packs.into_iter().map(|id| parent_of(&self.layout.pack(id))).collect();
        if directories.is_empty() {
            return Ok(());
        }
        for directory in directories.into_iter().chain([self.layout.directory("packs")]) {
            self.sync_directory(&directory)?;
        }
        Ok(())
    }

    /// Makes durable which revision records of a source exist: one that was found may be of a process that has died before its sync.
    pub(crate) fn sync_source(&self, source: &SourceName) -> Result<()> {
        self.sync_directory(&self.layout.source_directory(source))
    }

    /// Makes durable which revision records exist: a process may have died between removing one and its sync.
    ///
    /// Fails as [`Self::check_revisions`].
    pub(crate) fn sync_revisions(&self) -> Result<()> {
        if has(Bug::RevisionsNotSynced) {
            return Ok(());
        }
        for directory in self.check_revisions()? {
            self.sync_directory(&directory)?;
        }
        Ok(())
    }

    /// Returns the directories that revision records lie in.
    ///
    /// Fails if there is a place for revisions that [`Storage::list_records`] passes over because it is a symbolic link or
    /// the like: who calls this is about to conclude that what is not listed is not needed.
    pub(crate) fn check_revisions(&self) -> Result<Vec<PathBuf>> {
        let root = self.layout.directory("revisions");
        self.refuse_links(&root)?;
        let sources = self.list_sources()?;
        let directories: Vec<PathBuf> =
            sources.iter().map(|source| self.layout.source_directory(source)).collect();
        directories.iter().try_for_each(|directory| self.refuse_links(directory))?;
        Ok(directories)
    }

    fn refuse_links(&self, directory: &Path) -> Result<()> {
        let entries = self.vfs().list(directory).map_err(Error::storage("list", directory))?;
        match entries.into_iter().find(|entry| entry.kind == EntryKind::Other) {
            Some(entry) => {
                let what = "it is neither a file nor a directory, and links are not followed";
                let source = io::Error::new(io::ErrorKind::InvalidInput, what);
                Err(Error::storage("read", directory.join(entry.name))(source))
            }
            None => Ok(()),
        }
    }
}
