//! Constants and fixed-size messages of the NBD protocol, under the names that its document uses.
//!
//! Source: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>, sections "Protocol phases" and
//! "Values". All numbers are big-endian. Decoding is total: any bytes give a value or `None`, never a panic.

/// First magic of the greeting, `NBDMAGIC`.
pub const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second magic of the greeting, and first of every option, `IHAVEOPT`.
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// Magic of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Magic of a request.
pub const NBD_REQUEST_MAGIC: u32 = 0x2560_9513;
/// Magic of a simple reply.
pub const NBD_SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Magic of a structured reply chunk.
pub const NBD_STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Magic of a request with an extended header.
pub const NBD_EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Magic of a reply chunk with an extended header.
pub const NBD_EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Handshake flag: fixed newstyle negotiation.
pub const NBD_FLAG_FIXED_NEWSTYLE: u16 = 1;
/// Handshake flag: the padding after `NBD_OPT_EXPORT_NAME` can be left out.
pub const NBD_FLAG_NO_ZEROES: u16 = 1 << 1;
/// Client flag: fixed newstyle negotiation.
pub const NBD_FLAG_C_FIXED_NEWSTYLE: u32 = 1;
/// Client flag: leave the padding out.
pub const NBD_FLAG_C_NO_ZEROES: u32 = 1 << 1;

/// Transmission flag that is always set.
pub const NBD_FLAG_HAS_FLAGS: u16 = 1;
/// Transmission flag: no writes.
pub const NBD_FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: `NBD_CMD_FLUSH`.
pub const NBD_FLAG_SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: `NBD_CMD_FLAG_FUA`.
pub const NBD_FLAG_SEND_FUA: u16 = 1 << 3;
/// Transmission flag: `NBD_CMD_TRIM`.
pub const NBD_FLAG_SEND_TRIM: u16 = 1 << 5;
/// Transmission flag: `NBD_CMD_WRITE_ZEROES`.
pub const NBD_FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: `NBD_CMD_FLAG_DF`.
pub const NBD_FLAG_SEND_DF: u16 = 1 << 7;
/// Transmission flag: several connections see one state.
pub const NBD_FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// Transmission flag: `NBD_CMD_CACHE`.
pub const NBD_FLAG_SEND_CACHE: u16 = 1 << 10;
/// Transmission flag: `NBD_CMD_FLAG_FAST_ZERO`.
pub const NBD_FLAG_SEND_FAST_ZERO: u16 = 1 << 11;

/// Option: choose an export and go on, the old way.
pub const NBD_OPT_EXPORT_NAME: u32 = 1;
/// Option: end the session.
pub const NBD_OPT_ABORT: u32 = 2;
/// Option: list the exports.
pub const NBD_OPT_LIST: u32 = 3;
/// Option: TLS.
pub const NBD_OPT_STARTTLS: u32 = 5;
/// Option: describe an export.
pub const NBD_OPT_INFO: u32 = 6;
/// Option: describe an export and go on with it.
pub const NBD_OPT_GO: u32 = 7;
/// Option: structured replies.
pub const NBD_OPT_STRUCTURED_REPLY: u32 = 8;
/// Option: which metadata contexts are there.
pub const NBD_OPT_LIST_META_CONTEXT: u32 = 9;
/// Option: choose metadata contexts.
pub const NBD_OPT_SET_META_CONTEXT: u32 = 10;
/// Option: requests and replies with lengths of 64 bits.
pub const NBD_OPT_EXTENDED_HEADERS: u32 = 11;

