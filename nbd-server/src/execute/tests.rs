use super::*;
use crate::export::{Extent, StatusExtent};
use crate::memory::{Call, Memory};
use crate::proto::{
    NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS, NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
    NBD_REPLY_TYPE_OFFSET_DATA, NBD_REPLY_TYPE_OFFSET_HOLE,
};
use std::sync::Arc;

const KIB: u64 = 1 << 10;

fn session(headers: Headers, disk: Memory) -> (Session, Arc<Memory>) {
    let disk = Arc::new(disk);
    let export = Arc::<Memory>::clone(&disk);
    let contexts = vec![(1, Context::Allocation)];
    (Session { name: "disk".to_owned(), export, headers, contexts }, disk)
}

fn request(command: Command, offset: u64, len: u64) -> Request {
    Request { command, cookie: 9, offset, len }
}

const READ: Command = Command::Read { in_one_chunk: false };
const READ_WHOLE: Command = Command::Read { in_one_chunk: true };
const STATUS: Command = Command::BlockStatus { in_one_extent: false };
const STATUS_ONE: Command = Command::BlockStatus { in_one_extent: true };

/// Type of a chunk, and the numbers that matter.
type Chunk = (u16, Vec<u64>);

/// Name, what the export says, what is asked, and the runs that come.
type StatusCase = (&'static str, Option<Vec<Extent>>, Command, Option<Vec<u64>>);

/// Takes a structured reply apart: type, and the numbers that matter.
fn chunks(mut bytes: &[u8]) -> Vec<Chunk> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        let is_extended = number(&bytes[..4]) == u64::from(crate::proto::NBD_EXTENDED_REPLY_MAGIC);
        let header_len = if is_extended { 32 } else { 20 };
        let len = usize::try_from(number(
            &bytes[header_len - if is_extended { 8 } else { 4 }..header_len],
        ));
        let body = &bytes[header_len..header_len + len.unwrap()];
        let kind = u16::try_from(number(&bytes[6..8])).unwrap();
        let is_last = header_len + body.len() == bytes.len();
        assert_eq!(number(&bytes[4..6]), if is_last { u64::from(NBD_REPLY_FLAG_DONE) } else { 0 });
        assert_eq!(number(&bytes[8..16]), 9);
        let numbers = match kind {
            NBD_REPLY_TYPE_OFFSET_DATA => {
                vec![number(&body[..8]), u64::try_from(body.len() - 8).unwrap()]
            }
            NBD_REPLY_TYPE_OFFSET_HOLE => vec![number(&body[..8]), number(&body[8..])],
            NBD_REPLY_TYPE_BLOCK_STATUS => body[4..].chunks(4).map(number).collect(),
            NBD_REPLY_TYPE_BLOCK_STATUS_EXT => {
                assert_eq!(number(&body[4..8]), u64::try_from((body.len() - 8) / 16).unwrap());
                body[8..].chunks(8).map(number).collect()
            }
            _ => vec![number(&body[..4])],
        };
        chunks.push((kind, numbers));
        bytes = &bytes[header_len + body.len()..];
    }
    chunks
}

/// 64 KiB: 16 KiB of data, 32 KiB of zeros, 2 KiB of data, 2 KiB and then 12 KiB of zeros.
fn sparse() -> Memory {
    let mut bytes = vec![0; 64 << 10];
    bytes[..16 << 10].fill(7);
    bytes[48 << 10..50 << 10].fill(8);
    Memory::new(bytes)
}

#[test]
fn zeros_are_sent_as_holes_if_they_are_worth_it() {
    let (data, hole) = (NBD_REPLY_TYPE_OFFSET_DATA, NBD_REPLY_TYPE_OFFSET_HOLE);
    let cases: [(Command, u64, u64, Vec<Chunk>); 7] = [
        (
            READ,
            0,
            64 * KIB,
            vec![
                (data, vec![0, 16 * KIB]),
                (hole, vec![16 * KIB, 32 * KIB]),
                (data, vec![48 * KIB, 4 * KIB]),
                (hole, vec![52 * KIB, 12 * KIB]),
            ],
        ),
        (READ, 0, 16 * KIB, vec![(data, vec![0, 16 * KIB])]),
        (READ, 16 * KIB, 4 * KIB, vec![(hole, vec![16 * KIB, 4 * KIB])]),
        (READ, 16 * KIB, 2 * KIB, vec![(data, vec![16 * KIB, 2 * KIB])]),
        (READ, 15 * KIB, 3 * KIB, vec![(data, vec![15 * KIB, 3 * KIB])]),
        // In one chunk, even if that means to send zeros.
        (READ_WHOLE, 0, 64 * KIB, vec![(data, vec![0, 64 * KIB])]),
        (READ_WHOLE, 20 * KIB, 8 * KIB, vec![(hole, vec![20 * KIB, 8 * KIB])]),
    ];
    for headers in [Headers::Structured, Headers::Extended] {
        for (command, offset, len, expected) in &cases {
            let (session, _) = session(headers, sparse());
            let reply = execute(&session, &request(*command, *offset, *len), &[]).unwrap();
            assert_eq!(chunks(reply.as_bytes()), *expected, "{offset} {len}");
        }
    }
}

