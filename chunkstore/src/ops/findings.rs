//! Damage that an operation found: which chunk, which pack, which bytes of which revisions.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ObjectName, Result};
use crate::id::{ChunkId, PackId, RevisionId};

/// A chunk, page or root that cannot be had, and what that costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedChunk {
    /// The id.
    pub chunk: ChunkId,
    /// The pack that has it, or should have it, if one is known.
    pub pack: Option<PackId>,
    /// What is wrong.
    pub reason: String,
    /// The revisions that need it, as far as they were looked at.
    pub revisions: Vec<DamagedRanges>,
}

/// Bytes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRanges {
    /// The revision.
    pub id: RevisionId,
    /// Offset and length in bytes, ascending; neighbours are joined.
    pub ranges: Vec<(u64, u64)>,
}

/// Collects damage without saying anything twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    chunks: BTreeMap<ChunkId, Finding>,
}

#[derive(Clone, Debug)]
struct Finding {
    pack: Option<PackId>,
    reason: String,
    revisions: BTreeMap<RevisionId, Vec<(u64, u64)>>,
}

impl Findings {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn contains(&self, chunk: &ChunkId) -> bool {
        self.chunks.contains_key(chunk)
    }

    /// Adds a chunk with the reason why it cannot be had.
    pub(crate) fn add(&mut self, chunk: ChunkId, error: &Error) {
        let pack = match error {
            Error::Damaged { object, .. } | Error::Missing { object } => match object {
                ObjectName::Chunk { pack, .. } => *pack,
                ObjectName::Pack(pack) => Some(*pack),
                _ => None,
            },
            _ => None,
        };
        self.chunks.entry(chunk).or_insert_with(|| Finding {
            pack,
            reason: with_causes(error),
            revisions: BTreeMap::new(),
        });
    }

    /// Adds a chunk that is damaged or missing; any other error is returned.
    pub(crate) fn add_damage(&mut self, chunk: ChunkId, error: Error) -> Result<()> {
        if !error.is_damage() {
            return Err(error);
        }
        self.add(chunk, &error);
        Ok(())
    }

    /// Adds bytes of a revision that need a chunk which was added before.
    pub(crate) fn add_range(
        &mut self,
        chunk: &ChunkId,
        revision: RevisionId,
        offset: u64,
        len: u64,
    ) {
        if let Some(finding) = self.chunks.get_mut(chunk) {
            finding.revisions.entry(revision).or_default().push((offset, len));
        }
    }

    /// Returns the chunks that cannot be had.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &ChunkId> {
        self.chunks.keys()
    }

    /// Takes out the findings of some chunks.
    pub(crate) fn take(&mut self, chunks: &BTreeSet<ChunkId>) -> Self {
        let (taken, left) =
            std::mem::take(&mut self.chunks).into_iter().partition(|(id, _)| chunks.contains(id));
        self.chunks = left;
        Self { chunks: taken }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (chunk, finding) in other.chunks {
            match self.chunks.get_mut(&chunk) {
                Some(known) => {
                    for (revision, ranges) in finding.revisions {
                        known.revisions.entry(revision).or_default().extend(ranges);
                    }
                }
                None => {
                    self.chunks.insert(chunk, finding);
                }
            }
        }
    }

    pub(crate) fn into_damaged(self) -> Vec<DamagedChunk> {
        let damaged = |(chunk, finding): (ChunkId, Finding)| DamagedChunk {
            chunk,
            pack: finding.pack,
            reason: finding.reason,
            revisions: finding
                .revisions
                .into_iter()
                .map(|(id, ranges)| DamagedRanges { id, ranges: joined(ranges) })
                .collect(),
        };
        self.chunks.into_iter().map(damaged).collect()
    }
}

/// Sorts ranges, drops repetitions and joins neighbours.
fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, len) in ranges {
        match joined.last_mut() {
            Some(last) if start <= last.0 + last.1 => {
                last.1 = last.1.max(start + len - last.0);
            }
            _ => joined.push((start, len)),
        }
    }
    joined
}

/// Returns an error and its causes in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_and_neighbours_are_joined() {
        let ranges = vec![(20, 5), (0, 10), (10, 10), (40, 1), (0, 10), (42, 1)];
        assert_eq!(joined(ranges), [(0, 25), (40, 1), (42, 1)]);
    }
}