/// Option reply: done.
pub const NBD_REP_ACK: u32 = 1;
/// Option reply: one export of the list.
pub const NBD_REP_SERVER: u32 = 2;
/// Option reply: one piece of information about an export.
pub const NBD_REP_INFO: u32 = 3;
/// Option reply: one metadata context.
pub const NBD_REP_META_CONTEXT: u32 = 4;
/// Option reply: this server does not know the option.
pub const NBD_REP_ERR_UNSUP: u32 = (1 << 31) + 1;
/// Option reply: not allowed here.
pub const NBD_REP_ERR_POLICY: u32 = (1 << 31) + 2;
/// Option reply: the option makes no sense.
pub const NBD_REP_ERR_INVALID: u32 = (1 << 31) + 3;
/// Option reply: TLS comes first.
pub const NBD_REP_ERR_TLS_REQD: u32 = (1 << 31) + 5;
/// Option reply: no such export.
pub const NBD_REP_ERR_UNKNOWN: u32 = (1 << 31) + 6;
/// Option reply: the server is about to end.
pub const NBD_REP_ERR_SHUTDOWN: u32 = (1 << 31) + 7;
/// Option reply: the request, or the answer to it, is too long.
pub const NBD_REP_ERR_TOO_BIG: u32 = (1 << 31) + 9;
/// Option reply: extended headers were agreed on, and stay.
pub const NBD_REP_ERR_EXT_HEADER_REQD: u32 = (1 << 31) + 10;

/// Information: size and transmission flags.
pub const NBD_INFO_EXPORT: u16 = 0;
/// Information: the name that the server uses.
pub const NBD_INFO_NAME: u16 = 1;
/// Information: text for people.
pub const NBD_INFO_DESCRIPTION: u16 = 2;
/// Information: block sizes.
pub const NBD_INFO_BLOCK_SIZE: u16 = 3;

/// Command: read.
pub const NBD_CMD_READ: u16 = 0;
/// Command: write.
pub const NBD_CMD_WRITE: u16 = 1;
/// Command: disconnect.
pub const NBD_CMD_DISC: u16 = 2;
/// Command: make what was written durable.
pub const NBD_CMD_FLUSH: u16 = 3;
/// Command: forget what is there.
pub const NBD_CMD_TRIM: u16 = 4;
/// Command: read ahead.
pub const NBD_CMD_CACHE: u16 = 5;
/// Command: write zeros.
pub const NBD_CMD_WRITE_ZEROES: u16 = 6;
/// Command: status of a range in the chosen metadata contexts.
pub const NBD_CMD_BLOCK_STATUS: u16 = 7;

/// Command flag: durable before the reply.
pub const NBD_CMD_FLAG_FUA: u16 = 1;
/// Command flag: zeros that take up space.
pub const NBD_CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag: one content chunk at most.
pub const NBD_CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag: one extent at most.
pub const NBD_CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag: zeros, but only if that is faster than writing them.
pub const NBD_CMD_FLAG_FAST_ZERO: u16 = 1 << 4;
/// Command flag: the length is that of a payload. Extended headers only.
pub const NBD_CMD_FLAG_PAYLOAD_LEN: u16 = 1 << 5;

/// Structured reply flag: the last chunk of a reply.
pub const NBD_REPLY_FLAG_DONE: u16 = 1;
/// Chunk: nothing more.
pub const NBD_REPLY_TYPE_NONE: u16 = 0;
/// Chunk: data.
pub const NBD_REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// Chunk: zeros.
pub const NBD_REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// Chunk: status of one metadata context.
pub const NBD_REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Chunk: status of one metadata context, in numbers of 64 bits.
pub const NBD_REPLY_TYPE_BLOCK_STATUS_EXT: u16 = 6;
/// Chunk: error.
pub const NBD_REPLY_TYPE_ERROR: u16 = (1 << 15) + 1;
/// Chunk: error at an offset.
pub const NBD_REPLY_TYPE_ERROR_OFFSET: u16 = (1 << 15) + 2;

/// State in `base:allocation`: takes up no space.
pub const NBD_STATE_HOLE: u32 = 1;
/// State in `base:allocation`: reads as zeros.
pub const NBD_STATE_ZERO: u32 = 1 << 1;

/// Longest string of the protocol in bytes (section "Conventions").
pub const STRING_LEN_MAX: usize = 4096;

