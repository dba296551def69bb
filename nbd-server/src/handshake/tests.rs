use std::fmt::Write;

use super::*;
use crate::export::{BlockSizes, StatusExtent};
use crate::memory::{Disks, Memory};
use crate::proto::{
    IHAVEOPT, NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY, NBD_FLAG_SEND_CACHE,
    NBD_FLAG_SEND_DF, NBD_INFO_BLOCK_SIZE, NBD_INFO_DESCRIPTION, NBD_INFO_EXPORT, NBD_INFO_NAME,
    NBD_REP_ERR_INVALID, NBD_REP_INFO, NBD_REP_META_CONTEXT, NBD_REP_SERVER, OPTION_REPLY_MAGIC,
};

mod bounds;

const FIXED: u32 = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES;
const SIZE: usize = 1 << 20;

/// How far a handshake came.
#[derive(Debug)]
enum End {
    Waits,
    Transmits(Session),
    Closes,
}

fn exports() -> Disks {
    let mut disk = Memory::new(vec![1; SIZE]);
    let context = |flags| vec![StatusExtent { len: 512, flags }];
    disk.contexts = vec![
        ("qemu:dirty-bitmap:monday".to_owned(), true, context(1)),
        ("qemu:dirty-bitmap:hidden".to_owned(), false, context(2)),
    ];
    let mut second = Memory::new(vec![2; 4096]);
    second.is_writable = true;
    second.can_cache = true;
    Disks::new(vec![("disk", disk), ("second", second)])
}

