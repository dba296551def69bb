//! The verbs: one file, one entry point, one `*Options`, one `*Stats` each.

mod backup;
mod coverage;
mod diff;
mod distrust;
pub mod expire;
mod findings;
mod forget;
mod healing;
mod info;
mod page_bounds;
mod protect;
pub mod purge;
mod rate_limit;
mod rebuild_index;
pub mod repair;
mod restore;
mod scrub;
mod space;
mod tags;
#[cfg(test)]
mod tests;
pub mod thin;
mod verify;

pub use backup::{
    BackupError, BackupOptions, BackupStats, FileProblem, Recheck, SampleMismatch, SampleSize,
    SampleStats, TreeBackupOptions, TreeBackupStats, TreeCounts, backup, backup_tree, preview_tree,
};
pub use coverage::{Coverage, coverage};
pub use diff::{Diff, DiffStats, diff};
pub use distrust::{DistrustStats, distrust};
pub use findings::{DamagedChunk, DamagedRanges};
pub use forget::{ForgetStats, forget};
pub use info::{StoreInfo, info};
pub use protect::{ProtectStats, protect};
pub use rebuild_index::{RebuildStats, rebuild_index};
pub use restore::{
    RestoreError, RestoreOptions, RestoreStats, TreeProblem, TreeProblemReason, TreeRestoreOptions,
    TreeRestoreStats, TreeSetAside, restore, restore_tree,
};
pub use scrub::{ScrubOptions, ScrubStats, scrub};
pub use space::{RevisionSpace, space};
pub use tags::{TagChange, TagEdit, TagOptions, TagStats, edit_tags};
pub use verify::{VerifyOptions, VerifyStats, verify};

/// Memory in bytes that the buffers of an operation share unless it is told otherwise. With what the program itself takes and
/// the allocator leaves unused, it stays below 256 MiB.
pub const MEMORY_DEFAULT: usize = 200 << 20;
