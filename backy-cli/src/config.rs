//! The file `config` of a backup directory: YAML with `source`, `whisper`, `schedule`, `store` and `name`.
//!
//! It is written once, by `init`, and never overwritten by this program. Unknown keys are errors: a
//! misspelt one would be ignored for years otherwise.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use chunkstore::id::SourceName;
use chunkstore::retention::Schedule;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_saphyr::budget::BudgetBreach;

/// Name of the file in a backup directory.
pub(crate) const FILE_NAME: &str = "config";

/// Longest file in bytes.
const LEN_MAX: u64 = 1 << 20;

/// Most values in a configuration, keys among them. A schedule with a thousand tags has six thousand.
const VALUES_MAX: usize = 10_000;

/// Most values that are kept because an anchor names them. A value is kept once for each anchor around it, so a few kilobytes of anchors
/// inside each other would become megabytes.
const ANCHORED_MAX: usize = 1000;

/// Most sections inside each other; a schedule has three.
const DEPTH_MAX: usize = 16;

/// Why there is no configuration, or none is written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read configuration {path}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("configuration {path} has more than {LEN_MAX} bytes", path = path.display())]
    TooLong { path: PathBuf },
    #[error("configuration {path} is invalid: {reason}", path = path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("configuration {path} exists", path = path.display())]
    Exists { path: PathBuf },
    #[error("cannot {action} configuration {path}", path = path.display())]
    Write { action: &'static str, path: PathBuf, source: io::Error },
}

/// What a backup directory is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What is backed up.
    pub(crate) source: SourceConfig,
    /// How versions of metrics are kept. Only for whisper sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) whisper: Option<WhisperConfig>,
    /// Tags and how they are kept. None at all is not the same as one without tags: by that everything would expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) schedule: Option<Schedule>,
    /// Directory of the store, if it is not the backup directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<PathBuf>,
    /// Name of the source in the store, if it is not that of the backup directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<SourceName>,
}

/// What is backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceConfig {
    /// Kind of the source.
    #[serde(rename = "type")]
    pub(crate) kind: SourceKind,
    /// Image file, block device, or directory.
    pub(crate) filename: PathBuf,
}

/// Kind of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SourceKind {
    /// An image file or block device.
    File,
    /// A directory with whisper files.
    Whisper,
}

/// How versions of metrics are kept. What is not said here has the defaults of whisper-backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct WhisperConfig {
    /// Unique versions of each metric that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention: Option<NonZero<u32>>,
    /// Days after which metrics go that are no longer there: 0 at once, -1 never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) purge_days: Option<i32>,
}

impl Config {
    /// Reads the configuration of a backup directory; `None` if it has none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, ConfigError> {
        let path = directory.join(FILE_NAME);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(source) if source.kind() == io::ErrorKind::FileTooLarge => {
                return Err(ConfigError::TooLong { path });
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        match Self::parse(&text) {
            Ok(config) => Ok(Some(config)),
            Err(reason) => Err(ConfigError::Invalid { path, reason }),
        }
    }

