//! The bytes of one whisper file: a header, then a ring of points for each archive.
//!
//! All numbers are big-endian. The first slot of a ring belongs to the oldest point that was ever written to it, and
//! all others follow from it. A slot whose series had no point in the last turn of the ring keeps the point of an
//! earlier turn, as in files that carbon writes.

use anyhow::{Context, Result, ensure};

use crate::DAY;

/// Length in bytes of a point: seconds since 1970 in four bytes, then a double.
const POINT_LEN: usize = 12;

/// Length in bytes of the header before the descriptions of the archives, and of one of these.
const HEADER_LEN: usize = 16;
const ARCHIVE_LEN: usize = 12;

/// Longest retention in seconds: the oldest point is after 1970.
const RETENTION_MAX: u32 = 50 * 365 * DAY;

/// Number of the aggregation "average".
const AVERAGE: u32 = 1;

/// The archives of a file, the finest first.
#[derive(Debug)]
pub(crate) struct Schema {
    archives: Vec<Archive>,
}

#[derive(Clone, Copy, Debug)]
struct Archive {
    /// Seconds between two points.
    step: u32,
    points: u32,
}

impl Schema {
    /// Reads a schema such as `60s:7d,5m:30d`: step and retention of each archive.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut archives: Vec<Archive> = Vec::new();
        for part in text.split(',') {
            let (step, retention) = part.split_once(':').context("an archive is STEP:RETENTION")?;
            let (step, retention) = (seconds(step)?, seconds(retention)?);
            ensure!(
                step > 0 && retention.is_multiple_of(step),
                "{part}: no whole number of points"
            );
            ensure!(retention < RETENTION_MAX, "{part}: begins before 1970");
            ensure!(DAY.is_multiple_of(step), "{part}: a day has no whole number of points");
            if let Some(finer) = archives.last() {
                ensure!(
                    finer.points >= step / finer.step,
                    "{part}: the archive before it is too short"
                );
                ensure!(
                    step > finer.step
                        && step % finer.step == 0
                        && retention > finer.step * finer.points,
                    "{part}: not coarser and longer than the archive before it"
                );
            }
            archives.push(Archive { step, points: retention / step });
        }
        Ok(Self { archives })
    }

    /// Returns how many seconds the longest archive covers.
    pub(crate) fn retention(&self) -> u32 {
        self.archives.last().map_or(0, |archive| archive.step * archive.points)
    }

    pub(crate) fn finest_step(&self) -> u32 {
        self.archives[0].step
    }
}

/// Reads a number with its unit.
fn seconds(text: &str) -> Result<u32> {
    let number = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "y" => 365 * 86_400,
        other => anyhow::bail!("{other:?} is no unit of time"),
    };
    let number: u32 = number.parse().with_context(|| format!("{text:?} is no duration"))?;
    number.checked_mul(unit).context("the duration is too long")
}

/// One file that is being filled.
#[derive(Debug)]
pub(crate) struct Rings {
    bytes: Vec<u8>,
    rings: Vec<Ring>,
}

/// One archive and everything that is ever written to it.
#[derive(Debug)]
struct Ring {
    offset: usize,
    points: usize,
    step: u32,
    /// Time of the first value.
    start: u32,
    /// One for each step; what is missing is not a number.
    values: Vec<f64>,
    /// Index of the value that has the first slot.
    base: usize,
    /// Values before this index have been written.
    written: usize,
}

impl Rings {
    /// Prepares a file for a series that begins at `start`. Each coarser archive has the averages of the finer one,
    /// where at least `files_factor` of its points are known.
    pub(crate) fn new(schema: &Schema, files_factor: f32, start: u32, values: &[f64]) -> Self {
        let count = schema.archives.len();
        let mut offset = HEADER_LEN + count * ARCHIVE_LEN;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&AVERAGE.to_be_bytes());
        bytes.extend_from_slice(&schema.retention().to_be_bytes());
        bytes.extend_from_slice(&files_factor.to_be_bytes());
        bytes.extend_from_slice(&four_bytes(count).to_be_bytes());
        let mut rings: Vec<Ring> = Vec::new();
        for archive in &schema.archives {
            for number in [four_bytes(offset), archive.step, archive.points] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            let values = match rings.last() {
                None => values.to_vec(),
                Some(finer) => averages(&finer.values, archive.step / finer.step, files_factor),
            };
            let base = values.iter().position(|value| !value.is_nan()).unwrap_or(0);
            let points = usize::try_from(archive.points).expect("a ring fits into memory");
            rings.push(Ring {
                offset,
                points,
                step: archive.step,
                start,
                values,
                base,
                written: 0,
            });
            offset += points * POINT_LEN;
        }
        bytes.resize(offset, 0);
        Self { bytes, rings }
    }

    /// Writes all points before `end`, in their order.
    pub(crate) fn write_until(&mut self, end: u32) {
        for ring in &mut self.rings {
            let last =
                usize::try_from((end - ring.start) / ring.step).expect("it fits into memory");
            for index in ring.written..last {
                let value = ring.values[index];
                if value.is_nan() {
                    continue;
                }
                let slot = ring.offset + (index - ring.base) % ring.points * POINT_LEN;
                let interval = ring.start + four_bytes(index) * ring.step;
                self.bytes[slot..slot + 4].copy_from_slice(&interval.to_be_bytes());
                self.bytes[slot + 4..slot + POINT_LEN].copy_from_slice(&value.to_be_bytes());
            }
            ring.written = last;
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn averages(values: &[f64], width: u32, files_factor: f32) -> Vec<f64> {
    let average = |group: &[f64]| {
        let known = group.iter().filter(|value| !value.is_nan());
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        let enough = count > 0.0 && count / f64::from(width) >= f64::from(files_factor);
        if enough { sum / count } else { f64::NAN }
    };
    let width = usize::try_from(width).expect("it fits into memory");
    values.chunks_exact(width).map(average).collect()
}

fn four_bytes(number: usize) -> u32 {
    u32::try_from(number).expect("places in a file are below 4 GiB")
}
