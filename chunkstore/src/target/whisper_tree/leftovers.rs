//! Temporary files: how they are named, and how those are removed whose restore was killed.
//!
//! Who writes one holds its lock. No lock survives its process, so what can be locked is nobody's any more.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, openat, unlinkat};
use rustix::io::Errno;

/// What is between the name of the file and the random part.
const MARK: &[u8] = b".backy-";

/// Hexadecimal digits of the random part.
const NUMBER_LEN: usize = 16;

/// Bytes of the name of the file that a temporary name repeats.
const SHOWN_LEN_MAX: usize = 200;

/// Returns `.<name>.backy-<number>`.
pub(super) fn temporary_name(name: &OsStr, number: u64) -> OsString {
    let bytes = name.as_bytes();
    let shown = &bytes[..bytes.len().min(SHOWN_LEN_MAX)];
    let mut temporary = OsString::from(".");
    temporary.push(OsStr::from_bytes(shown));
    temporary.push(format!(".backy-{number:016x}"));
    temporary
}

fn is_temporary(name: &[u8]) -> bool {
    let Some((front, number)) = name.split_last_chunk::<NUMBER_LEN>() else { return false };
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    front.starts_with(b".") && front.ends_with(MARK) && number.iter().all(is_digit)
}

/// Removes the temporary files of a directory that nobody writes any more.
pub(super) fn remove_leftovers(directory: &File) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !is_temporary(name.to_bytes()) {
            continue;
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(directory, name, flags, Mode::empty()) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_recognised_and_others_are_not() {
        for name in ["a.wsp", "x", &"n".repeat(255)] {
            let temporary = temporary_name(OsStr::new(name), u64::MAX / 3);
            assert!(is_temporary(temporary.as_bytes()), "{temporary:?}");
            assert!(temporary.len() <= 255 && !temporary.as_bytes().ends_with(b".wsp"));
        }
        for name in [
            "a.wsp",
            ".a.wsp.backy-",
            ".a.wsp.backy-0123456789abcde",
            ".a.wsp.backy-0123456789abcdeg",
            "a.wsp.backy-0123456789abcdef",
            ".a.wsp.backy-0123456789abcdef0",
        ] {
            assert!(!is_temporary(name.as_bytes()), "{name}");
        }
    }
}
