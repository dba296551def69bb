//! Tags of a revision as the command line takes them.

use chunkstore::limits::NAME_LEN_MAX;
use chunkstore::retention::Schedule;
use chunkstore::revision_spec::is_tag_word;

use crate::command_error::CommandError;

/// Reads a comma separated list of at least one tag. Each must be in the schedule or manual, unless `force`.
pub(crate) fn parse(
    text: &str,
    schedule: &Schedule,
    force: bool,
) -> Result<Vec<String>, CommandError> {
    let tags = parse_any(text)?;
    let is_unknown = |tag: &&String| !force && !schedule.permits(tag);
    let unknown: Vec<&str> = tags.iter().filter(is_unknown).map(String::as_str).collect();
    if unknown.is_empty() {
        return Ok(tags);
    }
    Err(CommandError::UnknownTags { tags: unknown.join(", ") })
}

/// Reads a comma separated list of at least one tag, whatever the schedule has.
pub(crate) fn parse_any(text: &str) -> Result<Vec<String>, CommandError> {
    let mut tags: Vec<String> = Vec::new();
    for tag in text.split(',').map(str::trim) {
        if !is_tag_word(tag) {
            return Err(CommandError::Usage(format!(
                "not a tag: {tag:?} (1 to {NAME_LEN_MAX} of A-Z a-z 0-9 : . _ - + @ / =, without '..')"
            )));
        }
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    Ok(tags)
}

/// Reads a list of tags where the empty text means none at all.
pub(crate) fn or_none(
    text: &str,
    parse: impl FnOnce(&str) -> Result<Vec<String>, CommandError>,
) -> Result<Vec<String>, CommandError> {
    if text.trim().is_empty() { Ok(Vec::new()) } else { parse(text) }
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
    fn empty_text_means_no_tags_where_that_makes_sense() {
        assert!(parse_any("").is_err());
        assert_eq!(or_none(" ", parse_any).unwrap(), Vec::<String>::new());
        assert_eq!(or_none("daily", parse_any).unwrap(), ["daily"]);
        assert!(or_none("daily,", parse_any).is_err());
    }

    #[test]
    fn tags_that_the_revision_language_cannot_name_are_rejected() {
        for text in ["", "a,", "a b", "a&b", "a(b)", "a..b", "\u{e4}"] {
            assert!(parse(text, &Schedule::default(), true).is_err(), "{text:?}");
        }
    }
}
