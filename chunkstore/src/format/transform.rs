//! Transform: how the values of points became numbers, the first byte of a payload of codec 2.
//!
//! Byte layout: `docs/format.md`, section "Points".

use crate::format::FormatError;

/// Length in bytes of a point.
pub const POINT_LEN: usize = 12;

/// Most decimal places of a unit.
const DECIMALS_MAX: u8 = 6;

/// Bits of the byte of a unit; the decimal places are in the lowest ones.
const UNITS: u8 = 0x10;
const SIXTH: u8 = 0x20;
const ERROR: u8 = 0x40;

/// How the values of points become numbers. The times are always second differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// The bits of the value.
    Value,
    /// Difference of the bits, as an integer, from those of the value before.
    Delta,
    /// Difference from the value before, both as a whole number of units.
    Units(Unit),
}

/// A fraction of 1 that values are whole multiples of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unit {
    decimals: u8,
    is_sixth: bool,
    has_error: bool,
}

impl Unit {
    /// All units, those that make smaller numbers first.
    pub fn all() -> impl Iterator<Item = Self> {
        let kinds = [(false, false), (false, true), (true, false), (true, true)];
        kinds.into_iter().flat_map(|(has_error, is_sixth)| {
            (0..=DECIMALS_MAX).map(move |decimals| Self { decimals, is_sixth, has_error })
        })
    }

    /// Returns how many units make 1: a power of ten, or six times one, as sums of minutes in an hour need.
    #[must_use]
    pub fn count(self) -> f64 {
        let first = if self.is_sixth { 6.0 } else { 1.0 };
        (0..self.decimals).fold(first, |count, _| count * 10.0)
    }

    /// Returns whether values may be a little beside a multiple, as sums and averages are.
    #[must_use]
    pub const fn has_error(self) -> bool {
        self.has_error
    }

    const fn to_byte(self) -> u8 {
        let sixth = if self.is_sixth { SIXTH } else { 0 };
        let error = if self.has_error { ERROR } else { 0 };
        UNITS | sixth | error | self.decimals
    }
}

impl Transform {
    /// Returns all transforms.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Value, Self::Delta].into_iter().chain(Unit::all().map(Self::Units))
    }

    /// Returns the transform that this byte stands for.
    ///
    /// # Errors
    ///
    /// - [`FormatError::OutOfRange`] if it stands for none.
    pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
        Self::all()
            .find(|transform| transform.to_byte() == byte)
            .ok_or_else(|| FormatError::out_of_range("transform", byte, "0, 1, or a unit"))
    }

    /// Returns the byte that stands for this transform.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Value => 0,
            Self::Delta => 1,
            Self::Units(unit) => unit.to_byte(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_a_transform_or_rejected() {
        for byte in 0..=u8::MAX {
            let is_unit = byte & 0x90 == 0x10 && byte & 0x0f < 7;
            let is_known = byte < 2 || is_unit;
            let read_back = Transform::from_byte(byte).map(Transform::to_byte).ok();
            assert_eq!(read_back, is_known.then_some(byte));
        }
    }

    #[test]
    fn unit_is_a_decimal_place_or_a_sixth_of_one() {
        let counts: Vec<f64> = Unit::all().map(Unit::count).collect();
        assert_eq!(counts.get(..3), Some(&[1.0, 10.0, 100.0][..]));
        assert_eq!(counts.get(6..10), Some(&[1_000_000.0, 6.0, 60.0, 600.0][..]));
        assert_eq!((counts.len(), counts.last()), (28, Some(&6_000_000.0)));
        let first_with_error = Unit::all().position(Unit::has_error);
        assert_eq!(first_with_error, Some(14));
    }
}
