//! Requests, without I/O: every check of a request, before any work is done for it.
//!
//! Source: protocol document, sections "Request message", "Command flags", "Request types" and "Error values".
//! A request comes out as something to do, as an error to send, or as the end of the connection.

use crate::export::ZeroOptions;
use crate::limits::{PAYLOAD_LEN_MAX, PAYLOAD_LEN_SKIPPED_MAX};
use crate::proto::{
    ErrorCode, Headers, NBD_CMD_BLOCK_STATUS, NBD_CMD_CACHE, NBD_CMD_DISC, NBD_CMD_FLAG_DF,
    NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_PAYLOAD_LEN,
    NBD_CMD_FLAG_REQ_ONE, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE,
    NBD_CMD_WRITE_ZEROES, NBD_FLAG_SEND_CACHE, NBD_FLAG_SEND_FUA, RequestHeader,
};
use crate::session::Session;

/// What to do with a range of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read it.
    Read {
        /// In one chunk.
        in_one_chunk: bool,
    },
    /// Write it with the payload that follows.
    Write {
        /// Durable before the reply.
        is_durable: bool,
    },
    /// Write zeros.
    WriteZeroes {
        /// Durable before the reply.
        is_durable: bool,
        /// In which way.
        options: ZeroOptions,
    },
    /// Forget it.
    Trim {
        /// Durable before the reply.
        is_durable: bool,
    },
    /// Make everything durable. The range is empty.
    Flush,
    /// Read it ahead.
    Cache,
    /// Tell what is known about it.
    BlockStatus {
        /// In one extent.
        in_one_extent: bool,
    },
}

/// A request that passed all checks: the range lies within the export and is empty for a flush only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// The client's name for the request.
    pub cookie: u64,
    /// First byte of the range.
    pub offset: u64,
    /// Bytes of the range. At most [`PAYLOAD_LEN_MAX`] for a read, a write or reading ahead.
    pub len: u64,
}

/// An error that is sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// The client's name for the request.
    pub cookie: u64,
    /// Offset of the request, as the client gave it.
    pub offset: u64,
    /// What the client is told in a number.
    pub code: ErrorCode,
    /// A text for people.
    pub message: &'static str,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Work. A write is followed by a payload of the length of its range.
    Execute(Request),
    /// Read so many bytes of payload, forget them, and send an error.
    Refuse {
        /// Bytes to read first, at most [`PAYLOAD_LEN_SKIPPED_MAX`].
        payload_len: u64,
        /// What to send.
        error: RequestError,
    },
    /// The client is done: finish what has begun, then close.
    Disconnect,
    /// The client broke a rule after which nothing it sends can be understood.
    Close(&'static str),
}

/// Rules for the requests of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Transmission {
    size: u64,
    block_len_min: u32,
    flags: u16,
    can_write: bool,
    headers: Headers,
    has_contexts: bool,
}

impl Transmission {
    /// Takes the rules from what the handshake has agreed on.
    #[must_use]
    pub fn new(session: &Session) -> Self {
        Self {
            size: session.export.size(),
            block_len_min: session.export.block_sizes().allowed().min,
            flags: session.flags(),
            can_write: session.export.writer().is_some(),
            headers: session.headers,
            has_contexts: !session.contexts.is_empty(),
        }
    }

    /// Returns the form of requests.
    #[must_use]
    pub fn headers(&self) -> Headers {
        self.headers
    }

    /// Judges the next request, of [`Headers::request_len`] bytes. It does not change anything: requests are independent.
    #[must_use]
    pub fn receive(&self, bytes: &[u8]) -> Action {
        let Some(header) = RequestHeader::decode(self.headers, bytes) else {
            return Action::Close("that is no request");
        };
        let is_extended = self.headers == Headers::Extended;
        let announces = is_extended && header.flags & NBD_CMD_FLAG_PAYLOAD_LEN != 0;
        let has_payload = announces || header.command == NBD_CMD_WRITE;
        let payload_len = if has_payload { header.len } else { 0 };
        if PAYLOAD_LEN_SKIPPED_MAX < payload_len {
            return Action::Close("the payload is too long");
        }
        if header.command == NBD_CMD_DISC {
            return Action::Disconnect;
        }
        let RequestHeader { cookie, offset, len, .. } = header;
        match self.check(&header) {
            Ok(command) => Action::Execute(Request { command, cookie, offset, len }),
            Err((code, message)) => {
                let error = RequestError { cookie, offset, code, message };
                Action::Refuse { payload_len, error }
            }
        }
    }

