//! What clients of the NBD server send: messages, names of exports, whole sessions.

#[path = "../../../nbd-server/tests/it/memory.rs"]
mod memory;
mod session;
#[path = "../../../nbd-server/tests/it/wire.rs"]
mod wire;

use std::sync::Arc;

use chunkstore::revision_spec::RevisionSpec;
use jiff::tz::TimeZone;
use nbd_server::handshake::{Encryption, Handshake, Step};
use nbd_server::limits::{OPTION_LEN_MAX, PAYLOAD_LEN_MAX};
use nbd_server::proto::{Headers, OptionHeader, RequestHeader};
use nbd_server::{Exports, ListedExport, NamedExport, OpenError};

use self::memory::Memory;
pub(crate) use self::session::session;
use crate::memory::{DECODER, Limit};
use crate::texts;

/// A request may ask for as much as a payload can be; it is answered in memory, and read again.
pub(crate) const LIMIT: Limit = Limit { base: 8 * PAYLOAD_LEN_MAX as usize, ..DECODER };

/// Headers of options and requests: what is read is written the same way.
pub(crate) fn message(bytes: &[u8]) -> bool {
    let mut is_accepted = OptionHeader::decode(bytes).is_some();
    for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
        let Some(header) = RequestHeader::decode(headers, bytes) else { continue };
        let encoded = header.encode(headers).expect("a length that was read fits");
        assert_eq!(encoded.len(), headers.request_len());
        assert!(bytes == encoded, "other bytes mean the same request");
        is_accepted = true;
    }
    is_accepted
}

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    let header = RequestHeader { flags: 1, command: 3, cookie: 7, offset: 1 << 40, len: 4096 };
    let requests = [Headers::Simple, Headers::Structured, Headers::Extended]
        .map(|headers| header.encode(headers).expect("the length fits"));
    let option = wire::option(7, &wire::info(b"disk", &[3]));
    requests.into_iter().chain([option]).collect()
}

/// Exports with revision specifications for names, as those of `backy nbd-server` have.
#[derive(Debug)]
struct Revisions;

impl Exports for Revisions {
    fn list(&self) -> Result<Vec<ListedExport>, OpenError> {
        Ok(Vec::new())
    }

    fn open(&self, name: &str) -> Result<NamedExport, OpenError> {
        let history = texts::history();
        let found =
            RevisionSpec::parse(name).and_then(|spec| spec.select_one(&history, &TimeZone::UTC));
        match found {
            Ok(place) => {
                let name = history[place].id.to_string();
                Ok(NamedExport { name, export: Arc::new(Memory::new(vec![1; 512])) })
            }
            Err(error) if error.is_no_such_revision() => Err(OpenError::Unknown),
            Err(error) => Err(OpenError::Refused(error.to_string())),
        }
    }
}

/// Asks for an export by any name: there is one whole reply, which repeats no more of the name than fits.
pub(crate) fn export_name(bytes: &[u8]) -> bool {
    let mut handshake = Handshake::new(Arc::new(Revisions), Encryption::Off);
    let sent = [vec![0, 0, 0, 3], wire::option(7, &wire::info(bytes, &[1, 2]))].concat();
    let mut input = &sent[..];
    loop {
        let wanted = handshake.wants();
        assert!(wanted != 0 && wanted <= OPTION_LEN_MAX as usize);
        let Some((taken, rest)) = input.split_at_checked(wanted) else { return false };
        input = rest;
        let mut output = Vec::new();
        let step = handshake.receive(taken, &mut output);
        if !output.is_empty() {
            let left = &mut &output[..];
            wire::read_option_replies(left, 7).expect("the replies are whole");
            assert!(left.is_empty(), "one last reply to an option");
        }
        match step {
            Step::Continue => {}
            Step::Transmit(_) => return true,
            Step::StartTls => panic!("nobody asked for it"),
            Step::Close => return false,
        }
    }
}

/// Stages with orders and with bytes, each with a session that does a little of everything.
pub(crate) fn session_seeds() -> Vec<Vec<u8>> {
    let order = |command: u8, flags: u8, place: u8, len: u8| {
        [command, flags, 0, 0, 0, 0, place, 0, 0, len, 0, 0xab]
    };
    let requests: Vec<u8> = [
        order(0, 0, 0, 16),
        order(1, 1, 32, 16),
        order(3, 0, 0, 0),
        order(4, 0, 64, 32),
        order(5, 0, 0, 1),
        order(6, 2, 16, 16),
        order(7, 8, 0, 255),
        order(2, 0, 0, 0),
    ]
    .concat();
    let options: [&[u8]; 4] =
        [&[7, 4], &[8, 0, 10, 4, 7, 8], &[11, 0, 10, 255, 7, 0], &[3, 0, 1, 0]];
    let mut seeds = Vec::new();
    for stage in [0, 1, 9, 17, 33, 65, 121] {
        for options in options {
            seeds.push([&[stage][..], options, &requests].concat());
        }
    }
    for stage in [2, 3] {
        seeds.push([&[stage, 5, 0, 8, 0, 7, 4][..], &requests].concat());
    }
    let header = RequestHeader { flags: 0, command: 0, cookie: 1, offset: 4096, len: 512 };
    let request = |headers| header.encode(headers).expect("the length fits");
    seeds.push([&[4 | 128][..], &request(Headers::Simple)].concat());
    seeds.push([&[4 | 128 | 16][..], &request(Headers::Structured)].concat());
    seeds.push([&[4 | 128 | 8][..], &request(Headers::Extended)].concat());
    let by_name = [vec![4, 0, 0, 0, 3], wire::option(1, b"disk"), request(Headers::Simple)];
    seeds.push(by_name.concat());
    seeds
}
