//! What people write: revision specifications, schedules, configurations, patterns, names.

use chunkstore::format::{TreePath, Trust, is_tag};
use chunkstore::id::{ChunkId, RevisionId, SourceName};
use chunkstore::retention::{Candidate, Interval, Schedule, decide, is_manual};
use chunkstore::revision_spec::{self, Days, RevisionSpec};
use chunkstore::time::Timestamp;
use jiff::tz::TimeZone;

use self::config::Config;
use self::glob::Glob;
use crate::memory::{DECODER, Limit};

#[path = "../../backy-cli/src/config.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "files are neither read nor written here"))]
mod config;
#[path = "../../backy-cli/src/commands/whisper/glob.rs"]
mod glob;

const DAY_MILLISECONDS: i64 = 86_400_000;

/// When the first revision of a history was made.
const START: i64 = 1_790_000_000_000;

/// Returns the bytes as text, up to where they are none.
fn text_of(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("it is text up to there")
        }
    }
}

fn seeds_of(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Returns a history of four revisions with different trust.
pub(crate) fn history() -> Vec<revision_spec::Candidate> {
    let candidate = |(place, trust): (u8, Trust)| revision_spec::Candidate {
        id: RevisionId::from_bytes([0x12 + place; 16]),
        time: Timestamp(START + i64::from(place) * DAY_MILLISECONDS),
        tags: vec!["daily".to_owned(), format!("manual:{place}")],
        trust,
    };
    let trusts = [Trust::Trusted, Trust::Verified, Trust::Distrusted, Trust::Damaged];
    (0..).zip(trusts).map(candidate).collect()
}

/// Revision language: no panic, and what is selected is in the history, each revision once.
pub(crate) fn revision_spec(bytes: &[u8]) -> bool {
    let Ok(spec) = RevisionSpec::parse(text_of(bytes)) else { return false };
    let history = history();
    let Ok(selected) = spec.select(&history, &TimeZone::UTC) else { return false };
    let one = spec.select_one(&history, &TimeZone::UTC);
    assert_eq!(one.is_ok(), selected.len() == 1);
    let mut sorted = selected.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), selected.len(), "a revision was selected twice");
    assert!(selected.iter().all(|place| *place < history.len()));
    if spec.is_by_name() {
        let alone = |place: &usize| {
            spec.select(&history[*place..=*place], &TimeZone::UTC).is_ok_and(|one| one == [0])
        };
        // An id that fits another revision only is unknown where that one is missing.
        let is_known =
            |place: &usize| spec.select(&history[*place..=*place], &TimeZone::UTC).is_ok();
        assert!(selected.iter().filter(|place| is_known(place)).all(alone), "others matter");
    }
    true
}

pub(crate) fn revision_spec_seeds() -> Vec<Vec<u8>> {
    seeds_of(&[
        "",
        "latest",
        "first",
        "0",
        "3",
        "all",
        "1212",
        &"13".repeat(16),
        "tag:daily",
        "trust:damaged",
        "trusted",
        "first(tag:daily)",
        "last(trusted|verified)",
        "not(tag:manual:1)&daily",
        "2026-09-21..",
        "..2026-09-23T12:00",
        "first..latest",
        "reverse(all)",
        "local",
        "remote",
        "not(not(all))",
        "2026-09-21T14:13:20Z..3",
        "last(daily,first(all))",
    ])
}

/// What YAML may take: a constant for long texts, by the bounds of `config::from_yaml`. What takes most of it is a list of as many values as
/// there may be, as a key: values that are kept until it is known what they are have some 300 bytes each.
pub(crate) const LIMIT: Limit = Limit { base: 1 << 20, most: 4 << 20, ..DECODER };

/// Bytes before the text of a schedule: eight pauses, and the time.
const SCHEDULE_HEAD_LEN: usize = 16;