#[test]
fn simple_reads_are_data_whatever_is_there() {
    let (session, disk) = session(Headers::Simple, sparse());
    let reply = execute(&session, &request(READ_WHOLE, 0, 64 * KIB), &[]).unwrap();
    assert_eq!(reply.as_bytes()[16..], *disk.lock());
    assert_eq!(*disk.calls.lock().unwrap(), [(Call::Read, 0, 64 * KIB)]);
}

#[test]
fn extents_that_lie_do_no_harm_to_reads() {
    let one = |len, is_zero| Extent { len, is_hole: false, is_zero };
    let data = NBD_REPLY_TYPE_OFFSET_DATA;
    let hole = NBD_REPLY_TYPE_OFFSET_HOLE;
    let half = 32 * KIB;
    let cases: Vec<(&str, Vec<Extent>, Vec<Chunk>)> = vec![
        ("none", vec![], vec![(data, vec![0, 64 * KIB])]),
        ("empty ones", vec![one(0, true), one(0, false)], vec![(data, vec![0, 64 * KIB])]),
        ("too short", vec![one(half, true)], vec![(hole, vec![0, half]), (data, vec![half, half])]),
        ("too long", vec![one(u64::MAX, true)], vec![(hole, vec![0, 64 * KIB])]),
        (
            "too long together",
            vec![one(half, false), one(u64::MAX, true), one(u64::MAX, false)],
            vec![(data, vec![0, half]), (hole, vec![half, half])],
        ),
        ("too many", vec![one(1, true); 100_000], vec![(hole, vec![0, 64 * KIB])]),
    ];
    for (name, extents, expected) in cases {
        let mut disk = sparse();
        disk.extents = Some(extents);
        let (session, _) = session(Headers::Structured, disk);
        let reply = execute(&session, &request(READ, 0, 64 * KIB), &[]).unwrap();
        assert_eq!(chunks(reply.as_bytes()), expected, "{name}");
    }
}

#[test]
fn block_status_joins_and_clips_what_the_export_says() {
    let one = |len, is_hole, is_zero| Extent { len, is_hole, is_zero };
    let truth = vec![16 * KIB, 0, 32 * KIB, 3, 4 * KIB, 0, 12 * KIB, 3];
    let all = 64 * KIB;
    let cases: Vec<StatusCase> = vec![
        ("truth", None, STATUS, Some(truth)),
        ("truth in one", None, STATUS_ONE, Some(vec![4 * KIB, 0])),
        ("too long", Some(vec![one(1 << 32, false, true)]), STATUS, Some(vec![all, 2])),
        ("longest", Some(vec![one(u64::MAX, true, false); 3]), STATUS, Some(vec![all, 1])),
        ("too short", Some(vec![one(512, true, true)]), STATUS, Some(vec![512, 3])),
        (
            "alike",
            Some(vec![one(1, true, true), one(0, false, false), one(2, true, true)]),
            STATUS,
            Some(vec![3, 3]),
        ),
        (
            "several though one was asked for",
            Some(vec![one(1, true, true), one(2, false, false)]),
            STATUS_ONE,
            Some(vec![1, 3]),
        ),
        ("nothing", Some(vec![]), STATUS, None),
        ("nothing at all", Some(vec![one(0, true, true)]), STATUS, None),
    ];
    for (name, extents, command, expected) in cases {
        for headers in [Headers::Structured, Headers::Extended] {
            let mut disk = sparse();
            disk.extents.clone_from(&extents);
            let (session, _) = session(headers, disk);
            let result = execute(&session, &request(command, 0, all), &[]);
            let kind = if headers == Headers::Extended { 6 } else { 5 };
            match &expected {
                Some(runs) => {
                    let reply = result.unwrap();
                    assert_eq!(chunks(reply.as_bytes()), [(kind, runs.clone())], "{name}");
                }
                None => assert_eq!(result.unwrap_err().code, ErrorCode::Io, "{name}"),
            }
        }
    }
}

