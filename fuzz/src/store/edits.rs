//! What an input says that happens to files: one edit after the other, up to where the bytes end.

use std::path::{Path, PathBuf};

use chunkstore::id::RevisionId;
use chunkstore::vfs::simulated::SimulatedVfs;

use super::{forge, record_of};

/// Edits of one input.
const EDIT_COUNT_MAX: usize = 16;

/// Zeros that a file may get at its end, in steps of so many.
const GROWTH_STEP: usize = 16;

/// The bit of an edit that asks for right checksums.
const FIX: u8 = 0x80;

/// Reads edits from bytes.
pub(super) struct Edits<'a> {
    rest: &'a [u8],
}

impl<'a> Edits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Does all edits; returns the revisions whose records were changed and given a right checksum, so that nobody can
    /// tell.
    pub(super) fn apply(&mut self, vfs: &SimulatedVfs, files: &[PathBuf]) -> Vec<RevisionId> {
        let mut forged = Vec::new();
        for _ in 0..EDIT_COUNT_MAX {
            let Some((kind, path, other)) = self.next_edit(files) else { break };
            // An earlier edit may have removed it.
            let Ok(mut bytes) = vfs.read_all(path) else { continue };
            match kind % 8 {
                0 => bytes = self.replacement().to_vec(),
                1..=3 => self.patch_bytes(&mut bytes),
                4 => bytes.truncate(self.number().unwrap_or_default()),
                5 => {
                    let count = usize::from(self.byte().unwrap_or_default());
                    bytes.resize(bytes.len() + GROWTH_STEP * count, 0);
                }
                6 => {
                    vfs.remove(path).expect("it was just read");
                    continue;
                }
                _ => {
                    let Ok(theirs) = vfs.read_all(other) else { continue };
                    let mine = std::mem::replace(&mut bytes, theirs);
                    vfs.write_raw(other, mine).expect("it was just read");
                }
            }
            if kind & FIX != 0 {
                forge::fix(path, &mut bytes);
                forged.extend(record_of(path));
            }
            vfs.write_raw(path, bytes).expect("it was just read");
        }
        forged
    }

    fn next_edit<'f>(&mut self, files: &'f [PathBuf]) -> Option<(u8, &'f PathBuf, &'f PathBuf)> {
        let kind = self.byte()?;
        let place = usize::from(self.byte()?);
        let other = if kind % 8 == 7 { usize::from(self.byte()?) } else { 0 };
        Some((kind, &files[place % files.len()], &files[other % files.len()]))
    }

    /// Returns what is to be in the place of a whole file.
    fn replacement(&mut self) -> &'a [u8] {
        let len = self.number().unwrap_or_default();
        self.take(len)
    }

    /// Writes some bytes somewhere: 2 bytes of an offset, one of a length.
    fn patch_bytes(&mut self, bytes: &mut [u8]) {
        let (Some(offset), Some(len)) = (self.number(), self.byte()) else { return };
        write(bytes, offset, self.take(usize::from(len)));
    }

    /// Patches one file, of any length: 3 bytes of an offset, one of a length. With a first byte of 255 the rest is the file.
    pub(super) fn patch(&mut self, vfs: &SimulatedVfs, path: &Path) {
        let mut bytes = vfs.read_all(path).expect("the file is there");
        if self.rest.first() == Some(&u8::MAX) {
            bytes = self.rest[1..].to_vec();
        } else {
            self.patch_far(&mut bytes);
        }
        vfs.write_raw(path, bytes).expect("it was just read");
    }

    pub(super) fn patch_far(&mut self, bytes: &mut [u8]) {
        for _ in 0..EDIT_COUNT_MAX {
            let (Some(low), Some(high), Some(len)) = (self.number(), self.byte(), self.byte())
            else {
                break;
            };
            write(bytes, low | usize::from(high) << 16, self.take(usize::from(len)));
        }
    }
}

/// Writes into a file, at an offset modulo its length, as far as there is room.
fn write(bytes: &mut [u8], offset: usize, patch: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let start = offset % bytes.len();
    let place = &mut bytes[start..];
    let len = place.len().min(patch.len());
    place[..len].copy_from_slice(&patch[..len]);
}

/// One edit of each kind for each of the first files.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    for file in 0..24 {
        seeds.push(vec![0, file, 3, 0, b'a', b'b', b'c']);
        seeds.push(vec![1, file, 40, 0, 2, 0xff, 0xff]);
        seeds.push(vec![1 | FIX, file, 60, 0, 1, 0x31]);
        seeds.push(vec![4, file, 100, 0]);
        seeds.push(vec![5, file, 2]);
        seeds.push(vec![6, file]);
        seeds.push(vec![7, file, file + 1]);
    }
    seeds
}

/// Patches near the start of a database, and in its pages.
pub(super) fn patch_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new(), vec![u8::MAX], vec![u8::MAX, b'r', b'e', b'd', b'b']];
    for offset in [0_u8, 9, 10, 12, 64, 96, 128, 192, 224] {
        seeds.push(vec![offset, 0, 0, 4, 0xff, 0xff, 0xff, 0x7f]);
    }
    for page in 1..40_u8 {
        seeds.push(vec![0, page << 4, page >> 4, 4, 2, 1, 0xff, 0xff]);
        seeds.push(vec![8, page << 4, page >> 4, 8, 0, 0, 0, 0, 1, 0, 0, 0]);
    }
    seeds
}
