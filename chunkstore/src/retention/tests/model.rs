//! Random histories, judged a second time as one would explain it to a person, with no thought for speed.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{DAY, candidate};
use crate::format::Trust;
use crate::retention::{
    Calendar, Candidate, Interval, Period, Reason, Schedule, TagRule, decide, is_manual,
};
use crate::time::Timestamp;
use jiff::tz::TimeZone;

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const TAGS: [&str; 5] = ["daily", "weekly", "calendar", "former", "manual:x"];

/// Returns whether revision `place` keeps `tag`, or `None` if the schedule does not have it.
fn keeps(history: &[Candidate], place: usize, tag: &str, schedule: &Schedule) -> Option<bool> {
    let rule = schedule.rule(tag)?;
    let with_tag: Vec<usize> = (0..history.len())
        .filter(|other| history[*other].tags.iter().any(|one| one == tag))
        .collect();
    let by_count = rule.interval_and_keep().is_some_and(|(interval, keep)| {
        let newer = with_tag.iter().filter(|other| place < **other && is_good(&history[**other]));
        let has_few_newer = (newer.count() as u64) < keep.get();
        let age = u128::try_from(NOW.0 - history[place].time.0).unwrap();
        has_few_newer || age <= interval.milliseconds() * u128::from(keep.get())
    });
    Some(by_count || in_calendar(history, &with_tag, place, &rule.calendar))
}

fn is_good(candidate: &Candidate) -> bool {
    candidate.trust == Trust::Trusted || candidate.trust == Trust::Verified
}

fn in_calendar(history: &[Candidate], of: &[usize], place: usize, calendar: &Calendar) -> bool {
    calendar.rules().any(|(period, count)| {
        let name = |place: usize| period.bucket(history[place].time, &TimeZone::UTC).to_string();
        let same = || of.iter().filter(|other| name(**other) == name(place));
        let good = same().rfind(|other| is_good(&history[**other]));
        let is_chosen = good.or(same().next_back()) == Some(&place);
        let newer: BTreeSet<String> = of
            .iter()
            .filter(|other| {
                place < **other && is_good(&history[**other]) && name(**other) != name(place)
            })
            .map(|other| name(*other))
            .collect();
        is_chosen && (newer.len() as u64) < count.get()
    })
}

fn arbitrary_calendar() -> impl Strategy<Value = Calendar> {
    let number = || proptest::option::weighted(0.4, 1..4_u64);
    let number = move || number().prop_map(|number| number.and_then(std::num::NonZeroU64::new));
    (number(), number(), number(), number()).prop_map(|(daily, weekly, monthly, yearly)| Calendar {
        daily,
        weekly,
        monthly,
        yearly,
    })
}

fn arbitrary_schedule() -> impl Strategy<Value = Schedule> {
    let count = |days: u64| {
        (1..4_u64, arbitrary_calendar()).prop_map(move |(keep, calendar)| TagRule {
            calendar,
            ..TagRule::count(
                Interval::from_seconds(days * 86_400).unwrap(),
                keep.try_into().unwrap(),
            )
        })
    };
    (count(1), count(7), arbitrary_calendar(), arbitrary_calendar()).prop_map(
        |(daily, weekly, of_tag, of_all)| {
            let schedule = Schedule::default().with_tag("daily", daily).unwrap();
            let schedule = schedule.with_tag("weekly", weekly).unwrap().with_calendar(of_all);
            let rule = TagRule { calendar: of_tag, ..TagRule::default() };
            schedule.clone().with_tag("calendar", rule).unwrap_or(schedule)
        },
    )
}

/// Histories whose times never go back and do not lie in the future.
fn arbitrary_history() -> impl Strategy<Value = Vec<Candidate>> {
    let revision = (0..3 * DAY, 0..32_u8, 0..8_u8, 0..10_u8);
    vec(revision, 0..40).prop_map(|revisions| {
        let span: i64 = revisions.iter().map(|(pause, ..)| pause).sum();
        let mut time = NOW.0 - span;
        let mut history = Vec::new();
        for (number, (pause, tags, trust, protection)) in (0..).zip(revisions) {
            time += pause;
            let names = TAGS.iter().enumerate().filter(|(bit, _)| tags >> bit & 1 == 1);
            let names: Vec<&str> = names.map(|(_, name)| *name).collect();
            let mut one = candidate(number, Timestamp(time), &names.join(" "));
            one.trust = match trust {
                0 => Trust::Distrusted,
                1 => Trust::Damaged,
                2 => Trust::Verified,
                _ => Trust::Trusted,
            };
            one.protected = protection == 0;
            history.push(one);
        }
        history
    })
}

