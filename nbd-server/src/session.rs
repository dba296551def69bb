//! What a handshake has agreed on: the export, the form of messages, and what block status tells.

use std::sync::Arc;

use crate::export::{Export, MetaContext};
use crate::proto::{
    Headers, NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY, NBD_FLAG_SEND_CACHE,
    NBD_FLAG_SEND_DF, NBD_FLAG_SEND_FAST_ZERO, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_FUA,
    NBD_FLAG_SEND_TRIM, NBD_FLAG_SEND_WRITE_ZEROES,
};

/// A metadata context that was chosen.
#[derive(Clone, Debug)]
pub enum Context {
    /// `base:allocation`.
    Allocation,
    /// One of the export's own.
    Own(Arc<dyn MetaContext>),
}

/// What holds for all requests of a connection.
#[derive(Clone, Debug)]
pub struct Session {
    /// Canonical name of the export.
    pub name: String,
    /// The export that was chosen.
    pub export: Arc<dyn Export>,
    /// Form of requests and replies.
    pub headers: Headers,
    /// Contexts of which block status tells, with the ids that stand for them in replies.
    pub contexts: Vec<(u32, Context)>,
}

impl Session {
    /// Returns the transmission flags: what is offered, and nothing else.
    #[must_use]
    pub fn flags(&self) -> u16 {
        let mut flags = NBD_FLAG_HAS_FLAGS;
        let mut set = |flag: u16, is_set: bool| flags |= if is_set { flag } else { 0 };
        let can_write = self.export.writer().is_some();
        set(NBD_FLAG_READ_ONLY, !can_write);
        set(NBD_FLAG_SEND_FLUSH, can_write);
        set(NBD_FLAG_SEND_FUA, can_write);
        set(NBD_FLAG_SEND_TRIM, can_write);
        set(NBD_FLAG_SEND_WRITE_ZEROES, can_write);
        set(NBD_FLAG_SEND_FAST_ZERO, can_write);
        set(NBD_FLAG_SEND_DF, self.headers.are_structured());
        set(NBD_FLAG_CAN_MULTI_CONN, self.export.can_multi_conn());
        set(NBD_FLAG_SEND_CACHE, self.export.can_cache());
        flags
    }
}