/// Schedule of a configuration: no panic; what is read is written and read again; and what it decides about a history
/// drops no manual tag, leaves protected revisions alone and has a reason for every tag.
pub(crate) fn schedule(bytes: &[u8]) -> bool {
    let Some((head, bytes)) = bytes.split_first_chunk::<SCHEDULE_HEAD_LEN>() else { return false };
    let (pauses, now) = head.split_first_chunk::<8>().expect("the head is longer");
    let now = i64::from_le_bytes(*now.first_chunk().expect("eight bytes are left"));
    let text = text_of(bytes);
    let Ok(schedule) = config::from_yaml::<Schedule>(text) else { return false };
    let written = serde_saphyr::to_string(&schedule).expect("writing to memory does not fail");
    let again = config::from_yaml(&written).expect("what was written is read");
    assert_eq!(schedule, again);

    let history = history_of(text, *pauses);
    let verdict = decide(&history, &schedule, Timestamp(now), &TimeZone::UTC);
    assert_eq!(verdict.decisions.len(), history.len());
    for (candidate, decision) in history.iter().zip(&verdict.decisions) {
        assert!(!candidate.protected || decision.is_unchanged());
        for tag in &decision.tags_before {
            assert!(!is_manual(tag) || decision.tags_after.contains(tag));
            let has_reason = |reason: &&_| chunkstore::retention::Reason::tag(reason) == Some(tag);
            assert!(candidate.protected || decision.reasons.iter().any(|one| has_reason(&one)));
        }
    }
    true
}

/// Returns a history with these pauses in eighths of a day, and tags that the schedule may know.
fn history_of(text: &str, pauses: [u8; 8]) -> Vec<Candidate> {
    let tags: Vec<String> = text.split(':').map(|tag| tag.trim().to_owned()).take(4).collect();
    let mut time = START;
    let mut history = Vec::new();
    for (number, pause) in (0..).zip(pauses.map(u8::cast_signed)) {
        time += i64::from(pause) * DAY_MILLISECONDS / 8;
        let mut tags = tags.clone();
        tags.extend(["daily", "manual:x"].map(str::to_owned));
        history.push(Candidate {
            id: RevisionId::from_bytes([number; 16]),
            time: Timestamp(time),
            tags,
            trust: if pause % 5 == 0 { Trust::Damaged } else { Trust::Trusted },
            protected: pause % 7 == 0,
        });
    }
    history
}

pub(crate) fn schedule_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "daily: {interval: 1d, keep: 9}\nhourly:\n  interval: 3600\n  keep: 5\n",
        "daily: {keep-daily: 7, keep-weekly: 4}\nhourly: {interval: 1h, keep: 24, keep-daily: 2}\n",
        "keep-monthly: 12\nkeep-yearly: 2\n",
        "{}",
    ];
    let head = [&[8, 9, 16, 3, 0, 250, 24, 40][..], &(START + DAY_MILLISECONDS).to_le_bytes()];
    texts.iter().map(|text| [head.concat().as_slice(), text.as_bytes()].concat()).collect()
}

/// Configuration: no panic, and what is read is written and read again.
pub(crate) fn config(bytes: &[u8]) -> bool {
    let config = match Config::parse(text_of(bytes)) {
        Ok(config) => config,
        Err(reason) => {
            assert!(!reason.contains('\n'), "a message is one line: {reason:?}");
            return false;
        }
    };
    let written = serde_saphyr::to_string(&config).expect("writing to memory does not fail");
    assert_eq!(Config::parse(&written), Ok(config), "{written}");
    true
}

pub(crate) fn config_seeds() -> Vec<Vec<u8>> {
    seeds_of(&[
        "source: {type: file, filename: /dev/vg/a}\nstore: /srv/store\nname: vm1\n",
        "source:\n  type: whisper\n  filename: \"/var/lib/graphite\"\nwhisper:\n  retention: 3\n  \
         purge-days: -1\n",
        "source: {type: file, filename: /x}\nschedule:\n  nightly: {keep-daily: 7, keep-weekly: 4}\n  \
         hourly: {interval: 1h, keep: 24}\n  keep-monthly: 12\n",
        "source: {type: file, filename: '/x: #y'}\nschedule: {}\n",
        "a: &a [*a]",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    ])
}

/// Patterns of names: a pattern of plain letters matches itself alone, a run matches everything, and time is bounded.
pub(crate) fn glob(bytes: &[u8]) -> bool {
    let text = text_of(bytes);
    let (pattern, name) = text.split_once('\n').unwrap_or((text, text));
    let glob = Glob::new(pattern);
    let is_match = glob.matches(name);
    assert!(Glob::new("*").matches(name));
    assert!(Glob::new(&format!("*{pattern}*")).matches(name) || !is_match);
    assert!(Glob::new(&format!("{pattern}*")).matches(&format!("{name}{name}")) || !is_match);
    if !pattern.contains(['*', '?', '[']) {
        assert_eq!(is_match, pattern == name);
    }
    is_match
}

