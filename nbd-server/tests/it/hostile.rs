//! Sessions that are broken on purpose: cut, flipped, repeated, in another order. The server answers or closes; nothing of
//! them is left.
//!
//! `sessions/` has what `nbdinfo`, `nbdcopy`, `qemu-img` and `qemu-io` sent to a server with an image of 1 MiB, byte by byte.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::time::Duration;

use nbd_server::Limits;
use nbd_server::proto::{Headers, RequestHeader};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use crate::own_process::{Holdings, run_child, seconds};
use crate::scene::{Scene, disks};
use crate::wire;

fn scene() -> Scene {
    let limits = Limits { handshake_timeout: Duration::from_secs(40), ..Limits::default() };
    Scene::new(
        disks(|disk| {
            disk.is_writable = true;
            disk.can_cache = true;
        }),
        limits,
    )
}

/// Sends bytes and waits for the end of the connection.
fn replay(scene: &Scene, bytes: &[u8]) -> Vec<u8> {
    let mut socket = scene.socket();
    // The server may close before it has read everything.
    if socket.write_all(bytes).is_ok() {
        let _may_be_closed = socket.shutdown(Shutdown::Write);
    }
    let mut answers = Vec::new();
    if let Err(error) = socket.read_to_end(&mut answers) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    answers
}

fn recorded() -> Vec<(PathBuf, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/sessions");
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let sessions: Vec<_> = paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    assert!(8 <= sessions.len());
    sessions
}

#[test]
fn recorded_sessions_are_answered() {
    let scene = scene();
    for (path, bytes) in recorded() {
        assert!(18 < replay(&scene, &bytes).len(), "{}", path.display());
    }
    let events = scene.stop();
    let bad = |line: &&String| !line.starts_with("connected") && *line != "disconnected ";
    assert_eq!(events.iter().find(bad), None);
}

#[test]
fn broken_sessions_leave_nothing_behind() {
    run_child("hostile::breaks_sessions", 1);
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn breaks_sessions() {
    if seconds().is_none() {
        return;
    }
    let scene = scene();
    scene.assert_works();
    scene.forget();
    let before = Holdings::now();
    for (path, bytes) in recorded() {
        println!("{}: {} bytes", path.display(), bytes.len());
        for at in 0..bytes.len() {
            replay(&scene, &bytes[..at]);
            let mut flipped = bytes.clone();
            flipped[at] ^= 0xff;
            replay(&scene, &flipped);
            flipped[at] = bytes[at] ^ (1 << (at % 8));
            replay(&scene, &flipped);
        }
    }
    made_up_sessions(&scene);
    scene.assert_works();
    scene.forget();
    before.assert_given_back(64 << 10);
    scene.stop();
}

/// One thing that a client sends.
#[derive(Clone, Debug)]
enum Piece {
    Option(u32, Vec<u8>),
    Request(RequestHeader, Headers, Vec<u8>),
    Bytes(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Option(option, payload) => wire::option(*option, payload),
            Self::Request(header, headers, payload) => {
                let header = header.encode(*headers).expect("32 bits, or extended");
                [&header[..], payload].concat()
            }
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// What is done to the bytes of a session.
#[derive(Clone, Debug)]
enum Damage {
    Cut(Index),
    Flip(Index, u8),
    Repeat(Index, Index),
    Swap(Index, Index),
}

fn option() -> impl Strategy<Value = Piece> {
    let name = prop_oneof![
        4 => Just(b"disk".to_vec()),
        1 => Just(b"panics".to_vec()),
        1 => vec(any::<u8>(), 0..20),
    ];
    let queries = ["base:allocation", "base:", "", "x:y"];
    prop_oneof![
        (6..8_u32, name.clone(), vec(0..6_u16, 0..4))
            .prop_map(|(option, name, kinds)| Piece::Option(option, wire::info(&name, &kinds))),
        (9..11_u32, name.clone(), 0..5_usize).prop_map(move |(option, name, count)| {
            Piece::Option(option, wire::queries(&name, &queries[..count.min(4)]))
        }),
        name.prop_map(|name| Piece::Option(1, name)),
        (0..14_u32).prop_map(|option| Piece::Option(option, Vec::new())),
        (any::<u32>(), vec(any::<u8>(), 0..40))
            .prop_map(|(option, payload)| Piece::Option(option, payload)),
    ]
}

fn request() -> impl Strategy<Value = Piece> {
    let offset = prop_oneof![0..1_u64 << 20, any::<u64>(), Just(1 << 20), Just((1 << 63) - 1)];
    let len = prop_oneof![0..70_000_u64, Just(u64::from(u32::MAX)), 0..1_u64 << 32];
    let headers =
        prop_oneof![Just(Headers::Simple), Just(Headers::Structured), Just(Headers::Extended)];
    (0..9_u16, 0..64_u16, any::<u64>(), offset, len, headers).prop_map(
        |(command, flags, cookie, offset, len, headers)| {
            let header = RequestHeader { flags, command, cookie, offset, len };
            let payload_len = if command == 1 && len < 70_000 { len } else { 0 };
            Piece::Request(header, headers, vec![7; usize::try_from(payload_len).unwrap()])
        },
    )
}

/// Mostly in an order that a client would choose, so that requests are reached.
fn session() -> impl Strategy<Value = Vec<Piece>> {
    let agree = prop_oneof![
        Just(Vec::new()),
        Just(vec![Piece::Option(8, Vec::new())]),
        Just(vec![Piece::Option(11, Vec::new())]),
    ];
    let go = Just(vec![Piece::Option(7, wire::info(b"disk", &[]))]);
    let start = prop_oneof![9 => Just(vec![0, 0, 0, 3]), 1 => vec(any::<u8>(), 0..8)];
    let noise = vec(any::<u8>(), 0..64);
    (start, agree, vec(option(), 0..6), go, vec(request(), 0..12), noise).prop_map(
        |(start, agree, options, go, requests, noise)| {
            [vec![Piece::Bytes(start)], agree, options, go, requests, vec![Piece::Bytes(noise)]]
                .concat()
        },
    )
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        any::<(Index, Index)>().prop_map(|(at, len)| Damage::Repeat(at, len)),
        any::<(Index, Index)>().prop_map(|(one, other)| Damage::Swap(one, other)),
    ]
}

fn broken(pieces: &[Piece], damages: &[Damage]) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = pieces.iter().map(Piece::bytes).collect();
    for damage in damages {
        if let Damage::Swap(one, other) = damage {
            let count = parts.len();
            parts.swap(one.index(count), other.index(count));
        }
    }
    let mut bytes = parts.concat();
    for damage in damages.iter().filter(|_| !pieces.is_empty()) {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Flip(at, bits) => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Damage::Repeat(at, len) => {
                let at = at.index(bytes.len());
                let end = (at + len.index(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(end..end, part);
            }
            Damage::Swap(..) => {}
        }
    }
    bytes
}

fn made_up_sessions(scene: &Scene) {
    let mut runner = TestRunner::default();
    let sessions = (session(), vec(damage(), 0..4));
    let run = |(pieces, damages): (Vec<Piece>, Vec<Damage>)| {
        let answers = replay(scene, &broken(&pieces, &damages));
        // The greeting comes whatever the client says.
        assert!(18 <= answers.len() || answers.is_empty());
        Ok(())
    };
    runner.run(&sessions, run).unwrap();
}
