use std::sync::Arc;

use super::*;
use crate::export::BlockSizes;
use crate::memory::Memory;
use crate::session::Context;

const SIZE: u64 = 1 << 20;
const MAX: u64 = PAYLOAD_LEN_MAX;

#[derive(Clone, Copy)]
struct Stage {
    headers: Headers,
    size: u64,
    is_writable: bool,
    can_cache: bool,
    block_len_min: u32,
    context_count: u32,
}

const READ_ONLY: Stage = Stage {
    headers: Headers::Structured,
    size: SIZE,
    is_writable: false,
    can_cache: false,
    block_len_min: 1,
    context_count: 1,
};
const WRITABLE: Stage = Stage { is_writable: true, can_cache: true, ..READ_ONLY };
const SIMPLE: Stage = Stage { headers: Headers::Simple, context_count: 0, ..WRITABLE };
const EXTENDED: Stage = Stage { headers: Headers::Extended, ..WRITABLE };
const HUGE: Stage = Stage { size: (1 << 63) - 1, ..EXTENDED };

impl Stage {
    fn receive(self, (command, flags, offset, len): (u16, u16, u64, u64)) -> Action {
        let header = RequestHeader { command, flags, cookie: 7, offset, len };
        let bytes = header.encode(self.headers).expect("the length fits");
        self.transmission().receive(&bytes)
    }

    fn transmission(self) -> Transmission {
        let mut disk = Memory::new(Vec::new());
        disk.claimed_size = Some(self.size);
        disk.is_writable = self.is_writable;
        disk.can_cache = self.can_cache;
        disk.block_sizes = BlockSizes { min: self.block_len_min, preferred: 4096 };
        Transmission::new(&Session {
            name: String::new(),
            export: Arc::new(disk),
            headers: self.headers,
            contexts: (0..self.context_count).map(|id| (id, Context::Allocation)).collect(),
        })
    }
}

const FUA: u16 = NBD_CMD_FLAG_FUA;
const DF: u16 = NBD_CMD_FLAG_DF;
const PAYLOAD: u16 = NBD_CMD_FLAG_PAYLOAD_LEN;

fn zeroes(is_durable: bool, may_make_hole: bool, must_be_fast: bool) -> Command {
    Command::WriteZeroes { is_durable, options: ZeroOptions { may_make_hole, must_be_fast } }
}

