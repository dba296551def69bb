//! What a server tells its owner: who comes and goes, and which request failed. The server itself prints nothing.

use std::fmt::Debug;
use std::io;

use super::listener::Peer;
use crate::export::ExportError;
use crate::transmission::Request;

/// Receives events from the threads of a server. Must not wait for long.
pub trait Monitor: Debug + Send + Sync {
    /// Takes note of an event.
    fn event(&self, event: &Event<'_>);
}

/// Takes no note of anything.
impl Monitor for () {
    fn event(&self, _: &Event<'_>) {}
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A client has chosen an export, and begins with requests.
    Connected {
        /// Who.
        peer: Peer,
        /// Canonical name of the export.
        export: &'a str,
    },
    /// A connection has ended.
    Disconnected {
        /// Who.
        peer: Peer,
        /// Why, if it was not by the client's wish.
        error: Option<&'a io::Error>,
    },
    /// A connection was closed at once.
    Refused {
        /// Who, if that is known.
        peer: Option<Peer>,
        /// Why.
        reason: &'a str,
    },
    /// An export could not do what was asked. The client was told.
    RequestFailed {
        /// Who asked.
        peer: Peer,
        /// Canonical name of the export.
        export: &'a str,
        /// What was asked.
        request: Request,
        /// Why it failed.
        error: &'a ExportError,
    },
}
