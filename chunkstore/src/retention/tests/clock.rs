//! Clocks that jump, and what else stops an expiry that is not forced.

use super::{DAY, at, candidate, count, daily, history, outcome};
use crate::format::Trust;
use crate::retention::{
    Age, CLOCK_SKEW_MAX_MILLISECONDS, Calendar, Candidate, Refusal, Schedule, TagRule, Verdict,
    decide,
};
use crate::time::Timestamp;
use jiff::tz::TimeZone;

const START: Timestamp = Timestamp(1_790_000_000_000);

/// Returns one revision for each day of `days`, counted from the start.
fn on_days(days: impl IntoIterator<Item = i64>, tags: &str) -> Vec<Candidate> {
    let numbered = (1..).zip(days);
    numbered.map(|(number, day)| candidate(number, day_of(day), tags)).collect()
}

fn day_of(day: i64) -> Timestamp {
    Timestamp(START.0 + day * DAY)
}

fn decide_on_day(history: &[Candidate], schedule: &Schedule, day: i64) -> Verdict {
    decide(history, schedule, day_of(day), &TimeZone::UTC)
}

#[test]
fn expiry_in_the_rhythm_of_the_history_is_not_refused() {
    let history = on_days(0..10, "daily");
    for day in 9..=12 {
        let verdict = decide_on_day(&history, &daily(7), day);
        assert!(!verdict.is_unchanged() || day == 9, "day {day}: {verdict:?}");
        assert_eq!(verdict.refusals, [], "day {day}");
    }
}

#[test]
fn clock_that_jumped_ahead_is_refused() {
    let history = on_days(0..10, "daily");
    for day in [20, 9 + 365, 9 + 20 * 365] {
        let verdict = decide_on_day(&history, &daily(7), day);
        let pause = Age { milliseconds: u64::try_from((day - 9) * DAY).unwrap() };
        let usual = Age { milliseconds: u64::try_from(DAY).unwrap() };
        let (from, until) = (day_of(9), day_of(day));
        assert_eq!(verdict.refusals, [Refusal::Pause { from, until, pause, usual }]);
    }
}

#[test]
fn clock_that_jumped_before_the_newest_revision_is_refused_until_another_one_confirms_it() {
    let mut history = on_days((0..10).chain([400]), "daily");
    let verdict = decide_on_day(&history, &daily(7), 400);
    assert!(matches!(verdict.refusals[..], [Refusal::Pause { .. }]), "{verdict:?}");
    history.push(candidate(12, day_of(401), "daily"));
    let verdict = decide_on_day(&history, &daily(7), 401);
    assert_eq!(verdict.refusals, []);
    assert_eq!(verdict.removed().count(), 5);
}

#[test]
fn jump_ahead_is_no_matter_where_nothing_would_be_dropped() {
    let history = on_days(0..7, "daily");
    let verdict = decide_on_day(&history, &daily(7), 4000);
    assert!(verdict.is_unchanged() && verdict.refusals.is_empty(), "{verdict:?}");
}

#[test]
fn clock_that_jumped_back_is_refused() {
    let history = on_days(0..10, "daily");
    let verdict = decide_on_day(&history, &daily(7), 8);
    let (id, time) = (history[9].id, history[9].time);
    assert_eq!(verdict.refusals, [Refusal::FromTheFuture { id, time, now: day_of(8) }]);
    // To the time before the first revision, and to 1970.
    for now in [Timestamp(START.0 - DAY), Timestamp(0)] {
        let verdict = decide(&history, &daily(1), now, &TimeZone::UTC);
        assert!(matches!(verdict.refusals[..], [Refusal::FromTheFuture { .. }]), "{verdict:?}");
        assert!(verdict.is_unchanged());
    }
}

#[test]
fn revision_of_a_clock_that_was_ahead_is_refused_until_it_is_gone() {
    let mut history = on_days((0..8).chain([4000, 8, 9]), "daily");
    let verdict = decide_on_day(&history, &daily(7), 9);
    assert!(matches!(verdict.refusals[..], [Refusal::FromTheFuture { .. }]), "{verdict:?}");
    // Forced, it moves no other revision and is the youngest itself.
    let kept = verdict.decisions.iter().map(|decision| !decision.is_removed).collect::<Vec<_>>();
    assert_eq!(kept, [[false; 2].as_slice(), [true; 9].as_slice()].concat()[..].to_vec());
    history.remove(8);
    assert_eq!(decide_on_day(&history, &daily(7), 9).refusals, []);
}

#[test]
fn clocks_of_two_machines_may_differ_a_little() {
    let skew = i64::try_from(CLOCK_SKEW_MAX_MILLISECONDS).unwrap();
    let history = on_days(0..3, "daily");
    for (milliseconds, count) in [(skew, 0), (skew + 1, 1)] {
        let now = Timestamp(day_of(2).0 - milliseconds);
        assert_eq!(decide(&history, &daily(7), now, &TimeZone::UTC).refusals.len(), count);
    }
}