#[test]
fn block_status_is_bounded_in_count_and_64_bits_long_with_extended_headers() {
    let alternating = |count: usize| -> Vec<Extent> {
        (0..count).map(|at| Extent { len: 1, is_hole: at % 2 == 0, is_zero: false }).collect()
    };
    let mut disk = Memory::new(Vec::new());
    disk.claimed_size = Some(1 << 62);
    disk.extents = Some(alternating(EXTENT_COUNT_MAX + 1));
    let (session, _) = session(Headers::Extended, disk);
    let reply = execute(&session, &request(STATUS, 0, 1 << 40), &[]).unwrap();
    assert_eq!(chunks(reply.as_bytes())[0].1.len(), 2 * EXTENT_COUNT_MAX);

    let mut disk = Memory::new(Vec::new());
    disk.extents = Some(vec![Extent { len: u64::MAX, is_hole: true, is_zero: true }]);
    let (session, _) = self::session(Headers::Extended, disk);
    let reply = execute(&session, &request(STATUS, 1 << 33, 1 << 40), &[]).unwrap();
    assert_eq!(chunks(reply.as_bytes()), [(6, vec![1 << 40, 3])]);
}

/// CVE-2025-47711, CVE-2025-47712 (nbdkit): a plugin's extent of more than 32 bits, and a range that ends near 4 GiB,
/// met assertions.
#[test]
fn cve_2025_47711_extents_beyond_32_bits_are_clipped() {
    let near = u64::from(u32::MAX);
    for len in [near - 1, near] {
        for extent_len in [near - 1, near, near + 1, near + 2, 1 << 33, u64::MAX] {
            let mut disk = Memory::new(Vec::new());
            disk.extents = Some(vec![Extent { len: extent_len, is_hole: true, is_zero: true }]);
            let (session, _) = session(Headers::Structured, disk);
            let reply = execute(&session, &request(STATUS, 1 << 32, len), &[]).unwrap();
            assert_eq!(chunks(reply.as_bytes()), [(5, vec![len.min(extent_len), 3])]);
        }
    }
}

#[test]
fn each_context_has_a_chunk_and_one_that_fails_fails_the_request() {
    let status = |len, flags| StatusExtent { len, flags };
    let mut disk = sparse();
    disk.contexts = vec![
        ("x:one".to_owned(), true, vec![status(KIB, 1), status(u64::MAX, 2)]),
        ("x:bad".to_owned(), true, vec![status(1, u32::MAX)]),
        ("x:empty".to_owned(), true, vec![]),
    ];
    let (mut session, disk) = session(Headers::Structured, disk);
    session.contexts.push((5, Context::Own(disk.open_context("x:one").unwrap())));
    let reply = execute(&session, &request(STATUS, 0, 4 * KIB), &[]).unwrap();
    let expected = [(5, vec![4 * KIB, 0]), (5, vec![KIB, 1, 3 * KIB, 2])];
    assert_eq!(chunks(reply.as_bytes()), expected);
    for name in ["x:bad", "x:empty"] {
        session.contexts[1] = (6, Context::Own(disk.open_context(name).unwrap()));
        let error = execute(&session, &request(STATUS, 0, 4 * KIB), &[]).unwrap_err();
        assert_eq!(error.code, ErrorCode::Io);
    }
}

#[test]
fn writes_reach_the_export_and_are_flushed_if_they_must_be() {
    let options = ZeroOptions { may_make_hole: false, must_be_fast: true };
    let zeroes = |is_durable| Command::WriteZeroes { is_durable, options };
    let all = |call: Call, flushes: bool| {
        let flush: &[_] = if flushes { &[(Call::Flush, 0, 0)] } else { &[] };
        [&[(call, 4 * KIB, 2)][..], flush].concat()
    };
    for (command, expected) in [
        (Command::Write { is_durable: false }, all(Call::Write, false)),
        (Command::Write { is_durable: true }, all(Call::Write, true)),
        (zeroes(false), all(Call::WriteZeroes(options), false)),
        (zeroes(true), all(Call::WriteZeroes(options), true)),
        (Command::Trim { is_durable: false }, all(Call::Trim, false)),
        (Command::Trim { is_durable: true }, all(Call::Trim, true)),
        (Command::Flush, vec![(Call::Flush, 0, 0)]),
        (Command::Cache, vec![(Call::Cache, 4 * KIB, 2)]),
    ] {
        let mut disk = sparse();
        disk.is_writable = true;
        let (session, disk) = session(Headers::Extended, disk);
        let reply = execute(&session, &request(command, 4 * KIB, 2), b"ab").unwrap();
        assert_eq!(reply.as_bytes()[..8], [0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 0]);
        assert_eq!(*disk.calls.lock().unwrap(), expected);
        if matches!(command, Command::Write { .. }) {
            assert_eq!(disk.lock()[4096..4098], *b"ab");
        }
    }
}