/// Why a request failed (section "Error values").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// `NBD_EPERM`: not permitted.
    NotPermitted,
    /// `NBD_EIO`: the medium failed, or what is on it is damaged.
    Io,
    /// `NBD_ENOMEM`: no memory.
    NoMemory,
    /// `NBD_EINVAL`: the request makes no sense.
    Invalid,
    /// `NBD_ENOSPC`: no space, or past the end of the export.
    NoSpace,
    /// `NBD_EOVERFLOW`: too long.
    Overflow,
    /// `NBD_ENOTSUP`: not supported.
    NotSupported,
    /// `NBD_ESHUTDOWN`: the server is about to end.
    Shutdown,
}

impl ErrorCode {
    /// Returns the number that is sent.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::NotPermitted => 1,
            Self::Io => 5,
            Self::NoMemory => 12,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::Overflow => 75,
            Self::NotSupported => 95,
            Self::Shutdown => 108,
        }
    }
}

/// Header of an option (section "Newstyle negotiation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// What the client wants.
    pub option: u32,
    /// Bytes that follow. Not checked yet.
    pub len: u32,
}

impl OptionHeader {
    /// Length of the header in bytes.
    pub const LEN: usize = 16;

    /// Reads a header; `None` if it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let magic = fields.u64()?;
        let header = Self { option: fields.u32()?, len: fields.u32()? };
        (magic == IHAVEOPT && fields.is_empty()).then_some(header)
    }
}

/// Form of the messages of the transmission phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Headers {
    /// Requests with lengths of 32 bits, simple replies.
    Simple,
    /// Requests with lengths of 32 bits, structured replies.
    Structured,
    /// Requests and structured replies with lengths of 64 bits.
    Extended,
}

impl Headers {
    /// Returns the length of a request without payload in bytes.
    #[must_use]
    pub const fn request_len(self) -> usize {
        match self {
            Self::Simple | Self::Structured => 28,
            Self::Extended => 32,
        }
    }

    /// Returns whether a reply can consist of several chunks.
    #[must_use]
    pub const fn are_structured(self) -> bool {
        matches!(self, Self::Structured | Self::Extended)
    }
}

/// Request of the transmission phase, without payload (section "Request message").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Command flags.
    pub flags: u16,
    /// Command.
    pub command: u16,
    /// The client's name for the request; sent back as it is.
    pub cookie: u64,
    /// First byte of the range. Not checked yet.
    pub offset: u64,
    /// Bytes of the range, or of the payload. Not checked yet.
    pub len: u64,
}

impl RequestHeader {
    /// Length of the longest header in bytes.
    pub const LEN_MAX: usize = 32;

    /// Reads a header of [`Headers::request_len`] bytes; `None` if it is none.
    #[must_use]
    pub fn decode(headers: Headers, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let is_extended = headers == Headers::Extended;
        let magic = fields.u32()?;
        let header = Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            len: if is_extended { fields.u64()? } else { fields.u32()?.into() },
        };
        let expected = if is_extended { NBD_EXTENDED_REQUEST_MAGIC } else { NBD_REQUEST_MAGIC };
        (magic == expected && fields.is_empty()).then_some(header)
    }

    /// Returns the bytes that a client sends; `None` if the length does not fit.
    #[must_use]
    pub fn encode(&self, headers: Headers) -> Option<Vec<u8>> {
        let is_extended = headers == Headers::Extended;
        let magic = if is_extended { NBD_EXTENDED_REQUEST_MAGIC } else { NBD_REQUEST_MAGIC };
        let mut bytes = Vec::with_capacity(headers.request_len());
        bytes.extend_from_slice(&magic.to_be_bytes());
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        bytes.extend_from_slice(&self.command.to_be_bytes());
        bytes.extend_from_slice(&self.cookie.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        if is_extended {
            bytes.extend_from_slice(&self.len.to_be_bytes());
        } else {
            bytes.extend_from_slice(&u32::try_from(self.len).ok()?.to_be_bytes());
        }
        Some(bytes)
    }
}