pub(crate) fn glob_seeds() -> Vec<Vec<u8>> {
    seeds_of(&[
        "*\ncarbon.agents.a",
        "carbon.*.cpu\ncarbon.a.b.cpu",
        "a?c\nabc",
        "[!ab]x\ncx",
        "[a-c]\nb",
        "[]]\n]",
        "[a\n[a",
        "**b\naab",
        "a\nb",
        "*a*a*a*a\naaaaaaab",
    ])
}

/// Names, ids, tags, paths, dates and times: what is read is written the same way, and is read again.
pub(crate) fn names(bytes: &[u8]) -> bool {
    let text = text_of(bytes);
    let mut is_accepted = false;
    if let Ok(name) = text.parse::<SourceName>() {
        assert_eq!(name.to_string(), text);
        assert!(!text.contains(['/', '\0', ' ']) && !text.starts_with(['.', '-']));
        is_accepted = true;
    }
    if let Ok(id) = text.parse::<RevisionId>() {
        assert_eq!(id.to_string(), text);
        is_accepted = true;
    }
    if let Ok(id) = text.parse::<ChunkId>() {
        assert_eq!(id.to_string(), text);
        is_accepted = true;
    }
    if let Ok(interval) = text.parse::<Interval>() {
        assert_eq!(interval.to_string().parse(), Ok(interval));
        is_accepted = true;
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string().parse(), Ok(time));
        is_accepted = true;
    }
    if let Ok(path) = TreePath::new(bytes) {
        assert_eq!(path.as_bytes(), bytes);
        assert!(!path.to_string().contains(char::is_control));
        is_accepted = true;
    }
    is_accepted | is_tag(text) | Days::parse_day(text).is_some()
}

pub(crate) fn names_seeds() -> Vec<Vec<u8>> {
    seeds_of(&[
        "vm-1.example_0",
        ".hidden",
        "a/b/c.wsp",
        "../x",
        "/x",
        &"ab".repeat(16),
        &"cd".repeat(32),
        "2026-09-21",
        "2026-09-21T14:13:20.123Z",
        "2026-09-21T14:13+02:00",
        "36h",
        "1d",
        "90",
        "manual:cli",
        "daily",
        "",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::bounded;

    /// Texts of about `len` bytes that ask for as much as YAML lets them.
    fn greedy_texts(len: usize) -> Vec<String> {
        let filled = |opening: &str, depth: usize, item: &str| {
            let opened = opening.repeat(depth);
            let count = len.saturating_sub(opened.len()) / item.len().max(1);
            opened + &item.repeat(count)
        };
        vec![
            filled("&a {a: ", 12, "&b c: &d e, "),
            filled("&a [", 12, "a,"),
            filled("&a {", 12, "&a"),
            filled("{", 12, "a "),
            filled("{", 1, "!!a b: "),
            filled("[", len, "["),
            filled("&a {a: ", 12, "") + "? [" + &filled("", 0, "a,") + "]: x",
            format!("? [{}]\n: x", "a,".repeat(len / 2)),
            format!("? {{{}}}\n: x", "a: b,".repeat(len / 5)),
            (0..len / 8).map(|key| format!("k{key}: {{}}\n")).collect(),
            format!("\"{}\"", "\\u0041".repeat(len / 6)),
            format!("#{}", " x".repeat(len / 2)),
            format!("a: &a [x]\nb: [{}]", "*a,".repeat(len / 3)),
            format!("a: &a {{x: y}}\n{}", "<<: *a\n".repeat(len / 7)),
        ]
    }

    /// More than that, and the process ends.
    #[test]
    fn yaml_takes_no_more_memory_than_its_bound() {
        for len in [100, 1 << 10, 4 << 10, 64 << 10, 1 << 20] {
            for text in greedy_texts(len) {
                bounded(LIMIT, text.len(), || {
                    drop(config::from_yaml::<Schedule>(&text));
                    drop(Config::parse(&text));
                });
            }
        }
    }
}
