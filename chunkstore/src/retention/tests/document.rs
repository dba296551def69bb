//! Schedules as documents.

use crate::retention::Schedule;

fn read(text: &str) -> Result<Schedule, serde_json::Error> {
    serde_json::from_str(text)
}

#[track_caller]
fn assert_rejected(text: &str, expected: &str) {
    let error = read(text).unwrap_err().to_string();
    assert!(error.contains(expected), "{text}: {error}");
}

#[test]
fn schedule_reads_back() {
    for text in [
        r#"{}"#,
        r#"{"daily":{"interval":"1d","keep":9}}"#,
        r#"{"nightly":{"keep-daily":7,"keep-weekly":4,"keep-monthly":12,"keep-yearly":3}}"#,
        r#"{"a":{"interval":"90m","keep":1,"keep-weekly":4},"b":{"interval":"1h","keep-daily":1}}"#,
        r#"{"daily":{"interval":"1d","keep":9},"keep-weekly":4,"keep-yearly":3}"#,
    ] {
        let schedule = read(text).unwrap();
        assert_eq!(serde_json::to_string(&schedule).unwrap(), text);
    }
    let seconds = read(r#"{"hourly":{"interval":3600,"keep":5}}"#).unwrap();
    assert_eq!(seconds, read(r#"{"hourly":{"interval":"1h","keep":5}}"#).unwrap());
}

#[test]
fn wrong_schedules_are_rejected_with_a_name() {
    assert_rejected(r#"{"daily":{"interval":0,"keep":1}}"#, "above 0");
    assert_rejected(r#"{"daily":{"interval":-5,"keep":1}}"#, "\"-5\"");
    assert_rejected(r#"{"daily":{"interval":"1y","keep":1}}"#, "\"1y\"");
    assert_rejected(r#"{"daily":{"interval":"1d","keep":0}}"#, "at least 1");
    assert_rejected(r#"{"daily":{"interval":"1d","keep":-1}}"#, "`-1`");
    assert_rejected(r#"{"daily":{"interval":"1d","keep":1.5}}"#, "1.5");
    assert_rejected(r#"{"daily":{"interval":"1d"}}"#, "nothing says what is kept");
    assert_rejected(r#"{"daily":{}}"#, "nothing says what is kept");
    assert_rejected(r#"{"daily":{"keep":1}}"#, "keep needs interval");
    assert_rejected(r#"{"daily":{"interval":"1d","kept":1}}"#, "unknown field `kept`");
    assert_rejected(r#"{"daily":{"interval":"1d","keep-hourly":1}}"#, "`keep-hourly`");
    assert_rejected(r#"{"daily":{"keep-daily":0}}"#, "at least 1");
    assert_rejected(r#"{"daily":7}"#, "invalid type");
    assert_rejected(r#"{"keep-daily":0}"#, "at least 1");
    assert_rejected(r#"{"keep-hourly":7}"#, "unknown rule \"keep-hourly\"");
    assert_rejected(r#"{"keep-daily":{"interval":"1d","keep":1}}"#, "invalid type");
    assert_rejected(r#"{"manual:x":{"interval":"1d","keep":1}}"#, "never expire");
    assert_rejected(r#"{"a b":{"interval":"1d","keep":1}}"#, "not a tag: \"a b\"");
    assert_rejected(r#"{"":{"interval":"1d","keep":1}}"#, "not a tag");
    assert_rejected(r#"{"a":{"keep-daily":1},"a":{"keep-daily":2}}"#, "\"a\" occurs twice");
    assert_rejected(r#"{"keep-daily":1,"keep-daily":2}"#, "\"keep-daily\" occurs twice");
    assert_rejected("[]", "tags with their rules");
}
