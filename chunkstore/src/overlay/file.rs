//! The file of an overlay: its slots, its data, its syncs.
//!
//! Invariant: after a failed sync nothing is written any more (`docs/durability.md`, section "Rules").

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::geometry::{Geometry, SLOT_COUNT};
use crate::error::{Error, ObjectName, Result};
use crate::format::{FormatError, OverlayMapKind, OverlayMapPage};
use crate::id::OverlayId;
use crate::vfs::VfsFile;

/// Nothing is where something was written, or something older.
const GONE: FormatError = FormatError::Inconsistent { what: "what was written there is gone" };

/// What may be done with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It is written, and must be durable.
    Durable,
    /// It is gone with its process, so that nothing has to be durable.
    Throwaway,
    /// It is read only.
    ReadOnly,
}

/// What lies in a slot.
#[derive(Debug)]
enum Slot {
    /// Nothing was ever written.
    Empty,
    Valid(OverlayMapPage),
    /// A write that was torn, or damage.
    Invalid(FormatError),
}

impl Slot {
    /// Returns the sequence of the page, 0 if there is none.
    fn sequence(&self) -> u64 {
        match self {
            Self::Valid(page) => page.sequence,
            Self::Empty | Self::Invalid(_) => 0,
        }
    }

    /// Returns why it cannot be read.
    fn reason(self) -> Option<FormatError> {
        match self {
            Self::Invalid(reason) => Some(reason),
            Self::Empty | Self::Valid(_) => None,
        }
    }
}

/// What both slots of a page hold.
#[derive(Debug)]
pub(super) struct Slots {
    /// The newer page that can be read, and its slot.
    pub(super) newest: Option<(u64, OverlayMapPage)>,
    /// Why a slot that was written cannot be read.
    pub(super) unreadable: Option<FormatError>,
    /// The page was durable at some time, whatever can be read of it now.
    pub(super) was_durable: bool,
}

impl Slots {
    fn of(first: Slot, second: Slot) -> Self {
        // The first slot is written first, and the second one when that is durable.
        let was_durable = matches!(first, Slot::Valid(_)) || !matches!(second, Slot::Empty);
        let is_first = second.sequence() <= first.sequence();
        let (slot, newer, other) = if is_first { (0, first, second) } else { (1, second, first) };
        let (newest, unreadable) = match newer {
            Slot::Valid(page) => {
                // Each write takes the other slot and the next number.
                let is_next = other.sequence() == page.sequence - 1;
                (Some((slot, page)), other.reason().or((!is_next).then_some(GONE)))
            }
            neither => (None, neither.reason().or(other.reason())),
        };
        Self { newest, unreadable, was_durable }
    }
}

/// The open, locked file of an overlay.
#[derive(Debug)]
pub(super) struct Backing {
    pub(super) path: PathBuf,
    pub(super) geometry: Geometry,
    pub(super) id: OverlayId,
    pub(super) access: Access,
    file: Box<dyn VfsFile>,
    /// A sync failed: what was written may be lost, and the system would not say so again.
    is_poisoned: AtomicBool,
}

impl Backing {
    pub(super) fn new(
        path: PathBuf,
        file: Box<dyn VfsFile>,
        id: OverlayId,
        image_len: u64,
        access: Access,
    ) -> Self {
        let geometry = Geometry::new(image_len);
        Self { path, geometry, id, access, file, is_poisoned: AtomicBool::new(false) }
    }

    /// Refuses to write after a failed sync, or to a file that is only read.
    pub(super) fn check_writable(&self) -> Result<()> {
        let reason = if self.access == Access::ReadOnly {
            io::Error::new(io::ErrorKind::PermissionDenied, "it was opened for reading")
        } else if self.is_poisoned.load(Ordering::SeqCst) {
            io::Error::other("a sync of it failed before: what is written now could be lost")
        } else {
            return Ok(());
        };
        Err(Error::storage("write", &self.path)(reason))
    }

    /// Reads bytes of the image that are in the overlay.
    pub(super) fn read_data(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let place = self.geometry.data_start + offset;
        self.file.read_exact_at(buffer, place).map_err(Error::storage("read", &self.path))
    }

    /// Writes bytes of the image.
    pub(super) fn write_data(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.write(bytes, self.geometry.data_start + offset)
    }

    /// Sets space aside for bytes of the image, which may become zeros.
    pub(super) fn reserve_data(&self, offset: u64, len: u64) -> Result<()> {
        self.reserve(self.geometry.data_start + offset, len)
    }

