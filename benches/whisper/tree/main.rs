//! Makes trees of whisper files as Graphite keeps them, one for each day: the same series with one more day of points
//! in every file.
//!
//! How the trees are used, and what they hold: `docs/performance.md`, section "Whisper trees". The same seed gives the
//! same bytes. A file is computed once for all days, so that its slots stay where they are.

mod rings;
mod series;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::rings::{Rings, Schema};
use crate::series::{Kind, METRICS, Metric, Random};

/// End of the first day: 2024-03-02 00:00:00 UTC.
const FIRST_DAY_END: u32 = 1_709_337_600;

/// Seconds of a day.
const DAY: u32 = 86_400;

/// Hosts of one rack, which share a directory.
const HOSTS_PER_RACK: u32 = 25;

const USAGE: &str =
    "usage: whisper-tree DIR [--files 2200] [--schema 60s:14d,5m:30d,1h:1y] [--days 2] [--seed 1]
Writes DIR/day1, DIR/day2, ...: the trees as they are at the end of each day.";

fn main() -> Result<()> {
    let plan = Plan::parse(std::env::args().skip(1))?;
    for day in 0..plan.days {
        let tree = plan.tree(day);
        ensure!(!tree.exists(), "{} exists", tree.display());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = u32::try_from(threads)?;
    let done: Vec<Result<()>> = std::thread::scope(|scope| {
        let plan = &plan;
        let workers: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || plan.write_hosts(first, threads)))
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    done.into_iter().collect()
}

/// What is to be written.
#[derive(Debug)]
struct Plan {
    directory: PathBuf,
    files: u32,
    schema: Schema,
    days: u32,
    seed: u64,
}

impl Plan {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut directory, mut files, mut days, mut seed) = (None, 2200, 2, 1);
        let mut schema = "60s:14d,5m:30d,1h:1y".to_owned();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument}: no value\n{USAGE}"));
            match argument.as_str() {
                "--files" => files = value()?.parse().context("--files")?,
                "--schema" => schema = value()?,
                "--days" => days = value()?.parse().context("--days")?,
                "--seed" => seed = value()?.parse().context("--seed")?,
                path if directory.is_none() && !path.starts_with('-') => {
                    directory = Some(path.into());
                }
                _ => bail!("{argument} is not understood\n{USAGE}"),
            }
        }
        let directory = directory.context(USAGE)?;
        ensure!(days > 0, "there is no day\n{USAGE}");
        let schema = Schema::parse(&schema).with_context(|| format!("schema {schema}"))?;
        Ok(Self { directory, files, schema, days, seed })
    }

    fn tree(&self, day: u32) -> PathBuf {
        self.directory.join(format!("day{}", day + 1))
    }

    /// Writes the files of every `step`-th host, beginning with the one at `first`.
    fn write_hosts(&self, first: u32, step: u32) -> Result<()> {
        let per_host = u32::try_from(METRICS.len())?;
        let hosts = self.files.div_ceil(per_host);
        for host in (first..hosts).step_by(usize::try_from(step)?) {
            let count = usize::try_from(per_host.min(self.files - host * per_host))?;
            for (number, metric) in METRICS.iter().enumerate().take(count) {
                self.write_metric(host, u32::try_from(number)?, metric)?;
            }
        }
        Ok(())
    }

    /// Writes one file for each day.
    fn write_metric(&self, host: u32, number: u32, metric: &Metric) -> Result<()> {
        let host_seed = self.seed << 40 | u64::from(host) << 8;
        let start = FIRST_DAY_END - self.schema.retention();
        let end = FIRST_DAY_END + (self.days - 1) * DAY;
        let step = self.schema.finest_step();
        let created = self.created(&mut Random::new(host_seed | 0xff), start);
        let shared_seed = self.seed << 40 | 0xffff_ff00;
        let seed = if matches!(metric.kind, Kind::Constant) { shared_seed } else { host_seed };
        let mut random = Random::new(seed | u64::from(number));
        let values = metric.kind.values(&mut random, created, end, step);
        let mut rings = Rings::new(&self.schema, metric.kind.files_factor(), created, &values);
        let host = format!("servers/rack{:03}/host{host:05}", host / HOSTS_PER_RACK);
        for day in 0..self.days {
            let day_end = FIRST_DAY_END + day * DAY;
            rings.write_until(day_end);
            let path = self.tree(day).join(&host).join(format!("{}.wsp", metric.path));
            write_file(&path, rings.bytes(), day_end)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Returns when a host was set up: two thirds of them before the oldest point of any archive, the others on a day
    /// between then and now, so that some of their archives have never been full.
    fn created(&self, random: &mut Random, start: u32) -> u32 {
        if random.below(3) != 0 {
            return start;
        }
        start + random.below((FIRST_DAY_END - start) / DAY) * DAY
    }
}

fn write_file(path: &Path, bytes: &[u8], modified: u32) -> Result<()> {
    let parent = path.parent().context("a file of a tree has a directory")?;
    fs::create_dir_all(parent)?;
    fs::write(path, bytes)?;
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(modified.into());
    File::options().write(true).open(path)?.set_modified(modified)?;
    Ok(())
}
