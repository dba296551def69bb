//! The cases of the language's users, on a history of three revisions.

use jiff::tz;

use super::*;

mod golden;

fn id(digits: &str) -> RevisionId {
    format!("{digits:0<32}").parse().unwrap()
}

/// Oldest first: 1230 of 2015-08-29 00:00, 1231 of 2015-08-30 01:00, 1232 of 2015-08-30 02:00.
fn history() -> Vec<Candidate> {
    let candidate = |digits, time: &str, tags: &[&str], trust| Candidate {
        id: id(digits),
        time: time.parse().unwrap(),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        trust,
    };
    vec![
        candidate(
            "abcd1230",
            "2015-08-29T00:00:00Z",
            &["daily", "weekly", "monthly"],
            Trust::Verified,
        ),
        candidate("abcd1231", "2015-08-30T01:00:00Z", &["daily", "weekly"], Trust::Trusted),
        candidate("abcd1232", "2015-08-30T02:00:00Z", &["daily"], Trust::Distrusted),
    ]
}

fn select(text: &str) -> Result<Vec<usize>, SpecError> {
    RevisionSpec::parse(text)?.select(&history(), &TimeZone::UTC)
}

#[track_caller]
fn assert_selects(text: &str, expected: &[usize]) {
    assert_eq!(select(text).as_deref(), Ok(expected), "{text:?}");
}

#[track_caller]
fn assert_syntax_error(text: &str) {
    let result = RevisionSpec::parse(text);
    assert!(matches!(result, Err(SpecError::Syntax { .. })), "{text:?}: {result:?}");
}

#[test]
fn numbers_count_from_the_newest() {
    assert_selects("0", &[2]);
    assert_selects("1", &[1]);
    assert_selects("2", &[0]);
    assert_selects("000000002", &[0]);
    assert_eq!(select("3"), Err(SpecError::Unknown { spec: "3".to_owned() }));
    assert_syntax_error("-1");
}

#[test]
fn ids_and_unique_prefixes_name_one_revision() {
    assert_selects("abcd1231", &[1]);
    assert_selects("ABCD1231", &[1]);
    assert_selects(&id("abcd1231").to_string(), &[1]);
    assert_eq!(select("abce"), Err(SpecError::Unknown { spec: "abce".to_owned() }));
    assert_syntax_error("abc");
    assert_syntax_error(&"a".repeat(33));
}

#[test]
fn ambiguous_prefix_names_all_candidates() {
    let candidates = vec![id("abcd1230"), id("abcd1231"), id("abcd1232")];
    let error = select("abcd").unwrap_err();
    assert!(error.to_string().contains(&candidates[2].to_string()));
    assert!(!error.is_no_such_revision());
    assert_eq!(error, SpecError::Ambiguous { prefix: "abcd".to_owned(), candidates });
}

#[test]
fn long_run_of_digits_is_an_id() {
    let mut history = history();
    history[0].id = id("1234567890");
    let select = |text: &str| RevisionSpec::parse(text).unwrap().select(&history, &TimeZone::UTC);
    assert_eq!(select("1234567890"), Ok(vec![0]));
    assert_eq!(select("123456789"), Err(SpecError::Unknown { spec: "123456789".to_owned() }));
}

#[test]
fn words_select_sets() {
    assert_selects("all", &[0, 1, 2]);
    assert_selects("clean", &[0, 1, 2]);
    assert_selects("latest", &[2]);
    assert_selects("last", &[2]);
    assert_selects("first", &[0]);
    assert_selects("tag:weekly", &[0, 1]);
    assert_selects("tag:dail", &[]);
    assert_selects("trust:verified", &[0]);
    assert_selects("trust:damaged", &[]);
    assert_syntax_error("trust:perfect");
    assert_syntax_error("tag:");
    assert_syntax_error("daily");
    assert_syntax_error("server:");
}

#[test]
fn ranges_are_in_the_order_of_the_history() {
    assert_selects("2..1", &[0, 1]);
    assert_selects("1..2", &[0, 1]);
    assert_selects("abcd1231..", &[1, 2]);
    assert_selects("..1", &[0, 1]);
    assert_selects("..", &[0, 1, 2]);
    assert_selects("first..last", &[0, 1, 2]);
    assert_selects("last(tag:daily)..abcd1231", &[1, 2]);
    assert_selects("(0)..(1)", &[1, 2]);
}

#[test]
fn dates_bound_ranges() {
    assert_selects("2015-09-01..2015-08-30", &[1, 2]);
    assert_selects("2015-08-30..last(last(tag:daily&trust:trusted))", &[1]);
    assert_selects("2015-08-30..,trust:verified", &[1, 2, 0]);
    assert_selects("first(trust:verified)..last(reverse(2015-08-30..))", &[0, 1]);
    assert_selects("2015-08-29..2015-08-29", &[0]);
    assert_selects("2015-08-30..2015-08-30", &[]);
    assert_selects("2015-08-30T01:00..2015-08-30T01:59:59", &[1]);
    assert_selects("2015-08-30T04:00+02:00..", &[2]);
    assert_selects("..2015-08-30T01:30Z", &[0, 1]);
    assert_selects("0000-01-01..9999-12-31T23:59", &[0, 1, 2]);
    assert_syntax_error("-0001-01-01..");
    assert_syntax_error("2015-08-30");
    assert_syntax_error("2015-09..2015-08-30");
    assert_syntax_error("2015-02-30..");
}

