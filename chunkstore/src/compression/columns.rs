//! Points of a whisper file as columns, which shrink better than points: a reversible change of bytes.
//!
//! Document: `docs/format.md`, section "Points". A point is a time, `u32`, and a value, `f64`, both big-endian. Its time becomes the
//! difference from the time that the two points before predict, which is 0 as long as the step is constant; its value becomes a
//! number by one of the rules of [`Transform`]. Of the numbers, all first bytes stand first, then all second ones: a *plane* for
//! each byte of a point.
//!
//! Pure. Invariants: [`join`] of what [`split`] made is what it was made from, for any bytes; both are total, and as long as what they read.
//! Numbers wrap around, so nothing that is read can overflow. The loops work on arrays of a constant length, so that they become
//! vector instructions.

use crate::format::{POINT_LEN, Transform, Unit};

/// Planes of the time, which are the first ones.
pub(super) const TIME_PLANE_COUNT: usize = 4;

/// Points that are handled at once.
const BATCH: usize = 128;

/// Adding it to a number rounds that, and leaves the integer in the lowest bits, which its own bits are subtracted from: for
/// integers between -2^51 and 2^51. It is 1.5 * 2^52.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// A count of units is above -2^51 and below 2^51. As the bits of a value it would be a number next to 0 or none at all, which
/// are hardly ever met. The usual "not a number" of processors, -2^51, is not among them.
const COUNT_END: u64 = 1 << 51;

/// Bits of a number that tell how far the value is from a multiple of the unit, in units of the last binary place.
const ERROR_BITS: u32 = 4;

/// Replaces `columns` by the columns of `plain`, the length of which is a multiple of [`POINT_LEN`]. Returns false, and makes nothing
/// of use, if this transform cannot express a value.
#[must_use]
pub fn split(transform: Transform, plain: &[u8], columns: &mut Vec<u8>) -> bool {
    let point_count = plain.len() / POINT_LEN;
    columns.resize(plain.len(), 0);
    if point_count == 0 {
        return true;
    }
    let mut planes: [&mut [u8]; POINT_LEN] = Default::default();
    for (plane, bytes) in planes.iter_mut().zip(columns.chunks_exact_mut(point_count)) {
        *plane = bytes;
    }
    let mut state = Splitter::new(transform);
    let mut batch = Batch::new();
    let mut is_exact = true;
    for (number, bytes) in plain.chunks(BATCH * POINT_LEN).enumerate() {
        batch.len = bytes.len() / POINT_LEN;
        batch.read_points(bytes);
        is_exact &= state.apply(&mut batch);
        let start = number * BATCH;
        let range = start..start + batch.len;
        let (times, values) = planes.split_at_mut(TIME_PLANE_COUNT);
        for (plane, shift) in times.iter_mut().zip([24, 16, 8, 0]) {
            for (byte, time) in plane[range.clone()].iter_mut().zip(&batch.times) {
                *byte = (time >> shift).to_le_bytes()[0];
            }
        }
        for (plane, shift) in values.iter_mut().zip([56, 48, 40, 32, 24, 16, 8, 0]) {
            for (byte, value) in plane[range.clone()].iter_mut().zip(&batch.values) {
                *byte = (value >> shift).to_le_bytes()[0];
            }
        }
    }
    is_exact
}

/// Fills `plain` with the points of `columns`, which is as long; the length is a multiple of [`POINT_LEN`].
pub fn join(transform: Transform, columns: &[u8], plain: &mut [u8]) {
    let point_count = plain.len() / POINT_LEN;
    if point_count == 0 {
        return;
    }
    let mut planes: [&[u8]; POINT_LEN] = Default::default();
    for (plane, bytes) in planes.iter_mut().zip(columns.chunks_exact(point_count)) {
        *plane = bytes;
    }
    let mut state = Joiner::new(transform);
    let mut batch = Batch::new();
    for (number, bytes) in plain.chunks_mut(BATCH * POINT_LEN).enumerate() {
        batch.len = bytes.len() / POINT_LEN;
        let start = number * BATCH;
        let range = start..start + batch.len;
        let (times, values) = planes.split_at(TIME_PLANE_COUNT);
        batch.times.fill(0);
        for plane in times {
            for (time, byte) in batch.times.iter_mut().zip(&plane[range.clone()]) {
                *time = *time << 8 | u32::from(*byte);
            }
        }
        batch.values.fill(0);
        for plane in values {
            for (value, byte) in batch.values.iter_mut().zip(&plane[range.clone()]) {
                *value = *value << 8 | u64::from(*byte);
            }
        }
        state.apply(&mut batch);
        batch.write_points(bytes);
    }
}

/// Some points that follow each other.
struct Batch {
    len: usize,
    times: [u32; BATCH],
    values: [u64; BATCH],
}

impl Batch {
    const fn new() -> Self {
        Self { len: 0, times: [0; BATCH], values: [0; BATCH] }
    }

