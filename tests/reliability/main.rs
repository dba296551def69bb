//! Everything fails that can fail, on a simulated file system: power, syncs, calls. See `docs/reliability.md`.

mod crash;
mod faults;
#[cfg(feature = "planted-bugs")]
mod planted;
mod syncs;
