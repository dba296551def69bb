//! Files on their way to their names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Existing, LocalStorage, ObjectKey, Storage, Upload};
use crate::error::{Error, Result};
use crate::planted::{Bug, has};
use crate::vfs::{Vfs, VfsFile, parent_of};

/// A file in `tmp/`, removed when it is dropped without a name.
#[derive(Debug)]
pub(crate) struct TemporaryFile {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn VfsFile>,
    pub(super) published: bool,
}

impl TemporaryFile {
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let result = self.file.write_all_at(bytes, offset);
        if has(Bug::WriteErrorIgnored) {
            return Ok(());
        }
        result.map_err(Error::storage("write", &self.path))
    }

    /// Makes the bytes durable. After an error the file is given up: a second try would say that all is well.
    pub(super) fn sync_data(&self) -> Result<()> {
        if has(Bug::FileNotSynced) {
            return Ok(());
        }
        let mut result = self.file.sync_data();
        if has(Bug::SyncRetried) {
            result = result.or_else(|_| self.file.sync_data());
        }
        if has(Bug::SyncErrorIgnored) {
            return Ok(());
        }
        result.map_err(Error::storage("sync", &self.path))
    }

    /// Writes bytes that nobody will read soon.
    pub(crate) fn write_bulk_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_bulk_at(bytes, offset).map_err(Error::storage("write", &self.path))
    }

    /// Sets space aside for `len` bytes.
    pub(crate) fn allocate(&self, len: u64) -> Result<()> {
        self.file.allocate(len).map_err(Error::storage("write", &self.path))
    }

    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(Error::storage("read", &self.path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: what stays is removed by the next writer, as it is then not locked.
            let _leftover = self.vfs.remove_file(&self.path);
        }
    }
}

#[derive(Debug)]
pub(super) struct LocalUpload {
    pub(super) storage: LocalStorage,
    pub(super) temporary: TemporaryFile,
    pub(super) len: u64,
}

impl Upload for LocalUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.temporary.write_bulk_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>, key: &ObjectKey) -> Result<()> {
        let path = self.storage.path(key);
        match self.storage.publish(&mut self.temporary, &path, Existing::Refuse) {
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                let directory = parent_of(&path);
                self.storage.sync_directory(&directory)
            }
            other => other,
        }
    }
}