#[test]
fn requests_that_pass() {
    let read = Command::Read { in_one_chunk: false };
    let whole = Command::Read { in_one_chunk: true };
    let write = |is_durable| Command::Write { is_durable };
    let trim = |is_durable| Command::Trim { is_durable };
    let status = |in_one_extent| Command::BlockStatus { in_one_extent };
    let (no_hole, fast) = (NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_FAST_ZERO);
    for (stage, sent, expected) in [
        (READ_ONLY, (NBD_CMD_READ, 0, 0, 1), read),
        (READ_ONLY, (NBD_CMD_READ, 0, SIZE - 1, 1), read),
        (READ_ONLY, (NBD_CMD_READ, 0, 0, SIZE), read),
        (READ_ONLY, (NBD_CMD_READ, DF, 0, SIZE), whole),
        (WRITABLE, (NBD_CMD_READ, FUA, 0, 1), read),
        (SIMPLE, (NBD_CMD_READ, 0, 0, 1), whole),
        (EXTENDED, (NBD_CMD_READ, DF, 0, 1), whole),
        (HUGE, (NBD_CMD_READ, 0, (1 << 63) - 2, 1), read),
        (HUGE, (NBD_CMD_READ, 0, (1 << 32) - 1, 2), read),
        (HUGE, (NBD_CMD_READ, 0, 0, MAX), read),
        (WRITABLE, (NBD_CMD_WRITE, 0, 0, SIZE), write(false)),
        (SIMPLE, (NBD_CMD_WRITE, FUA, 5, 7), write(true)),
        (EXTENDED, (NBD_CMD_WRITE, PAYLOAD, 0, 1), write(false)),
        // Broken, but every server understands it.
        (EXTENDED, (NBD_CMD_WRITE, FUA, 0, 1), write(true)),
        (WRITABLE, (NBD_CMD_WRITE_ZEROES, 0, 0, 1), zeroes(false, true, false)),
        (WRITABLE, (NBD_CMD_WRITE_ZEROES, FUA | no_hole | fast, 0, 1), zeroes(true, false, true)),
        (HUGE, (NBD_CMD_WRITE_ZEROES, 0, 0, (1 << 63) - 1), zeroes(false, true, false)),
        (WRITABLE, (NBD_CMD_TRIM, 0, 0, SIZE), trim(false)),
        (WRITABLE, (NBD_CMD_TRIM, FUA, 0, SIZE), trim(true)),
        (HUGE, (NBD_CMD_TRIM, 0, 1, 1 << 62), trim(false)),
        (WRITABLE, (NBD_CMD_FLUSH, 0, 0, 0), Command::Flush),
        (WRITABLE, (NBD_CMD_FLUSH, FUA, 0, 0), Command::Flush),
        (WRITABLE, (NBD_CMD_CACHE, 0, 0, SIZE), Command::Cache),
        (HUGE, (NBD_CMD_CACHE, FUA, 0, MAX), Command::Cache),
        (READ_ONLY, (NBD_CMD_BLOCK_STATUS, 0, 0, SIZE), status(false)),
        (READ_ONLY, (NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 0, 1), status(true)),
        (HUGE, (NBD_CMD_BLOCK_STATUS, 0, 0, (1 << 63) - 1), status(false)),
        (Stage { block_len_min: 512, ..WRITABLE }, (NBD_CMD_WRITE, 0, 512, 1024), write(false)),
    ] {
        let (_, _, offset, len) = sent;
        let request = Request { command: expected, cookie: 7, offset, len };
        assert_eq!(stage.receive(sent), Action::Execute(request), "{sent:?}");
    }
}

