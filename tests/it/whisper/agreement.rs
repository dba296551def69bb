//! The library and the Python package do the same.

use chunkstore::whisper::{Backfill, Retention, Series, backfill};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::cases::{History, Schema, Step, history_of, pair, points, schema};
use super::oracle::{Oracle, value};
use super::run_cases;

/// Writes a series as the oracle does.
fn reply(series: Option<Series>) -> Value {
    let Some(series) = series else { return Value::Null };
    let values: Vec<Option<Value>> =
        series.values.into_iter().map(|found| found.map(value)).collect();
    json!([series.from, series.until, series.seconds_per_point, values])
}

/// Runs a history and compares every answer.
fn check_answers(history: &History, answers: &[Value]) {
    let mut file = history.schema.create();
    assert_eq!(answers.len(), history.steps.len());
    for (step, expected) in history.steps.iter().zip(answers) {
        let answer = match step {
            Step::Update { now, point } => match file.update(*point, *now) {
                Ok(()) => Value::Null,
                Err(_) => json!("not covered"),
            },
            Step::UpdateMany { now, points } => {
                file.update_many(points, *now);
                Value::Null
            }
            Step::Fetch { now, from, until } if until < from => {
                assert_eq!(file.fetch(*from, *until, *now), None);
                continue;
            }
            Step::Fetch { now, from, until } => reply(file.fetch(*from, *until, *now)),
        };
        // NaNs of sums may differ in their unused bits.
        let has_nan = answer.to_string().contains("7ff8") || answer.to_string().contains("fff8");
        assert!(has_nan || answer == *expected, "{step:?}: {answer} instead of {expected}");
    }
}

#[test]
fn histories_end_and_read_as_in_python() {
    let Some(oracle) = Oracle::start() else { return };
    run_cases(2500, history_of(schema()), |history| {
        let history = with_fetches(history);
        let (expected, answers) = oracle.live(&history, false);
        check_answers(&history, &answers);
        let file = history.live();
        assert_eq!(file.header(), expected.header());
        assert_eq!(points(&file), points(&expected));
    });
}

/// Adds readings of the whole file, each archive's time, and stretches about their ends.
fn with_fetches(mut history: History) -> History {
    let now = history.now;
    for &Retention { seconds_per_point, points } in &history.schema.retentions {
        let start = now - seconds_per_point * points;
        let stretches =
            [(start, now), (start - 1, now), (start + 1, now + 9), (start, start), (now, now)];
        for (from, until) in stretches {
            history.steps.push(Step::Fetch { now, from, until });
        }
    }
    history.steps.push(Step::Fetch { now, from: now + 1, until: now + 2 });
    history.steps.push(Step::Fetch { now, from: 1, until: 2 });
    history.steps.push(Step::Fetch { now, from: 0, until: now });
    history.steps.retain(|step| !matches!(step, Step::Fetch { from, until, .. } if until < from));
    history
}

#[test]
fn points_agree_whatever_the_order_of_a_python_set() {
    let Some(oracle) = Oracle::start() else { return };
    // With room for all that is propagated at once, the order decides the base only.
    let roomy = schema().prop_map(|mut schema| {
        for archive in schema.retentions.iter_mut().skip(1) {
            archive.points += 4;
        }
        schema
    });
    let growing = roomy.prop_filter("retentions grow", |schema: &Schema| {
        let all = schema.retentions.windows(2);
        all.into_iter()
            .all(|pair| retention(pair[0]) + pair[1].seconds_per_point < retention(pair[1]))
    });
    run_cases(1000, history_of(growing), |history| {
        let (expected, _) = oracle.live(&with_fetches(history.clone()), true);
        assert_eq!(points(&history.live()), points(&expected));
    });
}

fn retention(archive: Retention) -> u32 {
    archive.seconds_per_point * archive.points
}

#[test]
fn compat_fills_as_the_script_of_the_package() {
    let Some(oracle) = Oracle::start() else { return };
    run_cases(5000, pair(), |(source, target)| {
        let now = source.now.max(target.now);
        let (source, mut target) = (source.live(), target.live());
        let expected = oracle.fill(&source, &target, now);
        let before = points(&target);
        let stats = backfill(&source, &mut target, now, Backfill::Compat);
        let after = points(&target);
        assert_eq!(after, points(&expected));
        assert_eq!((before == after), stats == Default::default());
    });
}
