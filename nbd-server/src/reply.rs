//! Replies to requests as bytes.
//!
//! Source: protocol document, sections "Simple reply message", "Structured reply chunk message" and "Structured reply types",
//! and the extension for extended headers. A reply is complete before its first byte is sent, so no chunk is
//! marked as the last one while something can still fail. Headers and content lie in one buffer, in the order in which they
//! are sent: an export reads straight to where its bytes leave from.

mod buffer;

use self::buffer::Buffer;
use crate::option::shortened;
use crate::proto::{
    ErrorCode, Headers, NBD_EXTENDED_REPLY_MAGIC, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS,
    NBD_REPLY_TYPE_BLOCK_STATUS_EXT, NBD_REPLY_TYPE_ERROR, NBD_REPLY_TYPE_ERROR_OFFSET,
    NBD_REPLY_TYPE_NONE, NBD_REPLY_TYPE_OFFSET_DATA, NBD_REPLY_TYPE_OFFSET_HOLE,
    NBD_SIMPLE_REPLY_MAGIC, NBD_STRUCTURED_REPLY_MAGIC,
};

/// Longest header of a chunk with the fields before its data.
const CHUNK_HEADER_LEN_MAX: usize = 40;

/// What a reply repeats of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Form of the reply.
    pub headers: Headers,
    /// The client's name for the request.
    pub cookie: u64,
    /// Offset of the request; extended headers repeat it.
    pub offset: u64,
}

/// The bytes of one reply.
#[derive(Debug)]
pub struct Reply {
    buffer: Buffer,
}

impl PartialEq for Reply {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Reply {}

impl Reply {
    /// Makes the reply to a request that succeeded and has nothing to tell.
    #[must_use]
    pub fn done(to: ReplyTo) -> Self {
        if to.headers != Headers::Extended {
            return Self::simple(to, 0);
        }
        let mut chunks = Chunks::new(to, 0, 1);
        chunks.chunk(NBD_REPLY_TYPE_NONE, &[], 0);
        chunks.finish()
    }

    /// Makes the reply to a request that failed.
    #[must_use]
    pub fn error(to: ReplyTo, code: ErrorCode, message: &str, offset: Option<u64>) -> Self {
        if !to.headers.are_structured() {
            return Self::simple(to, code.number());
        }
        let message = shortened(message).as_bytes();
        let message_len = u16::try_from(message.len()).unwrap_or(u16::MAX);
        let mut body = code.number().to_be_bytes().to_vec();
        body.extend_from_slice(&message_len.to_be_bytes());
        body.extend_from_slice(message);
        let kind = match offset {
            Some(offset) => {
                body.extend_from_slice(&offset.to_be_bytes());
                NBD_REPLY_TYPE_ERROR_OFFSET
            }
            None => NBD_REPLY_TYPE_ERROR,
        };
        let mut chunks = Chunks::new(to, 0, 1);
        chunks.chunk(kind, &body, 0);
        chunks.finish()
    }

    /// Makes the reply to a read in one piece. `fill` puts the content, of `len` bytes, to its place.
    ///
    /// # Errors
    ///
    /// Those of `fill`; then there is no reply.
    pub fn data<E>(
        to: ReplyTo,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        if to.headers.are_structured() {
            let mut chunks = Chunks::new(to, len, 1);
            fill(chunks.data(to.offset, len))?;
            return Ok(chunks.finish());
        }
        let mut buffer = Buffer::with_capacity(SIMPLE_LEN + len);
        push_simple(&mut buffer, to.cookie, 0);
        fill(buffer.grow(len))?;
        Ok(Self { buffer })
    }

    fn simple(to: ReplyTo, error: u32) -> Self {
        let mut buffer = Buffer::with_capacity(SIMPLE_LEN);
        push_simple(&mut buffer, to.cookie, error);
        Self { buffer }
    }

    /// Returns the bytes as they are sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.as_slice()
    }
}

/// Length of a simple reply without data.
const SIMPLE_LEN: usize = 16;

fn push_simple(buffer: &mut Buffer, cookie: u64, error: u32) {
    buffer.push(&NBD_SIMPLE_REPLY_MAGIC.to_be_bytes());
    buffer.push(&error.to_be_bytes());
    buffer.push(&cookie.to_be_bytes());
}