    /// Gives the space of bytes of the image back. Best effort: nobody reads them.
    pub(super) fn punch_data(&self, offset: u64, len: u64) {
        if self.check_writable().is_ok() {
            let _costs_space_only = self.file.punch_hole(self.geometry.data_start + offset, len);
        }
    }

    pub(super) fn write(&self, bytes: &[u8], place: u64) -> Result<()> {
        self.check_writable()?;
        self.file.write_all_at(bytes, place).map_err(Error::storage("write", &self.path))
    }

    pub(super) fn reserve(&self, place: u64, len: u64) -> Result<()> {
        self.check_writable()?;
        self.file.reserve(place, len).map_err(Error::storage("write", &self.path))
    }

    /// Sets space aside for both slots of a page, which has none that was written.
    pub(super) fn reserve_slots(&self, kind: OverlayMapKind, number: u64) -> Result<()> {
        let len = SLOT_COUNT * OverlayMapPage::LEN as u64;
        self.reserve(self.geometry.slots(kind, number), len)
    }

    /// Makes durable what was written. An error is final.
    pub(super) fn sync(&self) -> Result<()> {
        self.check_writable()?;
        if self.access == Access::Throwaway {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| {
            self.is_poisoned.store(true, Ordering::SeqCst);
            Error::storage("sync", &self.path)(error)
        })
    }

    /// Writes a page into one of its slots.
    pub(super) fn write_slot(&self, page: &OverlayMapPage, slot: u64) -> Result<()> {
        let place = self.geometry.slots(page.kind, page.number) + slot * OverlayMapPage::LEN as u64;
        self.write(&page.encode(), place)
    }

    /// Reads the slots of `count` pages, beginning with `first`.
    pub(super) fn read_slots(
        &self,
        kind: OverlayMapKind,
        first: u64,
        count: u64,
    ) -> Result<Vec<Slots>> {
        let failed = |error| Error::storage("read", &self.path)(error);
        let start = self.geometry.slots(kind, first);
        let wanted = self.geometry.slots(kind, first + count) - start;
        let mut bytes = vec![0; usize::try_from(wanted).expect("few slots are read at once")];
        // Behind its end a file is as empty as in a hole.
        let there = self.file.len().map_err(failed)?.saturating_sub(start).min(wanted);
        let there = usize::try_from(there).expect("at most what is wanted");
        self.file.read_exact_at(&mut bytes[..there], start).map_err(failed)?;
        let page_len = OverlayMapPage::LEN * usize::try_from(SLOT_COUNT).expect("small");
        let pages = (first..).zip(bytes.chunks(page_len));
        Ok(pages.map(|(number, bytes)| self.decode_slots(kind, number, bytes)).collect())
    }

    /// Reads the slots of one page.
    pub(super) fn read_slots_of(&self, kind: OverlayMapKind, number: u64) -> Result<Slots> {
        let slots = self.read_slots(kind, number, 1)?;
        Ok(slots.into_iter().next().expect("one page was asked for"))
    }

    fn decode_slots(&self, kind: OverlayMapKind, number: u64, bytes: &[u8]) -> Slots {
        let (first, second) = bytes.split_at(OverlayMapPage::LEN);
        let decode = |bytes| self.decode_slot(kind, number, bytes);
        Slots::of(decode(first), decode(second))
    }

    fn decode_slot(&self, kind: OverlayMapKind, number: u64, bytes: &[u8]) -> Slot {
        if bytes.iter().all(|byte| *byte == 0) {
            return Slot::Empty;
        }
        match OverlayMapPage::decode(bytes) {
            Ok(page) if (page.overlay, page.kind, page.number) == (self.id, kind, number) => {
                Slot::Valid(page)
            }
            Ok(_) => Slot::Invalid(FormatError::Inconsistent { what: "it belongs elsewhere" }),
            Err(reason) => Slot::Invalid(reason),
        }
    }

    /// Returns the error for a page of the map that cannot be used, for this reason or because it is gone.
    pub(super) fn damaged_page(&self, number: u64, reason: Option<FormatError>) -> Error {
        let (path, range) = (self.path.clone(), self.geometry.page_range(number));
        Error::Damaged { object: ObjectName::OverlayMap { path, range }, source: or_gone(reason) }
    }

    /// Returns the error for a directory that cannot be used, for this reason or because it is gone.
    pub(super) fn damaged(&self, reason: Option<FormatError>) -> Error {
        let object = ObjectName::Overlay { path: self.path.clone() };
        Error::Damaged { object, source: or_gone(reason) }
    }
}

fn or_gone(reason: Option<FormatError>) -> FormatError {
    reason.unwrap_or(GONE)
}
