//! What a person can do about an error, where something can be done.

use std::path::Path;

use chunkstore::error::{Error, ObjectName};
use chunkstore::ops::SampleMismatch;
use chunkstore::ops::expire::ExpireError;
use chunkstore::retention::Refusal;
use chunkstore::target::TargetError;

use crate::command_error::CommandError;
use crate::config::ConfigError;

/// Returns a sentence that says what to do about `error`.
pub(crate) fn of(error: &CommandError, backup_dir: &Path) -> Option<String> {
    let command = format!("backy -b {}", backup_dir.display());
    Some(match error {
        CommandError::UnknownTags { .. } => {
            "add it to the schedule, use manual:NAME, or -f to accept any tag".to_owned()
        }
        CommandError::Spec { source, .. } if source.is_no_such_revision() => {
            format!("`{command} status` lists the revisions")
        }
        CommandError::Spec { .. } => "`backy find --help` explains the language".to_owned(),
        CommandError::NoBackupDirectory { .. } | CommandError::Store(Error::NotAStore { .. }) => {
            format!("`{command} init file IMAGE` makes a beginning")
        }
        CommandError::Refused { hint, .. } => hint.clone(),
        CommandError::Config(ConfigError::Exists { .. }) => {
            "edit it, or use another backup directory".to_owned()
        }
        CommandError::ExpiryRefused(ExpireError::Refused { refusals, .. }) => {
            of_refusal(refusals.first()?, &command)
        }
        CommandError::Mismatch(mismatch) => of_mismatch(mismatch),
        CommandError::Target(error) => return of_target(error),
        CommandError::Store(error) => return of_store(error, &command),
        _ => return None,
    })
}

fn of_mismatch(mismatch: &SampleMismatch) -> String {
    let kept = match (mismatch.evidence.last(), &mismatch.evidence_lost) {
        (Some(report), None) => format!("both sides are kept, see {}", report.display()),
        (_, Some(reason)) => format!("not all of the evidence could be kept: {reason}"),
        (None, None) => "there is no evidence".to_owned(),
    };
    format!(
        "if the source was written to, back up a snapshot of it; otherwise suspect memory, disk or controller. {kept}. Until the reports are removed, backups of this source compare more"
    )
}

fn of_refusal(refusal: &Refusal, command: &str) -> String {
    match refusal {
        Refusal::FromTheFuture { id, .. } => format!(
            "set the clock; if it was wrong when the revision was made, `{command} forget -r {id}`, or use --force"
        ),
        Refusal::Pause { .. } => {
            "set the clock; if it is right, use --force, or wait for two more revisions".to_owned()
        }
        _ => format!("`{command} expire --dry-run` says why; --force does it all the same"),
    }
}

fn of_target(error: &TargetError) -> Option<String> {
    Some(match error {
        TargetError::Exists { .. } => "use --overwrite to write over it".to_owned(),
        TargetError::InUse { .. } => "unmount it, or end the program that uses it".to_owned(),
        TargetError::TooSmall { .. } => {
            "nothing was written; use a larger device, or restore to a file".to_owned()
        }
        TargetError::NotAnImage { .. } => "name a file or a block device".to_owned(),
        error if error.is_out_of_space() => "free space where the target is".to_owned(),
        _ => return None,
    })
}

fn of_store(error: &Error, command: &str) -> Option<String> {
    Some(match error {
        Error::Damaged { object: ObjectName::Index, .. } => {
            format!("`{command} index rebuild` makes it anew from the packs")
        }
        Error::Damaged { object: ObjectName::Overlay { .. }, .. } => {
            "if it is an overlay, its creation was interrupted, or the file was damaged; the store is not concerned"
                .to_owned()
        }
        Error::Damaged { object: ObjectName::OverlayMap { .. }, .. } => {
            "the file was damaged; other ranges of the overlay, and the store, are not concerned"
                .to_owned()
        }
        Error::NoSuchBase { .. } => {
            "an overlay holds only what differs from its revision; `protect` keeps a revision that is still needed"
                .to_owned()
        }
        Error::OtherStore { .. } => {
            "name a backup directory of the store that it belongs to with -b".to_owned()
        }
        error if error.is_damage() => {
            format!(
                "`{command} verify` lists all damage; `restore --keep-going` gets the rest; `repair` lets purges go on"
            )
        }
        Error::Protected { id } => {
            format!("`{command} unprotect -r {id}` takes the protection away")
        }
        Error::OtherTags { .. } => {
            format!("nothing was changed; `{command} status` shows the tags")
        }
        Error::UnsupportedFormat { .. } => "use a newer version of backy".to_owned(),
        Error::Locked { .. } => {
            "wait until it has ended; a lock never outlives its process".to_owned()
        }
        Error::Bug { .. } => "please report this, with the log".to_owned(),
        error if error.is_out_of_space() => {
            format!("make room; `{command} purge` gives back what no revision needs")
        }
        _ => return None,
    })
}