/// Takes big-endian fields off a byte string.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        self.take(LEN)?.try_into().ok()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Takes a string: UTF-8, no NUL, at most [`STRING_LEN_MAX`] bytes.
    pub(crate) fn string(&mut self, len: usize) -> Option<&'a str> {
        let bytes = self.take(len)?;
        let is_short = len <= STRING_LEN_MAX;
        std::str::from_utf8(bytes).ok().filter(|text| is_short && !text.contains('\0'))
    }

    /// Takes a length of 32 bits, and a string of that length.
    pub(crate) fn counted_string(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.string(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 28] = [
        0x25, 0x60, 0x95, 0x13, // magic
        0x00, 0x01, // flags: FUA
        0x00, 0x07, // block status
        1, 2, 3, 4, 5, 6, 7, 8, // cookie
        0, 0, 0, 1, 0, 0, 0, 0, // offset
        0, 0, 2, 0, // length
    ];

    const HEADER: RequestHeader = RequestHeader {
        flags: NBD_CMD_FLAG_FUA,
        command: NBD_CMD_BLOCK_STATUS,
        cookie: 0x0102_0304_0506_0708,
        offset: 1 << 32,
        len: 512,
    };

    #[test]
    fn request_header_has_the_layout_of_the_document() {
        for headers in [Headers::Simple, Headers::Structured] {
            assert_eq!(headers.request_len(), BYTES.len());
            assert_eq!(RequestHeader::decode(headers, &BYTES), Some(HEADER));
            assert_eq!(HEADER.encode(headers).unwrap(), BYTES);
        }
    }

    #[test]
    fn extended_request_header_has_a_length_of_64_bits() {
        let magic = [0x21, 0xe4, 0x1c, 0x71];
        let bytes = [&magic, &BYTES[4..24], &[0, 0, 0, 2, 0, 0, 2, 0]].concat();
        let header = RequestHeader { len: (2 << 32) + 512, ..HEADER };
        assert_eq!(Headers::Extended.request_len(), bytes.len());
        assert_eq!(RequestHeader::decode(Headers::Extended, &bytes), Some(header));
        assert_eq!(header.encode(Headers::Extended).unwrap(), bytes);
        assert_eq!(header.encode(Headers::Structured), None);
    }

    #[test]
    fn headers_of_another_length_form_or_magic_are_none() {
        let decode = |bytes: &[u8]| RequestHeader::decode(Headers::Structured, bytes);
        assert!(decode(&BYTES).is_some());
        assert!(decode(&BYTES[1..]).is_none());
        assert!(decode(&[&BYTES[..], &[0]].concat()).is_none());
        assert!(RequestHeader::decode(Headers::Extended, &BYTES).is_none());
        assert!(
            RequestHeader::decode(Headers::Extended, &[&BYTES[..], &[0; 4]].concat()).is_none()
        );
        let mut wrong = BYTES;
        wrong[0] ^= 1;
        assert!(decode(&wrong).is_none());
        let option = [&IHAVEOPT.to_be_bytes()[..], &[0, 0, 0, 3, 0, 0, 0, 9]].concat();
        assert_eq!(OptionHeader::decode(&option), Some(OptionHeader { option: 3, len: 9 }));
        assert!(OptionHeader::decode(&option[..15]).is_none());
    }

    #[test]
    fn strings_are_short_utf8_without_nul() {
        let long = [b'a'; STRING_LEN_MAX + 1];
        assert_eq!(Fields::new(&long).string(STRING_LEN_MAX).unwrap().len(), STRING_LEN_MAX);
        assert!(Fields::new(&long).string(STRING_LEN_MAX + 1).is_none());
        assert!(Fields::new(b"a\0").string(2).is_none());
        assert!(Fields::new(&[0xff]).string(1).is_none());
        assert!(Fields::new(&[0xff, 0xff, 0xff, 0xff, b'a']).counted_string().is_none());
    }
}