    fn read_points(&mut self, bytes: &[u8]) {
        let (points, _) = bytes.as_chunks::<POINT_LEN>();
        for ((point, time), value) in points.iter().zip(&mut self.times).zip(&mut self.values) {
            let [a, b, c, d, rest @ ..] = *point;
            *time = u32::from_be_bytes([a, b, c, d]);
            *value = u64::from_be_bytes(rest);
        }
    }

    fn write_points(&self, bytes: &mut [u8]) {
        let (points, _) = bytes.as_chunks_mut::<POINT_LEN>();
        for ((point, time), value) in points.iter_mut().zip(&self.times).zip(&self.values) {
            let (head, tail) = point.split_at_mut(TIME_PLANE_COUNT);
            head.copy_from_slice(&time.to_be_bytes());
            tail.copy_from_slice(&value.to_be_bytes());
        }
    }
}

/// What the points before a batch leave behind, on the way to columns.
struct Splitter {
    transform: Transform,
    /// The last two times, the older one first.
    times: [u32; 2],
    value: u64,
}

impl Splitter {
    const fn new(transform: Transform) -> Self {
        Self { transform, times: [0; 2], value: 0 }
    }

    /// Replaces times and values by the numbers that stand for them; false if a value has none.
    fn apply(&mut self, batch: &mut Batch) -> bool {
        let [mut older, mut old] = self.times;
        for time in &mut batch.times[..batch.len] {
            let residual = time.wrapping_sub(old.wrapping_mul(2)).wrapping_add(older);
            (older, old) = (old, *time);
            *time = residual;
        }
        self.times = [older, old];
        let values = &mut batch.values[..batch.len];
        let mut is_exact = true;
        match self.transform {
            Transform::Value => {}
            Transform::Delta => self.differences(values),
            Transform::Units(unit) => {
                let scale = Scale::new(unit);
                for value in &mut *values {
                    let (number, is_known) = scale.number_or_bits(*value);
                    is_exact &= is_known;
                    *value = number;
                }
                self.differences(values);
            }
        }
        is_exact
    }

    fn differences(&mut self, values: &mut [u64]) {
        let mut before = self.value;
        for value in values {
            let difference = value.wrapping_sub(before);
            before = *value;
            *value = zigzag(difference);
        }
        self.value = before;
    }
}

/// What the points before a batch leave behind, on the way back.
struct Joiner {
    transform: Transform,
    time: u32,
    step: u32,
    value: u64,
}

impl Joiner {
    const fn new(transform: Transform) -> Self {
        Self { transform, time: 0, step: 0, value: 0 }
    }

    fn apply(&mut self, batch: &mut Batch) {
        for time in &mut batch.times[..batch.len] {
            self.step = self.step.wrapping_add(*time);
            self.time = self.time.wrapping_add(self.step);
            *time = self.time;
        }
        let values = &mut batch.values[..batch.len];
        match self.transform {
            Transform::Value => {}
            Transform::Delta => self.sums(values),
            Transform::Units(unit) => {
                self.sums(values);
                let scale = Scale::new(unit);
                for value in values {
                    *value = scale.value_of(*value);
                }
            }
        }
    }

    fn sums(&mut self, values: &mut [u64]) {
        let mut sum = self.value;
        for value in values {
            sum = sum.wrapping_add(unzigzag(*value));
            *value = sum;
        }
        self.value = sum;
    }
}

/// Returns a small number for a small difference, also for a negative one.
const fn zigzag(difference: u64) -> u64 {
    difference << 1 ^ (difference >> 63).wrapping_neg()
}

const fn unzigzag(number: u64) -> u64 {
    number >> 1 ^ (number & 1).wrapping_neg()
}

/// Returns whether a number counts units, and is not the bits of a value.
const fn is_count(number: u64) -> bool {
    number.wrapping_add(COUNT_END - 1) < 2 * COUNT_END - 1
}

/// Between values and numbers of units.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    unit_count: f64,
    error_bits: u32,
    /// Half of what the error bits can express.
    error_half: u64,
}

impl Scale {
    pub(super) fn new(unit: Unit) -> Self {
        let error_bits = if unit.has_error() { ERROR_BITS } else { 0 };
        Self { unit_count: unit.count(), error_bits, error_half: 1 << error_bits >> 1 }
    }

    /// Returns the bits of the value that a number stands for.
    fn value_of(self, number: u64) -> u64 {
        // Shifts with the sign, in a way that has a vector instruction everywhere.
        let biased = number.wrapping_add(self.error_half).wrapping_add(COUNT_END);
        let count = (biased >> self.error_bits).wrapping_sub(COUNT_END >> self.error_bits);
        let error = number.wrapping_sub(count << self.error_bits);
        let bits = self.multiple(count).wrapping_add(error);
        if is_count(number) { bits } else { number }
    }

    /// Returns the number that stands for the value with these bits, if it is close to a multiple of the unit.
    pub(super) fn number_of(self, bits: u64) -> Option<u64> {
        let (number, is_count) = self.nearest(bits);
        is_count.then_some(number)
    }