    /// Reads a configuration from its text, or says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let config: Result<Self, _> = from_yaml(text);
        let config = config.map_err(|error| match error.without_snippet() {
            serde_saphyr::Error::Budget { breach, location } => format!(
                "line {line} column {column}: a configuration has no {too_much}",
                line = location.line(),
                column = location.column(),
                too_much = too_much(breach),
            ),
            _ => one_line(&error.to_string()),
        })?;
        if config.whisper.is_some() && config.source.kind != SourceKind::Whisper {
            return Err("it has a section whisper, and the source is none".to_owned());
        }
        Ok(config)
    }

    /// Writes the configuration of a backup directory durably.
    ///
    /// # Errors
    ///
    /// - [`ConfigError::Exists`] if there is one already.
    pub(crate) fn write_new(&self, directory: &Path) -> Result<(), ConfigError> {
        let path = directory.join(FILE_NAME);
        let text = serde_saphyr::to_string(self).map_err(|error| ConfigError::Invalid {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let temporary = directory.join(format!(".{FILE_NAME}.{}.tmp", std::process::id()));
        let result = write_durably(&temporary, &path, directory, &text);
        if result.is_err() {
            // It may not exist; the first error is the one to tell.
            fs::remove_file(&temporary).ok();
        }
        result.map_err(|(action, source)| match source.kind() {
            io::ErrorKind::AlreadyExists if action == "rename" => ConfigError::Exists { path },
            _ => ConfigError::Write { action, path, source },
        })
    }
}

/// Reads YAML, with bounds of what it may take: a configuration is short, whatever its text does.
pub(crate) fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: VALUES_MAX,
            max_recorded_anchor_events: ANCHORED_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_documents: 1,
        },
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// Says what is too much for [`from_yaml`], after "a configuration has no".
fn too_much(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Nodes { .. } => format!("more than {VALUES_MAX} values"),
        BudgetBreach::RecordedAnchorEvents { .. } => {
            format!("more than {ANCHORED_MAX} values in anchors")
        }
        BudgetBreach::Depth { .. } => format!("more than {DEPTH_MAX} sections inside each other"),
        BudgetBreach::Documents { .. } => "second document".to_owned(),
        // These have the bounds of the reader.
        other => format!("use for that much: {other:?}"),
    }
}

