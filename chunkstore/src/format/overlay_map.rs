//! Page of the map of an overlay: what became of each of its blocks.
//!
//! Byte layout: `docs/format.md`, section "Overlay file". A page of the directory has the same form, and says of each page of
//! the map whether it was ever written.

use crate::format::{ByteReader, FormatError};
use crate::id::OverlayId;

/// Digest of "chunkstore overlay map v1".
const MAGIC: [u8; 8] = [0x6d, 0x6e, 0x39, 0x55, 0x37, 0xc2, 0x20, 0x50];

const STRUCTURE: &str = "overlay map page";
const CHECKSUM_LEN: usize = 32;

/// States in a byte.
const PER_BYTE: usize = 4;
/// Bytes of the states.
const STATES_LEN: usize = BlockStates::COUNT / PER_BYTE;
/// Bytes between states and checksum: a page fills a block of the medium, so that writing it disturbs no other one.
const RESERVED_LEN: usize = 1968;
/// The lower bit of each state in a byte.
const LOWER_BITS: u8 = 0b0101_0101;

/// Where the bytes of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockState {
    /// In the revision.
    Base,
    /// In the overlay.
    Data,
    /// They are zeros.
    Zero,
}

impl BlockState {
    fn of_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Base,
            1 => Self::Data,
            _ => Self::Zero,
        }
    }

    fn to_bits(self) -> u8 {
        match self {
            Self::Base => 0,
            Self::Data => 1,
            Self::Zero => 2,
        }
    }

    /// Returns a byte of four such states.
    fn to_byte(self) -> u8 {
        // Four times the same two bits.
        self.to_bits().wrapping_mul(LOWER_BITS)
    }
}

/// The states of [`BlockStates::COUNT`] blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockStates(Box<[u8; STATES_LEN]>);

impl BlockStates {
    /// How many they are.
    pub const COUNT: usize = 8192;

    /// Returns the states of blocks that are all [`BlockState::Base`].
    #[must_use]
    pub fn new() -> Self {
        Self(Box::new([0; STATES_LEN]))
    }

    /// Returns the state of a block; [`BlockState::Base`] beyond the last one.
    #[must_use]
    pub fn get(&self, index: usize) -> BlockState {
        let byte = self.0.get(index / PER_BYTE).copied().unwrap_or(0);
        BlockState::of_bits(byte >> shift(index) & 0b11)
    }

    /// Sets the state of a block. There is none beyond the last one.
    pub fn set(&mut self, index: usize, state: BlockState) {
        debug_assert!(index < Self::COUNT, "block {index}");
        if let Some(byte) = self.0.get_mut(index / PER_BYTE) {
            *byte = *byte & !(0b11 << shift(index)) | state.to_bits() << shift(index);
        }
    }

    /// Returns the state of a block, and the end of the run of blocks that have the same, `end` at most.
    #[must_use]
    pub fn run(&self, start: usize, end: usize) -> (BlockState, usize) {
        let state = self.get(start);
        let differs = |index: &usize| self.get(*index) != state;
        let end = end.min(Self::COUNT);
        let aligned = start.next_multiple_of(PER_BYTE).min(end);
        if let Some(found) = (start..aligned).find(differs) {
            return (state, found);
        }
        let bytes = self.0.get(aligned / PER_BYTE..end.div_ceil(PER_BYTE)).unwrap_or_default();
        let same = bytes.iter().position(|byte| *byte != state.to_byte()).unwrap_or(bytes.len());
        let rest = same.saturating_mul(PER_BYTE).saturating_add(aligned).min(end);
        let stop = rest.saturating_add(PER_BYTE).min(end);
        (state, (rest..stop).find(differs).unwrap_or(stop))
    }
}

impl Default for BlockStates {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns by how many bits a state lies above the lowest bit of its byte.
fn shift(index: usize) -> u32 {
    // Below 8.
    u32::try_from(index % PER_BYTE).unwrap_or(0).wrapping_mul(2)
}

/// What the states of a page are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverlayMapKind {
    /// Blocks of the image.
    Map,
    /// Pages of the map: those that are [`BlockState::Data`] were written.
    Directory,
}

