//! Arguments of `backy whisper`: those of whisper-backup, as far as they make sense here.

use std::num::NonZero;
use std::path::PathBuf;

use chunkstore::ops::SampleSize;
use chunkstore::time::Timestamp;
use clap::{Args, Subcommand, ValueEnum};

use crate::arguments::sample_size;

const DATES: &str = "\
Dates: 2026-01-31T12:00:00+00:00 or 2026-01-31T12:00:00Z; without a zone, local time; 2026-01-31 is the
beginning of that day. A version counts if it is strictly older.

Metrics: dotted names; * crosses dots, ? is one letter, [abc] and [!abc] are sets.";

const BACKUP: &str = "\
Makes a revision of all metrics, then removes what --retention and --purge do not keep from older
revisions, and gives the space back. Revisions with a tag of the schedule stay complete until `backy
expire` has dropped their tags; protected ones stay as they are.

Metrics that -m does not mean are kept as they are. Exit code 3 if a file could not be read: all others
are in the revision, and of this one it keeps what it had.";

const RESTORE: &str = "\
A metric that is not there is written whole. Into one that is there, empty slots are filled, under the
lock that carbon takes: with `safe`, nothing that has a value is changed; with `compat`, gaps are filled
as whisper-backup does it, which takes zeros for gaps. A file that is corrupt is renamed, not written over.";

#[derive(Debug, Subcommand)]
pub(crate) enum WhisperCommand {
    /// Back up all metrics below a directory, keep so many versions of each, forget those that are gone
    #[command(after_help = BACKUP)]
    Backup(WhisperBackupArguments),
    /// Write metrics, or fill the gaps of those that are there
    #[command(after_help = format!("{RESTORE}\n\n{DATES}"))]
    Restore(WhisperRestoreArguments),
    /// List the versions of metrics
    #[command(after_help = DATES)]
    List(WhisperListArguments),
    /// Forget metrics that are gone for long, and give their space back
    Purge(WhisperPurgeArguments),
}

/// Which metrics.
#[derive(Args, Debug)]
pub(crate) struct MetricArguments {
    /// Only metrics whose names match
    #[arg(short, long, value_name = "GLOB", default_value = "*")]
    pub(crate) metrics: String,
}

/// What jobs of cron need.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options for jobs")]
pub(crate) struct JobArguments {
    /// Lock this file while working [default: whisper.lock in the backup directory; none with --noop]
    #[arg(long = "lockfile", value_name = "PATH", conflicts_with = "no_lock")]
    pub(crate) lock_file: Option<PathBuf>,
    /// Lock no file; the store still admits one backup of a source at a time
    #[arg(long = "nolock")]
    pub(crate) no_lock: bool,
    /// Wait so many seconds for the lock
    #[arg(long = "locktimeout", value_name = "SECONDS", default_value_t = 90)]
    pub(crate) lock_timeout: u64,
    /// Sleep up to so many seconds before anything else
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) splay: u64,
    /// Touch this file when all has been done without a problem [default: whisper.success in the backup directory]
    #[arg(long = "stampfile", value_name = "PATH", conflicts_with = "no_stamp")]
    pub(crate) stamp_file: Option<PathBuf>,
    /// Touch no file
    #[arg(long = "nostamp")]
    pub(crate) no_stamp: bool,
    /// Write to the system log, too, as facility local3
    #[arg(long)]
    pub(crate) syslog: bool,
    /// Say more on stderr, as --verbose
    #[arg(short, long)]
    pub(crate) debug: bool,
}