#[test]
fn rhythm_is_that_of_the_history_where_it_is_slower_than_the_schedule() {
    // A machine that is on once a month: a pause of two months is usual for it.
    let history = on_days((0..10).map(|turn| turn * 30), "daily");
    assert_eq!(decide_on_day(&history, &daily(7), 330).refusals, []);
    assert_eq!(decide_on_day(&history, &daily(7), 270 + 301).refusals.len(), 1);
}

#[test]
fn one_long_pause_does_not_change_the_rhythm() {
    let history = on_days((0..5).chain(100..110), "daily");
    assert_eq!(decide_on_day(&history, &daily(9), 115).refusals, []);
    let verdict = decide_on_day(&history, &daily(9), 109 + 90);
    assert!(matches!(verdict.refusals[..], [Refusal::Pause { .. }]), "{verdict:?}");
}

#[test]
fn week_of_pause_is_never_suspicious() {
    let rule = TagRule::count("1h".parse().unwrap(), count(2));
    let schedule = Schedule::default().with_tag("hourly", rule).unwrap();
    let hour = |hour: i64| Timestamp(START.0 + hour * DAY / 24);
    let history: Vec<_> =
        (1..=4).map(|turn| candidate(turn, hour(turn.into()), "hourly")).collect();
    for (pause, count) in [(7 * 24, 0), (7 * 24 + 1, 1)] {
        let verdict = decide(&history, &schedule, hour(4 + pause), &TimeZone::UTC);
        assert_eq!((verdict.removed().count(), verdict.refusals.len()), (2, count));
    }
}

#[test]
fn history_without_a_rhythm_is_not_judged_by_it() {
    let calendar = Calendar { yearly: Some(count(1)), ..Calendar::default() };
    let rule = TagRule { calendar, ..TagRule::default() };
    let schedule = Schedule::default().with_tag("archive", rule).unwrap();
    let verdict = decide_on_day(&on_days([0, 1], "archive"), &schedule, 200);
    assert_eq!((verdict.removed().count(), verdict.refusals), (1, vec![]));
}

#[test]
fn removing_more_than_half_is_refused() {
    for (count, keep, is_refused) in
        [(2, 1, false), (3, 1, true), (3, 2, false), (4, 2, false), (5, 2, true), (6, 3, false)]
    {
        // The last one is young enough for the clock to be right.
        let verdict = decide_on_day(&on_days(0..count, "daily"), &daily(keep), 8);
        let removed = usize::try_from(count).unwrap() - usize::try_from(keep).unwrap();
        assert_eq!(verdict.removed().count(), removed);
        let total = usize::try_from(count).unwrap();
        let expected = is_refused.then_some(Refusal::MoreThanHalf { removed, total });
        assert_eq!(verdict.refusals, Vec::from_iter(expected), "{count} of which {keep}");
    }
}

#[test]
fn removed_schedule_takes_the_whole_history_only_by_force() {
    let history = on_days(0..3, "daily");
    let verdict = decide_on_day(&history, &Schedule::default(), 2);
    assert_eq!(outcome(&verdict), ["removed"; 3]);
    let id = history[2].id;
    let expected = [Refusal::MoreThanHalf { removed: 3, total: 3 }, Refusal::LastGood { id }];
    assert_eq!(verdict.refusals, expected);
}

#[test]
fn last_good_revision_is_not_removed() {
    let mut history = history(&[
        ("2026-01-01T00:00:00Z", "gone"),
        ("2026-01-02T00:00:00Z", "daily"),
        ("2026-01-03T00:00:00Z", "daily"),
    ]);
    history[1].trust = Trust::Distrusted;
    history[2].trust = Trust::Damaged;
    let now = at("2026-01-03T01:00:00Z");
    let verdict = decide(&history, &daily(5), now, &TimeZone::UTC);
    assert_eq!(verdict.refusals, [Refusal::LastGood { id: history[0].id }]);
    history[2].trust = Trust::Verified;
    assert_eq!(decide(&history, &daily(5), now, &TimeZone::UTC).refusals, []);
}

#[test]
fn extreme_times_are_judged() {
    for times in [[i64::MIN, i64::MAX], [i64::MAX, i64::MIN], [0, 0], [i64::MIN, i64::MIN]] {
        let history: Vec<_> = (1..)
            .zip(times)
            .map(|(number, time)| candidate(number, Timestamp(time), "daily"))
            .collect();
        for now in [i64::MIN, 0, i64::MAX] {
            let verdict = decide(&history, &daily(1), Timestamp(now), &TimeZone::UTC);
            assert_eq!(verdict.decisions.len(), 2);
        }
    }
}

#[test]
fn empty_history_needs_nothing() {
    assert_eq!(decide_on_day(&[], &daily(1), 0), Verdict::default());
}
