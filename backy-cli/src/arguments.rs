//! Arguments of the command line.

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use chunkstore::ops::SampleSize;
use chunkstore::retention::Interval;
use chunkstore::revision_spec::Days;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use jiff::civil::Date;

use crate::exit_code;
use crate::human;
use crate::ui;
use crate::whisper_arguments::{JobArguments, WhisperCommand};

/// Version of the program, and the store formats that it reads.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nreads and writes store format 1");

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 bug; 2 usage or configuration; 3 source unreadable or incomplete; 4 damage
found; 5 no space; 6 unknown store format; 7 permission or read-only; 8 store I/O; 9 refused for
safety; 10 no such store or revision; 11 locked; 130 and 143 ended by a signal.";

const REVISIONS: &str = "\
Revisions: 0 is the newest, 1 the one before; an id or its unique beginning (4 characters or more);
latest, first, first(S), last(S); all, tag:TAG, trust:trusted|distrusted|verified|damaged; not(S),
reverse(S); A..B with revisions or dates (2026-01-31); A & B for both, A , B for either.";

const EXPIRE: &str = "\
A tag of the schedule is dropped from a revision when at least KEEP newer revisions have it and the
revision is older than KEEP intervals, unless one of keep-daily, keep-weekly, keep-monthly,
keep-yearly needs it. Tags that are not in the schedule are dropped; manual: tags never are.

Refused without --force (exit code 9): if the clock seems to be wrong, if more than half of the
revisions would go, or the last one that is neither distrusted nor damaged.";

const DIFF: &str = "\
Ranges are those of chunks: what lies outside is the same in both revisions, what lies inside may be.
Only the lists of the chunks are read, so this takes as long as there are differences.

Revisions: 0 is the newest, 1 the one before; an id or its unique beginning; A , B for two of them;
see `backy find --help`.";

const NBD_SERVER: &str = "\
Without -H, -p and --socket it listens on a Unix socket that only its user can open, in
$XDG_RUNTIME_DIR or /run, or on what systemd has opened for it. -H or -p mean TCP, on localhost and
port 10809 (backy's was 9000). Addresses that others can reach need TLS, or --insecure-plaintext.

A client names an export by a revision specification: latest, 0, an id, tag:daily; see `backy find
--help`. Without a name it gets the one of -r. What has changed since another revision is the
metadata context qemu:dirty-bitmap:SPEC.

SIGTERM or SIGINT end the server: requests that have begun are finished, within 10 seconds.";

const REPAIR: &str = "\
Nothing is deleted. The index is made anew; damaged revision records and states are moved to
quarantine/ in the store; pages and roots that nobody can serve no longer stop a purge. What only
they led to is then removed by the next purge: if a part of the store is elsewhere, put it back first.

Only lists of chunks are read here. `backy verify --all-data` reads everything, and finds the damage
that nobody knows of yet. Exit code 4 if something cannot be read.";

/// Deduplicating, verified backup of disk images and of the metrics of Graphite.
#[derive(Debug, Parser)]
#[command(name = "backy", version = VERSION, after_help = EXIT_CODES, propagate_version = false)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Arguments {
    /// Returns what a job of cron wants, if the command is one.
    pub(crate) fn job(&self) -> Option<&JobArguments> {
        match &self.command {
            Some(Command::Whisper(WhisperCommand::Backup(arguments))) => Some(&arguments.job),
            Some(Command::Whisper(WhisperCommand::Restore(arguments))) => Some(&arguments.job),
            Some(Command::Whisper(WhisperCommand::Purge(arguments))) => Some(&arguments.job),
            _ => None,
        }
    }
}

/// Options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArguments {
    /// Backup directory: holds the configuration, and the store unless that is elsewhere
    #[arg(
        short,
        long,
        global = true,
        value_name = "DIR",
        env = "BACKY_BACKUP_DIR",
        default_value = "."
    )]
    pub(crate) backup_dir: PathBuf,
    /// Say more on stderr
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Say nothing on stderr but warnings and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Append what happens to this file
    #[arg(short, long = "logfile", global = true, value_name = "LOGFILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// Print one JSON document on stdout, and errors as JSON objects on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to show progress on stderr
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(crate) progress: When,
}