fn option(option: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [&IHAVEOPT.to_be_bytes()[..], &option.to_be_bytes(), &len.to_be_bytes(), payload].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

fn info(name: &str, kinds: &[u16]) -> Vec<u8> {
    let count = u16::try_from(kinds.len()).unwrap();
    let kinds: Vec<u8> = kinds.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    [string(name), count.to_be_bytes().to_vec(), kinds].concat()
}

fn queries(name: &str, queries: &[&str]) -> Vec<u8> {
    let count = u32::try_from(queries.len()).unwrap().to_be_bytes().to_vec();
    [vec![string(name), count], queries.iter().map(|one| string(one)).collect()].concat().concat()
}

fn begin(exports: Disks, encryption: Encryption, flags: u32) -> (Handshake, End) {
    let mut handshake = Handshake::new(Arc::new(exports), encryption);
    assert_eq!(handshake.wants(), 4);
    let mut output = Vec::new();
    let end = match handshake.receive(&flags.to_be_bytes(), &mut output) {
        Step::Continue => End::Waits,
        Step::Close => End::Closes,
        other => panic!("{other:?}"),
    };
    assert!(output.is_empty());
    (handshake, end)
}

/// Sends bytes, as long as they are wanted. TLS is passed over.
fn send(handshake: &mut Handshake, mut bytes: &[u8]) -> (Vec<u8>, End) {
    let mut output = Vec::new();
    while handshake.wants() <= bytes.len() {
        let (wanted, rest) = bytes.split_at(handshake.wants());
        bytes = rest;
        match handshake.receive(wanted, &mut output) {
            Step::Continue | Step::StartTls => {}
            Step::Transmit(session) => return (output, End::Transmits(session)),
            Step::Close => return (output, End::Closes),
        }
    }
    assert!(bytes.is_empty(), "the rest is not wanted");
    (output, End::Waits)
}

/// Reads replies to options as lines: `option type: content`.
fn lines(mut bytes: &[u8]) -> String {
    let mut lines = String::new();
    while !bytes.is_empty() {
        let mut fields = Fields::new(bytes);
        assert_eq!(fields.u64(), Some(OPTION_REPLY_MAGIC));
        let (option, reply) = (fields.u32().unwrap(), fields.u32().unwrap());
        let len = usize::try_from(fields.u32().unwrap()).unwrap();
        let content = fields.take(len).unwrap();
        bytes = &bytes[20 + len..];
        let mut fields = Fields::new(content);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let content = match reply {
            NBD_REP_ACK => format!("ack{}", text(content)),
            NBD_REP_SERVER => {
                let name = fields.counted_string().unwrap();
                format!("server {name} ({})", text(&content[4 + name.len()..]))
            }
            NBD_REP_META_CONTEXT => format!("context {} {}", content[3], text(&content[4..])),
            NBD_REP_INFO => match fields.u16().unwrap() {
                NBD_INFO_EXPORT => {
                    format!("export {} {:#x}", fields.u64().unwrap(), fields.u16().unwrap())
                }
                NBD_INFO_NAME => format!("name {}", text(&content[2..])),
                NBD_INFO_DESCRIPTION => format!("description {}", text(&content[2..])),
                NBD_INFO_BLOCK_SIZE => {
                    let sizes = [fields.u32(), fields.u32(), fields.u32()];
                    assert!(fields.is_empty());
                    format!("block size {:?}", sizes.map(Option::unwrap))
                }
                other => panic!("{other}"),
            },
            _ => {
                assert!(!content.is_empty(), "a refusal says why");
                format!("error {}", reply & !(1 << 31))
            }
        };
        writeln!(lines, "{option} {content}").unwrap();
    }
    lines
}

/// What is answered to these options, after others that set the stage.
fn answer(before: &[Vec<u8>], sent: &[u8]) -> (String, End) {
    let (mut handshake, _) = begin(exports(), Encryption::Off, FIXED);
    let (_, end) = send(&mut handshake, &before.concat());
    assert!(matches!(end, End::Waits));
    let (output, end) = send(&mut handshake, sent);
    (lines(&output), end)
}

fn structured() -> Vec<u8> {
    option(NBD_OPT_STRUCTURED_REPLY, &[])
}

fn extended() -> Vec<u8> {
    option(NBD_OPT_EXTENDED_HEADERS, &[])
}

const RO: u16 = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_CAN_MULTI_CONN;

#[test]
fn client_flags_that_are_unknown_end_the_connection() {
    for (flags, encryption, is_closed) in [
        (0, Encryption::Off, false),
        (1, Encryption::Off, false),
        (2, Encryption::Off, false),
        (3, Encryption::Off, false),
        (4, Encryption::Off, true),
        (7, Encryption::Off, true),
        (1 << 31, Encryption::Off, true),
        (1, Encryption::Required, false),
        (3, Encryption::Required, false),
        // TLS needs fixed newstyle.
        (0, Encryption::Required, true),
        (2, Encryption::Required, true),
    ] {
        let (_, end) = begin(exports(), encryption, flags);
        assert_eq!(matches!(end, End::Closes), is_closed, "{flags:#x} {encryption:?}");
    }
}

/// Name, options before it, the option, and its answer.
type OptionCase = (&'static str, Vec<Vec<u8>>, Vec<u8>, String);

#[test]
fn each_option_is_answered() {
    let long = "n".repeat(4097);
    let seventeen = ["base:allocation"; 17];
    let contexts = "9 context 0 base:allocation\n9 context 0 qemu:dirty-bitmap:monday\n9 ack\n";
    let all = [NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE, NBD_INFO_EXPORT, 0xfff0];
    let info_of_disk = format!("6 export {SIZE} {RO:#x}\n");
    let sizes = "6 block size [1, 4096, 33554432]\n6 ack\n";
    let cases: Vec<OptionCase> = vec![
        (
            "list",
            vec![],
            option(NBD_OPT_LIST, &[]),
            "3 server disk (disk)\n3 server second (disk)\n3 ack\n".into(),
        ),
        ("list with data", vec![], option(NBD_OPT_LIST, &[0]), "3 error 3\n".into()),
        (
            "info",
            vec![],
            option(NBD_OPT_INFO, &info("disk", &[])),
            format!("{info_of_disk}{sizes}"),
        ),
        (
            "info of the default",
            vec![],
            option(NBD_OPT_INFO, &info("", &[NBD_INFO_NAME])),
            format!("{info_of_disk}6 name disk\n{sizes}"),
        ),
        (
            "info, everything",
            vec![],
            option(NBD_OPT_INFO, &info("disk", &all)),
            format!("{info_of_disk}6 name disk\n6 description an image in memory\n{sizes}"),
        ),
        ("info of nothing", vec![], option(NBD_OPT_INFO, &info("none", &[])), "6 error 6\n".into()),
        ("info refused", vec![], option(NBD_OPT_INFO, &info("refused", &[])), "6 error 2\n".into()),
        ("info failed", vec![], option(NBD_OPT_INFO, &info("failed", &[])), "6 error 7\n".into()),
        ("info, long name", vec![], option(NBD_OPT_INFO, &info(&long, &[])), "6 error 3\n".into()),
        (
            "info, name with nul",
            vec![],
            option(NBD_OPT_INFO, &info("a\0", &[])),
            "6 error 3\n".into(),
        ),
        ("info without data", vec![], option(NBD_OPT_INFO, &[]), "6 error 3\n".into()),
        (
            "info, structured",
            vec![structured()],
            option(NBD_OPT_INFO, &info("disk", &[])),
            format!("6 export {SIZE} {:#x}\n{sizes}", RO | NBD_FLAG_SEND_DF),
        ),
        ("go to nothing", vec![], option(NBD_OPT_GO, &info("none", &[])), "7 error 6\n".into()),
        ("starttls without tls", vec![], option(NBD_OPT_STARTTLS, &[]), "5 error 1\n".into()),
        ("structured", vec![], structured(), "8 ack\n".into()),
        (
            "structured with data",
            vec![],
            option(NBD_OPT_STRUCTURED_REPLY, &[1]),
            "8 error 3\n".into(),
        ),
        ("structured twice", vec![structured()], structured(), "8 error 3\n".into()),
        ("extended", vec![], extended(), "11 ack\n".into()),
        ("extended after structured", vec![structured()], extended(), "11 ack\n".into()),
        ("extended twice", vec![extended()], extended(), "11 error 3\n".into()),
        (
            "extended with data",
            vec![],
            option(NBD_OPT_EXTENDED_HEADERS, &[1]),
            "11 error 3\n".into(),
        ),
        ("structured after extended", vec![extended()], structured(), "8 error 10\n".into()),
        (
            "list all contexts",
            vec![],
            option(NBD_OPT_LIST_META_CONTEXT, &queries("disk", &[])),
            contexts.into(),
        ),
        (
            "list base:",
            vec![],
            option(NBD_OPT_LIST_META_CONTEXT, &queries("disk", &["base:"])),
            "9 context 0 base:allocation\n9 ack\n".into(),
        ),
        (
            "list own kind",
            vec![],
            option(NBD_OPT_LIST_META_CONTEXT, &queries("disk", &["qemu:dirty-bitmap:"])),
            "9 context 0 qemu:dirty-bitmap:monday\n9 ack\n".into(),
        ),
        (
            "list namespace",
            vec![],
            option(NBD_OPT_LIST_META_CONTEXT, &queries("disk", &["qemu:"])),
            "9 context 0 qemu:dirty-bitmap:monday\n9 ack\n".into(),
        ),
        (
            "list what is not listed",
            vec![],
            option(NBD_OPT_LIST_META_CONTEXT, &queries("disk", &["qemu:dirty-bitmap:hidden"])),
            "9 context 0 qemu:dirty-bitmap:hidden\n9 ack\n".into(),
        ),
        (
            "list twice the same",
            vec![],
            option(
                NBD_OPT_LIST_META_CONTEXT,
                &queries("disk", &["base:", "base:allocation", "base:", "qemu:"]),
            ),
            contexts.into(),
        ),
        (
            "list unknown",
            vec![],
            option(
                NBD_OPT_LIST_META_CONTEXT,
                &queries("disk", &["x-y:z", "base:none", "no colon"]),
            ),
            "9 ack\n".into(),
        ),
        (
            "list of nothing",
            vec![],
            option(NBD_OPT_LIST_META_CONTEXT, &queries("none", &[])),
            "9 error 6\n".into(),
        ),
        (
            "list failed",
            vec![],
            option(NBD_OPT_LIST_META_CONTEXT, &queries("disk", &["base:", "x-test:failed"])),
            "9 error 7\n".into(),
        ),
        (
            "list, 17 queries",
            vec![],
            option(NBD_OPT_LIST_META_CONTEXT, &queries("disk", &seventeen)),
            "9 error 9\n".into(),
        ),
        (
            "set before structured",
            vec![],
            option(NBD_OPT_SET_META_CONTEXT, &queries("disk", &["base:allocation"])),
            "10 error 3\n".into(),
        ),
        (
            "set",
            vec![structured()],
            option(
                NBD_OPT_SET_META_CONTEXT,
                &queries("disk", &["base:allocation", "qemu:dirty-bitmap:hidden"]),
            ),
            "10 context 1 base:allocation\n10 context 2 qemu:dirty-bitmap:hidden\n10 ack\n".into(),
        ),
        (
            "set, extended",
            vec![extended()],
            option(NBD_OPT_SET_META_CONTEXT, &queries("disk", &["base:allocation"])),
            "10 context 1 base:allocation\n10 ack\n".into(),
        ),
        (
            "set twice the same",
            vec![structured()],
            option(NBD_OPT_SET_META_CONTEXT, &queries("disk", &["base:allocation"; 16])),
            "10 context 1 base:allocation\n10 ack\n".into(),
        ),
        (
            "set nothing",
            vec![structured()],
            option(NBD_OPT_SET_META_CONTEXT, &queries("disk", &[])),
            "10 ack\n".into(),
        ),
        (
            "set kinds",
            vec![structured()],
            option(
                NBD_OPT_SET_META_CONTEXT,
                &queries("disk", &["base:", "qemu:dirty-bitmap:", "base:none"]),
            ),
            "10 ack\n".into(),
        ),
        (
            "set failed",
            vec![structured()],
            option(
                NBD_OPT_SET_META_CONTEXT,
                &queries("disk", &["base:allocation", "x-test:failed"]),
            ),
            "10 error 7\n".into(),
        ),
        (
            "set, 17 queries",
            vec![structured()],
            option(NBD_OPT_SET_META_CONTEXT, &queries("disk", &seventeen)),
            "10 error 9\n".into(),
        ),
        (
            "set with bytes after it",
            vec![structured()],
            option(
                NBD_OPT_SET_META_CONTEXT,
                &[queries("disk", &["base:allocation"]), vec![0]].concat(),
            ),
            "10 error 3\n".into(),
        ),
        ("unknown", vec![], option(4, b"payload"), "4 error 1\n".into()),
        (
            "unknown, number of 32 bits",
            vec![],
            option(u32::MAX, &[]),
            format!("{} error 1\n", u32::MAX),
        ),
        (
            "unknown, then known",
            vec![],
            [option(99, &[7; 65536]), option(NBD_OPT_STRUCTURED_REPLY, &[])].concat(),
            "99 error 1\n8 ack\n".into(),
        ),
    ];
    for (name, before, sent, expected) in cases {
        let (lines, end) = answer(&before, &sent);
        assert_eq!(lines, expected, "{name}");
        assert!(matches!(end, End::Waits), "{name}");
    }
}

#[test]
fn abort_is_acknowledged_whatever_comes_with_it() {
    for payload in [&b""[..], b"ignored"] {
        let (lines, end) = answer(&[], &option(NBD_OPT_ABORT, payload));
        assert_eq!(lines, "2 ack\n");
        assert!(matches!(end, End::Closes));
    }
}

#[test]
fn go_begins_transmission_with_what_was_announced() {
    let (lines, end) = answer(&[extended()], &option(NBD_OPT_GO, &info("second", &[])));
    let End::Transmits(session) = end else { panic!("{end:?}") };
    assert_eq!(session.name, "second");
    assert_eq!(session.headers, Headers::Extended);
    assert!(session.contexts.is_empty());
    assert_eq!(session.flags() & NBD_FLAG_READ_ONLY, 0);
    assert_ne!(session.flags() & NBD_FLAG_SEND_CACHE, 0);
    let flags = session.flags();
    let expected = format!("7 export 4096 {flags:#x}\n7 block size [1, 4096, 33554432]\n7 ack\n");
    assert_eq!(lines, expected);
}

#[test]
fn export_name_is_answered_with_or_without_padding_or_not_at_all() {
    let header = [&1_048_576_u64.to_be_bytes()[..], &RO.to_be_bytes()].concat();
    for (flags, name, len) in [
        (NBD_FLAG_C_FIXED_NEWSTYLE, "disk", Some(134)),
        (0, "", Some(134)),
        (FIXED, "disk", Some(10)),
        (NBD_FLAG_C_NO_ZEROES, "disk", Some(10)),
        (FIXED, "none", None),
        (FIXED, "refused", None),
        (FIXED, "failed", None),
        (FIXED, "a\0", None),
        (FIXED, &"n".repeat(4097), None),
    ] {
        let (mut handshake, _) = begin(exports(), Encryption::Off, flags);
        let (output, end) = send(&mut handshake, &option(NBD_OPT_EXPORT_NAME, name.as_bytes()));
        match len {
            Some(len) => {
                assert!(matches!(end, End::Transmits(_)), "{name}");
                assert_eq!(output.len(), len);
                assert_eq!(output[..10], header);
                assert!(output[10..].iter().all(|byte| *byte == 0));
            }
            None => {
                assert!(matches!(end, End::Closes), "{name}");
                assert!(output.is_empty());
            }
        }
    }
}

#[test]
fn export_name_does_not_follow_extended_headers() {
    let (lines, end) = answer(&[extended()], &option(NBD_OPT_EXPORT_NAME, b"disk"));
    assert_eq!(lines, "");
    assert!(matches!(end, End::Closes));
    let (mut handshake, _) = begin(exports(), Encryption::Off, FIXED);
    let sent = [structured(), option(NBD_OPT_EXPORT_NAME, b"disk")].concat();
    let (_, end) = send(&mut handshake, &sent);
    assert!(matches!(end, End::Transmits(_)));
}

#[test]
fn contexts_hold_for_the_export_that_they_were_set_for() {
    let set = |name: &str, of: &[&str]| option(NBD_OPT_SET_META_CONTEXT, &queries(name, of));
    let base: &[&str] = &["base:allocation"];
    let go = |name: &str| option(NBD_OPT_GO, &info(name, &[]));
    let cases: [(&str, Vec<u8>, usize); 8] = [
        ("same name", [set("disk", base), go("disk")].concat(), 1),
        (
            "same name, info between",
            [set("disk", base), option(NBD_OPT_INFO, &info("second", &[])), go("disk")].concat(),
            1,
        ),
        ("another name", [set("disk", base), go("second")].concat(), 0),
        ("another name of the same", [set("", base), go("disk")].concat(), 0),
        (
            "set anew",
            [
                set("disk", base),
                set("disk", &["qemu:dirty-bitmap:monday", "base:allocation"]),
                go("disk"),
            ]
            .concat(),
            2,
        ),
        ("set to nothing", [set("disk", base), set("disk", &[]), go("disk")].concat(), 0),
        ("lost by a failure", [set("disk", base), set("none", base), go("disk")].concat(), 0),
        (
            "not lost by listing",
            [
                set("disk", base),
                option(NBD_OPT_LIST_META_CONTEXT, &queries("disk", &[])),
                go("disk"),
            ]
            .concat(),
            1,
        ),
    ];
    for (name, sent, count) in cases {
        let (_, end) = answer(&[structured()], &sent);
        let End::Transmits(session) = end else { panic!("{name}: {end:?}") };
        assert_eq!(session.contexts.len(), count, "{name}");
    }
    let sent = [structured(), set("disk", base), option(NBD_OPT_EXPORT_NAME, b"disk")].concat();
    let (mut handshake, _) = begin(exports(), Encryption::Off, FIXED);
    let (_, end) = send(&mut handshake, &sent);
    assert!(matches!(end, End::Transmits(session) if session.contexts.len() == 1));
}

#[test]
fn without_tls_nothing_is_answered_but_that_it_is_required() {
    let required = |number: u32| format!("{number} error 5\n");
    for (number, payload) in [
        (NBD_OPT_LIST, vec![]),
        (NBD_OPT_INFO, info("disk", &[])),
        (NBD_OPT_GO, info("disk", &[])),
        (NBD_OPT_STRUCTURED_REPLY, vec![]),
        (NBD_OPT_EXTENDED_HEADERS, vec![]),
        (NBD_OPT_LIST_META_CONTEXT, queries("disk", &[])),
        (NBD_OPT_SET_META_CONTEXT, queries("disk", &[])),
        (99, b"unknown".to_vec()),
    ] {
        let exports = Arc::new(exports());
        let mut handshake = Handshake::new(Arc::<Disks>::clone(&exports), Encryption::Required);
        let sent = [FIXED.to_be_bytes().to_vec(), option(number, &payload)].concat();
        let (output, end) = send(&mut handshake, &sent);
        assert_eq!(lines(&output), required(number));
        assert!(matches!(end, End::Waits));
        assert!(exports.opened.lock().unwrap().is_empty(), "no export is touched");
    }
    for (sent, expected) in
        [(option(NBD_OPT_EXPORT_NAME, b"disk"), ""), (option(NBD_OPT_ABORT, &[]), "2 ack\n")]
    {
        let (mut handshake, _) = begin(exports(), Encryption::Required, FIXED);
        let (output, end) = send(&mut handshake, &sent);
        assert_eq!(lines(&output), expected);
        assert!(matches!(end, End::Closes));
    }
}

#[test]
fn tls_begins_once_and_is_not_required_any_more() {
    let tls = |payload: &[u8]| option(NBD_OPT_STARTTLS, payload);
    let go = option(NBD_OPT_GO, &info("disk", &[]));
    let (mut handshake, _) = begin(exports(), Encryption::Required, FIXED);
    let (output, _) = send(&mut handshake, &tls(b"x"));
    assert_eq!(lines(&output), "5 error 3\n");
    let (output, _) = send(&mut handshake, &structured());
    assert_eq!(lines(&output), "8 error 5\n", "a refused STARTTLS does not count");
    let mut output = Vec::new();
    assert!(matches!(handshake.receive(&tls(b""), &mut output), Step::StartTls));
    assert_eq!(lines(&output), "5 ack\n");
    let (output, _) = send(&mut handshake, &[tls(b""), structured()].concat());
    assert_eq!(lines(&output), "5 error 3\n8 ack\n");
    let (_, end) = send(&mut handshake, &go);
    assert!(matches!(end, End::Transmits(session) if session.headers == Headers::Structured));
}

#[test]
fn what_was_agreed_on_before_tls_is_forgotten() {
    // A server that requires TLS agrees on nothing before it; this is the second line of defence.
    let (mut handshake, _) = begin(exports(), Encryption::Off, FIXED);
    let set = option(NBD_OPT_SET_META_CONTEXT, &queries("disk", &["base:allocation"]));
    send(&mut handshake, &[structured(), set].concat());
    handshake.encryption = Encryption::Required;
    let sent = [option(NBD_OPT_STARTTLS, &[]), option(NBD_OPT_GO, &info("disk", &[]))].concat();
    let (_, end) = send(&mut handshake, &sent);
    let End::Transmits(session) = end else { panic!("{end:?}") };
    assert_eq!(session.headers, Headers::Simple);
    assert!(session.contexts.is_empty());
}