/// Makes a structured or extended reply, chunk by chunk.
#[derive(Debug)]
pub struct Chunks {
    to: ReplyTo,
    buffer: Buffer,
    /// Start of the last header.
    last: Option<usize>,
}

impl Chunks {
    /// Begins a reply with about so many bytes of data in so many chunks.
    #[must_use]
    pub fn new(to: ReplyTo, data_len: usize, chunk_count: usize) -> Self {
        let capacity = data_len + CHUNK_HEADER_LEN_MAX * chunk_count;
        Self { to, buffer: Buffer::with_capacity(capacity), last: None }
    }

    /// Appends a chunk of data, and returns the place where its content goes. It is not empty: who cannot fill it must not
    /// send the reply.
    pub fn data(&mut self, offset: u64, len: usize) -> &mut [u8] {
        self.chunk(NBD_REPLY_TYPE_OFFSET_DATA, &offset.to_be_bytes(), len);
        self.buffer.grow(len)
    }

    /// Appends zeros.
    pub fn hole(&mut self, offset: u64, len: u32) {
        let body = [&offset.to_be_bytes()[..], &len.to_be_bytes()].concat();
        self.chunk(NBD_REPLY_TYPE_OFFSET_HOLE, &body, 0);
    }

    /// Appends the status of runs in a metadata context: lengths and flags. Lengths beyond 32 bits need extended headers.
    ///
    /// # Panics
    ///
    /// If a length does not fit.
    pub fn block_status(&mut self, context_id: u32, runs: &[(u64, u32)]) {
        let mut body = context_id.to_be_bytes().to_vec();
        if self.to.headers == Headers::Extended {
            let count = u32::try_from(runs.len()).expect("the number of runs is bounded");
            body.extend_from_slice(&count.to_be_bytes());
            for &(len, flags) in runs {
                body.extend_from_slice(&len.to_be_bytes());
                body.extend_from_slice(&u64::from(flags).to_be_bytes());
            }
            self.chunk(NBD_REPLY_TYPE_BLOCK_STATUS_EXT, &body, 0);
            return;
        }
        for &(len, flags) in runs {
            let len = u32::try_from(len).expect("no longer than the request, which has 32 bits");
            body.extend_from_slice(&len.to_be_bytes());
            body.extend_from_slice(&flags.to_be_bytes());
        }
        self.chunk(NBD_REPLY_TYPE_BLOCK_STATUS, &body, 0);
    }

    /// Marks the last chunk as such.
    ///
    /// # Panics
    ///
    /// If there is no chunk.
    #[must_use]
    pub fn finish(mut self) -> Reply {
        let last = self.last.expect("a reply has a chunk");
        let flags = NBD_REPLY_FLAG_DONE.to_be_bytes();
        self.buffer.as_mut_slice()[last + 4..last + 6].copy_from_slice(&flags);
        Reply { buffer: self.buffer }
    }

