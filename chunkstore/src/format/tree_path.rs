//! Path of a file in a tree.
//!
//! Document: `docs/format.md`, section "Tree page". A path leads below its tree and nowhere else: whoever joins one to a directory stays in
//! that directory, as long as no symbolic link leads out of it.

use std::fmt;

use crate::format::FormatError;
use crate::limits::{NAME_LEN_MAX, TREE_PATH_LEN_MAX};

/// Where a file lies in its tree: names with `/` between them. Bytes, because file systems take any.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Box<[u8]>);

impl TreePath {
    /// Checks a path: 1 to 4096 bytes, relative, each name 1 to 255 bytes, none of them `.` or `..`, no byte 0.
    ///
    /// # Errors
    ///
    /// - [`FormatError::OutOfRange`] for its length or that of a name.
    /// - [`FormatError::Inconsistent`] if it has a name that leads elsewhere.
    pub fn new(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.is_empty() || TREE_PATH_LEN_MAX < bytes.len() {
            let len = bytes.len() as u64;
            return Err(FormatError::out_of_range("path length", len, "1 to 4096 bytes"));
        }
        for name in bytes.split(|byte| *byte == b'/') {
            if name.is_empty() || NAME_LEN_MAX < name.len() {
                let len = name.len() as u64;
                return Err(FormatError::out_of_range("length of a name", len, "1 to 255 bytes"));
            }
            if matches!(name, b"." | b"..") || name.contains(&0) {
                return Err(FormatError::Inconsistent { what: "a path leads out of its tree" });
            }
        }
        Ok(Self(bytes.into()))
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether the path lies below a directory, given without `/` at its end.
    #[must_use]
    pub fn is_below(&self, directory: &[u8]) -> bool {
        self.0.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
    }
}

/// For people: what is not UTF-8 becomes a replacement character, and control characters are escaped.
impl fmt::Display for TreePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in String::from_utf8_lossy(&self.0).chars() {
            if letter.is_control() {
                write!(formatter, "{}", letter.escape_default())?;
            } else {
                write!(formatter, "{letter}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.", "a\0"] {
            assert!(TreePath::new(path.as_bytes()).is_err(), "{path:?}");
        }
        for path in ["a", "a/b.wsp", "...", "..a", "a b", "\u{e4}/\n"] {
            assert_eq!(TreePath::new(path.as_bytes()).unwrap().as_bytes(), path.as_bytes());
        }
        assert!(TreePath::new(&[0xff, b'/', 0xfe]).is_ok());
    }

    #[test]
    fn lengths_are_checked_at_their_limits() {
        let name = "n".repeat(NAME_LEN_MAX);
        assert!(TreePath::new(name.as_bytes()).is_ok());
        assert!(TreePath::new(format!("{name}n").as_bytes()).is_err());
        let long = format!("{}/", &name[..127]).repeat(32);
        assert_eq!(long.len(), TREE_PATH_LEN_MAX);
        assert!(TreePath::new(long.trim_end_matches('/').as_bytes()).is_ok());
        assert!(TreePath::new(format!("{long}n").as_bytes()).is_err());
        assert!(TreePath::new(format!("{}nn", &long[..TREE_PATH_LEN_MAX - 2]).as_bytes()).is_ok());
    }

    #[test]
    fn what_lies_below_a_directory_is_told_from_its_neighbours() {
        let path = TreePath::new(b"carbon/agents/a.wsp").unwrap();
        assert!(path.is_below(b"carbon") && path.is_below(b"carbon/agents"));
        assert!(!path.is_below(b"carb") && !path.is_below(b"carbon/agents/a.wsp"));
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let path = TreePath::new(b"a\x1b[2J/\xff").unwrap();
        assert_eq!(path.to_string(), "a\\u{1b}[2J/\u{fffd}");
    }
}