#[test]
fn a_flush_that_fails_fails_the_durable_write() {
    let mut disk = sparse();
    disk.is_writable = true;
    disk.before = Box::new(|call, _, _| {
        let fails = call == Call::Flush;
        if fails { Err(ExportError::new(ErrorCode::Io, "no")) } else { Ok(()) }
    });
    let (session, _) = session(Headers::Simple, disk);
    for (command, fails) in [
        (Command::Write { is_durable: true }, true),
        (Command::Write { is_durable: false }, false),
        (Command::Trim { is_durable: true }, true),
    ] {
        assert_eq!(execute(&session, &request(command, 0, 2), b"ab").is_err(), fails);
    }
}

#[test]
fn a_read_only_export_is_not_written_whoever_asks() {
    let (session, disk) = session(Headers::Simple, sparse());
    for command in
        [Command::Write { is_durable: true }, Command::Trim { is_durable: false }, Command::Flush]
    {
        let error = execute(&session, &request(command, 0, 2), b"ab").unwrap_err();
        assert_eq!(error.code, ErrorCode::NotPermitted);
    }
    assert!(disk.calls.lock().unwrap().is_empty());
}

#[test]
fn only_short_reads_at_hand_are_immediate() {
    for (is_at_hand, command, len, expected) in [
        (true, READ, 512, true),
        (true, READ, IMMEDIATE_LEN_MAX, true),
        (true, READ, IMMEDIATE_LEN_MAX + 1, false),
        (true, STATUS, 512, false),
        (false, READ, 512, false),
    ] {
        let mut disk = Memory::new(vec![7; 1 << 20]);
        disk.is_at_hand = is_at_hand;
        let (session, _) = session(Headers::Structured, disk);
        let reply = execute_immediately(&session, &request(command, 512, len));
        assert_eq!(reply.is_some(), expected);
        let whole = execute(&session, &request(command, 512, len), &[]).unwrap();
        assert!(reply.is_none_or(|reply| reply == whole));
    }
}

#[test]
fn places_of_errors_are_passed_on_if_they_lie_in_the_request() {
    let (session, _) = session(Headers::Structured, sparse());
    let request = request(READ, 4096, 4096);
    for (offset, kind) in [
        (None, 1),
        (Some(4095), 1),
        (Some(4096), 2),
        (Some(8191), 2),
        (Some(8192), 1),
        (Some(u64::MAX), 1),
    ] {
        let mut error = ExportError::new(ErrorCode::Io, "damaged");
        error.offset = offset;
        let reply = error_reply(&session, &request, &error);
        assert_eq!(reply.as_bytes()[6..8], [0x80, kind], "{offset:?}");
    }
    let flush = self::request(Command::Flush, 0, 0);
    let error = ExportError::new(ErrorCode::Io, "damaged").at(0);
    assert_eq!(error_reply(&session, &flush, &error).as_bytes()[6..8], [0x80, 1]);
}

#[test]
fn codes_with_a_special_meaning_are_sent_only_where_they_have_it() {
    let zeroes = |must_be_fast| {
        let options = ZeroOptions { may_make_hole: true, must_be_fast };
        Command::WriteZeroes { is_durable: false, options }
    };
    for (command, code, expected) in [
        (zeroes(true), ErrorCode::NotSupported, ErrorCode::NotSupported),
        (zeroes(false), ErrorCode::NotSupported, ErrorCode::Invalid),
        (READ, ErrorCode::NotSupported, ErrorCode::Invalid),
        (READ, ErrorCode::Overflow, ErrorCode::Invalid),
        (READ, ErrorCode::Io, ErrorCode::Io),
        (READ, ErrorCode::Shutdown, ErrorCode::Shutdown),
        (Command::Write { is_durable: false }, ErrorCode::NoSpace, ErrorCode::NoSpace),
    ] {
        let (session, _) = session(Headers::Simple, sparse());
        let error = ExportError::new(code, "no");
        let reply = error_reply(&session, &request(command, 0, 1), &error);
        assert_eq!(reply.as_bytes()[4..8], expected.number().to_be_bytes(), "{command:?} {code:?}");
    }
}

#[test]
fn memory_is_counted_before_it_is_taken() {
    let (mut session, _) = session(Headers::Extended, sparse());
    let len = |session: &Session, command, len| memory_len_max(session, &request(command, 0, len));
    assert_eq!(len(&session, READ, 4096), 4096);
    assert_eq!(len(&session, Command::Write { is_durable: false }, 4096), 4096);
    assert_eq!(len(&session, Command::Trim { is_durable: false }, 1 << 40), 0);
    assert_eq!(len(&session, STATUS, 1 << 62), EXTENT_COUNT_MAX * (48 + 16));
    session.contexts.push((2, Context::Allocation));
    session.headers = Headers::Structured;
    assert_eq!(len(&session, STATUS, 2), 2 * (48 + 2 * 8));
}