#[test]
fn requests_that_are_refused() {
    use ErrorCode::{Invalid, NoSpace, NotPermitted, Overflow};
    let aligned = Stage { block_len_min: 512, ..WRITABLE };
    for (stage, sent, code, payload_len) in [
        // Unknown commands, and flags that do not belong to the command.
        (READ_ONLY, (8, 0, 0, 512), Invalid, 0),
        (READ_ONLY, (u16::MAX, u16::MAX, u64::MAX, 0xffff_ffff), Invalid, 0),
        (READ_ONLY, (NBD_CMD_READ, 1 << 15, 0, 1), Invalid, 0),
        (READ_ONLY, (NBD_CMD_READ, FUA, 0, 1), Invalid, 0),
        (SIMPLE, (NBD_CMD_READ, DF, 0, 1), Invalid, 0),
        (WRITABLE, (NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 1), Invalid, 0),
        (WRITABLE, (NBD_CMD_WRITE, DF, 0, 9), Invalid, 9),
        (WRITABLE, (NBD_CMD_WRITE, PAYLOAD, 0, 9), Invalid, 9),
        (WRITABLE, (NBD_CMD_TRIM, NBD_CMD_FLAG_NO_HOLE, 0, 1), Invalid, 0),
        (WRITABLE, (NBD_CMD_CACHE, DF, 0, 1), Invalid, 0),
        (WRITABLE, (NBD_CMD_BLOCK_STATUS, DF, 0, 1), Invalid, 0),
        (WRITABLE, (NBD_CMD_FLUSH, NBD_CMD_FLAG_REQ_ONE, 0, 0), Invalid, 0),
        // A payload that nobody asked for is read, and refused.
        (EXTENDED, (NBD_CMD_READ, PAYLOAD, 0, 9), Invalid, 9),
        (EXTENDED, (NBD_CMD_BLOCK_STATUS, PAYLOAD, 0, 24), Invalid, 24),
        (EXTENDED, (99, PAYLOAD, 0, 9), Invalid, 9),
        (EXTENDED, (NBD_CMD_READ, PAYLOAD, 0, 64 << 20), Invalid, 64 << 20),
        // Not offered.
        (READ_ONLY, (NBD_CMD_WRITE, 0, 0, 9), NotPermitted, 9),
        (READ_ONLY, (NBD_CMD_WRITE, FUA, 0, 9), NotPermitted, 9),
        (READ_ONLY, (NBD_CMD_WRITE, 0, SIZE, 9), NotPermitted, 9),
        (READ_ONLY, (NBD_CMD_WRITE_ZEROES, 0, 0, 1), NotPermitted, 0),
        (READ_ONLY, (NBD_CMD_TRIM, 0, 0, 1), NotPermitted, 0),
        (READ_ONLY, (NBD_CMD_FLUSH, 0, 0, 0), Invalid, 0),
        (READ_ONLY, (NBD_CMD_CACHE, 0, 0, 1), Invalid, 0),
        (SIMPLE, (NBD_CMD_BLOCK_STATUS, 0, 0, 1), Invalid, 0),
        (Stage { context_count: 0, ..READ_ONLY }, (NBD_CMD_BLOCK_STATUS, 0, 0, 1), Invalid, 0),
        // Empty ranges, and a flush with one.
        (WRITABLE, (NBD_CMD_READ, 0, 0, 0), Invalid, 0),
        (WRITABLE, (NBD_CMD_WRITE, 0, 0, 0), Invalid, 0),
        (WRITABLE, (NBD_CMD_WRITE_ZEROES, 0, 0, 0), Invalid, 0),
        (WRITABLE, (NBD_CMD_TRIM, 0, SIZE, 0), Invalid, 0),
        (WRITABLE, (NBD_CMD_CACHE, 0, 0, 0), Invalid, 0),
        (WRITABLE, (NBD_CMD_BLOCK_STATUS, 0, 0, 0), Invalid, 0),
        (WRITABLE, (NBD_CMD_FLUSH, 0, 0, 1), Invalid, 0),
        (WRITABLE, (NBD_CMD_FLUSH, 0, 1, 0), Invalid, 0),
        // Beyond the end, and past what numbers can say.
        (WRITABLE, (NBD_CMD_READ, 0, SIZE, 1), Invalid, 0),
        (WRITABLE, (NBD_CMD_READ, 0, SIZE - 1, 2), Invalid, 0),
        (WRITABLE, (NBD_CMD_READ, 0, u64::MAX, 1), Invalid, 0),
        (WRITABLE, (NBD_CMD_READ, 0, u64::MAX - 511, 512), Invalid, 0),
        (WRITABLE, (NBD_CMD_READ, 0, (1 << 32) - 1, 1), Invalid, 0),
        (WRITABLE, (NBD_CMD_READ, 0, 1 << 63, 0xffff_ffff), Invalid, 0),
        (WRITABLE, (NBD_CMD_WRITE, 0, SIZE, 9), NoSpace, 9),
        (WRITABLE, (NBD_CMD_WRITE, 0, u64::MAX, 9), NoSpace, 9),
        (WRITABLE, (NBD_CMD_WRITE_ZEROES, 0, SIZE - 1, 2), NoSpace, 0),
        (WRITABLE, (NBD_CMD_TRIM, 0, SIZE - 1, 2), Invalid, 0),
        (WRITABLE, (NBD_CMD_CACHE, 0, SIZE - 1, 2), Invalid, 0),
        (WRITABLE, (NBD_CMD_BLOCK_STATUS, 0, 0, 0xffff_ffff), Invalid, 0),
        (HUGE, (NBD_CMD_READ, 0, (1 << 63) - 2, 2), Invalid, 0),
        (HUGE, (NBD_CMD_TRIM, 0, 1, u64::MAX), Invalid, 0),
        (HUGE, (NBD_CMD_WRITE_ZEROES, 0, u64::MAX, u64::MAX), NoSpace, 0),
        (HUGE, (NBD_CMD_BLOCK_STATUS, 0, 1 << 62, 1 << 63), Invalid, 0),
        // Block sizes.
        (aligned, (NBD_CMD_READ, 0, 1, 512), Invalid, 0),
        (aligned, (NBD_CMD_READ, 0, 512, 511), Invalid, 0),
        (aligned, (NBD_CMD_WRITE, 0, 256, 512), Invalid, 512),
        (aligned, (NBD_CMD_TRIM, 0, 0, 1), Invalid, 0),
        (Stage { block_len_min: 3, ..WRITABLE }, (NBD_CMD_READ, 0, 3, 3), Invalid, 0),
        // Longer than the largest payload.
        (HUGE, (NBD_CMD_READ, 0, 0, MAX + 1), Overflow, 0),
        (HUGE, (NBD_CMD_READ, DF, 0, 1 << 40), Overflow, 0),
        (Stage { headers: Headers::Simple, ..HUGE }, (NBD_CMD_READ, 0, 0, MAX + 1), Invalid, 0),
        (HUGE, (NBD_CMD_WRITE, PAYLOAD, 0, MAX + 1), Invalid, MAX + 1),
        (HUGE, (NBD_CMD_WRITE, 0, 0, 64 << 20), Invalid, 64 << 20),
        (HUGE, (NBD_CMD_CACHE, 0, 0, MAX + 1), Invalid, 0),
    ] {
        let action = stage.receive(sent);
        let Action::Refuse { payload_len: skipped, error } = action else {
            panic!("{sent:?}: {action:?}");
        };
        assert_eq!((error.code, skipped), (code, payload_len), "{sent:?}: {}", error.message);
        assert_eq!((error.cookie, error.offset), (7, sent.2));
    }
}

