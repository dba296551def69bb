//! NBD sessions without sockets: no panic, no answer that breaks the protocol, no memory beyond the limits, and what is
//! written is read.
//!
//! The first byte sets the stage. The rest is what a client sends: as it is, from the first byte or after a handshake; or,
//! since no fuzzer guesses magic numbers for long, as short orders from which options and requests are made.

use std::sync::Arc;

use nbd_server::execute::{error_reply, execute, execute_immediately};
use nbd_server::handshake::{Encryption, Handshake, Step};
use nbd_server::limits::{
    EXTENT_COUNT_MAX, OPTION_LEN_MAX, OPTION_REPLY_LEN_MAX, PAYLOAD_LEN_MAX,
    PAYLOAD_LEN_SKIPPED_MAX,
};
use nbd_server::proto::{
    Headers, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE,
    NBD_CMD_WRITE_ZEROES, NBD_OPT_EXPORT_NAME, OptionHeader, RequestHeader,
};
use nbd_server::reply::{Reply, ReplyTo};
use nbd_server::session::Session;
use nbd_server::transmission::{Action, Command, Transmission};
use nbd_server::{BlockSizes, Extent, StatusExtent};

use super::memory::{Disks, Memory};
use super::wire;

const SIZE: usize = 1 << 16;

pub(crate) fn session(bytes: &[u8]) -> bool {
    let Some((stage, input)) = bytes.split_first() else { return false };
    let exports = Arc::new(stage_of(*stage));
    let encryption = if stage & 2 == 0 { Encryption::Off } else { Encryption::Required };
    let has_orders = stage & 4 == 0;
    let (sent, orders) = match (has_orders, stage & 128 == 0) {
        (true, _) => options_of(input),
        (false, true) => (input.to_vec(), Vec::new()),
        (false, false) => ([opening(*stage), input.to_vec()].concat(), Vec::new()),
    };
    let Some((session, rest)) = shake_hands(&exports, encryption, &sent) else { return false };
    let requests = if has_orders { requests_of(&orders, session.headers) } else { rest };
    transmit(&session, &requests);
    true
}

fn stage_of(stage: u8) -> Disks {
    let mut disk = Memory::new((0..SIZE).map(|at| u8::from(at / 8192 % 2 == 0)).collect());
    disk.is_writable = stage & 1 != 0;
    disk.can_cache = stage & 8 != 0;
    disk.is_at_hand = stage & 16 != 0;
    if stage & 32 != 0 {
        disk.block_sizes = BlockSizes { min: 512, preferred: 4096 };
    }
    if stage & 64 != 0 {
        let one = |len| Extent { len, is_hole: true, is_zero: false };
        disk.extents = Some(vec![one(1), one(0), one(1 << 32), one(u64::MAX)]);
    }
    let lie = [StatusExtent { len: 7, flags: 1 }, StatusExtent { len: u64::MAX, flags: 2 }];
    disk.contexts = vec![
        ("qemu:dirty-bitmap:a".to_owned(), true, lie.to_vec()),
        ("qemu:dirty-bitmap:b".to_owned(), false, Vec::new()),
    ];
    Disks::new(vec![("disk", disk)])
}

/// Makes a handshake that is in order.
fn opening(stage: u8) -> Vec<u8> {
    let mut sent = vec![0, 0, 0, 3];
    if stage & 2 != 0 {
        sent.extend(wire::option(5, &[]));
    }
    if stage & 24 != 0 {
        sent.extend(wire::option(if stage & 8 == 0 { 8 } else { 11 }, &[]));
        let contexts = wire::queries(b"disk", &["base:allocation", "qemu:dirty-bitmap:a"]);
        sent.extend(wire::option(10, &contexts));
    }
    sent.extend(wire::option(7, &wire::info(b"disk", &[])));
    sent
}

