//! What the ways to cut whisper files cost: bytes stored for the tree of one day, and bytes added for the next one.
//!
//! How to run and read it: `docs/performance.md`, section "Cutting whisper files".

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use chunkstore::chunking::{
    ChunkingParams, Cutter, PointArchive, PointRange, block_points, point_ranges_by,
};
use chunkstore::compression::Compressor;
use chunkstore::format::{ObjectKind, RecordHeader};
use chunkstore::id::ChunkId;

/// Bytes of a chunk besides its payload: record header, entry of the pack's footer, and what the index grows by.
const CHUNK_OVERHEAD: usize = RecordHeader::LEN + 48 + 125;

/// Bytes of the entries of a chunk list.
const DATA_ENTRY_LEN: usize = 37;
const ZERO_ENTRY_LEN: usize = 9;

const USAGE: &str = "usage: whisper-cut DAY1 DAY2 [EVERY]
Prints what each way to cut stores for two trees of whisper files. Looks at every file, or at one of EVERY.";

#[expect(clippy::print_stdout, reason = "a measurement prints")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (days, every) = match &arguments[..] {
        [first, second] => ([first, second], 1),
        [first, second, every] => ([first, second], every.parse().context(USAGE)?),
        _ => bail!("{USAGE}"),
    };
    let rules: Vec<(String, Rule)> = [256, 341, 512, 1024, 2048, 4096]
        .map(|points| (format!("{points} points"), Rule::Points(Box::new(move |_| points))))
        .into_iter()
        .chain([(4, 512), (6, 512), (8, 256), (8, 1024), (12, 512)].map(|(factor, min)| {
            let rule = move |point_count| even(point_count, factor, min);
            (format!("even, {factor} sqrt(n), at least {min}"), Rule::Points(Box::new(rule)))
        }))
        .chain([("as in the format".to_owned(), Rule::Points(Box::new(block_points)))])
        .chain([(
            "FastCDC 8 KiB".to_owned(),
            Rule::Content(Box::new(Cutter::new(&ChunkingParams::new(2 << 10, 8 << 10, 32 << 10)?))),
        )])
        .collect();
    println!("| cut | chunks | day 1, MB | compress, MB/s | chunks added | day 2, MB |");
    println!("|---|---|---|---|---|---|");
    for (name, rule) in &rules {
        let mut tally = Tally::new()?;
        let mut rows = Vec::new();
        for day in days {
            let mut files = Vec::new();
            list_files(Path::new(day), &mut files)?;
            files.sort();
            ensure!(!files.is_empty(), "{day} has no files");
            let before = tally.sum;
            for path in files.iter().step_by(every) {
                tally.add_file(
                    rule,
                    &fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
                )?;
            }
            rows.push(tally.sum.since(before));
        }
        let [first, second] = &rows[..] else { bail!("there are two days") };
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            first.chunks,
            megabytes(first.stored),
            first.rate(),
            second.chunks,
            megabytes(second.stored),
        );
    }
    Ok(())
}

/// A way to cut.
enum Rule {
    /// So many points, of an archive with so many.
    Points(Box<dyn Fn(u32) -> u32>),
    /// Where the content says so.
    Content(Box<Cutter>),
}

/// Returns the length of as many equal ranges as ranges of `factor` times the square root would be.
fn even(point_count: u32, factor: u32, min: u32) -> u32 {
    let longest = (factor * point_count.isqrt()).max(min);
    point_count.div_ceil(point_count.div_ceil(longest).max(1)).max(1)
}

/// What was stored.
#[derive(Clone, Copy, Default)]
struct Sum {
    chunks: usize,
    stored: usize,
    plain: usize,
    compressing: Duration,
}

impl Sum {
    fn since(self, before: Self) -> Self {
        Self {
            chunks: self.chunks - before.chunks,
            stored: self.stored - before.stored,
            plain: self.plain - before.plain,
            compressing: self.compressing - before.compressing,
        }
    }

    /// Returns MB/s of new chunks, compressed and expanded again.
    fn rate(&self) -> u128 {
        self.plain as u128 / self.compressing.as_micros().max(1)
    }
}

fn megabytes(len: usize) -> String {
    format!("{}.{:02}", len / 1_000_000, len / 10_000 % 100)
}

/// A store that keeps lengths only.
struct Tally {
    compressor: Compressor,
    known: HashSet<ChunkId>,
    stored: Vec<u8>,
    sum: Sum,
}

impl Tally {
    fn new() -> Result<Self> {
        let compressor = Compressor::new(chunkstore::compression::LEVEL_DEFAULT)?;
        Ok(Self { compressor, known: HashSet::new(), stored: Vec::new(), sum: Sum::default() })
    }

    fn add_file(&mut self, rule: &Rule, bytes: &[u8]) -> Result<()> {
        match rule {
            Rule::Points(points) => {
                let archives = archives(bytes)?;
                let mut follows_zeros = false;
                for range in point_ranges_by(bytes.len() as u64, &archives, points) {
                    let PointRange { offset, len, has_points } = range;
                    let offset = usize::try_from(offset)?;
                    let chunk = &bytes[offset..offset + usize::try_from(len)?];
                    let is_zero = chunk.iter().all(|byte| *byte == 0);
                    if !is_zero {
                        self.add_chunk(chunk, has_points)?;
                    } else if !follows_zeros {
                        self.sum.stored += ZERO_ENTRY_LEN;
                    }
                    follows_zeros = is_zero;
                }
            }
            Rule::Content(cutter) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (chunk, behind) = rest.split_at(cutter.cut(rest));
                    self.add_chunk(chunk, false)?;
                    rest = behind;
                }
            }
        }
        Ok(())
    }

    fn add_chunk(&mut self, chunk: &[u8], has_points: bool) -> Result<()> {
        self.sum.stored += DATA_ENTRY_LEN;
        let kind = ObjectKind::Data;
        let id = kind.chunk_id(chunk);
        if !self.known.insert(id) {
            return Ok(());
        }
        let started = Instant::now();
        if has_points {
            self.compressor.compress_points(kind, &id, chunk, &mut self.stored)?;
        } else {
            self.compressor.compress(kind, &id, chunk, &mut self.stored)?;
        }
        self.sum.compressing += started.elapsed();
        self.sum.chunks += 1;
        self.sum.plain += chunk.len();
        self.sum.stored += self.stored.len() + CHUNK_OVERHEAD;
        Ok(())
    }
}

/// Reads where the archives are; a file with another header ends the measurement.
fn archives(bytes: &[u8]) -> Result<Vec<PointArchive>> {
    let number = |offset: usize| -> Result<u32> {
        let field = bytes.get(offset..offset + 4).context("a file ends in its header")?;
        Ok(u32::from_be_bytes(field.try_into()?))
    };
    let count = usize::try_from(number(12)?)?;
    (0..count)
        .map(|index| {
            let start = 16 + 12 * index;
            let offset = number(start)?.into();
            Ok(PointArchive { offset, point_count: number(start + 8)? })
        })
        .collect()
}

fn list_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            list_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