proptest! {
    #[test]
    fn decisions_are_those_of_the_model(history in arbitrary_history(), schedule in arbitrary_schedule()) {
        let verdict = decide(&history, &schedule, NOW, &TimeZone::UTC);
        prop_assert_eq!(verdict.decisions.len(), history.len());
        let all: Vec<usize> = (0..history.len()).collect();
        for (place, (candidate, decision)) in history.iter().zip(&verdict.decisions).enumerate() {
            prop_assert_eq!(candidate.id, decision.id);
            if candidate.protected {
                prop_assert!(decision.is_unchanged());
                prop_assert_eq!(&decision.reasons, &vec![Reason::Protected]);
                continue;
            }
            for tag in &candidate.tags {
                let expected = is_manual(tag) || keeps(&history, place, tag, &schedule).unwrap_or(false);
                let is_kept = decision.tags_after.contains(tag);
                prop_assert_eq!(is_kept, expected, "{} of {}: {:?}", tag, place, decision);
                // Every tag has a reason, and all reasons say the same.
                let mut reasons = decision.reasons.iter().filter(|reason| reason.tag() == Some(tag)).peekable();
                prop_assert!(reasons.peek().is_some());
                prop_assert!(reasons.all(|reason| reason.keeps() == is_kept), "{:?}", decision);
            }
            let by_calendar = in_calendar(&history, &all, place, schedule.calendar());
            prop_assert_eq!(decision.is_removed, decision.tags_after.is_empty() && !by_calendar);
        }
    }

    #[test]
    fn second_expiry_at_the_same_time_changes_nothing(
        history in arbitrary_history(),
        schedule in arbitrary_schedule(),
    ) {
        let verdict = decide(&history, &schedule, NOW, &TimeZone::UTC);
        let mut rest = Vec::new();
        for (candidate, decision) in history.into_iter().zip(verdict.decisions) {
            if !decision.is_removed {
                rest.push(Candidate { tags: decision.tags_after, ..candidate });
            }
        }
        let again = decide(&rest, &schedule, NOW, &TimeZone::UTC);
        prop_assert!(again.is_unchanged(), "{:?}", again);
        prop_assert!(again.refusals.is_empty());
    }

    #[test]
    fn what_time_has_dropped_stays_dropped(
        history in arbitrary_history(),
        schedule in arbitrary_schedule(),
        days in 0..100_i64,
    ) {
        let early = decide(&history, &schedule, NOW, &TimeZone::UTC);
        let late = decide(&history, &schedule, Timestamp(NOW.0 + days * DAY), &TimeZone::UTC);
        for (early, late) in early.decisions.iter().zip(&late.decisions) {
            prop_assert!(late.tags_after.iter().all(|tag| early.tags_after.contains(tag)));
            prop_assert!(late.is_removed || !early.is_removed);
        }
    }

    #[test]
    fn any_times_at_all_give_one_decision_each(
        times in vec(any::<i64>(), 0..20),
        now in any::<i64>(),
        schedule in arbitrary_schedule(),
    ) {
        let history: Vec<Candidate> = (0..)
            .zip(times)
            .map(|(number, time)| candidate(number, Timestamp(time), "daily weekly calendar manual:x"))
            .collect();
        let verdict = decide(&history, &schedule, Timestamp(now), &TimeZone::UTC);
        prop_assert_eq!(verdict.decisions.len(), history.len());
        prop_assert!(verdict.decisions.iter().all(|decision| !decision.is_removed));
        for period in Period::ALL {
            let _any_bucket = period.bucket(Timestamp(now), &TimeZone::UTC).to_string();
        }
    }
}
