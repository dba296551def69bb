//! Images of any size that are computed where they are read, the same on every run.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result, bail};
use backy_benches::random_bytes;
use chunkstore::source::{Source, SourceError};
use chunkstore::target::{Target, TargetError};

const MIB: u64 = 1 << 20;

/// Length in bytes of what one revision of [`Content::Unique`] changes.
const CHANGE_LEN: u64 = 64 << 10;

/// Data ranges of a sparse image, of a MiB each; the last one is at its end.
const ISLAND_COUNT: u64 = 65;

/// Blocks of a MiB that a repeating image consists of. The chunks that lie across two of them are the most of its data.
const PATTERN_COUNT: u64 = 16;

/// An image without a file.
#[derive(Debug)]
pub(crate) struct ComputedImage {
    name: String,
    len: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// No chunk occurs twice. By block of [`CHANGE_LEN`]: the revision that changed it last.
    Unique { changes: BTreeMap<u64, u64> },
    /// Holes, and [`ISLAND_COUNT`] ranges of data.
    Sparse { starts: Vec<u64> },
    /// Patterns in an order that differs from span to span: every span has a page of its own, and few chunks are new.
    Repeating { patterns: Vec<Vec<u8>> },
}

impl ComputedImage {
    /// Returns the image that `name` describes: `unique:LEN:REVISION`, `sparse:LEN` or `repeating:LEN`.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let mut fields = name.split(':');
        let kind = fields.next().unwrap_or_default();
        let numbers = fields.map(str::parse).collect::<std::result::Result<Vec<u64>, _>>();
        let numbers = numbers.with_context(|| format!("image {name}"))?;
        let (len, content) = match (kind, numbers.as_slice()) {
            ("unique", [len, revision]) => {
                (*len, Content::Unique { changes: changes(*len, *revision) })
            }
            ("sparse", [len]) => (*len, Content::Sparse { starts: island_starts(*len) }),
            ("repeating", [len]) => {
                let pattern = |seed| random_bytes(1 << 20, seed);
                (*len, Content::Repeating { patterns: (1..=PATTERN_COUNT).map(pattern).collect() })
            }
            _ => bail!("{name} is no image"),
        };
        Ok(Self { name: name.to_owned(), len, content })
    }

    /// Fills `buffer`, which lies in one block of `block_len`.
    fn fill(&self, buffer: &mut [u8], offset: u64) {
        match &self.content {
            Content::Unique { changes } => {
                let revision = changes.get(&(offset / CHANGE_LEN)).copied().unwrap_or(0);
                fill_unique(buffer, offset, revision);
            }
            Content::Sparse { starts } => {
                if starts.iter().any(|start| (*start..start + MIB).contains(&offset)) {
                    fill_unique(buffer, offset, 0);
                } else {
                    buffer.fill(0);
                }
            }
            Content::Repeating { patterns } => {
                let pattern = &patterns[memory_len(mix(offset / MIB) % PATTERN_COUNT)];
                let start = memory_len(offset % MIB);
                buffer.copy_from_slice(&pattern[start..start + buffer.len()]);
            }
        }
    }
}

impl Source for ComputedImage {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        let Content::Sparse { starts } = &self.content else {
            return Ok((offset < self.len).then_some(offset..self.len));
        };
        let next = starts.iter().find(|start| offset < *start + MIB);
        Ok(next.map(|start| offset.max(*start)..start + MIB))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let mut rest = buffer;
        let mut position = offset;
        while !rest.is_empty() {
            let len = memory_len(CHANGE_LEN - position % CHANGE_LEN).min(rest.len());
            let (part, behind) = rest.split_at_mut(len);
            self.fill(part, position);
            position += len as u64;
            rest = behind;
        }
        Ok(())
    }
}

/// Bytes that only their place and a revision determine, and that do not compress.
fn fill_unique(buffer: &mut [u8], offset: u64, revision: u64) {
    let word = |place: u64| mix(place ^ (revision << 56)).to_le_bytes();
    let skipped = memory_len(offset % 8);
    let mut place = offset / 8;
    let (head, rest) = buffer.split_at_mut(((8 - skipped) % 8).min(buffer.len()));
    if !head.is_empty() {
        head.copy_from_slice(&word(place)[skipped..skipped + head.len()]);
        place += 1;
    }
    let mut words = rest.chunks_exact_mut(8);
    for bytes in &mut words {
        bytes.copy_from_slice(&word(place));
        place += 1;
    }
    let tail = words.into_remainder();
    tail.copy_from_slice(&word(place)[..tail.len()]);
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): neighbouring numbers become unrelated ones.
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn changes(len: u64, revision: u64) -> BTreeMap<u64, u64> {
    let blocks = (len / CHANGE_LEN).max(1);
    (1..=revision).map(|revision| (mix(revision) % blocks, revision)).collect()
}

fn island_starts(len: u64) -> Vec<u64> {
    let last = len.saturating_sub(MIB);
    (0..ISLAND_COUNT)
        .map(|island| last / (ISLAND_COUNT - 1) * island / MIB * MIB)
        .chain([last])
        .collect()
}

fn memory_len(len: u64) -> usize {
    usize::try_from(len).expect("it is at most a MiB")
}

/// A target that keeps nothing: a restore then costs what the store costs.
#[derive(Debug)]
pub(crate) struct Nowhere;

impl Target for Nowhere {
    fn name(&self) -> &'static str {
        "nowhere"
    }

    fn prepare(&self, _len: u64) -> Result<(), TargetError> {
        Ok(())
    }

    fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> Result<(), TargetError> {
        Ok(())
    }

    fn zero_at(&self, _offset: u64, _len: u64) -> Result<(), TargetError> {
        Ok(())
    }

    fn makes_holes(&self) -> bool {
        true
    }

    fn finish(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn read_exact_at(&self, _buffer: &mut [u8], _offset: u64) -> Result<(), TargetError> {
        Err(TargetError::NotReadable { name: self.name().to_owned() })
    }
}
