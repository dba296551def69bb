//! Points as columns: what is split is joined again, any payload is expanded or refused, and what is compressed expands.

#![no_main]

use chunkstore::compression::columns::{join, split};
use chunkstore::compression::{Compressor, Expander};
use chunkstore::format::{Codec, ObjectKind, POINT_LEN, RecordHeader, Transform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let plain = &bytes[..bytes.len() / POINT_LEN * POINT_LEN];
    let mut columns = Vec::new();
    let mut joined = vec![0; plain.len()];
    for transform in Transform::all() {
        let is_exact = split(transform, plain, &mut columns);
        assert_eq!(columns.len(), plain.len());
        join(transform, &columns, &mut joined);
        assert!(joined == plain || !is_exact);
        // Any bytes are columns.
        join(transform, plain, &mut joined);
    }
    let mut stored = Vec::new();
    let id = ObjectKind::Data.chunk_id(bytes);
    if !bytes.is_empty() {
        let mut compressor = Compressor::new(1).expect("level 1 is permitted");
        compressor
            .compress_points(ObjectKind::Data, &id, bytes, &mut stored)
            .expect("what was made expands");
    }
    let stored_len = u32::try_from(bytes.len()).expect("inputs are short");
    for plain_len in [12, 120, 1200] {
        let header = RecordHeader {
            kind: ObjectKind::Data,
            codec: Codec::Points,
            id,
            plain_len,
            stored_len,
        };
        // Their hash is that of the payload, which they are not.
        assert!(Expander::new().expand(&header, bytes, &mut joined).is_err());
    }
});
