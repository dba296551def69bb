//! The verbs: one file, one entry point, one `*Options`, one `*Stats` each.

mod backup;
mod findings;
mod forget;
mod info;
mod page_bounds;
pub mod purge;
mod rebuild_index;
mod restore;
#[cfg(test)]
mod tests;
mod verify;

pub use backup::{BackupError, BackupOptions, BackupStats, backup};
pub use findings::{DamagedChunk, DamagedRanges};
pub use forget::{ForgetStats, forget};
pub use info::{StoreInfo, info};
pub use rebuild_index::{RebuildStats, rebuild_index};
pub use restore::{RestoreError, RestoreOptions, RestoreStats, restore};
pub use verify::{VerifyOptions, VerifyStats, verify};