/// Makes options from orders; what follows the last one is for requests.
fn options_of(input: &[u8]) -> (Vec<u8>, Vec<u8>) {
    const NAMES: [&[u8]; 4] = [b"disk", b"", b"none", b"failed"];
    const QUERIES: [&str; 6] = [
        "base:allocation",
        "base:",
        "qemu:dirty-bitmap:a",
        "qemu:dirty-bitmap:b",
        "qemu:",
        "x-test:failed",
    ];
    let mut sent = vec![0, 0, 0, 3];
    let mut rest = input;
    while let Some((order, after)) = rest.split_first_chunk::<2>() {
        rest = after;
        let [option, choice] = *order;
        let name = NAMES[usize::from(choice % 4)];
        let option = u32::from(option % 16);
        let payload = match option {
            1 => name.to_vec(),
            6 | 7 => wire::info(name, &[u16::from(choice) / 4 % 5, 3]),
            9 | 10 => {
                let chosen = (0..6).filter(|at| choice >> 2 >> at & 1 != 0);
                wire::queries(name, &chosen.map(|at| QUERIES[at]).collect::<Vec<_>>())
            }
            12 | 13 => rest[..rest.len().min(usize::from(choice))].to_vec(),
            _ => Vec::new(),
        };
        sent.extend(wire::option(if option == 13 { 9 } else { option }, &payload));
        if option == 1 || option == 7 && name.len() < 5 {
            break;
        }
    }
    (sent, rest.to_vec())
}

/// Makes requests from orders of 12 bytes.
fn requests_of(mut orders: &[u8], headers: Headers) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut cookie = 0;
    while let Some((order, after)) = orders.split_first_chunk::<12>() {
        orders = after;
        let [command, flags, offset @ .., shift, a, b, fill] = *order;
        let offset = offset.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let offset = if offset >> 47 == 0 { offset % (SIZE as u64 + 999) } else { offset << 16 };
        let len = u64::from(a) << 8 | u64::from(b);
        let len = if shift < 128 { len } else { len << (shift % 48) };
        cookie += 1;
        let command = u16::from(command % 10);
        let mut header = RequestHeader { flags: flags.into(), command, cookie, offset, len };
        if headers != Headers::Extended {
            header.len &= 0xffff_ffff;
        }
        sent.extend(header.encode(headers).expect("the length fits"));
        let announces =
            headers == Headers::Extended && header.flags & NBD_CMD_FLAG_PAYLOAD_LEN != 0;
        if (header.command == NBD_CMD_WRITE || announces) && header.len < 1 << 17 {
            sent.extend(vec![fill; header.len as usize]);
        }
    }
    sent
}

/// Does the handshake; returns what was agreed on and the bytes that are left.
fn shake_hands(
    exports: &Arc<Disks>,
    encryption: Encryption,
    mut input: &[u8],
) -> Option<(Session, Vec<u8>)> {
    let mut handshake = Handshake::new(Arc::<Disks>::clone(exports), encryption);
    let mut is_encrypted = false;
    let mut option = None;
    for turn in 0.. {
        let wanted = handshake.wants();
        assert!(wanted <= OPTION_LEN_MAX as usize && wanted != 0);
        let (taken, rest) = input.split_at_checked(wanted)?;
        input = rest;
        if option.is_none() && turn != 0 {
            option = OptionHeader::decode(taken).map(|header| header.option);
        }
        let mut output = Vec::new();
        let step = handshake.receive(taken, &mut output);
        assert!(output.len() <= OPTION_REPLY_LEN_MAX + 100_000);
        let is_over = matches!(step, Step::Close | Step::Transmit(_));
        let replied = option.filter(|_| !output.is_empty());
        if let Some(number) = replied
            && number != NBD_OPT_EXPORT_NAME
        {
            let left = &mut &output[..];
            let replies = wire::read_option_replies(left, number).expect("the replies are whole");
            assert!(left.is_empty(), "one last reply to each option");
            let is_tls_only = encryption == Encryption::Required && !is_encrypted;
            let kind = replies.last().expect("there is one").0;
            assert!(!is_tls_only || kind != 1 || [2, 5].contains(&number), "nothing before TLS");
        }
        if replied.is_some() {
            option = None;
        }
        match step {
            Step::Continue => {}
            Step::StartTls => is_encrypted = true,
            Step::Transmit(session) => {
                assert!(encryption == Encryption::Off || is_encrypted);
                return Some((session, input.to_vec()));
            }
            Step::Close => {
                assert!(is_over);
                return None;
            }
        }
    }
    None
}