/// When something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// Where it makes sense.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a configuration and create the store
    Init(InitArguments),
    /// Back the source up: make one revision
    Backup(BackupArguments),
    /// Write a revision to a file, a block device or stdout
    #[command(after_help = REVISIONS)]
    Restore(RestoreArguments),
    /// List revisions
    #[command(after_help = REVISIONS)]
    Status(StatusArguments),
    /// Print the paths or ids of revisions, one a line
    #[command(after_help = REVISIONS)]
    Find(FindArguments),
    /// Read revisions from the store and check every byte
    #[command(after_help = REVISIONS)]
    Verify(VerifyArguments),
    /// Read whole packs again and check every byte, those first that were not read for the longest time
    Scrub(ScrubArguments),
    /// Print which bytes differ between two revisions
    #[command(after_help = DIFF)]
    Diff(DiffArguments),
    /// Doubt revisions: the next backup writes every chunk again
    #[command(after_help = REVISIONS)]
    Distrust(DistrustArguments),
    /// Drop revisions; `purge` gives their space back
    #[command(after_help = REVISIONS)]
    Forget(ForgetArguments),
    /// Change the tags of revisions
    #[command(subcommand)]
    Tags(TagsCommand),
    /// Keep revisions from expiring and from being forgotten
    #[command(after_help = REVISIONS)]
    Protect(ProtectArguments),
    /// Take the protection of revisions away
    #[command(after_help = REVISIONS)]
    Unprotect(ProtectArguments),
    /// Drop the tags that the schedule does not keep, then the revisions without tags
    #[command(after_help = EXPIRE)]
    Expire(ExpireArguments),
    /// Give back the space that no revision needs
    Purge(PurgeArguments),
    /// Serve revisions as block devices over NBD, until SIGTERM
    #[command(after_help = NBD_SERVER)]
    NbdServer(NbdServerArguments),
    /// Back up, restore and list whisper files as whisper-backup does
    #[command(subcommand)]
    Whisper(WhisperCommand),
    /// Make anew what can be made anew, move aside what cannot be read, and say which bytes are lost
    #[command(after_help = REPAIR)]
    Repair(RepairArguments),
    /// Work on the index of the store
    #[command(subcommand)]
    Index(IndexCommand),
    /// Work on the store as a whole
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print a completion script for a shell
    Completions(CompletionsArguments),
}

#[derive(Args, Debug)]
pub(crate) struct InitArguments {
    /// Kind of the source
    #[arg(
        value_name = "TYPE",
        help = "Kind of the source: file (image file or block device), whisper (directory of Graphite)"
    )]
    pub(crate) kind: String,
    /// Path of the image file, block device, or directory
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,
    /// Name of the source in the store [default: last part of the backup directory's path]
    #[arg(long, value_name = "N")]
    pub(crate) name: Option<String>,
    /// Directory of the store [default: the backup directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Lengths of chunks: minimum, average (a power of two), maximum [default: 16KiB,64KiB,256KiB]
    #[arg(long, value_name = "MIN,AVG,MAX", conflicts_with = "average_chunk_size")]
    pub(crate) chunk_size: Option<String>,
    /// Average length of chunks (a power of two); from a quarter to four times of it is permitted
    #[arg(long, value_name = "AVG")]
    pub(crate) average_chunk_size: Option<String>,
    /// Compression level of zstd, -7 to 12; with 1 and 2, what is new in a mostly known image gets two more [default: 1]
    #[arg(
        long,
        value_name = "L",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(-7..=12)
    )]
    pub(crate) compression_level: Option<i32>,
}

#[derive(Args, Debug)]
pub(crate) struct BackupArguments {
    /// Tags of the revision, comma separated: of the schedule, or manual:ANYTHING
    #[arg(value_name = "TAGS", default_value = "manual:cli")]
    pub(crate) tags: String,
    /// What to back up; in an empty or missing backup directory this does `init` first
    #[arg(long, value_name = "TYPE:SOURCE")]
    pub(crate) source: Option<String>,
    /// Back up an overlay instead of the source: what was written over one of its revisions. Nobody may have it open
    #[arg(long, value_name = "FILE", conflicts_with = "source")]
    pub(crate) from_overlay: Option<PathBuf>,
    /// How much to read back from the store and compare with the source: a percentage, or adaptive (a few, and more after a doubt)
    #[arg(long, value_name = "PERCENT", value_parser = sample_size, default_value = "adaptive")]
    pub(crate) sample: SampleSize,
    /// Read every file of a whisper source, and do not believe its times that it has not changed
    #[arg(long, conflicts_with = "from_overlay")]
    pub(crate) read_all: bool,
    /// Accept tags that are not in the schedule, and a whisper source that has become empty
    #[arg(short, long)]
    pub(crate) force: bool,
}

