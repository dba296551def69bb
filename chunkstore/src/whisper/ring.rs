//! One archive as a ring of slots: which slot a point has, and whether it is there.

use super::header::{Archive, SLOT_LEN};

/// A time and its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds since 1970. Of a point in an archive: a multiple of the step, where the time that it stands for begins.
    pub time: u32,
    /// Any value, NaN and infinity too.
    pub value: f64,
}

/// The slots of one archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring<'a> {
    slots: &'a [u8],
    step: i64,
    /// `None` if nothing was written yet.
    base: Option<i64>,
}

impl<'a> Ring<'a> {
    /// Views the bytes of an archive, which are as many as it says.
    pub(super) fn new(slots: &'a [u8], archive: &Archive) -> Self {
        let base = slot_time(slots, 0);
        let base = (base != 0).then_some(i64::from(base));
        Self { slots, step: archive.seconds_per_point.into(), base }
    }

    pub(super) fn step(&self) -> i64 {
        self.step
    }

    pub(super) fn slot_count(&self) -> usize {
        self.slots.len() / SLOT_LEN as usize
    }

    /// Returns the slot of a time, which is 0 while the archive is empty.
    pub(super) fn slot_of(&self, time: i64) -> usize {
        let Some(base) = self.base else { return 0 };
        let slot_count =
            i64::try_from(self.slot_count()).expect("an archive has at most 2^26 slots");
        let slot = (time - base).div_euclid(self.step).rem_euclid(slot_count);
        usize::try_from(slot).expect("a remainder is not negative")
    }

    /// Returns the value of a time that is a multiple of the step, if the archive has it.
    pub(super) fn value_at(&self, time: i64) -> Option<f64> {
        if self.base.is_none() || time <= 0 {
            return None;
        }
        let slot = self.slot_of(time);
        (i64::from(slot_time(self.slots, slot)) == time).then(|| slot_value(self.slots, slot))
    }

    /// Returns the point in a slot, if the time there leads to this slot.
    pub(super) fn point_in(&self, slot: usize) -> Option<Point> {
        self.base?;
        let time = slot_time(self.slots, slot);
        let is_there =
            time != 0 && i64::from(time) % self.step == 0 && self.slot_of(time.into()) == slot;
        is_there.then(|| Point { time, value: slot_value(self.slots, slot) })
    }

    /// Returns whether the slot of a time has its point, or one of a later time.
    pub(super) fn is_taken_at(&self, time: i64) -> bool {
        let slot = self.slot_of(time);
        let found = i64::from(slot_time(self.slots, slot));
        self.base.is_some() && (found == time || time < found && self.point_in(slot).is_some())
    }

    /// Returns the time of the newest point that is not after `now`.
    pub(super) fn newest(&self, now: i64) -> Option<i64> {
        let mut newest = None;
        for slot in 0..self.slot_count() {
            let time = i64::from(slot_time(self.slots, slot));
            if time <= now && newest < Some(time) && self.point_in(slot).is_some() {
                newest = Some(time);
            }
        }
        newest
    }

    /// Returns whether a slot has the same bytes in another state of the archive.
    pub(super) fn has_same_bytes(&self, other: &Self, slot: usize) -> bool {
        let start = slot * SLOT_LEN as usize;
        let place = start..start + SLOT_LEN as usize;
        self.slots[place.clone()] == other.slots[place]
    }

    /// Returns all points in the order of their slots.
    pub(super) fn points(self) -> impl Iterator<Item = Point> + use<'a> {
        (0..self.slot_count()).filter_map(move |slot| self.point_in(slot))
    }
}

fn slot_time(slots: &[u8], slot: usize) -> u32 {
    let start = slot * SLOT_LEN as usize;
    let bytes = slots[start..].first_chunk().expect("a slot has 12 bytes");
    u32::from_be_bytes(*bytes)
}

fn slot_value(slots: &[u8], slot: usize) -> f64 {
    let start = slot * SLOT_LEN as usize + 4;
    let bytes = slots[start..].first_chunk().expect("a slot has 12 bytes");
    f64::from_be_bytes(*bytes)
}
