//! Payloads of options, and replies to options.
//!
//! Source: protocol document, sections "Option types" and "Option reply types". Decoding reads the whole payload or
//! fails, and takes memory for nothing that it has not counted.

use crate::limits::QUERY_COUNT_MAX;
use crate::proto::{
    Fields, NBD_INFO_BLOCK_SIZE, NBD_INFO_DESCRIPTION, NBD_INFO_EXPORT, NBD_INFO_NAME,
    NBD_REP_ERR_INVALID, NBD_REP_ERR_TOO_BIG, NBD_REP_INFO, NBD_REP_META_CONTEXT, NBD_REP_SERVER,
    OPTION_REPLY_MAGIC, STRING_LEN_MAX,
};

/// Why an option is refused: type of the reply, and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reply: u32,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(reply: u32, message: impl Into<String>) -> Self {
        Self { reply, message: message.into() }
    }

    pub(crate) fn invalid(message: &str) -> Self {
        Self::new(NBD_REP_ERR_INVALID, message)
    }
}

/// Payload of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InfoRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) wants_name: bool,
    pub(crate) wants_description: bool,
}

impl<'a> InfoRequest<'a> {
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::new(payload);
        let name = fields.counted_string().ok_or_else(|| Refusal::invalid("bad export name"))?;
        let short = || Refusal::invalid("the list of information requests ends early");
        let count = fields.u16().ok_or_else(short)?;
        let mut request = Self { name, wants_name: false, wants_description: false };
        for _ in 0..count {
            match fields.u16().ok_or_else(short)? {
                NBD_INFO_NAME => request.wants_name = true,
                NBD_INFO_DESCRIPTION => request.wants_description = true,
                // The size and the block sizes are sent anyway. Others are unknown, and passed over.
                _ => {}
            }
        }
        if !fields.is_empty() {
            return Err(Refusal::invalid("bytes after the list of information requests"));
        }
        Ok(request)
    }
}

/// Payload of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContextRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) queries: Vec<&'a str>,
}

impl<'a> ContextRequest<'a> {
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::new(payload);
        let name = fields.counted_string().ok_or_else(|| Refusal::invalid("bad export name"))?;
        let count = fields.u32().ok_or_else(|| Refusal::invalid("no number of queries"))?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if QUERY_COUNT_MAX < count {
            return Err(Refusal::new(NBD_REP_ERR_TOO_BIG, "too many queries"));
        }
        let mut queries = Vec::with_capacity(count);
        for _ in 0..count {
            let query = fields.counted_string();
            queries.push(query.ok_or_else(|| Refusal::invalid("bad query"))?);
        }
        if !fields.is_empty() {
            return Err(Refusal::invalid("bytes after the last query"));
        }
        Ok(Self { name, queries })
    }
}

/// Appends replies to one option.
#[derive(Debug)]
pub(crate) struct OptionReplies<'a> {
    pub(crate) option: u32,
    pub(crate) output: &'a mut Vec<u8>,
}