    /// All checks of a request.
    fn check(&self, header: &RequestHeader) -> Result<Command, (ErrorCode, &'static str)> {
        let has = |flag: u16| header.flags & flag != 0;
        let is_durable = has(NBD_CMD_FLAG_FUA);
        let (command, flag) = match header.command {
            NBD_CMD_READ if self.headers.are_structured() => {
                (Command::Read { in_one_chunk: has(NBD_CMD_FLAG_DF) }, NBD_CMD_FLAG_DF)
            }
            NBD_CMD_READ => (Command::Read { in_one_chunk: true }, 0),
            NBD_CMD_WRITE if self.headers == Headers::Extended => {
                (Command::Write { is_durable }, NBD_CMD_FLAG_PAYLOAD_LEN)
            }
            NBD_CMD_WRITE => (Command::Write { is_durable }, 0),
            NBD_CMD_WRITE_ZEROES => {
                let may_make_hole = !has(NBD_CMD_FLAG_NO_HOLE);
                let must_be_fast = has(NBD_CMD_FLAG_FAST_ZERO);
                let options = ZeroOptions { may_make_hole, must_be_fast };
                let flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
                (Command::WriteZeroes { is_durable, options }, flags)
            }
            NBD_CMD_TRIM => (Command::Trim { is_durable }, 0),
            NBD_CMD_FLUSH => (Command::Flush, 0),
            NBD_CMD_CACHE => (Command::Cache, 0),
            NBD_CMD_BLOCK_STATUS => {
                let in_one_extent = has(NBD_CMD_FLAG_REQ_ONE);
                (Command::BlockStatus { in_one_extent }, NBD_CMD_FLAG_REQ_ONE)
            }
            _ => return Err((ErrorCode::Invalid, "unknown command")),
        };
        self.check_offered(command)?;
        let always = if self.flags & NBD_FLAG_SEND_FUA == 0 { 0 } else { NBD_CMD_FLAG_FUA };
        if header.flags & !(flag | always) != 0 {
            return Err((ErrorCode::Invalid, "the flag does not belong to the command"));
        }
        self.check_range(command, header.offset, header.len)?;
        Ok(command)
    }

    fn check_offered(&self, command: Command) -> Result<(), (ErrorCode, &'static str)> {
        match command {
            Command::Write { .. } | Command::WriteZeroes { .. } | Command::Trim { .. }
                if !self.can_write =>
            {
                Err((ErrorCode::NotPermitted, "the export is read-only"))
            }
            Command::Flush if !self.can_write => {
                Err((ErrorCode::Invalid, "a read-only export has nothing to flush"))
            }
            Command::Cache if self.flags & NBD_FLAG_SEND_CACHE == 0 => {
                Err((ErrorCode::Invalid, "the export does not cache"))
            }
            Command::BlockStatus { .. } if !self.has_contexts => {
                Err((ErrorCode::Invalid, "no metadata context was chosen"))
            }
            _ => Ok(()),
        }
    }

    fn check_range(
        &self,
        command: Command,
        offset: u64,
        len: u64,
    ) -> Result<(), (ErrorCode, &'static str)> {
        if command == Command::Flush {
            let is_empty = offset == 0 && len == 0;
            return if is_empty { Ok(()) } else { Err((ErrorCode::Invalid, "flush has no range")) };
        }
        if len == 0 {
            return Err((ErrorCode::Invalid, "the range is empty"));
        }
        let end = offset.checked_add(len);
        if end.is_none_or(|end| self.size < end) {
            let writes = matches!(command, Command::Write { .. } | Command::WriteZeroes { .. });
            let code = if writes { ErrorCode::NoSpace } else { ErrorCode::Invalid };
            return Err((code, "the range ends after the export"));
        }
        let block_len = u64::from(self.block_len_min);
        if !offset.is_multiple_of(block_len) || !len.is_multiple_of(block_len) {
            return Err((ErrorCode::Invalid, "the range is not a multiple of the block size"));
        }
        // Caching is reading without a reply: it is not bounded by what the client takes.
        let is_bounded =
            matches!(command, Command::Read { .. } | Command::Write { .. } | Command::Cache);
        if is_bounded && PAYLOAD_LEN_MAX < len {
            let can_overflow =
                self.headers.are_structured() && matches!(command, Command::Read { .. });
            let code = if can_overflow { ErrorCode::Overflow } else { ErrorCode::Invalid };
            return Err((code, "the range is longer than the largest payload"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
