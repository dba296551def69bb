//! The cases of the ancestor's own suite, expression by expression.
//!
//! Its history, oldest first: 123-0 of 2015-08-29, verified, with the tags daily, weekly, monthly; 123-1 of 2015-08-30 01:00, with daily, weekly;
//! 123-2 of 2015-08-30 02:00, incomplete, with daily. The last two belong to a server, which a store does not know: all
//! revisions of a store are local. Nor has it incomplete ones; 123-2 is distrusted here, and `trust:trusted`, `trust:verified` stand
//! where the ancestor's case has `clean`. Ids are hexadecimal: `123-1` is `abcd1231`.

use super::{assert_selects, assert_syntax_error, select};
use crate::revision_spec::SpecError;

/// What the ancestor's `clean` selects in this history.
const CLEAN: &str = "(trust:verified, trust:trusted)";

#[test]
fn golden_numbers_from_the_newest() {
    assert_selects("0", &[2]);
    assert_selects("1", &[1]);
    assert_selects("2", &[0]);
    assert_syntax_error("-1");
}

#[test]
fn golden_exact_id_and_unique_prefix() {
    assert_selects("abcd1231000000000000000000000000", &[1]);
    assert_selects("abcd1231", &[1]);
    assert!(matches!(select("abcd123"), Err(SpecError::Ambiguous { .. })));
    // An id that goes on after its end is no prefix of it.
    assert!(matches!(select("abcd12310000000000000000000000001"), Err(SpecError::Syntax { .. })));
}

#[test]
fn golden_first_and_last() {
    for text in ["last", "latest", "last(all)", "first(reverse(all))"] {
        assert_selects(text, &[2]);
    }
    for text in ["first", "first(all)", "last(reverse(all))"] {
        assert_selects(text, &[0]);
    }
}

#[test]
fn golden_sets() {
    assert_selects("all", &[0, 1, 2]);
    assert_selects(CLEAN, &[0, 1]);
    assert_selects("tag:daily", &[0, 1, 2]);
    assert_selects("tag:weekly", &[0, 1]);
    assert_selects("tag:monthly", &[0]);
    assert_selects("tag:dail", &[]);
    assert_selects("trust:verified", &[0]);
}

#[test]
fn golden_servers() {
    assert_selects("server:aaaa", &[]);
    assert_selects("server:remote1", &[]);
    assert_selects("local", &[0, 1, 2]);
    assert_selects("remote", &[]);
    assert_selects("trust:distrusted&local", &[2]);
    assert_selects("not(remote)", &[0, 1, 2]);
}

#[test]
fn golden_ranges_in_the_order_of_the_history() {
    assert_selects("2..1", &[0, 1]);
    assert_selects("1..2", &[0, 1]);
    assert_selects("abcd1231..", &[1, 2]);
    assert_selects("..", &[0, 1, 2]);
    assert_selects("first..last", &[0, 1, 2]);
    assert_selects("last(tag:daily)..abcd1231", &[1, 2]);
}

#[test]
fn golden_unions() {
    assert_selects("1, tag:weekly", &[1, 0]);
    assert_selects("0,2..1", &[2, 0, 1]);
    assert_selects("2,1, 2,0,1", &[0, 1, 2]);
}

#[test]
fn golden_ranges_by_date() {
    assert_selects("2015-09-01..2015-08-30", &[1, 2]);
    assert_selects("2015-08-30..2015-09-01", &[1, 2]);
    assert_selects(&format!("2015-08-30..last(last(tag:daily&{CLEAN}))"), &[1]);
    assert_selects("2015-08-30..,trust:verified", &[1, 2, 0]);
    assert_selects("first(trust:verified)..last(reverse(2015-08-30..))", &[0, 1]);
}

#[test]
fn golden_functions() {
    assert_selects(&format!("reverse(not({CLEAN}))"), &[2]);
    assert_selects("( (first( (abcd1230, abcd1231)) ))", &[0]);
}

#[test]
fn golden_comma_binds_least_then_and_then_range() {
    assert_selects("0, 1 & 2", &[2]);
    assert_selects("tag:monthly & 1..2, 0", &[0, 2]);
    assert_selects("(0, 1) & tag:weekly", &[1]);
    assert_selects("first..1 & tag:monthly", &[0]);
    assert_selects("not(0) & reverse(all), last", &[0, 1, 2]);
}

#[test]
fn golden_space_is_free() {
    for text in ["0,2..1", " 0 , 2 .. 1 ", "0 ,2.. 1", "\t0,2..1\n"] {
        assert_selects(text, &[2, 0, 1]);
    }
    assert_selects("first ( tag:daily )", &[0]);
    assert_selects("last( reverse( all ) )", &[0]);
}

#[test]
fn golden_trust() {
    assert_selects("trust:trusted", &[1]);
    assert_selects("trust:distrusted", &[2]);
    assert_selects("not(trust:verified)", &[1, 2]);
    assert_selects("trust:verified, trust:distrusted", &[0, 2]);
}

#[test]
fn golden_errors() {
    for text in ["last)..5", "clean-..,1", "123-", "2015-09..2015-08-30"] {
        assert_syntax_error(text);
    }
    assert!(select("aaaa..125").unwrap_err().is_no_such_revision());
    assert!(select("first(not(all))").unwrap_err().is_no_such_revision());
}

#[test]
fn golden_bare_tags_name_nothing() {
    // They did before there was `tag:`.
    for text in ["daily", "weekly", "manual:x"] {
        assert_syntax_error(text);
    }
}
