//! Why a command failed: the errors of the library, and those of the command line itself.

use std::io;
use std::path::PathBuf;

use chunkstore::error::Error;
use chunkstore::ops::expire::ExpireError;
use chunkstore::ops::thin::ThinError;
use chunkstore::ops::{BackupError, RestoreError, SampleMismatch};
use chunkstore::revision_spec::SpecError;
use chunkstore::source::SourceError;
use chunkstore::target::TargetError;

use crate::config::ConfigError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// Tags that are neither manual nor in the schedule.
    #[error("unknown tags: {tags}")]
    UnknownTags { tags: String },
    /// A revision specification that is wrong, or that nothing matches.
    #[error("cannot select revision {text:?}")]
    Spec { text: String, source: SpecError },
    /// There is neither a configuration nor a store.
    #[error("no configuration and no store in {path}", path = path.display())]
    NoBackupDirectory { path: PathBuf },
    /// A safety rule forbids it.
    #[error("{what}")]
    Refused { what: String, hint: String },
    /// The command did its work, and found damage.
    #[error("{what}")]
    DamageFound { what: String },
    /// The command did its work, but not for all files of the source.
    #[error("{what}")]
    FilesFailed { what: String },
    /// The lock file of a job.
    #[error("{path} was locked by another process for {seconds} seconds", path = path.display())]
    JobLocked { path: PathBuf, seconds: u64 },
    /// A file that is neither of a store, nor source or target.
    #[error("cannot {action} {path}", path = path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// The log file.
    #[error("cannot open log file {path}", path = path.display())]
    LogFile { path: PathBuf, source: io::Error },
    /// Nobody could connect.
    #[error("cannot listen on {address}")]
    Listen { address: String, source: io::Error },
    /// A server could not begin.
    #[error("cannot start the threads of the server")]
    Threads(#[source] io::Error),
    #[error(transparent)]
    Tls(#[from] nbd_server::TlsError),
    /// Results could not be printed.
    #[error("cannot write to stdout")]
    Output(#[source] io::Error),
    /// Signals could not be handled.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Store(#[from] Error),
    /// A backup read something else back than its source had.
    #[error("{0}")]
    Mismatch(Box<SampleMismatch>),
    /// Nothing matches what was asked for.
    #[error("nothing to restore: {0}")]
    NothingToRestore(String),
    /// What speaks against thinning.
    #[error(transparent)]
    ThinningRefused(ThinError),
    /// What speaks against expiring.
    #[error(transparent)]
    ExpiryRefused(ExpireError),
}

impl From<BackupError> for CommandError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Source(error) => Self::Source(error),
            BackupError::Store(error) => Self::Store(error),
            BackupError::Mismatch(mismatch) => Self::Mismatch(mismatch),
            other => Self::Store(Error::Bug { what: other.to_string() }),
        }
    }
}

impl From<ExpireError> for CommandError {
    fn from(error: ExpireError) -> Self {
        match error {
            ExpireError::Store(error) => Self::Store(error),
            ExpireError::Thin(error) => (*error).into(),
            refused => Self::ExpiryRefused(refused),
        }
    }
}

impl From<RestoreError> for CommandError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Store(error) => Self::Store(error),
            RestoreError::Target(error) => Self::Target(error),
        }
    }
}
