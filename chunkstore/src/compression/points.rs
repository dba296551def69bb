//! Which columns shrink most, and the frame of them.
//!
//! Document: `docs/format.md`, section "Points". A reader is told the transform, so how it is found is free: from a sample of the
//! points, by units that fit all of them, or else by the entropy of each plane. The frame has a block for each plane, so that each has
//! statistics of its own; where the blocks end is free as well.

use std::io;
use std::ops::Range;

use zstd::bulk;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CParameter, InBuffer, OutBuffer, compress_bound, get_error_name};

use super::columns::{Scale, TIME_PLANE_COUNT, split};
use crate::format::{POINT_LEN, Transform, Unit};

/// Highest level of zstd for planes, which have little that repeats: level 5 takes twice the time for half a percent.
const LEVEL_MAX: i32 = 1;

/// Shortest repetition that is looked for. The default of level 1 finds more of them than pay.
const MATCH_LEN_MIN: u32 = 7;

/// Points that are looked at, in this many runs of equal length.
const SAMPLE_LEN: usize = 96;
const SAMPLE_RUN_COUNT: usize = 4;

/// Times are irregular if their planes have more bytes other than 0 than one in so many points, and a few.
const REGULAR_POINTS: usize = 16;
const IRREGULAR_BYTES: usize = 16;

/// A plane is hardly anything but zeros if it has at most so many other bytes, and one for so many points. The first point of a
/// chunk has nothing before it that predicts it, and a ring has a place where the newest point is followed by the oldest.
const ZERO_PLANE_BYTES: usize = 3;
const ZERO_PLANE_POINTS: usize = 128;

/// Makes payloads of points, one after another, with buffers that are made once.
pub(super) struct PointCompressor {
    context: bulk::Compressor<'static>,
    columns: Vec<u8>,
    sample: Sample,
}

impl PointCompressor {
    pub(super) fn new(level: i32) -> io::Result<Self> {
        let mut context = bulk::Compressor::new(level.min(LEVEL_MAX))?;
        context.set_parameter(CParameter::ContentSizeFlag(true))?;
        context.set_parameter(CParameter::ChecksumFlag(false))?;
        context.set_parameter(CParameter::MinMatch(MATCH_LEN_MIN))?;
        Ok(Self { context, columns: Vec::new(), sample: Sample::new() })
    }

    /// Replaces `out` by the payload for `plain`, which holds at least one point and whole ones only. Returns whether the times are regular: if not, the plain bytes may shrink more.
    pub(super) fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<bool> {
        let mut transform = self.sample.transform_of(plain);
        if !split(transform, plain, &mut self.columns) {
            transform = Transform::Delta;
            let is_exact = split(transform, plain, &mut self.columns);
            debug_assert!(is_exact, "all values have differences");
        }
        self.write_frame(transform, out)?;
        let point_count = plain.len() / POINT_LEN;
        let times = &self.columns[..TIME_PLANE_COUNT * point_count];
        Ok(nonzero_count(times) <= point_count / REGULAR_POINTS + IRREGULAR_BYTES)
    }

    fn write_frame(&mut self, transform: Transform, out: &mut Vec<u8>) -> io::Result<()> {
        let columns = &self.columns[..];
        let point_count = columns.len() / POINT_LEN;
        out.clear();
        // A block that does not shrink is stored as it is, with 3 bytes before it.
        out.reserve(1 + compress_bound(columns.len()) + 4 * POINT_LEN);
        out.push(transform.to_byte());
        self.context.set_pledged_src_size(Some(columns.len() as u64))?;
        let mut frame = OutBuffer::around_pos(out, 1);
        let mut start = 0;
        while start < columns.len() {
            let end = section_end(columns, start, point_count);
            let mut section = InBuffer::around(&columns[start..end]);
            let directive = if end == columns.len() {
                ZSTD_EndDirective::ZSTD_e_end
            } else {
                ZSTD_EndDirective::ZSTD_e_flush
            };
            let unwritten = self
                .context
                .context_mut()
                .compress_stream2(&mut frame, &mut section, directive)
                .map_err(|code| io::Error::other(get_error_name(code)))?;
            if unwritten != 0 || section.pos() != end - start {
                return Err(io::Error::other("the buffer for the frame is too short"));
            }
            start = end;
        }
        Ok(())
    }
}

/// Returns where the block ends that begins at `start`: adjacent planes of hardly anything but zeros are one block, each other
/// plane is one.
fn section_end(columns: &[u8], start: usize, point_count: usize) -> usize {
    let is_zero = |start: usize| {
        let plane = &columns[start..start + point_count];
        nonzero_count(plane) <= ZERO_PLANE_BYTES + point_count / ZERO_PLANE_POINTS
    };
    let mut end = start + point_count;
    if is_zero(start) {
        while end < columns.len() && is_zero(end) {
            end += point_count;
        }
    }
    end
}

