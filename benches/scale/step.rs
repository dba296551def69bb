//! One operation in a process of its own: how long it took, and the most memory that it had.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use chunkstore::chunking::ChunkingParams;
use chunkstore::image_reader::ImageReader;
use chunkstore::ops::{self, BackupOptions, RestoreOptions, VerifyOptions, purge};
use chunkstore::progress::NoProgress;
use chunkstore::revision::Revision;
use chunkstore::store::{Store, StoreOptions};

use crate::image::{ComputedImage, Nowhere};

/// First argument of a process that runs one operation.
pub(crate) const STEP: &str = "--step";

/// Bytes that are read at one place of an image.
const BLOCK_LEN: usize = 4096;

/// An operation that is over.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// How long the operation took, without the start of its process.
    pub duration: Duration,
    /// The most resident memory of the process, in KiB.
    pub peak_kib: u64,
    /// What else it said.
    pub note: String,
}

/// Runs an operation on `store` in a new process.
pub(crate) fn run(store: &Path, verb: &str, arguments: &[&str]) -> Result<Outcome> {
    let output = Command::new(std::env::current_exe()?)
        .args([STEP, verb])
        .arg(store)
        .args(arguments)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    let mut fields = text.trim().splitn(3, ' ');
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    let (Some(nanoseconds), Some(peak_kib)) = (number(), number()) else {
        bail!("{verb} printed {text:?}");
    };
    let note = fields.next().unwrap_or_default().to_owned();
    Ok(Outcome { duration: Duration::from_nanos(nanoseconds), peak_kib, note })
}

/// Runs an operation that changes nothing; of a short one the median of five runs counts.
pub(crate) fn run_median(store: &Path, verb: &str, arguments: &[&str]) -> Result<Outcome> {
    let mut outcomes = vec![run(store, verb, arguments)?];
    if outcomes[0].duration < Duration::from_secs(1) {
        for _ in 1..5 {
            outcomes.push(run(store, verb, arguments)?);
        }
    }
    outcomes.sort_by_key(|outcome| outcome.duration);
    Ok(outcomes.swap_remove(outcomes.len() / 2))
}

/// The process that [`run`] starts.
pub(crate) fn child(arguments: &[String]) -> Result<()> {
    let (Some(verb), Some(path)) = (arguments.first(), arguments.get(1)) else {
        bail!("{STEP} needs a verb and a store");
    };
    let start = Instant::now();
    let note = operate(verb, Path::new(path), &arguments[2..])?;
    let nanoseconds = start.elapsed().as_nanos();
    writeln!(io::stdout(), "{nanoseconds} {} {note}", peak_kib()?)?;
    Ok(())
}

fn operate(verb: &str, path: &Path, arguments: &[String]) -> Result<String> {
    let argument = |index: usize| arguments.get(index).context("an argument is missing");
    if verb == "create" {
        return create(path, argument(0)?).map(|()| String::new());
    }
    let store = Store::open(path)?;
    Ok(match verb {
        "backup" => {
            let image = ComputedImage::parse(argument(1)?)?;
            let stats = ops::backup(
                &store,
                &image,
                &BackupOptions::new(argument(0)?.parse()?),
                &NoProgress,
            )?;
            ensure!(stats.warnings.is_empty(), "{:?}", stats.warnings);
            stats.statistics.new_chunks.to_string()
        }
        "grow" => {
            grow(&store, argument(0)?.parse()?, argument(1)?.parse()?, argument(2)?.parse()?)?
        }
        "history" => store.history(None)?.revisions.len().to_string(),
        "read ends" => read_ends(&store)?,
        "restore" => {
            let id = newest(&store)?.record.id;
            let stats =
                ops::restore(&store, &id, &Nowhere, &RestoreOptions::default(), &NoProgress)?;
            ensure!(stats.damaged.is_empty(), "damage in a new store");
            String::new()
        }
        "verify" => {
            let history = store.history(None)?;
            let ids: Vec<_> = history.revisions.iter().map(|revision| revision.record.id).collect();
            let stats = ops::verify(
                &store,
                &ids,
                &VerifyOptions { all_data: true, ..VerifyOptions::default() },
                &NoProgress,
            )?;
            ensure!(stats.is_sound(), "damage in a new store");
            stats.checked_chunks.to_string()
        }
        "purge plan" => {
            let plan = purge::plan(&store, &purge::PurgeOptions::default(), &NoProgress)?;
            let summary = plan.summary()?;
            ensure!(summary.free_bytes == 0, "{summary:?}");
            String::new()
        }
        "rebuild index" => ops::rebuild_index(&store, &NoProgress)?.chunks.to_string(),
        "info" => {
            let info = ops::info(&store)?;
            let index_len = fs::metadata(store.index_path())?.len();
            format!("{} {} {} {index_len}", info.chunks, info.packs, info.stored_bytes)
        }
        other => bail!("{other} is no operation"),
    })
}

fn create(path: &Path, chunking: &str) -> Result<()> {
    let options = match chunking {
        "image" => StoreOptions::default(),
        "smallest" => {
            let chunking = ChunkingParams::new(64, 256, 1024)?;
            StoreOptions { chunking, ..StoreOptions::default() }
        }
        other => bail!("{other} is no chunking"),
    };
    Store::create(path, &options)?;
    Ok(())
}

/// Makes revisions `first..=last` of an image, each with one small change.
fn grow(store: &Store, len: u64, first: u64, last: u64) -> Result<String> {
    for revision in first..=last {
        let image = ComputedImage::parse(&format!("unique:{len}:{revision}"))?;
        ops::backup(store, &image, &BackupOptions::new("disk".parse()?), &NoProgress)?;
    }
    Ok(String::new())
}

/// Opens the newest revision and reads its first and its last block.
fn read_ends(store: &Store) -> Result<String> {
    let reader = ImageReader::open(store, &newest(store)?.record.id)?;
    let mut block = [0; BLOCK_LEN];
    for offset in [0, reader.len() - BLOCK_LEN as u64] {
        reader.read_exact_at(&mut block, offset)?;
        ensure!(block.iter().any(|byte| *byte != 0), "no data at {offset}");
    }
    Ok(String::new())
}

fn newest(store: &Store) -> Result<Revision> {
    store.history(None)?.revisions.pop().context("there is no revision")
}

/// Returns the largest memory that this process has had resident.
fn peak_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("the kernel does not tell the peak of memory")?;
    Ok(kib.trim().trim_end_matches(" kB").parse()?)
}