    fn chunk(&mut self, kind: u16, body: &[u8], data_len: usize) {
        let len = body.len() + data_len;
        let is_extended = self.to.headers == Headers::Extended;
        let magic = if is_extended { NBD_EXTENDED_REPLY_MAGIC } else { NBD_STRUCTURED_REPLY_MAGIC };
        let buffer = &mut self.buffer;
        self.last = Some(buffer.len());
        buffer.push(&magic.to_be_bytes());
        buffer.push(&[0, 0]);
        buffer.push(&kind.to_be_bytes());
        buffer.push(&self.to.cookie.to_be_bytes());
        if is_extended {
            buffer.push(&self.to.offset.to_be_bytes());
            let len = u64::try_from(len).expect("usize has at most 64 bits");
            buffer.push(&len.to_be_bytes());
        } else {
            let len = u32::try_from(len).expect("extents, messages and payload are bounded");
            buffer.push(&len.to_be_bytes());
        }
        buffer.push(body);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn to(headers: Headers, cookie: u64) -> ReplyTo {
        ReplyTo { headers, cookie, offset: 0x1000 }
    }

    fn data(to: ReplyTo, content: &[u8]) -> Reply {
        let fill = |place: &mut [u8]| {
            place.copy_from_slice(content);
            Ok::<(), Infallible>(())
        };
        let Ok(reply) = Reply::data(to, content.len(), fill);
        reply
    }

    #[test]
    fn simple_reply_has_the_layout_of_the_document() {
        let header = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let to = to(Headers::Simple, 0x0102_0304_0506_0708);
        assert_eq!(data(to, b"ab").as_bytes(), [&header[..], b"ab"].concat());
        assert_eq!(Reply::done(to).as_bytes(), header);
        let failed = Reply::error(to, ErrorCode::Io, "ignored", Some(3));
        assert_eq!(failed.as_bytes()[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5]);
        assert_eq!(failed.as_bytes()[8..], header[8..]);
    }

    #[test]
    fn chunks_follow_each_other_and_only_the_last_is_marked() {
        let mut chunks = Chunks::new(to(Headers::Structured, 9), 2, 2);
        chunks.data(16, 2).copy_from_slice(b"ab");
        chunks.hole(18, 512);
        let first = [
            &[0x66, 0x8e, 0x33, 0xef, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 10][..],
            &[0, 0, 0, 0, 0, 0, 0, 16],
            b"ab",
        ]
        .concat();
        let hole = [
            &[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 12][..],
            &[0, 0, 0, 0, 0, 0, 0, 18, 0, 0, 2, 0],
        ]
        .concat();
        assert_eq!(chunks.finish().as_bytes(), [first, hole].concat());
    }

    #[test]
    fn a_read_in_one_piece_is_one_marked_chunk() {
        let structured = data(to(Headers::Structured, 9), b"ab");
        let expected = [
            &[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 10][..],
            &[0, 0, 0, 0, 0, 0, 0x10, 0],
            b"ab",
        ]
        .concat();
        assert_eq!(structured.as_bytes(), expected);
        let extended = data(to(Headers::Extended, 9), b"ab");
        let expected = [
            &[0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9][..],
            &[0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 10],
            &[0, 0, 0, 0, 0, 0, 0x10, 0],
            b"ab",
        ]
        .concat();
        assert_eq!(extended.as_bytes(), expected);
    }

    #[test]
    fn a_read_that_fails_makes_no_reply() {
        let fail = |_: &mut [u8]| Err("damaged");
        for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
            assert_eq!(Reply::data(to(headers, 1), 2, fail), Err("damaged"));
        }
    }

    #[test]
    fn extended_reply_without_content_is_an_empty_chunk() {
        let expected = [
            &[0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..],
            &[0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(Reply::done(to(Headers::Extended, 9)).as_bytes(), expected);
    }

    #[test]
    fn error_chunk_tells_code_text_and_place() {
        let to = to(Headers::Structured, 1);
        let reply = Reply::error(to, ErrorCode::Io, "bad", Some(4096));
        let header = [0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 17];
        let body = [&[0, 0, 0, 5, 0, 3][..], b"bad", &[0, 0, 0, 0, 0, 0, 16, 0]].concat();
        assert_eq!(reply.as_bytes(), [&header[..], &body].concat());
        let reply = Reply::error(to, ErrorCode::Invalid, "", None);
        assert_eq!(reply.as_bytes()[6..8], [0x80, 1]);
        assert_eq!(reply.as_bytes()[16..], [0, 0, 0, 6, 0, 0, 0, 22, 0, 0]);
    }

    #[test]
    fn block_status_lists_lengths_and_flags() {
        let mut chunks = Chunks::new(to(Headers::Structured, 1), 0, 1);
        chunks.block_status(7, &[(512, 3), (1024, 0)]);
        let reply = chunks.finish();
        let body = [0, 0, 0, 7, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 4, 0, 0, 0, 0, 0];
        assert_eq!(reply.as_bytes()[6..8], [0, 5]);
        assert_eq!(reply.as_bytes()[16..], [&[0, 0, 0, 20][..], &body].concat());

        let mut chunks = Chunks::new(to(Headers::Extended, 1), 0, 1);
        chunks.block_status(7, &[(1 << 32, 3)]);
        let reply = chunks.finish();
        let body = [0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!(reply.as_bytes()[6..8], [0, 6]);
        assert_eq!(reply.as_bytes()[24..], [&[0, 0, 0, 0, 0, 0, 0, 24][..], &body].concat());
    }
}
