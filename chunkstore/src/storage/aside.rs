//! Records and states of revisions in quarantine: moved there, or kept there as copies, durably. Nothing that is there is replaced.

use std::io;
use std::path::{Path, PathBuf};

use super::{Existing, LocalStorage, ObjectKey, Storage};
use crate::error::{Error, Result};
use crate::id::SourceName;
use crate::limits::DOCUMENT_LEN_MAX;
use crate::planted::{Bug, has};
use crate::vfs::{parent_of, read_file};

impl LocalStorage {
    /// Moves a condemned list that cannot be read to `quarantine/`, durably.
    pub(crate) fn quarantine_condemned(&self, generation: u64) -> Result<()> {
        let from = self.layout.condemned(generation);
        let to = self.layout.directory("quarantine").join(format!("condemned-{generation:020}"));
        self.vfs()
            .rename_replace(&from, &to)
            .map_err(Error::storage("move to quarantine", &from))?;
        for directory in [parent_of(&to), parent_of(&from)] {
            self.sync_directory(&directory)?;
        }
        Ok(())
    }

    /// Moves the record or the state of a revision to `quarantine/`, durably, and returns where it is then. Nothing that is there already
    /// is replaced. `None` if there is no such file.
    pub(crate) fn move_aside(
        &self,
        source: &SourceName,
        key: &ObjectKey,
    ) -> Result<Option<PathBuf>> {
        let from = self.path(key);
        if self.object_len(key)?.is_none() {
            return Ok(None);
        }
        self.ensure_aside_directory(source)?;
        for to in self.names_aside(source, &from) {
            let moved = if has(Bug::EvidenceRemoved) {
                self.vfs().remove_file(&from)
            } else {
                self.vfs().rename_no_replace(&from, &to)
            };
            match moved {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(Error::storage("move to quarantine", &from))?,
            }
            // The new name first: what is in neither directory could not be found again.
            for directory in [parent_of(&to), parent_of(&from)] {
                self.sync_directory(&directory)?;
            }
            return Ok(Some(to));
        }
        Err(Error::Bug { what: format!("no free name for {} in quarantine", from.display()) })
    }

    /// Keeps a copy of the bytes of a file in `quarantine/`, durably, and returns where. The same bytes are kept once.
    pub(crate) fn keep_aside(
        &self,
        source: &SourceName,
        key: &ObjectKey,
        bytes: &[u8],
    ) -> Result<PathBuf> {
        self.ensure_aside_directory(source)?;
        for to in self.names_aside(source, &self.path(key)) {
            match read_file(self.vfs(), &to, DOCUMENT_LEN_MAX) {
                Ok(found) if found == bytes => {
                    // Whoever wrote it may not have got to its sync.
                    let directory = parent_of(&to);
                    self.sync_directory(&directory)?;
                    return Ok(to);
                }
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::storage("read", to)(error)),
            }
            let mut temporary = self.temporary()?;
            temporary.write_all_at(bytes, 0)?;
            self.publish(&mut temporary, &to, Existing::Refuse)?;
            return Ok(to);
        }
        Err(Error::Bug { what: "no free name in quarantine".to_owned() })
    }

    fn ensure_aside_directory(&self, source: &SourceName) -> Result<()> {
        let directory = self.layout.aside_directory(source);
        // A store that was copied without its empty directories lacks the upper ones.
        let above = parent_of(&directory);
        for directory in [&parent_of(&above), &above, &directory] {
            self.ensure_directory(directory)?;
        }
        Ok(())
    }

    /// Returns the names that a file may get in quarantine: its own, then with numbers.
    fn names_aside(&self, source: &SourceName, path: &Path) -> impl Iterator<Item = PathBuf> {
        let directory = self.layout.aside_directory(source);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = |count: u32| if count == 0 { String::new() } else { format!(".{count}") };
        (0..1000).map(move |count| directory.join(format!("{name}{}", number(count))))
    }
}
