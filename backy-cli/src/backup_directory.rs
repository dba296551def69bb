//! A backup directory: its configuration, its store, and the revisions that are seen through it.
//!
//! With a configuration only the revisions of its source are seen; a store without one shows all.

use std::path::{Path, PathBuf};

use chunkstore::id::{RevisionId, SourceName};
use chunkstore::layout::Layout;
use chunkstore::limits::NAME_LEN_MAX;
use chunkstore::retention::Schedule;
use chunkstore::revision_spec::{Candidate, RevisionSpec, SpecError};
use chunkstore::{History, Revision, Store};
use jiff::tz::TimeZone;

use crate::command_error::CommandError;
use crate::config::{Config, SourceKind};
use crate::ui::Ui;

/// A directory that holds a configuration, a store, or both.
#[derive(Debug)]
pub(crate) struct BackupDirectory {
    path: PathBuf,
    config: Option<Config>,
}

/// Revisions that a specification selected.
#[derive(Debug)]
pub(crate) struct Selection {
    /// In the order of the specification.
    pub(crate) revisions: Vec<Revision>,
    /// How many records of the history cannot be read.
    pub(crate) damaged_count: usize,
    /// Whether the specification means the same whatever those records are.
    pub(crate) is_by_name: bool,
}

impl BackupDirectory {
    /// Reads the configuration in `path`, if there is one.
    pub(crate) fn open(path: &Path) -> Result<Self, CommandError> {
        let config = Config::read(path)?;
        if config.is_none() && !holds_store(path) {
            return Err(CommandError::NoBackupDirectory { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), config })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// Returns whether whisper files are backed up here.
    pub(crate) fn is_whisper(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.source.kind == SourceKind::Whisper)
    }

    /// Returns the configured schedule, if there is one.
    pub(crate) fn schedule(&self) -> Option<&Schedule> {
        self.config.as_ref()?.schedule.as_ref()
    }

    /// Returns the directory of the store. Relative paths begin at the backup directory.
    pub(crate) fn store_path(&self) -> PathBuf {
        match self.config.as_ref().and_then(|config| config.store.as_ref()) {
            Some(store) => self.path.join(store),
            None => self.path.clone(),
        }
    }

    pub(crate) fn open_store(&self) -> Result<Store, CommandError> {
        Ok(Store::open(self.store_path())?)
    }

    /// Returns the name of the source in the store; `None` without a configuration.
    pub(crate) fn source_name(&self) -> Result<Option<SourceName>, CommandError> {
        let Some(config) = &self.config else { return Ok(None) };
        match &config.name {
            Some(name) => Ok(Some(name.clone())),
            None => default_name(&self.path).map(Some),
        }
    }

    /// Returns the revisions that are seen through this directory, and warns of damaged records.
    pub(crate) fn history(&self, store: &Store, ui: &Ui) -> Result<History, CommandError> {
        let history = store.history(self.source_name()?.as_ref())?;
        ui.warnings(&history.damaged);
        Ok(history)
    }

    /// Returns the revisions that `text` means.
    pub(crate) fn select(
        &self,
        store: &Store,
        text: &str,
        ui: &Ui,
    ) -> Result<Selection, CommandError> {
        let spec = parse(text)?;
        let history = self.history(store, ui)?;
        let selected = spec.select(&candidates(&history), &TimeZone::system());
        let selected = selected.map_err(|source| spec_error(text, source))?;
        let damaged_count = history.damaged.len();
        let mut revisions: Vec<_> = history.revisions.into_iter().map(Some).collect();
        let revisions = selected.into_iter().filter_map(|index| revisions[index].take()).collect();
        Ok(Selection { revisions, damaged_count, is_by_name: spec.is_by_name() })
    }

    /// Returns the one revision that `text` means.
    pub(crate) fn select_one(
        &self,
        store: &Store,
        text: &str,
        ui: &Ui,
    ) -> Result<Revision, CommandError> {
        self.select_one_of(self.history(store, ui)?, text)
    }

    /// Returns the one revision of a history that `text` means.
    pub(crate) fn select_one_of(
        &self,
        mut history: History,
        text: &str,
    ) -> Result<Revision, CommandError> {
        let spec = parse(text)?;
        let index = spec.select_one(&candidates(&history), &TimeZone::system());
        Ok(history.revisions.swap_remove(index.map_err(|source| spec_error(text, source))?))
    }
}

impl Selection {
    pub(crate) fn ids(&self) -> Vec<RevisionId> {
        self.revisions.iter().map(|revision| revision.record.id).collect()
    }
}

/// Returns whether there is a store in `path`, of whatever version.
pub(crate) fn holds_store(path: &Path) -> bool {
    Layout::new(path).config().exists()
}

/// Returns the name of a backup directory's source if none is configured: the last part of its
/// path, with `_` in place of what a name cannot have.
pub(crate) fn default_name(path: &Path) -> Result<SourceName, CommandError> {
    let real = path.canonicalize().or_else(|_| absolute(path))?;
    let base = real.file_name().map(|name| name.to_string_lossy().into_owned());
    let permitted = |symbol: char| match symbol {
        symbol if symbol.is_ascii_alphanumeric() || "._-".contains(symbol) => symbol,
        _ => '_',
    };
    let mut name: String =
        base.unwrap_or_default().chars().map(permitted).take(NAME_LEN_MAX).collect();
    if name.starts_with(['.', '-']) {
        name.replace_range(..1, "_");
    }
    name.parse().map_err(|_| {
        CommandError::Usage(format!("{} gives the source no name: use --name", path.display()))
    })
}

/// Returns the absolute form of a path; symbolic links stay, as in `/dev/disk/by-id`.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|source| CommandError::File {
        action: "find the absolute path of",
        path: path.to_owned(),
        source,
    })
}

fn parse(text: &str) -> Result<RevisionSpec, CommandError> {
    RevisionSpec::parse(text).map_err(|source| spec_error(text, source))
}

fn spec_error(text: &str, source: SpecError) -> CommandError {
    CommandError::Spec { text: text.chars().take(80).collect(), source }
}

fn candidates(history: &History) -> Vec<Candidate> {
    let candidate = |revision: &Revision| Candidate {
        id: revision.record.id,
        time: revision.record.time,
        tags: revision.state.tags.clone(),
        trust: revision.state.trust,
    };
    history.revisions.iter().map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_name_has_no_symbols_that_a_name_cannot_have() {
        for (path, name) in [
            ("/srv/vm1", "vm1"),
            ("/srv/a b\u{e4}", "a_b_"),
            ("/srv/.hidden", "_hidden"),
            ("/srv/-x", "_x"),
        ] {
            assert_eq!(default_name(Path::new(path)).unwrap().as_str(), name);
        }
        assert!(default_name(Path::new("/")).is_err());
    }
}
