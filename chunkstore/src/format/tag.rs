//! Tags: words that people and schedules put on a revision.
//!
//! Rules: `docs/format.md`, section "Revision record".

use crate::format::FormatError;
use crate::limits::NAME_LEN_MAX;

/// Returns whether `text` may be a tag: 1 to 255 bytes of UTF-8 without comma, white space and
/// control characters, because lists of tags are written with commas.
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let permitted = |symbol: char| symbol != ',' && !symbol.is_whitespace() && !symbol.is_control();
    !text.is_empty() && text.len() <= NAME_LEN_MAX && text.chars().all(permitted)
}

/// Checks the tags of a document.
///
/// # Errors
///
/// - [`FormatError::Inconsistent`] if one of them is no tag.
pub(super) fn check_tags(tags: &[String]) -> Result<(), FormatError> {
    if tags.iter().all(|tag| is_tag(tag)) {
        return Ok(());
    }
    Err(FormatError::Inconsistent {
        what: "a tag is not 1 to 255 bytes without comma, white space and control characters",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_is_checked_at_its_limits() {
        assert!(is_tag("manual:cli") && is_tag("daily") && is_tag("f\u{fc}r"));
        assert!(is_tag(&"a".repeat(NAME_LEN_MAX)));
        assert!(!is_tag(&"a".repeat(NAME_LEN_MAX.saturating_add(1))));
        for bad in ["", "a,b", "a b", "a\n", "\u{1b}[2J", "a\u{a0}b"] {
            assert!(!is_tag(bad), "{bad:?}");
        }
        assert!(check_tags(&["a".into(), "b".into()]).is_ok());
        assert!(check_tags(&["a".into(), String::new()]).is_err());
    }
}