    /// Returns the number that stands for the value with these bits, and whether it is one: the bits themselves may
    /// stand for another value.
    fn number_or_bits(self, bits: u64) -> (u64, bool) {
        let (number, is_close) = self.nearest(bits);
        if is_close { (number, true) } else { (bits, !is_count(bits)) }
    }

    /// Returns a number, and whether it is a count that stands for these bits.
    fn nearest(self, bits: u64) -> (u64, bool) {
        let rounded = f64::from_bits(bits) * self.unit_count + ROUNDER;
        let count = rounded.to_bits().wrapping_sub(ROUNDER.to_bits());
        let error = bits.wrapping_sub(self.multiple(count));
        let number = (count << self.error_bits).wrapping_add(error);
        (number, is_count(number) & (self.value_of(number) == bits))
    }

    /// Returns the bits of the value that has this many units.
    fn multiple(self, count: u64) -> u64 {
        let count = f64::from_bits(ROUNDER.to_bits().wrapping_add(count)) - ROUNDER;
        (count / self.unit_count).to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(points: impl IntoIterator<Item = (u32, u64)>) -> Vec<u8> {
        points
            .into_iter()
            .flat_map(|(time, value)| [&time.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect()
    }

    /// Checks that what can be split is joined again, and returns the transforms that can.
    fn reversible(plain: &[u8]) -> Vec<Transform> {
        let is_reversible = |transform: &Transform| {
            let (mut columns, mut joined) = (vec![7; 5], vec![9; plain.len()]);
            let is_exact = split(*transform, plain, &mut columns);
            assert_eq!(columns.len(), plain.len());
            join(*transform, &columns, &mut joined);
            assert!(joined == plain || !is_exact, "{transform:?} of {plain:02x?}");
            is_exact
        };
        Transform::all().filter(is_reversible).collect()
    }

    proptest! {
        #[test]
        fn any_points_are_joined_again(bytes in prop::collection::vec(any::<[u8; 12]>(), 0..400)) {
            let found = reversible(bytes.as_flattened());
            prop_assert!(found.starts_with(&[Transform::Value, Transform::Delta]));
        }

        #[test]
        fn counts_in_any_unit_are_joined_again(
            counts in prop::collection::vec((any::<u32>(), any::<i32>(), -20_i64..20), 1..300),
        ) {
            for unit in Unit::all() {
                let plain = points(counts.iter().map(|(time, count, error)| {
                    let bits = (f64::from(*count) / unit.count()).to_bits();
                    (*time, bits.wrapping_add_signed(if unit.has_error() { *error } else { 0 }))
                }));
                // A value that is next to 0 by a few bits, without being it, is the exception.
                if counts.iter().all(|(_, count, _)| *count != 0) {
                    prop_assert!(reversible(&plain).contains(&Transform::Units(unit)));
                }
            }
        }

        #[test]
        fn any_columns_are_joined(bytes in prop::collection::vec(any::<[u8; 12]>(), 0..400)) {
            let columns = bytes.as_flattened();
            for transform in Transform::all() {
                join(transform, columns, &mut vec![0; columns.len()]);
            }
        }
    }

    #[test]
    fn values_that_are_no_multiples_stand_for_themselves() {
        let values = [
            f64::NAN,
            -f64::NAN,
            f64::INFINITY,
            -f64::INFINITY,
            -0.0,
            f64::MAX,
            1e300,
            0.1234567891,
        ];
        let indefinite = 0xfff8_0000_0000_0000;
        let bits = values.map(f64::to_bits).into_iter().chain([indefinite]);
        let plain = points((0..).zip(bits));
        assert_eq!(reversible(&plain), Transform::all().collect::<Vec<_>>());
    }

    #[test]
    fn value_whose_bits_look_like_a_count_is_refused() {
        for bits in [1, 2, (1 << 51) - 1, u64::MAX, indefinite_end()] {
            let found = reversible(&points([(0, bits)]));
            let exact = |transform: &Transform| matches!(transform, Transform::Units(unit) if !unit.has_error());
            assert!(!found.iter().any(exact), "{bits:x}: {found:?}");
            assert!(found.starts_with(&[Transform::Value, Transform::Delta]));
        }
        assert_eq!(reversible(&points([(0, 1 << 51)])).len(), 30);
    }

    /// Returns the lowest bits that look like a count below 0.
    const fn indefinite_end() -> u64 {
        0xfff8_0000_0000_0001
    }

    #[test]
    fn regular_points_are_planes_of_zeros() {
        let plain =
            points((0..1000).map(|number| (1_700_000_000 + 60 * number, 1.25_f64.to_bits())));
        let mut columns = Vec::new();
        assert!(split(Transform::Delta, &plain, &mut columns));
        let count = columns.iter().filter(|byte| **byte != 0).count();
        assert!(count <= 16, "{count}");
    }
}