#[test]
fn dates_are_local_to_the_zone_given() {
    let east = TimeZone::fixed(tz::offset(3));
    let spec = RevisionSpec::parse("2015-08-30..").unwrap();
    assert_eq!(spec.select(&history(), &east), Ok(vec![1, 2]));
    let west = TimeZone::fixed(tz::offset(-2));
    assert_eq!(spec.select(&history(), &west), Ok(vec![2]));
}

#[test]
fn union_keeps_the_order_and_drops_duplicates() {
    assert_selects("1, tag:weekly", &[1, 0]);
    assert_selects("0,2..1", &[2, 0, 1]);
    assert_selects("2,1, 2,0,1", &[0, 1, 2]);
}

#[test]
fn intersection_keeps_the_order_of_the_left() {
    assert_selects("reverse(all) & tag:weekly", &[1, 0]);
    assert_selects("tag:daily & trust:verified", &[0]);
    assert_selects("0, tag:weekly & trust:verified", &[2, 0]);
}

#[test]
fn functions_and_parentheses_nest() {
    assert_selects("reverse(not(clean))", &[]);
    assert_selects("reverse(not(trust:verified))", &[2, 1]);
    assert_selects("( (first( (abcd1230, abcd1231)) ))", &[0]);
    assert_selects("last ( reverse(all) )", &[0]);
    assert_selects("not(first),first", &[1, 2, 0]);
    assert_eq!(select("first(not(all))"), Err(SpecError::Empty { function: "first" }));
}

#[test]
fn text_outside_of_the_grammar_is_rejected() {
    for text in [
        "",
        " ",
        "(",
        ")",
        "()",
        "last)..5",
        "clean-..,1",
        "123-",
        "1,",
        ",1",
        "1 &",
        "& 1",
        "1 2",
        "(1",
        "1)",
        "not",
        "not 1",
        "latest(all)",
        "0..1..2",
        "all(1)",
        "...",
        "0...1",
        "1;2",
        "\u{e4}\u{f6}\u{fc}\u{df}",
        "a\0bcd",
        "tag:x(y)",
    ] {
        assert_syntax_error(text);
    }
}

#[test]
fn unknown_revision_is_told_from_a_wrong_specification() {
    assert!(select("aaaa..125").unwrap_err().is_no_such_revision());
    assert!(select("first(tag:x)").unwrap_err().is_no_such_revision());
    assert!(!select("123-").unwrap_err().is_no_such_revision());
}

#[test]
fn side_of_a_range_is_one_revision() {
    let error = select("all..0").unwrap_err();
    assert!(matches!(error, SpecError::NotSingle { count: 3, .. }), "{error:?}");
    assert_eq!(select("tag:none..0"), Err(SpecError::NoMatch));
}

#[test]
fn one_revision_is_selected_or_an_error_says_how_many() {
    let one = |text| RevisionSpec::parse(text).unwrap().select_one(&history(), &TimeZone::UTC);
    assert_eq!(one("latest"), Ok(2));
    assert_eq!(one("tag:monthly"), Ok(0));
    assert_eq!(one("tag:none"), Err(SpecError::NoMatch));
    assert!(matches!(one("tag:weekly"), Err(SpecError::NotSingle { count: 2, .. })));
}

#[test]
fn selection_by_place_is_told_from_selection_by_name() {
    let is_by_name = |text| RevisionSpec::parse(text).unwrap().is_by_name();
    for text in ["abcd1230", "tag:x & not(trust:damaged)", "all", "reverse(abcd,tag:x)"] {
        assert!(is_by_name(text), "{text:?}");
    }
    for text in ["0", "latest", "first(tag:x)", "abcd..", "tag:x, 0", "not(first)"] {
        assert!(!is_by_name(text), "{text:?}");
    }
}

#[test]
fn empty_history_has_no_latest() {
    let select = |text| RevisionSpec::parse(text).unwrap().select(&[], &TimeZone::UTC);
    assert_eq!(select("all"), Ok(vec![]));
    assert_eq!(select(".."), Ok(vec![]));
    assert_eq!(select("2015-08-30.."), Ok(vec![]));
    assert!(select("latest").unwrap_err().is_no_such_revision());
    assert!(select("0").unwrap_err().is_no_such_revision());
    assert!(select("first").unwrap_err().is_no_such_revision());
}

#[test]
fn length_and_depth_are_bounded() {
    let nested = |depth: usize| format!("{}0{}", "(".repeat(depth), ")".repeat(depth));
    assert_selects(&nested(SPEC_DEPTH_MAX), &[2]);
    assert_eq!(select(&nested(SPEC_DEPTH_MAX + 1)), Err(SpecError::TooDeep));
    assert_eq!(select(&"(".repeat(SPEC_LEN_MAX)), Err(SpecError::TooDeep));
    let len = SPEC_LEN_MAX + 1;
    assert_eq!(select(&"0".repeat(len)), Err(SpecError::TooLong { len }));
}
