//! Images that are too large to be held in memory: made, changed and compared in blocks.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::scene::random_bytes;

const BLOCK_LEN: usize = 1 << 20;

/// Writes an image of bytes that do not compress, and of which no two blocks are the same.
pub(crate) fn write_random_image(path: &Path, mib: u64, seed: u64) {
    let mut image = File::create(path).unwrap();
    for number in 0..mib {
        image.write_all(&random_bytes(BLOCK_LEN, seed + number)).unwrap();
    }
}

/// Fills a file with bytes that are neither zero nor in any image.
pub(crate) fn fill(path: &Path, len: u64) {
    let mut file = File::create(path).unwrap();
    let block = vec![0xff; BLOCK_LEN];
    let mut rest = len;
    while rest != 0 {
        let part = usize::try_from(rest).unwrap_or(BLOCK_LEN).min(BLOCK_LEN);
        file.write_all(&block[..part]).unwrap();
        rest -= part as u64;
    }
}

/// Changes some bytes of a file in place.
pub(crate) fn change(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Compares all bytes of `expected` with the beginning of `found`, which may be a device and
/// longer.
#[track_caller]
pub(crate) fn assert_begins_with(found: &Path, expected: &Path) {
    let len = std::fs::metadata(expected).unwrap().len();
    let (found_file, expected_file) = (File::open(found).unwrap(), File::open(expected).unwrap());
    let (mut left, mut right) = (vec![0; BLOCK_LEN], vec![0; BLOCK_LEN]);
    let mut offset = 0;
    while offset < len {
        let part = usize::try_from(len - offset).unwrap_or(BLOCK_LEN).min(BLOCK_LEN);
        found_file.read_exact_at(&mut left[..part], offset).unwrap();
        expected_file.read_exact_at(&mut right[..part], offset).unwrap();
        assert!(left[..part] == right[..part], "{} differs near {offset}", found.display());
        offset += part as u64;
    }
}

/// Compares all bytes of a stream with those of `expected`.
#[track_caller]
pub(crate) fn assert_stream_is(mut found: impl Read, expected: &Path) {
    let mut file = File::open(expected).unwrap();
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut offset = 0;
    loop {
        let count = found.read(&mut left).unwrap();
        if count == 0 {
            break;
        }
        file.read_exact(&mut right[..count]).unwrap();
        assert!(left[..count] == right[..count], "the stream differs near {offset}");
        offset += count as u64;
    }
    assert_eq!(offset, file.metadata().unwrap().len(), "length of the stream");
}

/// Compares two files, lengths included.
#[track_caller]
pub(crate) fn assert_same(found: &Path, expected: &Path) {
    let len = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert_eq!(len(found), len(expected), "length of {}", found.display());
    assert_begins_with(found, expected);
}

/// Returns a digest by which a test knows an image again.
pub(crate) fn fingerprint(mut image: impl Read) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut block = vec![0; BLOCK_LEN];
    loop {
        match image.read(&mut block).unwrap() {
            0 => return hasher.finish(),
            count => hasher.write(&block[..count]),
        }
    }
}
