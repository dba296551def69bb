//! What one client, and all of them, may ask of a server.
//!
//! `docs/nbd.md`, section "Limits", says why each of them is there.

use std::time::Duration;

/// Longest payload of a request or reply that is announced, and the largest that is served.
pub const PAYLOAD_LEN_MAX: u64 = 32 << 20;

/// A write with a longer payload ends the connection: it is not worth reading it.
pub const PAYLOAD_LEN_SKIPPED_MAX: u64 = 64 << 20;

/// Longest option. A longer one is refused and ends the session.
pub const OPTION_LEN_MAX: u32 = 64 << 10;

/// Options in one handshake, before a list of exports was asked for.
pub const OPTION_COUNT_MAX: u32 = 32;

/// Options that each export of a list makes room for: a client may ask about every one.
pub const OPTION_COUNT_PER_EXPORT: u32 = 2;

/// Options in one handshake, whatever was listed.
pub const OPTION_COUNT_LIMIT: u32 = 1024;

/// Queries of one option about metadata contexts.
pub const QUERY_COUNT_MAX: usize = 16;

/// Exports of a list.
pub const LISTED_COUNT_MAX: usize = 10_000;

/// Bytes of the answer to one option.
pub const OPTION_REPLY_LEN_MAX: usize = 8 << 20;

/// Extents in one reply for one metadata context.
pub const EXTENT_COUNT_MAX: usize = 1 << 16;

/// Zeros shorter than this are sent as data: a chunk of their own would not be worth it.
pub const HOLE_LEN_MIN: u64 = 4096;

/// A read that is not longer is answered at once, if the export has the bytes at hand.
pub const IMMEDIATE_LEN_MAX: u64 = 64 << 10;

/// Limits of a server that its owner may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time.
    pub connection_count_max: usize,
    /// Connections from one address that is not this machine's.
    pub connection_count_per_peer_max: usize,
    /// Time from the connection to the first request.
    pub handshake_timeout: Duration,
    /// A client that neither takes nor sends 1 MiB of payload that is under way for this long is disconnected.
    pub write_timeout: Duration,
    /// As [`Limits::write_timeout`], while other clients wait for memory that this one holds.
    pub contended_timeout: Duration,
    /// How long [`crate::Server::wait`] lets running requests go on after a stop.
    pub drain_timeout: Duration,
    /// Requests of one connection that are being worked on.
    pub request_count_max: usize,
    /// Bytes of payload in memory for one connection.
    pub connection_len_max: usize,
    /// Bytes of payload in memory for all connections.
    pub server_len_max: usize,
    /// Threads that read and write exports.
    pub worker_count: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            connection_count_max: 100,
            connection_count_per_peer_max: 16,
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            contended_timeout: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(9),
            request_count_max: 64,
            connection_len_max: 32 << 20,
            server_len_max: 48 << 20,
            worker_count: (2 * processors).clamp(4, 16),
        }
    }
}
