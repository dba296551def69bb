//! Lives of a small store: one language of operations for everything that stops, breaks or mutates them.
//!
//! A [`History`] is a list of operations on three images and a tree of files. Every list of bytes is one, so a random generator, a
//! fuzzer and a person who replays a failure all write the same thing; leaving out operations gives another history, so a
//! failure can be shrunk. A [`World`] carries a history out on a simulated file system, with production code only, and keeps
//! account in a [`Model`](crate::model::Model) of what was acknowledged before everything stopped.

mod damage;
mod operation;
mod world;

use std::fmt;
use std::str::FromStr;

pub use operation::{Fate, Operation};
pub use world::World;

use crate::images::Numbers;

/// Operations in their order.
#[derive(Clone, PartialEq, Eq)]
pub struct History {
    /// The operations. Each can be left out.
    pub operations: Vec<Operation>,
}

impl History {
    /// Returns the history that a seed determines.
    #[must_use]
    pub fn random(seed: u64, operation_count: usize) -> Self {
        let mut bytes = vec![0; operation_count * Operation::LEN];
        let mut numbers = Numbers::new(seed);
        // A store without revisions has nothing to lose.
        numbers.fill(&mut bytes, false);
        let first =
            [Operation::BackUp { source: 0, edit: 1 }, Operation::BackUp { source: 0, edit: 2 }];
        let rest = Self::from_bytes(&bytes).operations;
        Self { operations: first.into_iter().chain(rest).take(operation_count).collect() }
    }

    /// Returns a history in which each kind of operation has something to do: its calls are those that are dropped, failed
    /// and stopped one by one.
    #[must_use]
    pub fn of_everything() -> Self {
        use Operation::*;
        let operations = vec![
            BackUp { source: 0, edit: 1 },
            BackUp { source: 0, edit: 2 },
            BackUp { source: 1, edit: 3 },
            BackUpTree { edit: 4 },
            Tag { pick: 0, tags: 1, autoremove: false },
            Protect { pick: 1, is_protected: true },
            Forget { pick: 2 },
            Purge { has_grace: true },
            BackUp { source: 2, edit: 5 },
            PassTime { hours: 30 },
            Purge { has_grace: false },
            RebuildIndex,
            Verify,
            Distrust { pick: 0 },
            BackUp { source: 0, edit: 6 },
            Rot { fate: Fate::State, place: 77 },
            Rot { fate: Fate::Condemned, place: 40 },
            Repair,
            Tag { pick: 1, tags: 1, autoremove: false },
            Tag { pick: 3, tags: 1, autoremove: false },
            Expire { source: 0, keep: 1 },
            BackUpTree { edit: 9 },
            Scrub,
            BackUp { source: 2, edit: 11 },
            BackUp { source: 2, edit: 12 },
            BackUp { source: 1, edit: 13 },
            Tag { pick: 2, tags: 0, autoremove: true },
            Purge { has_grace: false },
            BackUp { source: 1, edit: 10 },
        ];
        Self { operations }
    }

    /// Returns the history that bytes stand for; a rest that is too short for an operation is left out.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (operations, _rest) = bytes.as_chunks::<{ Operation::LEN }>();
        Self { operations: operations.iter().map(|bytes| Operation::decode(*bytes)).collect() }
    }

    /// Returns the history without a range of its operations.
    #[must_use]
    pub fn without(&self, range: std::ops::Range<usize>) -> Self {
        let mut operations = self.operations.clone();
        operations.drain(range);
        Self { operations }
    }
}

/// The form in which a failure names a history: hex digits, [`Operation::LEN`] bytes an operation.
impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.operations.iter().flat_map(|operation| operation.encode());
        bytes.into_iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.operations).finish()
    }
}

impl FromStr for History {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        };
        let bytes: Option<Vec<u8>> = text.trim().as_bytes().chunks(2).map(byte).collect();
        let bytes = bytes.ok_or_else(|| format!("not hex digits: {text}"))?;
        Ok(Self::from_bytes(&bytes))
    }
}
