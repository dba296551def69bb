//! The binary on real file systems and devices, beside other processes, under signals: what only
//! the operating system can show. What a machine cannot do is skipped with a line that says so.

#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot prepare fails it, and the place says what"
)]

mod bad_source;
mod compare;
mod failing_calls;
mod failing_disk;
mod full_disk;
mod guest;
mod kill;
mod kill_history;
mod killer;
pub(crate) mod machine;
mod peers;
mod power_loss;
mod processes;
mod read_only;
mod real_images;
pub(crate) mod running;
mod syncs;
mod turmoil;
mod whisper_trees;
