//! What the tree of a specification means in a history.
//!
//! A selection is a list of positions in the history, each one at most once.

use jiff::tz::TimeZone;

use super::{Candidate, Date, Function, Node, Side, SpecError, Word};
use crate::time::Timestamp;

/// Most candidates that an error names.
const NAMED_COUNT_MAX: usize = 10;

pub(super) fn select(
    node: &Node,
    history: &[Candidate],
    timezone: &TimeZone,
) -> Result<Vec<usize>, SpecError> {
    match node {
        Node::Union(parts) => {
            let mut result = Vec::new();
            for part in parts {
                result.extend(select(part, history, timezone)?);
            }
            let mut seen = vec![false; history.len()];
            result.retain(|&index| !std::mem::replace(&mut seen[index], true));
            Ok(result)
        }
        Node::Intersection(parts) => {
            let mut sets = Vec::new();
            for part in parts {
                sets.push(select(part, history, timezone)?);
            }
            let mut sets = sets.into_iter();
            let mut result = sets.next().unwrap_or_default();
            for set in sets {
                let members = members(&set, history.len());
                result.retain(|&index| members[index]);
            }
            Ok(result)
        }
        Node::Range(left, right) => range(left.as_ref(), right.as_ref(), history, timezone),
        Node::Function(function, inner) => {
            apply(*function, select(inner, history, timezone)?, history.len())
        }
        Node::Word(word) => named(word, history),
    }
}

/// Returns the one member of a selection.
pub(super) fn single(selection: &[usize], history: &[Candidate]) -> Result<usize, SpecError> {
    match selection {
        [] => Err(SpecError::NoMatch),
        [index] => Ok(*index),
        several => {
            let named = several.iter().take(NAMED_COUNT_MAX);
            let candidates = named.map(|&index| history[index].id).collect();
            Err(SpecError::NotSingle { count: several.len(), candidates })
        }
    }
}

fn members(selection: &[usize], count: usize) -> Vec<bool> {
    let mut members = vec![false; count];
    for &index in selection {
        members[index] = true;
    }
    members
}

fn apply(
    function: Function,
    mut selection: Vec<usize>,
    count: usize,
) -> Result<Vec<usize>, SpecError> {
    match function {
        Function::First => match selection.first() {
            Some(&index) => Ok(vec![index]),
            None => Err(SpecError::Empty { function: "first" }),
        },
        Function::Last => match selection.last() {
            Some(&index) => Ok(vec![index]),
            None => Err(SpecError::Empty { function: "last" }),
        },
        Function::Not => {
            let members = members(&selection, count);
            Ok((0..count).filter(|&index| !members[index]).collect())
        }
        Function::Reverse => {
            selection.reverse();
            Ok(selection)
        }
    }
}

fn named(word: &Word, history: &[Candidate]) -> Result<Vec<usize>, SpecError> {
    let mut all = 0..history.len();
    let unknown = |spec: &str| SpecError::Unknown { spec: spec.to_owned() };
    match word {
        Word::All => Ok(all.collect()),
        Word::Remote => Ok(Vec::new()),
        Word::Tag(tag) => Ok(all.filter(|&index| history[index].tags.contains(tag)).collect()),
        Word::Trust(trust) => Ok(all.filter(|&index| history[index].trust == *trust).collect()),
        Word::First => all.take(1).next().map(|index| vec![index]).ok_or_else(|| unknown("first")),
        Word::Latest => all.next_back().map(|index| vec![index]).ok_or_else(|| unknown("latest")),
        Word::Number(number) => usize::try_from(*number)
            .ok()
            .and_then(|number| all.rev().nth(number))
            .map(|index| vec![index])
            .ok_or_else(|| unknown(&number.to_string())),
        Word::Prefix(prefix) => {
            let found: Vec<usize> =
                all.filter(|&index| history[index].id.to_string().starts_with(prefix)).collect();
            match found.as_slice() {
                [] => Err(unknown(prefix)),
                [_] => Ok(found),
                _ => Err(SpecError::Ambiguous {
                    prefix: prefix.clone(),
                    candidates: found.iter().map(|&index| history[index].id).collect(),
                }),
            }
        }
    }
}

/// Sides are compared on a scale of half steps: revision `i` is at `2 * i`, a date at an odd place between
/// two revisions, or at the revision that was made at that very instant.
fn range(
    left: Option<&Side>,
    right: Option<&Side>,
    history: &[Candidate],
    timezone: &TimeZone,
) -> Result<Vec<usize>, SpecError> {
    let place = |side: &Side| match side {
        Side::Date(date) => Ok(place_of(*date, history, timezone)),
        Side::Revision(node) => {
            single(&select(node, history, timezone)?, history).map(|index| 2 * half_steps(index))
        }
    };
    let left = left.map_or(Ok(-1), place)?;
    let right = right.map_or(Ok(2 * half_steps(history.len())), place)?;
    let (low, high) = (left.min(right), left.max(right));
    let inside = |index: &usize| (low..=high).contains(&(2 * half_steps(*index)));
    Ok((0..history.len()).filter(inside).collect())
}

fn place_of(date: Date, history: &[Candidate], timezone: &TimeZone) -> i64 {
    let instant = match date {
        Date::Instant(instant) => instant,
        // A local time that a change of the clock skips or repeats has an instant, too. Only the
        // last hours of the year 9999 have none.
        Date::Local(local) => timezone.to_timestamp(local).unwrap_or(jiff::Timestamp::MAX),
    };
    let instant = Timestamp(instant.as_millisecond());
    let before = history.iter().filter(|candidate| candidate.time < instant).count();
    let until = history.iter().filter(|candidate| candidate.time <= instant).count();
    half_steps(before) + half_steps(until) - 1
}

fn half_steps(count: usize) -> i64 {
    i64::try_from(count).expect("a history fits into memory")
}
