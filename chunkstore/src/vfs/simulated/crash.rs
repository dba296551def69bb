//! What a power cut leaves behind.

use std::collections::BTreeMap;

use crate::vfs::simulated::random::Random;
use crate::vfs::simulated::state::{FileNode, State};

/// What becomes of writes and changes of length that no sync has made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnsyncedData {
    /// All are lost.
    Lost,
    /// Any of them are kept, each whole.
    AnyWrites,
    /// Any 512-byte sectors of them are kept, and the length grows over those lost or not.
    AnySectors,
    /// The lengths are kept, the bytes are lost; what is new in length is zero.
    ZeroTail,
    /// All are kept.
    Kept,
}

/// What becomes of changes of names that no sync has made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnsyncedNames {
    /// All are lost.
    Lost,
    /// The first so many of the whole file system are kept, as a journal does.
    Prefix,
    /// Any are kept, each whole.
    AnySubset,
    /// All are kept.
    Kept,
}

/// How a power cut treats what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CrashMode {
    /// Bytes and lengths.
    pub data: UnsyncedData,
    /// Names.
    pub names: UnsyncedNames,
}

impl CrashMode {
    /// Returns every combination.
    pub fn all() -> impl Iterator<Item = Self> {
        use UnsyncedData::{AnySectors, AnyWrites, ZeroTail};
        let data = [UnsyncedData::Lost, AnyWrites, AnySectors, ZeroTail, UnsyncedData::Kept];
        let names = [
            UnsyncedNames::Lost,
            UnsyncedNames::Prefix,
            UnsyncedNames::AnySubset,
            UnsyncedNames::Kept,
        ];
        data.into_iter().flat_map(move |data| names.map(|names| Self { data, names }))
    }
}

/// Returns the file system as the next start of the machine finds it.
pub(super) fn after_crash(state: &State, mode: CrashMode, seed: u64) -> State {
    let mut random = Random::new(seed);
    let mut names = state.durable.clone();
    let prefix = random.below(state.pending_names.len() + 1);
    let density = random.density();
    for (index, pending) in state.pending_names.iter().enumerate() {
        let kept = match mode.names {
            UnsyncedNames::Lost => false,
            UnsyncedNames::Prefix => index < prefix,
            UnsyncedNames::AnySubset => random.chance(density),
            UnsyncedNames::Kept => true,
        };
        if kept {
            names.apply(&pending.change);
        }
    }
    names.retain_reachable();
    let mut files = BTreeMap::new();
    for (node, file) in &state.files {
        if names.is_named(*node) {
            let data = file.data.after_crash(mode.data, &mut random);
            files.insert(*node, FileNode::of(data));
        }
    }
    state.successor(files, names.clone(), names, Vec::new())
}
