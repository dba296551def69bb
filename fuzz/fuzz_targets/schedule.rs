//! Schedule of a configuration: no panic; what is read is written and read again; and what it decides about a history
//! drops no manual tag, leaves protected revisions alone and has a reason for every tag.

#![no_main]

use chunkstore::format::Trust;
use chunkstore::id::RevisionId;
use chunkstore::retention::{Candidate, Schedule, decide, is_manual};
use chunkstore::time::Timestamp;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;

const DAY_MILLISECONDS: i64 = 86_400_000;

fuzz_target!(|input: (&str, [i8; 8], i64)| {
    let (text, pauses, now) = input;
    let Ok(schedule) = serde_saphyr::from_str::<Schedule>(text) else { return };
    let written = serde_saphyr::to_string(&schedule).expect("writing to memory does not fail");
    let again = serde_saphyr::from_str(&written).expect("what was written is read");
    assert_eq!(schedule, again);

    let mut time = 1_790_000_000_000;
    let tags: Vec<String> = text.split(':').map(|tag| tag.trim().to_owned()).take(4).collect();
    let mut history = Vec::new();
    for (number, pause) in (0..).zip(pauses) {
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
});