pub(crate) fn sample_size(text: &str) -> Result<SampleSize, String> {
    if text == "adaptive" {
        return Ok(SampleSize::Adaptive);
    }
    let percent = text.strip_suffix('%').unwrap_or(text).parse().ok();
    let percent = percent.filter(|percent| *percent <= 100);
    percent
        .map(SampleSize::Percent)
        .ok_or_else(|| "expected adaptive, or a percentage from 0 to 100".to_owned())
}

#[derive(Args, Debug)]
pub(crate) struct RestoreArguments {
    /// Which revision
    #[arg(short, long, value_name = "SPEC", default_value = "latest")]
    pub(crate) revision: String,
    /// File or block device to write, or - for stdout
    #[arg(value_name = "TARGET")]
    pub(crate) target: PathBuf,
    /// Write over a file that exists, or a block device
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Read the target and write only what differs; implies --overwrite. Goes on where it was interrupted
    #[arg(long)]
    pub(crate) delta: bool,
    /// Whether zeros become holes
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(crate) sparse: When,
    /// Read the target back and compare it
    #[arg(long)]
    pub(crate) verify: bool,
    /// Leave zeros where the store is damaged, list the ranges, and exit with 4
    #[arg(long)]
    pub(crate) keep_going: bool,
}

#[derive(Args, Debug)]
pub(crate) struct NbdServerArguments {
    /// Listen on this address or name, over TCP [default: localhost, if -p is given]
    #[arg(short = 'H', long, value_name = "ADDR", conflicts_with = "socket")]
    pub(crate) host: Option<String>,
    /// Listen on this port, over TCP; 0 for any [default: 10809, if -H is given]
    #[arg(short, long, value_name = "PORT", conflicts_with = "socket")]
    pub(crate) port: Option<u16>,
    /// Listen on this Unix socket
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The revision that clients get who name none [default: latest, or that of the overlay]
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) revision: Option<String>,
    /// Accept writes, and forget them when the server ends
    #[arg(long, conflicts_with = "overlay")]
    pub(crate) writable: bool,
    /// Accept writes to the default revision, and keep them in this file; goes on with one that exists
    #[arg(long, value_name = "FILE")]
    pub(crate) overlay: Option<PathBuf>,
    /// Serve through TLS only: certificate chain of the server, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "tls_client_ca")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key of the server, PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Authority that has signed the certificates of clients, PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Listen without TLS where others can read and change what is sent
    #[arg(long, conflicts_with = "tls_certificate")]
    pub(crate) insecure_plaintext: bool,
    /// Memory for chunks that were read, shared by all clients
    #[arg(long, value_name = "SIZE", default_value = "160MiB", value_parser = cache_len)]
    pub(crate) cache: u64,
}

impl NbdServerArguments {
    /// Returns the specification of the default revision.
    pub(crate) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("latest")
    }
}

fn cache_len(text: &str) -> Result<u64, &'static str> {
    human::parse_size(text)
        .filter(|len| (16 << 20..=1 << 40).contains(len))
        .ok_or("expected a size from 16MiB on, such as 256MiB")
}

#[derive(Args, Debug)]
pub(crate) struct StatusArguments {
    /// Which revisions
    #[arg(short, long, value_name = "SPEC", default_value = "all")]
    pub(crate) revision: String,
    /// Print YAML
    #[arg(long, conflicts_with = "json")]
    pub(crate) yaml: bool,
    /// Find out what each revision shares with others, and what forgetting it would free; reads all chunk lists
    #[arg(long, conflicts_with = "yaml")]
    pub(crate) space: bool,
}

