//! Documents: no panic, and what decodes is the same after encoding and decoding again. Members that this program does not
//! know are passed over, so that the bytes may be others.

use std::fmt::Debug;

use chunkstore::format::{
    FormatError, GivenUp, MismatchReport, RevisionRecord, RevisionState, SessionRecord, StoreConfig,
};

use crate::seeds;

/// What stands before the body of a document.
const BODY_KEY: &[u8] = b",\"body\":";

/// What stands behind it.
const END: &[u8] = b"}\n";

/// Returns a document with this body and magic, and the checksum that it must have.
pub(crate) fn document(magic: &str, body: &[u8]) -> Vec<u8> {
    let checksum = blake3::hash(body).to_hex();
    let start =
        format!("{{\"magic\":\"{magic}\",\"version\":1,\"checksum\":\"{checksum}\",\"body\":");
    [start.as_bytes(), body, END].concat()
}

/// Returns the body of a document.
pub(crate) fn body(document: &[u8]) -> Option<&[u8]> {
    let start = document.windows(BODY_KEY.len()).position(|window| window == BODY_KEY)?;
    document[start + BODY_KEY.len()..].strip_suffix(END)
}

fn check<T: PartialEq + Debug>(
    magic: &str,
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> bool {
    let check = |bytes: &[u8]| {
        let Ok(value) = decode(bytes) else { return false };
        assert_eq!(decode(&encode(&value)), Ok(value));
        true
    };
    check(bytes) | check(&document(magic, bytes))
}

/// Returns documents, and the body of each.
fn and_bodies(documents: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let bodies = documents.iter().filter_map(|document| body(document)).map(<[u8]>::to_vec);
    let bodies: Vec<Vec<u8>> = bodies.collect();
    [documents, bodies].concat()
}

pub(crate) fn given_up(bytes: &[u8]) -> bool {
    check("chunkstore given up", bytes, GivenUp::decode, GivenUp::encode)
}

pub(crate) fn given_up_seeds() -> Vec<Vec<u8>> {
    and_bodies(vec![seeds::example("given-up")])
}

pub(crate) fn mismatch_report(bytes: &[u8]) -> bool {
    check("chunkstore mismatch", bytes, MismatchReport::decode, MismatchReport::encode)
}

pub(crate) fn mismatch_report_seeds() -> Vec<Vec<u8>> {
    and_bodies(vec![seeds::example("mismatch-report")])
}

pub(crate) fn revision_record(bytes: &[u8]) -> bool {
    check("chunkstore revision", bytes, RevisionRecord::decode, RevisionRecord::encode)
}

pub(crate) fn revision_record_seeds() -> Vec<Vec<u8>> {
    and_bodies(seeds::files("rev", &["revision-record"]))
}

pub(crate) fn revision_state(bytes: &[u8]) -> bool {
    check("chunkstore state", bytes, RevisionState::decode, RevisionState::encode)
}

pub(crate) fn revision_state_seeds() -> Vec<Vec<u8>> {
    and_bodies(seeds::files("state", &["revision-state"]))
}

pub(crate) fn session_record(bytes: &[u8]) -> bool {
    check("chunkstore session", bytes, SessionRecord::decode, SessionRecord::encode)
}

pub(crate) fn session_record_seeds() -> Vec<Vec<u8>> {
    and_bodies(seeds::files("sessions", &["session-record"]))
}

pub(crate) fn store_config(bytes: &[u8]) -> bool {
    check("chunkstore store", bytes, StoreConfig::decode, StoreConfig::encode)
}

pub(crate) fn store_config_seeds() -> Vec<Vec<u8>> {
    and_bodies(seeds::files("store.json", &["store-config"]))
}
