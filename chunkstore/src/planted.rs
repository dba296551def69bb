//! Bugs that tests plant, one at a time, to show that they would be found: each breaks one rule of `docs/durability.md`,
//! `docs/trust.md` or `docs/format.md`.
//!
//! Without the feature `planted-bugs` no bug is ever there, and the compiler leaves out what depends on one. No program turns
//! the feature on; `tests/reliability/planted.rs` does.

#[cfg(feature = "planted-bugs")]
use std::sync::atomic::{AtomicU8, Ordering};

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Bug {
    /// A file gets its name before its bytes are durable.
    FileNotSynced = 1,
    /// A new name is not made durable.
    NameNotSynced,
    /// A new directory is not made durable.
    DirectoryNotSynced,
    /// The removal of a record is not made durable.
    RemovalNotSynced,
    /// A purge relies on removals that are not durable.
    RevisionsNotSynced,
    /// A sync that failed is tried again, and the second answer believed.
    SyncRetried,
    /// A sync that failed counts as done.
    SyncErrorIgnored,
    /// A write that failed counts as done.
    WriteErrorIgnored,
    /// A directory that cannot be listed counts as empty.
    ListErrorIgnored,
    /// A file is replaced by removing it first.
    ReplacedInTwoSteps,
    /// The state of a revision goes before its record.
    StateRemovedFirst,
    /// A protected revision can be forgotten.
    ProtectionIgnored,
    /// What is damaged is removed instead of being moved aside.
    EvidenceRemoved,
    /// Bytes are given out that were not hashed.
    ChunkUnhashed,
    /// Damage reads as zeros.
    DamageReadsAsZeros,
    /// The checksum of a document is not looked at.
    DocumentUnchecked,
    /// A purge passes over the first revision when it marks.
    RevisionUnmarked,
    /// A predicted chunk counts without a look at where the cutter would cut.
    PredictionUnconfirmed,
    /// A distrusted revision does not make the next backup write every chunk.
    DoubtIgnored,
    /// The index leads to a pack that has no name yet.
    IndexBeforePack,
    /// A chunk that the index knows counts as stored without a look at its record.
    HitUnchecked,
    /// Zeros in a list count as damage.
    ZerosTakenForDamage,
    /// The index leads to a pack that was found, whose name may not be durable.
    AdoptionNotSynced,
}

#[cfg(feature = "planted-bugs")]
impl Bug {
    /// Every bug.
    pub const ALL: [Self; 23] = [
        Self::FileNotSynced,
        Self::NameNotSynced,
        Self::DirectoryNotSynced,
        Self::RemovalNotSynced,
        Self::RevisionsNotSynced,
        Self::SyncRetried,
        Self::SyncErrorIgnored,
        Self::WriteErrorIgnored,
        Self::ListErrorIgnored,
        Self::ReplacedInTwoSteps,
        Self::StateRemovedFirst,
        Self::ProtectionIgnored,
        Self::EvidenceRemoved,
        Self::ChunkUnhashed,
        Self::DamageReadsAsZeros,
        Self::DocumentUnchecked,
        Self::RevisionUnmarked,
        Self::PredictionUnconfirmed,
        Self::DoubtIgnored,
        Self::IndexBeforePack,
        Self::HitUnchecked,
        Self::ZerosTakenForDamage,
        Self::AdoptionNotSynced,
    ];
}

/// The bug that is planted, 0 if none is.
#[cfg(feature = "planted-bugs")]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a bug in all stores of this process, in the place of any other; `None` takes it out.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
}

/// Returns whether this bug is planted.
#[cfg(feature = "planted-bugs")]
pub(crate) fn has(bug: Bug) -> bool {
    PLANTED.load(Ordering::SeqCst) == bug as u8
}

/// Returns that no bug is planted.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn has(_bug: Bug) -> bool {
    false
}