impl OptionReplies<'_> {
    /// Appends one reply. The parts follow each other.
    pub(crate) fn reply(&mut self, reply: u32, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).expect("replies are made of a few short strings");
        self.output.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        self.output.extend_from_slice(&self.option.to_be_bytes());
        self.output.extend_from_slice(&reply.to_be_bytes());
        self.output.extend_from_slice(&len.to_be_bytes());
        for part in parts {
            self.output.extend_from_slice(part);
        }
    }

    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        self.reply(refusal.reply, &[shortened(&refusal.message).as_bytes()]);
    }

    pub(crate) fn server(&mut self, name: &str, description: &str) {
        let len = u32::try_from(name.len()).expect("names are checked before they are listed");
        let parts = [&len.to_be_bytes()[..], name.as_bytes(), shortened(description).as_bytes()];
        self.reply(NBD_REP_SERVER, &parts);
    }

    pub(crate) fn info_export(&mut self, size: u64, flags: u16) {
        let kind = NBD_INFO_EXPORT.to_be_bytes();
        self.reply(NBD_REP_INFO, &[&kind, &size.to_be_bytes(), &flags.to_be_bytes()]);
    }

    pub(crate) fn info_name(&mut self, name: &str) {
        self.reply(NBD_REP_INFO, &[&NBD_INFO_NAME.to_be_bytes(), shortened(name).as_bytes()]);
    }

    pub(crate) fn info_description(&mut self, text: &str) {
        let kind = NBD_INFO_DESCRIPTION.to_be_bytes();
        self.reply(NBD_REP_INFO, &[&kind, shortened(text).as_bytes()]);
    }

    pub(crate) fn info_block_size(&mut self, min: u32, preferred: u32, payload_len_max: u32) {
        let kind = NBD_INFO_BLOCK_SIZE.to_be_bytes();
        let sizes = [min, preferred, payload_len_max].map(u32::to_be_bytes).concat();
        self.reply(NBD_REP_INFO, &[&kind, &sizes]);
    }

    pub(crate) fn meta_context(&mut self, id: u32, name: &str) {
        self.reply(NBD_REP_META_CONTEXT, &[&id.to_be_bytes(), name.as_bytes()]);
    }
}

/// Returns the longest beginning of a text that is a string of the protocol.
pub(crate) fn shortened(text: &str) -> &str {
    let mut end = text.find('\0').unwrap_or(text.len()).min(STRING_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_request_reads_the_layout_of_the_document() {
        let payload = [&[0, 0, 0, 2][..], b"vm", &[0, 3, 0, 1, 0, 3, 0xff, 0xff]].concat();
        let request = InfoRequest::decode(&payload).unwrap();
        assert_eq!(request, InfoRequest { name: "vm", wants_name: true, wants_description: false });
    }

    #[test]
    fn info_requests_that_do_not_add_up_are_invalid() {
        let cases: [&[u8]; 7] = [
            b"",
            &[0, 0, 0, 9, b'a', 0, 0],
            &[0xff, 0xff, 0xff, 0xff, 0, 0],
            &[0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 7],
            &[0, 0, 0, 1, 0, 0, 0],
        ];
        for payload in cases {
            let refusal = InfoRequest::decode(payload).unwrap_err();
            assert_eq!(refusal.reply, NBD_REP_ERR_INVALID, "{payload:?}");
        }
    }

    #[test]
    fn names_at_the_limit_are_read_and_longer_ones_refused() {
        for (len, is_read) in [(255, true), (256, true), (4095, true), (4096, true), (4097, false)]
        {
            let mut payload = u32::try_from(len).unwrap().to_be_bytes().to_vec();
            payload.extend(vec![b'n'; len]);
            payload.extend([0, 0]);
            assert_eq!(InfoRequest::decode(&payload).is_ok(), is_read, "{len}");
        }
    }

    #[test]
    fn context_request_takes_no_memory_for_queries_that_are_not_there() {
        let payload = [&[0, 0, 0, 0][..], &[0xff, 0xff, 0xff, 0xff]].concat();
        assert_eq!(ContextRequest::decode(&payload).unwrap_err().reply, NBD_REP_ERR_TOO_BIG);
        let payload = [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, b'a'];
        assert_eq!(ContextRequest::decode(&payload).unwrap_err().reply, NBD_REP_ERR_INVALID);
        let payload = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, b'a'];
        assert_eq!(ContextRequest::decode(&payload).unwrap().queries, ["a"]);
    }

    #[test]
    fn texts_are_cut_to_strings_of_the_protocol() {
        assert_eq!(shortened("a\0b"), "a");
        let long = "\u{e4}".repeat(STRING_LEN_MAX);
        assert_eq!(shortened(&long).len(), STRING_LEN_MAX);
        assert_eq!(shortened(&format!("a{long}")).len(), STRING_LEN_MAX - 1);
    }
}
