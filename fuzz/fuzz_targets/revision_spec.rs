//! Revision language: no panic, and what is selected is in the history, each revision once.

#![no_main]

use chunkstore::format::Trust;
use chunkstore::id::RevisionId;
use chunkstore::revision_spec::{Candidate, RevisionSpec};
use chunkstore::time::Timestamp;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;

const DAY_MILLISECONDS: i64 = 86_400_000;

fuzz_target!(|text: &str| {
    let Ok(spec) = RevisionSpec::parse(text) else { return };
    let candidate = |(place, trust): (u8, Trust)| Candidate {
        id: RevisionId::from_bytes([0x12 + place; 16]),
        time: Timestamp(1_790_000_000_000 + i64::from(place) * DAY_MILLISECONDS),
        tags: vec!["daily".to_owned(), format!("manual:{place}")],
        trust,
    };
    let trusts = [Trust::Trusted, Trust::Verified, Trust::Distrusted, Trust::Damaged];
    let history: Vec<Candidate> = (0..).zip(trusts).map(candidate).collect();
    if let Ok(mut selected) = spec.select(&history, &TimeZone::UTC) {
        let count = selected.len();
        selected.sort_unstable();
        selected.dedup();
        assert_eq!(selected.len(), count, "a revision was selected twice");
        assert!(selected.iter().all(|place| *place < history.len()));
    }
});
