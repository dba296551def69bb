//! The decision about each tag of each revision.

use std::collections::HashMap;

use jiff::tz::TimeZone;

use super::buckets::{self, Bucket};
use super::interval::Age;
use super::reason::Reason;
use super::schedule::{Calendar, Schedule, TagRule, is_manual};
use super::{Candidate, Decision, effective_times, is_good};
use crate::time::Timestamp;

/// What the decisions are made from.
struct Facts<'a> {
    history: &'a [Candidate],
    /// The time that the age of each revision is counted from.
    times: Vec<Timestamp>,
    now: Timestamp,
    timezone: &'a TimeZone,
}

pub(super) fn decide(
    history: &[Candidate],
    schedule: &Schedule,
    now: Timestamp,
    timezone: &TimeZone,
) -> Vec<Decision> {
    let facts = Facts { history, times: effective_times(history, now), now, timezone };
    let all: Vec<usize> = (0..history.len()).collect();
    let mut of_revisions = facts.kept_by_calendar(&all, schedule.calendar());
    let mut of_tags = HashMap::new();
    for (tag, places) in places_of_tags(history) {
        let reasons = facts.reasons_of_tag(tag, &places, schedule.rule(tag));
        of_tags.insert(tag, reasons);
    }
    let decide_one = |(place, candidate): (usize, &Candidate)| {
        let by_calendar = of_revisions.remove(&place).unwrap_or_default();
        let by_calendar =
            by_calendar.into_iter().map(|bucket| Reason::NewestOf { tag: None, bucket });
        let tags_before = schedule.sorted(&candidate.tags);
        if candidate.protected {
            let tags_after = tags_before.clone();
            return decision(candidate, tags_before, tags_after, vec![Reason::Protected]);
        }
        let mut reasons = Vec::new();
        let mut tags_after = Vec::new();
        for tag in &tags_before {
            let of_tag = of_tags.get(tag.as_str()).and_then(|places| places.get(&place));
            let of_tag = of_tag.expect("each tag of each revision was looked at");
            if of_tag.iter().any(Reason::keeps) {
                tags_after.push(tag.clone());
            }
            reasons.extend(of_tag.iter().cloned());
        }
        if tags_before.is_empty() {
            reasons.push(Reason::NoTags);
        }
        reasons.extend(by_calendar);
        decision(candidate, tags_before, tags_after, reasons)
    };
    history.iter().enumerate().map(decide_one).collect()
}

fn decision(
    candidate: &Candidate,
    tags_before: Vec<String>,
    tags_after: Vec<String>,
    reasons: Vec<Reason>,
) -> Decision {
    let is_removed = !reasons.iter().any(Reason::keeps);
    let (id, time) = (candidate.id, candidate.time);
    Decision { id, time, tags_before, tags_after, is_removed, reasons }
}

/// Returns for each tag the places of the revisions that have it, oldest first, each once.
fn places_of_tags(history: &[Candidate]) -> HashMap<&str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, candidate) in history.iter().enumerate() {
        for tag in &candidate.tags {
            let of_tag = places.entry(tag).or_default();
            if of_tag.last() != Some(&place) {
                of_tag.push(place);
            }
        }
    }
    places
}

impl Facts<'_> {
    /// Returns why each of the revisions that have a tag keeps it, or drops it.
    fn reasons_of_tag(
        &self,
        tag: &str,
        places: &[usize],
        rule: Option<&TagRule>,
    ) -> HashMap<usize, Vec<Reason>> {
        let name = || tag.to_owned();
        let same =
            |reason: &Reason| places.iter().map(|place| (*place, vec![reason.clone()])).collect();
        if is_manual(tag) {
            return same(&Reason::Manual { tag: name() });
        }
        let Some(rule) = rule else { return same(&Reason::NotInSchedule { tag: name() }) };
        let mut by_calendar = self.kept_by_calendar(places, &rule.calendar);
        let mut by_place = HashMap::with_capacity(places.len());
        let mut newer = 0;
        for place in places.iter().rev() {
            let buckets = by_calendar.remove(place).unwrap_or_default();
            let by_calendar =
                buckets.into_iter().map(|bucket| Reason::NewestOf { tag: Some(name()), bucket });
            let mut reasons: Vec<Reason> = by_calendar.collect();
            match self.by_count(tag, *place, newer, rule) {
                // Once something keeps it, there is no need to say what does not.
                Some(reason) if reason.keeps() || reasons.is_empty() => reasons.insert(0, reason),
                None if reasons.is_empty() => reasons.push(Reason::NotInCalendar { tag: name() }),
                Some(_) | None => {}
            }
            by_place.insert(*place, reasons);
            newer += u64::from(is_good(&self.history[*place]));
        }
        by_place
    }

    /// Applies the rule of count and age, if there is one.
    fn by_count(&self, tag: &str, place: usize, newer: u64, rule: &TagRule) -> Option<Reason> {
        let (interval, keep) = rule.interval_and_keep()?;
        let tag = tag.to_owned();
        if newer < keep.get() {
            return Some(Reason::Newest { tag, newer, keep });
        }
        let age = Age { milliseconds: self.now.milliseconds_since(self.times[place]) };
        let limit = interval.milliseconds().saturating_mul(keep.get().into());
        Some(match u128::from(age.milliseconds) <= limit {
            true => Reason::Young { tag, newer, age, keep, interval },
            false => Reason::Expired { tag, newer, age, keep, interval },
        })
    }

    /// Returns those of the revisions at `places` (oldest first) that a calendar keeps, and of what they are the newest.
    fn kept_by_calendar(
        &self,
        places: &[usize],
        calendar: &Calendar,
    ) -> HashMap<usize, Vec<Bucket>> {
        let mut kept: HashMap<usize, Vec<Bucket>> = HashMap::new();
        for (period, count) in calendar.rules() {
            let bucket = |place: &usize| {
                let bucket = period.bucket(self.times[*place], self.timezone);
                (bucket, is_good(&self.history[*place]))
            };
            let newest_first: Vec<_> = places.iter().rev().map(bucket).collect();
            for (turn, bucket) in buckets::kept(&newest_first, count) {
                let place = places[places.len() - 1 - turn];
                kept.entry(place).or_default().push(bucket);
            }
        }
        kept
    }
}
