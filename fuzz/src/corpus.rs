//! The corpus of a target: one file of text, an input on each line in hexadecimal digits, sorted by length, each of them once.
//!
//! libFuzzer wants a directory with a file for each input; `scripts/fuzz-corpus` makes one from the other.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Longest input that is kept.
pub const INPUT_LEN_MAX: usize = 8 << 10;

/// Longest file of one target in bytes. What is longer would make the repository heavy, and its tests slow.
pub const FILE_LEN_MAX: usize = 56 << 10;

/// Returns the directory of the corpora.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Returns the file of a target.
#[must_use]
pub fn file(target: &str) -> PathBuf {
    directory().join(format!("{target}.txt"))
}

/// Reads the inputs of a file.
///
/// # Errors
///
/// - The file cannot be read, or a line of it is not an even number of hexadecimal digits.
pub fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let wrong = |line: usize| {
        let what = format!("{}:{}: no hexadecimal digits", path.display(), line + 1);
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    let text = fs::read_to_string(path)?;
    text.lines().enumerate().map(|(line, text)| from_hex(text).ok_or_else(|| wrong(line))).collect()
}

/// Returns the text of a file with these inputs, and how many it has no room for. The short ones come first.
#[must_use]
pub fn text(inputs: &BTreeSet<Vec<u8>>) -> (String, usize) {
    let mut sorted: Vec<&Vec<u8>> = inputs.iter().collect();
    sorted.sort_by_key(|input| input.len());
    let mut text = String::new();
    let mut kept = 0;
    for input in sorted {
        if INPUT_LEN_MAX < input.len() || FILE_LEN_MAX < text.len() + 2 * input.len() + 1 {
            break;
        }
        text.push_str(&hex(input));
        text.push('\n');
        kept += 1;
    }
    (text, inputs.len() - kept)
}

/// Returns bytes in hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to memory does not fail");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks_exact(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}