/// A page of the map, or of the directory of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayMapPage {
    /// What the states are about.
    pub kind: OverlayMapKind,
    /// In page 0 of the directory: all pages are as their writer left them, none is torn.
    pub is_closed: bool,
    /// The overlay.
    pub overlay: OverlayId,
    /// Which page it is, from 0.
    pub number: u64,
    /// Of two slots, the one with the higher number is the newer one; from 1.
    pub sequence: u64,
    /// The states.
    pub states: BlockStates,
}

impl OverlayMapPage {
    /// Length in bytes.
    pub const LEN: usize = 4096;

    /// Returns the sequence number of the page that is written after one with this.
    ///
    /// # Errors
    ///
    /// - [`FormatError::OutOfRange`] if there is none. No writer gets so far: somebody else has written it.
    pub fn sequence_after(sequence: u64) -> Result<u64, FormatError> {
        let last = || FormatError::out_of_range("sequence", sequence, "less than 2^64 - 1");
        sequence.checked_add(1).ok_or_else(last)
    }

    /// Returns the stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend_from_slice(&MAGIC);
        out.push(match self.kind {
            OverlayMapKind::Map => 1,
            OverlayMapKind::Directory => 2,
        });
        out.push(self.is_closed.into());
        out.extend_from_slice(&[0; 6]); // reserved
        out.extend_from_slice(self.overlay.as_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(self.states.0.as_slice());
        out.extend_from_slice(&[0; RESERVED_LEN]);
        let checksum = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&checksum);
        debug_assert_eq!(out.len(), Self::LEN, "the fields add up to LEN");
        out
    }

    /// Reads a page from exactly [`OverlayMapPage::LEN`] bytes.
    ///
    /// # Errors
    ///
    /// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if the length is another.
    /// - [`FormatError::WrongMagic`] if it is not such a page.
    /// - [`FormatError::WrongChecksum`] if a byte was changed.
    /// - [`FormatError::OutOfRange`] or [`FormatError::Inconsistent`] if a field has a value that is never written.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        ByteReader::new(bytes).magic(&MAGIC, "an overlay map page")?;
        let mut input = checked_fields(bytes)?;
        let kind = match input.u8("kind")? {
            1 => OverlayMapKind::Map,
            2 => OverlayMapKind::Directory,
            other => return Err(FormatError::out_of_range("kind", other, "1 or 2")),
        };
        let closed = input.u8("closed")?;
        input.reserved::<6>()?;
        let overlay = OverlayId::from_bytes(input.array("overlay id")?);
        let number = input.u64("page number")?;
        if closed > u8::from(kind == OverlayMapKind::Directory && number == 0) {
            let expected = "0, or 1 in page 0 of the directory";
            return Err(FormatError::out_of_range("closed", closed, expected));
        }
        let sequence = input.u64("sequence")?;
        if sequence == 0 {
            return Err(FormatError::out_of_range("sequence", sequence, "at least 1"));
        }
        let states = BlockStates(Box::new(input.array("states")?));
        check_states(&states, kind)?;
        input.reserved::<RESERVED_LEN>()?;
        input.finish(STRUCTURE)?;
        Ok(Self { kind, is_closed: closed == 1, overlay, number, sequence, states })
    }
}

/// Refuses states that are never written.
fn check_states(states: &BlockStates, kind: OverlayMapKind) -> Result<(), FormatError> {
    let is_wrong = |byte: &u8| match kind {
        OverlayMapKind::Map => byte & byte >> 1 & LOWER_BITS != 0,
        OverlayMapKind::Directory => byte & !LOWER_BITS != 0,
    };
    match states.0.iter().find(|byte| is_wrong(byte)) {
        None => Ok(()),
        Some(byte) => Err(FormatError::out_of_range("states", *byte, "states of this kind")),
    }
}

