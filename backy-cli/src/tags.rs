//! Tags of a revision as the command line takes them.

use crate::command_error::CommandError;
use crate::schedule::Schedule;

/// Tags that begin like this belong to no schedule and never expire.
const MANUAL: &str = "manual:";

/// Longest tag in bytes.
const TAG_LEN_MAX: usize = 255;

/// Reads a comma separated list of tags. Each must be in the schedule or manual, unless `force`.
pub(crate) fn parse(
    text: &str,
    schedule: &Schedule,
    force: bool,
) -> Result<Vec<String>, CommandError> {
    let mut tags: Vec<String> = Vec::new();
    let mut unknown = Vec::new();
    for tag in text.split(',').map(str::trim) {
        if !is_tag(tag) {
            return Err(CommandError::Usage(format!(
                "not a tag: {tag:?} (1 to {TAG_LEN_MAX} of A-Z a-z 0-9 : . _ - + @ / =, without '..')"
            )));
        }
        let is_known = schedule.has_tag(tag) || tag.strip_prefix(MANUAL).is_some_and(not_empty);
        if !is_known && !force {
            unknown.push(tag);
        }
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    if unknown.is_empty() {
        return Ok(tags);
    }
    Err(CommandError::UnknownTags { tags: unknown.join(", ") })
}

/// Returns whether the revision language can name a tag.
pub(crate) fn is_tag(text: &str) -> bool {
    let permitted = |symbol: u8| symbol.is_ascii_alphanumeric() || b":._-+@/=".contains(&symbol);
    not_empty(text)
        && text.len() <= TAG_LEN_MAX
        && text.bytes().all(permitted)
        && !text.contains("..")
}

fn not_empty(text: &str) -> bool {
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_tags_need_no_schedule() {
        let tags = parse("manual:a, manual:b,manual:a", &Schedule::default(), false).unwrap();
        assert_eq!(tags, ["manual:a", "manual:b"]);
    }

    #[test]
    fn unknown_tags_are_named_unless_forced() {
        let error = parse("daily,manual:x,weekly", &Schedule::default(), false).unwrap_err();
        assert!(error.to_string().contains("daily, weekly"), "{error}");
        assert!(parse("daily,weekly", &Schedule::default(), true).is_ok());
        assert!(parse("manual:", &Schedule::default(), false).is_err());
    }

    #[test]
    fn tags_that_the_revision_language_cannot_name_are_rejected() {
        for text in ["", "a,", "a b", "a&b", "a(b)", "a..b", "\u{e4}"] {
            assert!(parse(text, &Schedule::default(), true).is_err(), "{text:?}");
        }
    }
}
