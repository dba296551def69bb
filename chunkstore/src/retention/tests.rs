//! What a schedule keeps: the cases of the ancestor's suite, the calendar, the reasons.

use std::num::NonZeroU64;

use super::*;

mod clock;
mod document;
mod model;

const DAY: i64 = 86_400_000;

fn count(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap()
}

fn daily(keep: u64) -> Schedule {
    let rule = TagRule::count("1d".parse().unwrap(), count(keep));
    Schedule::default().with_tag("daily", rule).unwrap()
}

fn calendar_of_tag(tag: &str, calendar: Calendar) -> Schedule {
    let rule = TagRule { calendar, ..TagRule::default() };
    Schedule::default().with_tag(tag, rule).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Returns a trusted revision.
fn candidate(number: u8, time: Timestamp, tags: &str) -> Candidate {
    Candidate {
        id: RevisionId::from_bytes([number; 16]),
        time,
        tags: tags.split_whitespace().map(str::to_owned).collect(),
        trust: Trust::Trusted,
        protected: false,
    }
}

/// Returns a history of revisions with these times and tags, oldest first.
fn history(revisions: &[(&str, &str)]) -> Vec<Candidate> {
    let numbered = (1..).zip(revisions);
    numbered.map(|(number, (time, tags))| candidate(number, at(time), tags)).collect()
}

/// Returns for each revision the tags that it keeps, or `removed`.
fn outcome(verdict: &Verdict) -> Vec<String> {
    let decisions = verdict.decisions.iter();
    let text = |decision: &Decision| match decision.is_removed {
        true => "removed".to_owned(),
        false => decision.tags_after.join(" "),
    };
    decisions.map(text).collect()
}

fn reasons(verdict: &Verdict, place: usize) -> Vec<String> {
    verdict.decisions[place].reasons.iter().map(ToString::to_string).collect()
}

const NOW: &str = "2014-05-10T10:00:00Z";

fn decide_now(history: &[Candidate], schedule: &Schedule) -> Verdict {
    decide(history, schedule, at(NOW), &TimeZone::UTC)
}

#[test]
fn golden_five_daily_revisions_are_kept() {
    let history = history(&[
        ("2014-05-06T11:00:00Z", "daily"),
        ("2014-05-07T11:00:00Z", "daily"),
        ("2014-05-08T11:00:00Z", "daily"),
        ("2014-05-09T11:00:00Z", "daily"),
        ("2014-05-10T09:00:00Z", "daily"),
    ]);
    let verdict = decide_now(&history, &daily(5));
    assert!(verdict.is_unchanged() && verdict.refusals.is_empty(), "{verdict:?}");
    assert_eq!(reasons(&verdict, 0), ["daily: 5th newest of 5"]);
    assert_eq!(reasons(&verdict, 4), ["daily: newest of 5"]);
}

#[test]
fn golden_sixth_revision_inside_the_interval_is_kept() {
    let history = history(&[
        ("2014-05-06T11:00:00Z", "daily"),
        ("2014-05-06T12:00:00Z", "daily"),
        ("2014-05-07T11:00:00Z", "daily"),
        ("2014-05-08T11:00:00Z", "daily"),
        ("2014-05-09T11:00:00Z", "daily"),
        ("2014-05-10T09:00:00Z", "daily"),
    ]);
    let verdict = decide_now(&history, &daily(5));
    assert!(verdict.is_unchanged(), "{verdict:?}");
    assert_eq!(reasons(&verdict, 0), ["daily: 5 newer, but age 3d 23h <= 5x1d"]);
}

#[test]
fn golden_sixth_revision_beyond_the_interval_loses_its_tag_and_goes() {
    let history = history(&[
        ("2014-05-04T11:00:00Z", "daily"),
        ("2014-05-06T11:00:00Z", "daily"),
        ("2014-05-07T11:00:00Z", "daily"),
        ("2014-05-08T11:00:00Z", "daily"),
        ("2014-05-09T11:00:00Z", "daily"),
        ("2014-05-10T09:00:00Z", "daily"),
    ]);
    let verdict = decide_now(&history, &daily(5));
    assert_eq!(outcome(&verdict), ["removed", "daily", "daily", "daily", "daily", "daily"]);
    assert_eq!(verdict.removed().collect::<Vec<_>>(), [history[0].id]);
    assert_eq!(reasons(&verdict, 0), ["daily: 5 newer, age 5d 23h > 5x1d"]);
    assert_eq!(verdict.refusals, []);
}

#[test]
fn golden_manual_tag_stays_and_unknown_tag_goes() {
    let history = history(&[
        ("2014-05-04T11:00:00Z", "daily manual:test unknown"),
        ("2014-05-06T11:00:00Z", "daily"),
        ("2014-05-07T11:00:00Z", "daily"),
        ("2014-05-08T11:00:00Z", "daily"),
        ("2014-05-09T11:00:00Z", "daily"),
        ("2014-05-10T09:00:00Z", "daily"),
    ]);
    let verdict = decide_now(&history, &daily(5));
    assert_eq!(outcome(&verdict)[0], "manual:test");
    assert_eq!(
        reasons(&verdict, 0),
        [
            "manual:test: manual tags never expire",
            "schedule has no tag unknown",
            "daily: 5 newer, age 5d 23h > 5x1d",
        ]
    );
}

#[test]
fn golden_tags_are_sorted_by_their_interval() {
    let mut schedule = Schedule::default();
    for (tag, interval) in [("monthly", "30d"), ("daily", "1d"), ("weekly", "7d")] {
        let rule = TagRule::count(interval.parse().unwrap(), count(1));
        schedule = schedule.with_tag(tag, rule).unwrap();
    }
    let tags = ["monthly", "weekly", "daily", "manual:x"].map(str::to_owned);
    assert_eq!(schedule.sorted(&tags), ["manual:x", "daily", "weekly", "monthly"]);
}

#[test]
fn tag_is_kept_at_exactly_its_age_and_dropped_a_millisecond_later() {
    let history = history(&[("2014-05-09T10:00:00Z", "daily"), ("2014-05-09T11:00:00Z", "daily")]);
    assert!(decide_now(&history, &daily(1)).is_unchanged());
    let later = Timestamp(at(NOW).0 + 1);
    let verdict = decide(&history, &daily(1), later, &TimeZone::UTC);
    assert_eq!(outcome(&verdict), ["removed", "daily"]);
}

#[test]
fn age_alone_drops_nothing() {
    let history = history(&[("2014-01-01T00:00:00Z", "daily"), ("2014-01-02T00:00:00Z", "daily")]);
    assert!(decide_now(&history, &daily(2)).is_unchanged());
}

#[test]
fn protected_revision_is_left_as_it_is() {
    let mut history = history(&[("2014-01-01T00:00:00Z", "gone daily"), (NOW, "daily")]);
    history[0].protected = true;
    let verdict = decide_now(&history, &daily(1));
    assert_eq!(outcome(&verdict), ["gone daily", "daily"]);
    assert_eq!(reasons(&verdict, 0), ["protected"]);
}

#[test]
fn revision_without_tags_is_removed() {
    let history = history(&[("2014-05-08T00:00:00Z", ""), (NOW, "daily")]);
    let verdict = decide_now(&history, &daily(1));
    assert_eq!(outcome(&verdict), ["removed", "daily"]);
    assert_eq!(reasons(&verdict, 0), ["no tags"]);
}

#[test]
fn revision_that_is_not_good_pushes_no_other_out() {
    let mut history = history(&[
        ("2014-05-01T00:00:00Z", "daily"),
        ("2014-05-02T00:00:00Z", "daily"),
        ("2014-05-03T00:00:00Z", "daily"),
        ("2014-05-10T00:00:00Z", "daily"),
    ]);
    history[1].trust = Trust::Distrusted;
    history[2].trust = Trust::Damaged;
    // Of the two to keep, the second newest good one is the oldest of all.
    assert!(decide_now(&history, &daily(2)).is_unchanged());
    history[2].trust = Trust::Verified;
    let verdict = decide_now(&history, &daily(2));
    assert_eq!(outcome(&verdict), ["removed", "removed", "daily", "daily"]);
}

#[test]
fn calendar_keeps_the_newest_of_each_period_of_a_tag() {
    let history = history(&[
        ("2014-03-31T12:00:00Z", "nightly"),
        ("2014-04-28T12:00:00Z", "nightly"),
        ("2014-05-04T12:00:00Z", "nightly"),
        ("2014-05-09T12:00:00Z", "nightly"),
        ("2014-05-10T08:00:00Z", "nightly"),
        ("2014-05-10T09:00:00Z", "nightly"),
    ]);
    let calendar = Calendar {
        daily: Some(count(2)),
        weekly: Some(count(2)),
        monthly: Some(count(2)),
        yearly: None,
    };
    let verdict = decide_now(&history, &calendar_of_tag("nightly", calendar));
    let kept = ["removed", "nightly", "nightly", "nightly", "removed", "nightly"];
    assert_eq!(outcome(&verdict), kept);
    assert_eq!(reasons(&verdict, 0), ["nightly: no keep rule needs it"]);
    assert_eq!(reasons(&verdict, 1), ["nightly: keep-monthly: newest of 2014-04"]);
    assert_eq!(reasons(&verdict, 2), ["nightly: keep-weekly: newest of 2014-W18"]);
    assert_eq!(
        reasons(&verdict, 5),
        [
            "nightly: keep-daily: newest of 2014-05-10",
            "nightly: keep-weekly: newest of 2014-W19",
            "nightly: keep-monthly: newest of 2014-05",
        ]
    );
}

#[test]
fn one_rule_that_keeps_a_tag_is_enough() {
    let rule = TagRule {
        calendar: Calendar { weekly: Some(count(9)), ..Calendar::default() },
        ..TagRule::count("1d".parse().unwrap(), count(1))
    };
    let schedule = Schedule::default().with_tag("daily", rule).unwrap();
    let history = history(&[
        ("2014-04-29T00:00:00Z", "daily"),
        ("2014-04-30T00:00:00Z", "daily"),
        ("2014-05-09T00:00:00Z", "daily"),
        ("2014-05-10T00:00:00Z", "daily"),
    ]);
    let verdict = decide_now(&history, &schedule);
    // 2014-05-09 is a day and ten hours ago, and not the newest of its week.
    assert_eq!(outcome(&verdict), ["removed", "daily", "removed", "daily"]);
    assert_eq!(reasons(&verdict, 1), ["daily: keep-weekly: newest of 2014-W18"]);
    assert_eq!(
        reasons(&verdict, 3),
        ["daily: newest of 1", "daily: keep-weekly: newest of 2014-W19"]
    );
}

#[test]
fn calendar_of_the_schedule_keeps_revisions_whatever_their_tags() {
    let calendar = Calendar { weekly: Some(count(3)), ..Calendar::default() };
    let schedule = daily(1).with_calendar(calendar);
    let history = history(&[
        ("2014-04-20T00:00:00Z", "daily"),
        ("2014-04-26T00:00:00Z", "former"),
        ("2014-05-03T00:00:00Z", "daily"),
        ("2014-05-10T00:00:00Z", "daily"),
    ]);
    let verdict = decide_now(&history, &schedule);
    assert_eq!(outcome(&verdict), ["removed", "", "", "daily"]);
    assert_eq!(
        reasons(&verdict, 1),
        ["schedule has no tag former", "keep-weekly: newest of 2014-W17"]
    );
}

#[test]
fn revision_dated_before_its_predecessor_counts_as_young_as_that() {
    let history = history(&[
        ("2014-05-09T12:00:00Z", "daily"),
        ("1970-01-01T00:00:07Z", "daily"),
        ("2014-05-10T09:00:00Z", "daily"),
    ]);
    let verdict = decide_now(&history, &daily(1));
    assert!(verdict.is_unchanged(), "{verdict:?}");
    assert_eq!(reasons(&verdict, 1), ["daily: 1 newer, but age 22h <= 1x1d"]);
}