/// Returns the fields between magic and checksum once the checksum matches.
fn checked_fields(bytes: &[u8]) -> Result<ByteReader<'_>, FormatError> {
    let mut input = ByteReader::new(bytes);
    let covered = input.take(OverlayMapPage::LEN.saturating_sub(CHECKSUM_LEN), STRUCTURE)?;
    let checksum = input.array::<CHECKSUM_LEN>("checksum")?;
    input.finish(STRUCTURE)?;
    if checksum != *blake3::hash(covered).as_bytes() {
        return Err(FormatError::WrongChecksum { structure: STRUCTURE });
    }
    let mut fields = ByteReader::new(covered);
    fields.take(MAGIC.len(), "magic")?;
    Ok(fields)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests index their own bytes")]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_magic};
    use BlockState::{Base, Data, Zero};

    fn example() -> OverlayMapPage {
        let mut states = BlockStates::new();
        states.set(0, Data);
        states.set(5, Zero);
        states.set(BlockStates::COUNT - 1, Data);
        OverlayMapPage {
            kind: OverlayMapKind::Map,
            is_closed: false,
            overlay: OverlayId::from_bytes([1; 16]),
            number: 7,
            sequence: 3,
            states,
        }
    }

    fn altered(place: usize, bytes: &[u8]) -> Vec<u8> {
        let mut out = example().encode();
        out[place..][..bytes.len()].copy_from_slice(bytes);
        let checksum = *blake3::hash(&out[..OverlayMapPage::LEN - CHECKSUM_LEN]).as_bytes();
        out[OverlayMapPage::LEN - CHECKSUM_LEN..].copy_from_slice(&checksum);
        out
    }

    #[test]
    fn magic_is_the_digest_of_its_sentence() {
        assert_magic(&MAGIC, "chunkstore overlay map v1");
    }

    #[test]
    fn page_reads_back() {
        assert_eq!(OverlayMapPage::decode(&example().encode()), Ok(example()));
        let mut states = BlockStates::new();
        states.set(3, Data);
        let directory = OverlayMapPage {
            kind: OverlayMapKind::Directory,
            is_closed: true,
            number: 0,
            states,
            ..example()
        };
        assert_eq!(OverlayMapPage::decode(&directory.encode()), Ok(directory));
    }

    #[test]
    fn damaged_page_is_rejected() {
        let bytes = example().encode();
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << (place % 8);
            assert!(OverlayMapPage::decode(&damaged).is_err(), "byte {place}");
        }
        assert_exact_length(&bytes, OverlayMapPage::decode);
        assert!(OverlayMapPage::decode(&vec![0; OverlayMapPage::LEN]).is_err());
    }

    #[test]
    fn values_that_are_never_written_are_rejected() {
        assert_eq!(OverlayMapPage::decode(&altered(0, &[])), Ok(example()));
        for (place, bytes) in [
            (8, &[0][..]),
            (8, &[3]),
            (9, &[1]),
            (10, &[1]),
            (40, &[0]),
            (48, &[0b11]),
            (60, &[0b1100_0000]),
            (3000, &[1]),
        ] {
            assert!(OverlayMapPage::decode(&altered(place, bytes)).is_err(), "{place} {bytes:?}");
        }
        // Pages of the directory know two states.
        assert!(OverlayMapPage::decode(&altered(8, &[2])).is_err());
    }

    #[test]
    fn runs_end_where_the_state_changes() {
        let mut states = BlockStates::new();
        let changes =
            [(0, 3, Data), (3, 4, Zero), (4, 9, Data), (9, 8000, Zero), (8000, 8001, Data)];
        for (start, end, state) in changes {
            (start..end).for_each(|index| states.set(index, state));
        }
        for (start, end, state) in changes.into_iter().chain([(8001, 8192, Base)]) {
            for from in [start, start.midpoint(end), end - 1] {
                assert_eq!(states.run(from, usize::MAX), (state, end), "{from}");
                assert_eq!(states.run(from, from + 1), (state, from + 1), "{from}");
            }
        }
    }
}
