//! Content-addressed store of disk images.

pub mod environment;
pub mod error;
pub mod id;
pub mod limits;
pub mod progress;
pub mod time;
pub mod units;
