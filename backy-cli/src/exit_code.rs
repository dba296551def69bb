//! Exit codes: the only place that maps errors to them. Scripts and monitoring rely on the numbers.

use std::io;

use chunkstore::error::Error;
use chunkstore::format::FormatError;
use chunkstore::ops::thin::ThinError;
use chunkstore::source::SourceError;
use chunkstore::target::TargetError;
use rustix::io::Errno;

use crate::command_error::CommandError;
use crate::config::ConfigError;

pub(crate) const DONE: u8 = 0;
/// A bug of this program.
pub(crate) const BUG: u8 = 1;
/// Usage or configuration.
pub(crate) const USAGE: u8 = 2;
/// The source is unreadable or incomplete.
pub(crate) const SOURCE: u8 = 3;
/// Damage was found.
pub(crate) const DAMAGE: u8 = 4;
/// The destination has no space left.
pub(crate) const NO_SPACE: u8 = 5;
/// The store has a format that this program does not know.
pub(crate) const FORMAT: u8 = 6;
/// No permission, or a read-only file system.
pub(crate) const PERMISSION: u8 = 7;
/// Reading or writing a destination failed in another way.
pub(crate) const STORE_IO: u8 = 8;
/// A safety rule forbids it.
pub(crate) const REFUSED: u8 = 9;
/// No such store, no such revision.
pub(crate) const NOT_FOUND: u8 = 10;
/// Somebody else holds a lock.
pub(crate) const LOCKED: u8 = 11;
/// Added to the number of a signal that ended the command.
const SIGNAL: u8 = 128;
const SIGINT: u8 = 2;

/// Returns the exit code of an error; `signal` is the number of the last signal, 0 without one.
pub(crate) fn of(error: &CommandError, signal: usize) -> u8 {
    match error {
        CommandError::Usage(_) | CommandError::UnknownTags { .. } => USAGE,
        CommandError::Spec { source, .. } if source.is_no_such_revision() => NOT_FOUND,
        CommandError::Spec { .. } => USAGE,
        CommandError::NoBackupDirectory { .. } => NOT_FOUND,
        CommandError::Refused { .. } | CommandError::ExpiryRefused(_) => REFUSED,
        CommandError::NothingToRestore(_) => NOT_FOUND,
        CommandError::ThinningRefused(ThinError::Incomplete { .. }) => DAMAGE,
        CommandError::ThinningRefused(_) => REFUSED,
        CommandError::DamageFound { .. } | CommandError::Mismatch(_) => DAMAGE,
        CommandError::File { source, .. } | CommandError::Output(source) => of_io(source),
        CommandError::LogFile { source, .. } => match of_io(source) {
            STORE_IO => USAGE,
            code => code,
        },
        CommandError::Listen { source, .. } => match source.kind() {
            io::ErrorKind::AddrInUse => LOCKED,
            io::ErrorKind::AlreadyExists => REFUSED,
            _ => match of_io(source) {
                STORE_IO => USAGE,
                code => code,
            },
        },
        CommandError::JobLocked { .. } => LOCKED,
        CommandError::Tls(_) => USAGE,
        CommandError::Signals(_) | CommandError::Threads(_) => BUG,
        CommandError::Config(error) => of_config(error),
        CommandError::Source(SourceError::Empty { .. }) => REFUSED,
        CommandError::Source(_) | CommandError::FilesFailed { .. } => SOURCE,
        CommandError::Target(error) => of_target(error),
        CommandError::Store(error) => of_store(error, signal),
    }
}

fn of_config(error: &ConfigError) -> u8 {
    match error {
        ConfigError::Exists { .. } => REFUSED,
        ConfigError::Write { source, .. } => of_io(source),
        ConfigError::Read { source, .. } if is_no_file(source) => USAGE,
        ConfigError::Read { source, .. } => of_io(source),
        ConfigError::Invalid { .. } | ConfigError::TooLong { .. } => USAGE,
    }
}