#[derive(Args, Debug)]
pub(crate) struct FindArguments {
    /// Which revisions
    #[arg(short, long, value_name = "SPEC", default_value = "latest")]
    pub(crate) revision: String,
    /// Print ids instead of paths
    #[arg(long)]
    pub(crate) uuid: bool,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArguments {
    /// Which revisions
    #[arg(short, long, value_name = "SPEC", default_value = "all")]
    pub(crate) revision: String,
    /// Read also what was read when verified revisions were verified
    #[arg(long)]
    pub(crate) all_data: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ScrubArguments {
    /// Read only what was not read for this long: 12h, 30d, 4w, or seconds
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: Option<Interval>,
    /// Read at most this much in a second: 50MiB/s
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) limit: Option<NonZero<u64>>,
}

/// Reads a number of bytes a second: "50MiB/s", "50MiB".
fn parse_rate(text: &str) -> Result<NonZero<u64>, String> {
    let rate = human::parse_size(text.trim().trim_end_matches("/s"));
    rate.and_then(NonZero::new).ok_or_else(|| "expected a rate such as 50MiB/s".to_owned())
}

#[derive(Args, Debug)]
pub(crate) struct DiffArguments {
    /// The first and the second revision; or given once, a specification of two
    #[arg(short, long, value_name = "SPEC", required = true)]
    pub(crate) revision: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RepairArguments {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) plan: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct DistrustArguments {
    /// Which revisions; with --from or --until those of them that were made in that time [default: all]
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) revision: Option<String>,
    /// Revisions that were made on this day or later (2026-01-31, local time)
    #[arg(short, long, value_name = "DATE", value_parser = day)]
    pub(crate) from: Option<Date>,
    /// Revisions that were made on this day or before
    #[arg(short, long, value_name = "DATE", value_parser = day)]
    pub(crate) until: Option<Date>,
}

#[derive(Args, Debug)]
pub(crate) struct ForgetArguments {
    /// Which revisions
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) revision: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TagsCommand {
    /// Give revisions these tags and no others
    #[command(after_help = REVISIONS)]
    Set(NewTagsArguments),
    /// Give revisions these tags, too
    #[command(after_help = REVISIONS)]
    Add(NewTagsArguments),
    /// Take these tags from revisions
    #[command(after_help = REVISIONS)]
    Remove(TagsArguments),
}

#[derive(Args, Debug)]
pub(crate) struct NewTagsArguments {
    #[command(flatten)]
    pub(crate) tags: TagsArguments,
    /// Accept tags that are not in the schedule
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TagsArguments {
    /// Tags, comma separated
    #[arg(value_name = "TAGS")]
    pub(crate) tags: String,
    /// Which revisions
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) revision: String,
    /// Change nothing unless each of the revisions has just these tags
    #[arg(long, value_name = "TAGS")]
    pub(crate) expect: Option<String>,
    /// Drop the revisions that are left without tags, unless they are protected
    #[arg(long)]
    pub(crate) autoremove: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ProtectArguments {
    /// Which revisions
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) revision: String,
}

#[derive(Args, Debug)]
pub(crate) struct ExpireArguments {
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it although something speaks against it
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PurgeArguments {
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not wait 24 hours before space is given back
    #[arg(long)]
    pub(crate) now: bool,
    /// Read at most this much in a second to repack it: 50MiB/s
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) limit: Option<NonZero<u64>>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Make the index anew from the packs
    Rebuild,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Print sizes, format and parameters
    Info,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: Shell,
}

fn day(text: &str) -> Result<Date, &'static str> {
    Days::parse_day(text).ok_or("expected a day such as 2026-01-31")
}

/// Prints help, the version, or what is wrong with the arguments, and returns the exit code.
pub(crate) fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that has gone is no failure of ours.
        error.print().ok();
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|argument| argument == "--json") {
        let text = error.render().to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        ui::print_json_error(message, &[], exit_code::USAGE, None);
    } else {
        error.print().ok();
    }
    ExitCode::from(exit_code::USAGE)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn version_names_the_format_of_the_library() {
        let format = format!("store format {}", chunkstore::FORMAT_VERSION);
        assert!(VERSION.ends_with(&format), "{VERSION:?}");
    }

    #[test]
    fn rates_are_read() {
        for (text, expected) in [
            ("50MiB/s", Some(50 << 20)),
            ("1 KiB", Some(1 << 10)),
            ("0", None),
            ("fast", None),
            ("/s", None),
        ] {
            assert_eq!(parse_rate(text).ok().map(NonZero::get), expected, "{text}");
        }
    }

    #[test]
    fn arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
