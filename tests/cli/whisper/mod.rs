//! `backy` with whisper files: the commands of the group `whisper`, the general ones on such a source, and carbon beside them.
//!
//! What whisper-backup did wrong is in `predecessor`, one test for each fault.

#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot prepare fails it, and the place says what"
)]

mod arguments;
mod carbon;

mod damage;
mod documents;
mod jobs;
mod predecessor;
mod problems;
mod restoring;
mod shared_store;
mod start;
pub(crate) mod trees;
mod versions;