/// Returns whether an error says that no file can be read there, whatever the state of the medium.
fn is_no_file(error: &io::Error) -> bool {
    let is_of_path = matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidFilename
    );
    is_of_path || Errno::from_io_error(error) == Some(Errno::LOOP)
}

fn of_target(error: &TargetError) -> u8 {
    match error {
        TargetError::Io { source, .. } => of_io(source),
        TargetError::Exists { .. }
        | TargetError::InUse { .. }
        | TargetError::NotAnImage { .. }
        | TargetError::TooSmall { .. } => REFUSED,
        TargetError::NotReadable { .. } => USAGE,
        // What does not read back, and whatever comes later.
        _ => STORE_IO,
    }
}

fn of_store(error: &Error, signal: usize) -> u8 {
    match error {
        Error::Storage { source, .. } => of_io(source),
        Error::Damaged { source: FormatError::Unsupported { .. }, .. }
        | Error::UnsupportedFormat { .. } => FORMAT,
        Error::Damaged { .. } | Error::Missing { .. } | Error::LengthMismatch { .. } => DAMAGE,
        Error::NotAStore { .. } | Error::NoSuchRevision { .. } | Error::NoSuchBase { .. } => {
            NOT_FOUND
        }
        Error::CannotCreate { .. }
        | Error::Protected { .. }
        | Error::OtherTags { .. }
        | Error::OtherStore { .. } => REFUSED,
        Error::Locked { .. } => LOCKED,
        Error::InvalidOption { .. } => USAGE,
        // This machine cannot be relied on; what is stored is sound.
        Error::CompressionMismatch { .. } => STORE_IO,
        Error::Cancelled => of_signal(signal),
        _ => BUG,
    }
}

fn of_io(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NO_SPACE,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => PERMISSION,
        _ => STORE_IO,
    }
}

fn of_signal(signal: usize) -> u8 {
    let signal = u8::try_from(signal).ok().filter(|signal| (1..64).contains(signal));
    SIGNAL + signal.unwrap_or(SIGINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(errno: Errno) -> CommandError {
        let source = io::Error::from(errno);
        CommandError::Store(Error::Storage { action: "write", path: "/store".into(), source })
    }

    #[test]
    fn errors_of_the_system_have_codes_of_their_own() {
        for (errno, code) in [
            (Errno::NOSPC, NO_SPACE),
            (Errno::DQUOT, NO_SPACE),
            (Errno::ROFS, PERMISSION),
            (Errno::ACCESS, PERMISSION),
            (Errno::PERM, PERMISSION),
            (Errno::IO, STORE_IO),
            (Errno::STALE, STORE_IO),
        ] {
            assert_eq!(of(&storage(errno), 0), code, "{errno:?}");
        }
    }

    #[test]
    fn configuration_that_is_no_file_is_told_from_a_medium_that_fails() {
        for (errno, code) in [
            (Errno::NOENT, USAGE),
            (Errno::ISDIR, USAGE),
            (Errno::LOOP, USAGE),
            (Errno::ACCESS, PERMISSION),
            (Errno::IO, STORE_IO),
        ] {
            let path = "/backup/config".into();
            let error = ConfigError::Read { path, source: io::Error::from(errno) };
            assert_eq!(of(&CommandError::Config(error), 0), code, "{errno:?}");
        }
    }

    #[test]
    fn unknown_version_of_an_object_is_no_damage() {
        let unsupported = FormatError::Unsupported { structure: "pack", found: 2, supported: 1 };
        for (source, code) in
            [(unsupported, FORMAT), (FormatError::Truncated { field: "magic" }, DAMAGE)]
        {
            let object = chunkstore::error::ObjectName::Index;
            assert_eq!(of(&CommandError::Store(Error::Damaged { object, source }), 0), code);
        }
    }

    #[test]
    fn cancelled_command_ends_with_the_code_of_its_signal() {
        let cancelled = CommandError::Store(Error::Cancelled);
        assert_eq!([0, 2, 15, 1000].map(|signal| of(&cancelled, signal)), [130, 130, 143, 130]);
    }
}