#[derive(Args, Debug)]
pub(crate) struct WhisperBackupArguments {
    /// Tags of the revision, comma separated
    #[arg(value_name = "TAGS", default_value = "whisper")]
    pub(crate) tags: String,
    /// Directory with the whisper files; where nothing is configured yet, this does `init` first [default: the configured one]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) prefix: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) metrics: MetricArguments,
    /// Keep so many unique versions of each metric [default: as configured, or 5]
    #[arg(short, long, value_name = "N")]
    pub(crate) retention: Option<NonZero<u32>>,
    /// Forget metrics that were last seen so many days ago: 0 at once, -1 never [default: as configured, or 45]
    #[arg(short = 'x', long = "purge", value_name = "DAYS", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..=36500))]
    pub(crate) purge_days: Option<i32>,
    /// Threads [default: as many as there are processors]
    #[arg(short = 'f', long, value_name = "N")]
    pub(crate) processes: Option<NonZero<usize>>,
    /// Change nothing: read, compare, and say what would be done
    #[arg(short, long)]
    pub(crate) noop: bool,
    /// Read every file, and do not believe its times that it has not changed
    #[arg(long)]
    pub(crate) read_all: bool,
    /// How much to read back from the store and compare with the files: a percentage, or adaptive
    #[arg(long, value_name = "PERCENT", value_parser = sample_size, default_value = "adaptive")]
    pub(crate) sample: SampleSize,
    /// Accept tags that are not in the schedule, and a directory that has become empty
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) job: JobArguments,
}

/// What becomes of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackfillArgument {
    /// Fill empty slots; change no value.
    Safe,
    /// Fill gaps as whisper-backup does.
    Compat,
    /// Leave it as it is.
    Never,
}

#[derive(Args, Debug)]
pub(crate) struct WhisperRestoreArguments {
    /// Directory to restore to [default: the configured one]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) prefix: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) metrics: MetricArguments,
    /// The newest version strictly before this date [default: the newest]
    #[arg(short = 'c', long, value_name = "DATE", value_parser = date)]
    pub(crate) date: Option<Timestamp>,
    /// What becomes of files that are there
    #[arg(long, value_name = "HOW", value_enum, default_value_t = BackfillArgument::Safe)]
    pub(crate) backfill: BackfillArgument,
    /// Threads [default: as many as there are processors]
    #[arg(short = 'f', long, value_name = "N")]
    pub(crate) processes: Option<NonZero<usize>>,
    /// Change nothing: read and verify, and say what would be done
    #[arg(short, long)]
    pub(crate) noop: bool,
    #[command(flatten)]
    pub(crate) job: JobArguments,
}

#[derive(Args, Debug)]
pub(crate) struct WhisperListArguments {
    #[command(flatten)]
    pub(crate) metrics: MetricArguments,
    /// Only versions strictly before this date
    #[arg(short = 'c', long, value_name = "DATE", value_parser = date)]
    pub(crate) date: Option<Timestamp>,
}

#[derive(Args, Debug)]
pub(crate) struct WhisperPurgeArguments {
    #[command(flatten)]
    pub(crate) metrics: MetricArguments,
    /// Forget metrics that were last seen so many days ago: 0 at once, -1 never [default: as configured, or 45]
    #[arg(short = 'x', long = "purge", value_name = "DAYS", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..=36500))]
    pub(crate) purge_days: Option<i32>,
    /// Change nothing: say what would be done
    #[arg(short, long)]
    pub(crate) noop: bool,
    #[command(flatten)]
    pub(crate) job: JobArguments,
}

/// Reads a date.
fn date(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("not a date: {text:?}, expected one like 2026-01-31T12:00:00+00:00");
    let zone = jiff::tz::TimeZone::system();
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(instant.as_millisecond()));
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        let instant = local.to_zoned(zone).map_err(|_| wrong())?;
        return Ok(Timestamp(instant.timestamp().as_millisecond()));
    }
    Err(wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_with_and_without_a_zone() {
        let noon = Timestamp(1_769_860_800_000);
        for text in
            ["2026-01-31T12:00:00+00:00", "2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00"]
        {
            assert_eq!(date(text), Ok(noon), "{text}");
        }
        assert!(date("2026-01-31").is_ok() && date("2026-01-31T12:00:00").is_ok());
        for text in ["", "yesterday", "2026-13-01", "12:00"] {
            assert!(date(text).is_err(), "{text}");
        }
    }
}