fn transmit(session: &Session, mut input: &[u8]) {
    let transmission = Transmission::new(session);
    let headers = session.headers;
    assert_eq!(transmission.headers(), headers);
    while let Some((bytes, rest)) = input.split_at_checked(headers.request_len()) {
        input = rest;
        let action = transmission.receive(bytes);
        let Some(header) = RequestHeader::decode(headers, bytes) else {
            assert!(matches!(action, Action::Close(_)));
            return;
        };
        match action {
            Action::Execute(request) => {
                let payload_len = if header.command == NBD_CMD_WRITE { request.len } else { 0 };
                assert!(payload_len <= PAYLOAD_LEN_MAX);
                let len = usize::try_from(payload_len).expect("bounded");
                let Some((payload, rest)) = input.split_at_checked(len) else { return };
                input = rest;
                if let Some(reply) = execute_immediately(session, &request) {
                    check(&reply, headers, header, 0);
                }
                let (reply, error) = match execute(session, &request, payload) {
                    Ok(reply) => (reply, 0),
                    Err(error) => (error_reply(session, &request, &error), error.code.number()),
                };
                check(&reply, headers, header, error);
                let end = request.offset + request.len;
                assert!(end <= session.export.size());
                if error == 0 {
                    check_content(session, &header, request.command, payload);
                }
            }
            Action::Refuse { payload_len, error } => {
                assert!(payload_len <= PAYLOAD_LEN_SKIPPED_MAX);
                let len = usize::try_from(payload_len).expect("bounded");
                let to = ReplyTo { headers, cookie: error.cookie, offset: error.offset };
                let reply = Reply::error(to, error.code, error.message, None);
                check(&reply, headers, header, error.code.number());
                let Some((_, rest)) = input.split_at_checked(len) else { return };
                input = rest;
            }
            Action::Disconnect | Action::Close(_) => return,
        }
    }
}

/// The reply is one that a strict client accepts, to this request, and nothing follows it.
fn check(reply: &Reply, headers: Headers, request: RequestHeader, error: u32) {
    let bytes = &mut reply.as_bytes();
    assert!(bytes.len() <= PAYLOAD_LEN_MAX as usize + 64 * EXTENT_COUNT_MAX);
    let answer = wire::read_answer(bytes, headers, |cookie| {
        assert_eq!(cookie, request.cookie);
        request
    });
    let answer = answer.expect("the reply is whole");
    assert_eq!(answer.error != 0, error != 0);
    assert!(bytes.is_empty());
}

/// What was written is there.
fn check_content(session: &Session, header: &RequestHeader, command: Command, payload: &[u8]) {
    let writes = [NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_CMD_TRIM];
    if !writes.contains(&header.command) {
        return;
    }
    let mut content = vec![0xee; header.len as usize];
    session.export.read(header.offset, &mut content).expect("the range is there");
    match command {
        Command::Write { is_durable } => {
            assert_eq!(content, payload);
            assert_eq!(is_durable, header.flags & NBD_CMD_FLAG_FUA != 0);
        }
        _ => assert!(content.iter().all(|byte| *byte == 0)),
    }
    // The way through the protocol gives the same.
    let read = nbd_server::transmission::Request {
        command: Command::Read { in_one_chunk: false },
        cookie: 1,
        offset: header.offset,
        len: header.len,
    };
    let request = RequestHeader { flags: 0, command: NBD_CMD_READ, cookie: 1, ..*header };
    let mut claims_lies = session.clone();
    claims_lies.headers = Headers::Simple;
    let reply = execute(&claims_lies, &read, &[]).expect("the range is there");
    let bytes = &mut reply.as_bytes();
    let answer = wire::read_answer(bytes, Headers::Simple, |_| request).expect("whole");
    assert_eq!(answer.data, content);
}
