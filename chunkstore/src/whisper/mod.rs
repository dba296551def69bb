//! Whisper files, in which Graphite keeps one metric each: decoding, reading, writing, and filling the gaps of one from
//! another.
//!
//! Pure: bytes in, bytes out. A file is worked on in memory ([`WhisperFile`]); it knows which of its bytes were changed, so
//! that only these need to be written back. Times are seconds since 1970; the present is an argument.
//!
//! # The file
//!
//! All numbers are big-endian. A **header** ([`Header`]):
//!
//! | offset | size | field | type | limits |
//! |---|---|---|---|---|
//! | 0 | 4 | aggregation | u32 | 1 to 8, see [`Aggregation`] |
//! | 4 | 4 | longest retention of an archive, seconds | u32 | |
//! | 8 | 4 | x-files factor | f32 | 0 to 1 |
//! | 12 | 4 | number of archives | u32 | 1 to 64 |
//! | 16 | 12 each | archives: offset in the file, step in seconds, number of slots | 3 x u32 | at most 2^26 slots |
//!
//! An **archive** is a ring of slots of 12 bytes: the time of a **point** (u32), and its value (f64). The time is a multiple of
//! the **step**; a point stands for the time from there to the next step. The time in the first slot is the **base** of the
//! archive, 0 if nothing was written yet. The point of time `t` has slot `floor((t - base) / step) mod slots`. Nothing is ever
//! erased: a slot has a point only if the time in it leads to this slot, and the point of `t` is there only if this
//! time is `t`. Time 0 therefore never is a point.
//!
//! Archives are sorted, the finest first: every step is a multiple of the one before, every **retention** (step times slots) is
//! longer. A point that is written goes to the finest archive that reaches back to it, and from there by **propagation** to the
//! coarser ones: the points of one archive that fall into one step of the next are aggregated, if the known ones are at least
//! the x-files factor of all.
//!
//! # Sources
//!
//! What a file means is what the Python package `whisper` 1.1.10 does with it; the tests compare with it. It checks
//! less: where it would fail, read another archive, or compute for hours, [`Header::decode`] refuses the file. Three things
//! are different on purpose, none of which occurs in files that Graphite writes: an archive without base is empty whatever
//! follows; no point has time 0; and no run of points is written past the end of its archive.
//!
//! Filling gaps: [`Backfill`].

mod aggregation;
mod backfill;
mod changes;
mod fetch;
mod file;
mod header;
mod ring;
#[cfg(test)]
mod tests;
mod update;
mod whisper_error;

pub use aggregation::Aggregation;
pub use backfill::{Backfill, BackfillStats, backfill};
pub use fetch::Series;
pub use file::WhisperFile;
pub use header::{Archive, Header, Retention};
pub use ring::Point;
pub use whisper_error::WhisperError;