/// Returns whether an error says that there is no such file. A file in the place of the directory counts, too.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LEN_MAX + 1).read_to_string(&mut text)?;
    if LEN_MAX < u64::try_from(text.len()).map_err(io::Error::other)? {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

fn write_durably(
    temporary: &Path,
    path: &Path,
    directory: &Path,
    text: &str,
) -> Result<(), (&'static str, io::Error)> {
    let mut file = File::create_new(temporary).map_err(|error| ("create", error))?;
    file.write_all(text.as_bytes()).map_err(|error| ("write", error))?;
    file.sync_all().map_err(|error| ("sync", error))?;
    rename_no_replace(temporary, path).map_err(|error| ("rename", error))?;
    sync_directory(directory).map_err(|error| ("sync the directory of", error))
}

/// Renames a file atomically, and fails if the new name is taken.
fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems without that flag have links, which never replace.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => Ok(result?),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Config>, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_NAME), text).unwrap();
        Config::read(directory.path())
    }

    fn config() -> Config {
        Config {
            source: SourceConfig { kind: SourceKind::File, filename: "/dev/vg/a: #b".into() },
            whisper: None,
            schedule: None,
            store: Some("/srv/store".into()),
            name: Some("vm1".parse().unwrap()),
        }
    }

    #[test]
    fn configuration_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Config::read(directory.path()).unwrap().is_none());
        config().write_new(directory.path()).unwrap();
        assert_eq!(Config::read(directory.path()).unwrap(), Some(config()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn configuration_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        config().write_new(directory.path()).unwrap();
        let other = Config { store: None, ..config() };
        assert!(matches!(other.write_new(directory.path()), Err(ConfigError::Exists { .. })));
        assert_eq!(Config::read(directory.path()).unwrap(), Some(config()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn schedule_of_the_ancestor_is_read() {
        let config = read(
            "source: {type: file, filename: /x.img}\nschedule:\n  daily: {interval: 1d, keep: 9}\n  \
             hourly:\n    interval: 3600\n    keep: 5\n",
        )
        .unwrap()
        .unwrap();
        let schedule = config.schedule.as_ref().unwrap();
        assert!(schedule.permits("daily") && schedule.permits("hourly"));
        let text = serde_saphyr::to_string(&config).unwrap();
        assert_eq!(read(&text).unwrap(), Some(config));
    }

    #[test]
    fn rules_of_the_calendar_are_read() {
        let config = read(
            "source: {type: file, filename: /x.img}\nschedule:\n  nightly: {keep-daily: 7, keep-weekly: 4}\n  \
             hourly: {interval: 1h, keep: 24, keep-daily: 2}\n  keep-monthly: 12\n",
        );
        let config = config.unwrap().unwrap();
        let schedule = config.schedule.as_ref().unwrap();
        assert!(schedule.permits("nightly") && !schedule.permits("keep-monthly"));
        assert!(!schedule.calendar().is_empty());
        let text = serde_saphyr::to_string(&config).unwrap();
        assert_eq!(read(&text).unwrap(), Some(config));
    }

    #[test]
    fn configuration_that_would_take_much_memory_is_rejected() {
        let start = "source: {type: file, filename: /x}\nschedule:\n  ";
        let nested = |opening: &str, item: &str, count: usize, closing: &str, depth: usize| {
            format!(
                "? {}{}{}\n  : x",
                opening.repeat(depth),
                item.repeat(count),
                closing.repeat(depth)
            )
        };
        for (rest, expected) in [
            (nested("&a [", "x,", 500, "]", 10), "more than 1000 values in anchors"),
            (nested("[", "x,", VALUES_MAX, "]", 1), "more than 10000 values"),
            (nested("[", "x", 1, "]", DEPTH_MAX), "more than 16 sections inside each other"),
        ] {
            let error = read(&(start.to_owned() + &rest)).unwrap_err().to_string();
            assert!(error.contains(&format!("a configuration has no {expected}")), "{error}");
        }
        let two = read("source: {type: file, filename: /x}\n---\nschedule: {}\n")
            .unwrap_err()
            .to_string();
        assert!(two.contains("a configuration has no second document"), "{two}");
        let tags: String =
            (0..1000).map(|tag| format!("t{tag}: {{interval: 1d, keep: 9}}\n  ")).collect();
        assert!(read(&(start.to_owned() + &tags)).is_ok());
    }

    #[test]
    fn missing_schedule_is_told_from_an_empty_one() {
        let schedule = |text: &str| {
            let text = format!("source: {{type: file, filename: /x}}\n{text}");
            read(&text).unwrap().unwrap().schedule
        };
        assert_eq!(schedule(""), None);
        assert_eq!(schedule("schedule: {}"), Some(Schedule::default()));
        assert_eq!(schedule("schedule:"), None);
    }

    #[test]
    fn what_is_wrong_with_a_schedule_is_named() {
        for (schedule, expected) in [
            ("daily: {interval: 0, keep: 1}", "above 0"),
            ("daily: {interval: 1d, keep: 0}", "at least 1"),
            ("daily: {interval: 1d, kep: 1}", "kep"),
            ("keep-hourly: 3", "keep-hourly"),
            ("daily: {keep: 3}", "keep needs interval"),
            ("daily: {interval: 1d}", "nothing says what is kept"),
            ("'a b': {interval: 1d, keep: 1}", "a b"),
        ] {
            let text = format!("source: {{type: file, filename: /x}}\nschedule:\n  {schedule}\n");
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{schedule}: {error}");
        }
    }

    #[test]
    fn wrong_configurations_are_rejected() {
        for text in [
            "",
            "source: {type: file}",
            "source: {type: rbd, filename: /x}",
            "source: {type: file, filename: /x}\nwhisper: {retention: 3}",
            "source: {type: whisper, filename: /x}\nwhisper: {retention: 0}",
            "source: {type: whisper, filename: /x}\nwhisper: {retentions: 3}",
            "source: {type: file, filename: /x, more: 1}",
            "source: {type: file, filename: /x}\nstroe: /y",
            "source: {type: file, filename: /x}\nname: a/b",
            "source: {type: file, filename: /x}\nschedule: {daily: {interval: 0, keep: 1}}",
            "source: {type: file, filename: /x}\nschedule: {daily: {interval: 1d, keep: 0}}",
            "source: {type: file, filename: /x}\nschedule: {daily: {interval: 1d}}",
            "source: {type: file, filename: /x}\nschedule: {'a b': {interval: 1d, keep: 1}}",
            "source: {type: file, filename: /x}\nsource: {type: file, filename: /y}",
            "a: &a [*a]",
        ] {
            assert!(matches!(read(text), Err(ConfigError::Invalid { .. })), "{text:?}");
        }
        let long = format!("#{}", "x".repeat(1 << 20));
        assert!(matches!(read(&long), Err(ConfigError::TooLong { .. })));
    }
}
