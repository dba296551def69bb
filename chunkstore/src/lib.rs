//! Content-addressed store of disk images.

pub mod error;
pub mod format;
pub mod id;
pub mod limits;
pub mod progress;
pub mod time;
pub mod units;