#[test]
fn what_cannot_be_followed_by_another_request_ends_the_connection() {
    for (stage, sent) in [
        (WRITABLE, (NBD_CMD_WRITE, 0, 0, (64 << 20) + 1)),
        (READ_ONLY, (NBD_CMD_WRITE, 0, 0, 0xffff_ffff)),
        (EXTENDED, (NBD_CMD_WRITE, PAYLOAD, 0, u64::MAX)),
        (EXTENDED, (NBD_CMD_READ, PAYLOAD, 0, 1 << 32)),
        (EXTENDED, (99, PAYLOAD, 0, 1 << 63)),
    ] {
        assert!(matches!(stage.receive(sent), Action::Close(_)), "{sent:?}");
    }
}

#[test]
fn disconnecting_needs_no_more_than_the_command() {
    for stage in [READ_ONLY, SIMPLE, EXTENDED] {
        assert_eq!(stage.receive((NBD_CMD_DISC, 0, 0, 0)), Action::Disconnect);
        assert_eq!(stage.receive((NBD_CMD_DISC, FUA, 9, 9)), Action::Disconnect);
    }
}

#[test]
fn headers_of_another_form_end_the_connection() {
    let read = RequestHeader { command: NBD_CMD_READ, flags: 0, cookie: 1, offset: 0, len: 1 };
    let simple = read.encode(Headers::Simple).unwrap();
    let extended = read.encode(Headers::Extended).unwrap();
    let padded = [&simple[..], &[0; 4]].concat();
    for (stage, bytes) in [
        (EXTENDED, &padded),
        (READ_ONLY, &extended[..28].to_vec()),
        (READ_ONLY, &vec![0; 28]),
        (EXTENDED, &vec![0xff; 32]),
    ] {
        assert!(matches!(stage.transmission().receive(bytes), Action::Close(_)));
    }
}
