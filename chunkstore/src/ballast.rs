//! Ballast: a file that takes up space for the moment when there is none left.
//!
//! Removing something from a store takes a little space first: a condemned list, a transaction on the index. So a purge that
//! finds no space releases the ballast and tries again, and makes it anew at its end. Where there is none,
//! the index serves as ballast, because it can be made again (`docs/durability.md`, section "A full disk").

use std::io;

use crate::error::{Error, Result};
use crate::storage::Existing;
use crate::store::Store;

/// Length of the ballast in bytes, unless said otherwise.
pub(crate) const BALLAST_LEN_DEFAULT: u64 = 64 << 20;

/// Where there is little room, the ballast is shorter, but not below this part of its length.
const LEN_DIVISOR_MAX: u64 = 16;

/// How much of what is free the ballast may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// An eighth: it is new.
    Small,
    /// A half: it was there before, and was needed.
    Large,
}

/// Makes the ballast, if there is none: `len` bytes, or less where little is free, or none where next to nothing is. Returns
/// whether it did.
pub(crate) fn restore(store: &Store, len: u64, share: Share) -> Result<bool> {
    let vfs = store.environment().vfs.as_ref();
    let (path, root) = (store.layout().ballast(), store.path());
    let Some(free) = vfs.free_space(root).map_err(Error::storage("stat", root))? else {
        return Ok(false);
    };
    let len_min = len.div_ceil(LEN_DIVISOR_MAX);
    let len = len.min(match share {
        Share::Small => free / 8,
        Share::Large => free / 2,
    });
    if len == 0 || len < len_min || exists(store)? {
        return Ok(false);
    }
    let mut file = store.storage().temporary()?;
    file.allocate(len)?;
    match store.storage().publish(&mut file, &path, Existing::Refuse) {
        // Somebody else was faster.
        Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

/// Returns whether there is a ballast.
pub(crate) fn exists(store: &Store) -> Result<bool> {
    let path = store.layout().ballast();
    match store.environment().vfs.file_len(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|_| true).map_err(Error::storage("stat", path)),
    }
}

/// Removes the ballast, if there is one, and returns whether there was.
pub(crate) fn release(store: &Store) -> Result<bool> {
    let path = store.layout().ballast();
    match store.environment().vfs.remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true).map_err(Error::storage("remove", path)),
    }
}

/// Runs `remove`, which gives space back. If it finds no space itself, the ballast is released and it is run again. It must be
/// such that it can be begun anew wherever it failed.
pub(crate) fn with_ballast<R>(store: &Store, mut remove: impl FnMut() -> Result<R>) -> Result<R> {
    match remove() {
        Err(error) if error.is_out_of_space() => {
            if release(store)? {
                remove()
            } else {
                Err(error)
            }
        }
        other => other,
    }
}

/// As [`with_ballast`]; then once more without the index, which has to be made again.
pub(crate) fn with_room<R>(store: &Store, mut remove: impl FnMut() -> Result<R>) -> Result<R> {
    match with_ballast(store, &mut remove) {
        Err(error) if error.is_out_of_space() => {
            if store.index().discard()? {
                remove()
            } else {
                Err(error)
            }
        }
        other => other,
    }
}