fn nonzero_count(bytes: &[u8]) -> usize {
    // Counts of a byte each, which cannot overflow, become vector instructions.
    let count = |part: &[u8]| {
        part.iter().fold(0_u8, |count, byte| count.wrapping_add(u8::from(*byte != 0)))
    };
    bytes.chunks(128).map(|part| usize::from(count(part))).sum()
}

/// Some points of a chunk, to see which transform suits them.
struct Sample {
    points: Vec<u8>,
    columns: Vec<u8>,
    /// What the n-th occurrence of a byte saves of the entropy of a plane, in 1/256 bit.
    savings: [u32; SAMPLE_LEN + 1],
}

impl Sample {
    fn new() -> Self {
        let mut savings = [0; SAMPLE_LEN + 1];
        let mut before = 0.0;
        for (saving, count) in savings.iter_mut().zip(0_u32..).skip(1) {
            let total = f64::from(count) * f64::from(count).log2();
            *saving = whole(256.0 * (total - before));
            before = total;
        }
        Self { points: Vec::new(), columns: Vec::new(), savings }
    }

    fn transform_of(&mut self, plain: &[u8]) -> Transform {
        self.points.clear();
        for range in sample_ranges(plain.len() / POINT_LEN) {
            self.points.extend_from_slice(&plain[range.start * POINT_LEN..range.end * POINT_LEN]);
        }
        if let Some(unit) = self.unit() {
            return Transform::Units(unit);
        }
        let [value, delta] = [Transform::Value, Transform::Delta].map(|transform| {
            let is_exact = split(transform, &self.points, &mut self.columns);
            debug_assert!(is_exact, "all values have bits and differences");
            self.saving()
        });
        if value < delta { Transform::Delta } else { Transform::Value }
    }

    /// Returns the unit that all values are multiples of.
    fn unit(&self) -> Option<Unit> {
        let (points, _) = self.points.as_chunks::<POINT_LEN>();
        Unit::all().find(|unit| {
            let scale = Scale::new(*unit);
            points.iter().all(|[_, _, _, _, value @ ..]| {
                scale.number_of(u64::from_be_bytes(*value)).is_some()
            })
        })
    }

    /// Returns how much less than 8 bits a byte the values need, in 1/256 bit over a constant.
    fn saving(&self) -> u32 {
        let mut saving: u32 = 0;
        let point_count = self.points.len() / POINT_LEN;
        for plane in self.columns.chunks_exact(point_count).skip(TIME_PLANE_COUNT) {
            let mut counts = [0_u8; 256];
            for byte in plane {
                let count = &mut counts[usize::from(*byte)];
                *count += 1;
                saving += self.savings[usize::from(*count)];
            }
        }
        saving
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is positive, and small: 256 * log2(e * count)"
)]
const fn whole(saving: f64) -> u32 {
    saving as u32
}

/// Returns the runs of points that make up a sample: all points, if they are few.
fn sample_ranges(point_count: usize) -> impl Iterator<Item = Range<usize>> {
    let (run_count, len) = if point_count <= SAMPLE_LEN {
        (1, point_count)
    } else {
        (SAMPLE_RUN_COUNT, SAMPLE_LEN / SAMPLE_RUN_COUNT)
    };
    let gap = (point_count - len) / (run_count - 1).max(1);
    (0..run_count).map(move |number| number * gap..number * gap + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_spread_over_all_points() {
        for point_count in [1, 2, 95, 96, 97, 98, 500, 100_000] {
            let ranges: Vec<_> = sample_ranges(point_count).collect();
            let len: usize = ranges.iter().map(ExactSizeIterator::len).sum();
            assert_eq!(len, point_count.min(SAMPLE_LEN));
            assert_eq!(ranges[0].start, 0);
            let unseen = point_count - ranges.last().unwrap().end;
            assert!(unseen < SAMPLE_RUN_COUNT, "{point_count}: {ranges:?}");
        }
    }

    #[test]
    fn planes_of_zeros_are_one_block() {
        let mut columns = [0; 10 * POINT_LEN];
        columns[..3].fill(1);
        columns[50..54].fill(1);
        columns[60..64].fill(1);
        let mut ends = vec![0];
        while *ends.last().unwrap() < columns.len() {
            ends.push(section_end(&columns, *ends.last().unwrap(), 10));
        }
        assert_eq!(ends, [0, 50, 60, 70, 120]);
    }
}
