//! What a strict client sees of a server: every rule of the protocol about replies is checked. Also part of the fuzz target.

use std::io::{self, Read};

use nbd_server::proto::{
    Headers, IHAVEOPT, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_READ,
    NBD_EXTENDED_REPLY_MAGIC, NBD_OPT_ABORT, NBD_OPT_GO, NBD_OPT_INFO, NBD_OPT_LIST,
    NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NBD_REP_INFO,
    NBD_REP_META_CONTEXT, NBD_REP_SERVER, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS,
    NBD_REPLY_TYPE_BLOCK_STATUS_EXT, NBD_REPLY_TYPE_ERROR, NBD_REPLY_TYPE_ERROR_OFFSET,
    NBD_REPLY_TYPE_NONE, NBD_REPLY_TYPE_OFFSET_DATA, NBD_REPLY_TYPE_OFFSET_HOLE,
    NBD_SIMPLE_REPLY_MAGIC, NBD_STRUCTURED_REPLY_MAGIC, OPTION_REPLY_MAGIC, RequestHeader,
    STRING_LEN_MAX,
};

/// Error codes of the protocol.
const ERROR_CODES: [u32; 8] = [1, 5, 12, 22, 28, 75, 95, 108];

/// The answer to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) cookie: u64,
    /// 0 if there is none.
    pub(crate) error: u32,
    /// Content of a read, holes filled with zeros.
    pub(crate) data: Vec<u8>,
    /// Runs of each metadata context.
    pub(crate) status: Vec<(u32, Vec<(u64, u64)>)>,
}

/// Reads the answers to one option, up to the last: types and contents.
pub(crate) fn read_option_replies(
    input: &mut impl Read,
    option: u32,
) -> io::Result<Vec<(u32, Vec<u8>)>> {
    let mut replies = Vec::new();
    loop {
        assert_eq!(number(input, 8)?, OPTION_REPLY_MAGIC);
        assert_eq!(number(input, 4)?, u64::from(option));
        let kind = narrow(number(input, 4)?);
        let len = number(input, 4)?;
        let content = bytes(input, len)?;
        let is_error = kind & (1 << 31) != 0;
        match kind {
            NBD_REP_ACK => assert!(content.is_empty()),
            NBD_REP_SERVER => assert_eq!(option, NBD_OPT_LIST),
            NBD_REP_INFO => assert!([NBD_OPT_INFO, NBD_OPT_GO].contains(&option)),
            NBD_REP_META_CONTEXT => {
                assert!([NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT].contains(&option));
            }
            _ => {
                assert!(is_error && option != NBD_OPT_ABORT, "{kind}");
                assert!(content.len() <= STRING_LEN_MAX);
                assert!(!content.contains(&0));
            }
        }
        replies.push((kind, content));
        if is_error || kind == NBD_REP_ACK {
            return Ok(replies);
        }
    }
}

/// Reads the answer to a request; `find` says which request has a cookie.
///
/// Panics if the server breaks a rule.
pub(crate) fn read_answer(
    input: &mut impl Read,
    headers: Headers,
    find: impl FnOnce(u64) -> RequestHeader,
) -> io::Result<Answer> {
    let magic = narrow(number(input, 4)?);
    if magic == NBD_SIMPLE_REPLY_MAGIC {
        let error = narrow(number(input, 4)?);
        let cookie = number(input, 8)?;
        let request = find(cookie);
        assert!(headers != Headers::Extended, "extended replies only");
        assert!(error == 0 || ERROR_CODES.contains(&error), "{error}");
        let is_read = request.command == NBD_CMD_READ;
        assert!(headers == Headers::Simple || !is_read, "reads have structured replies");
        let data = if is_read && error == 0 { bytes(input, request.len)? } else { Vec::new() };
        return Ok(Answer { cookie, error, data, ..Answer::default() });
    }
    let mut chunks = Chunks { headers, magic, request: None, done: false };
    let mut answer = Answer::default();
    let mut covered = Vec::new();
    let mut find = Some(find);
    while !chunks.done {
        chunks.read(input, &mut find, &mut answer, &mut covered)?;
    }
    let request = chunks.request.expect("there was a chunk");
    if answer.error == 0 && request.command == NBD_CMD_READ {
        covered.sort_unstable();
        let mut end = request.offset;
        for (offset, len) in covered {
            assert_eq!(offset, end, "content chunks cover the range and do not overlap");
            end = offset + len;
        }
        assert_eq!(end, request.offset + request.len);
    }
    if answer.error == 0 && request.command == NBD_CMD_BLOCK_STATUS {
        assert!(!answer.status.is_empty());
    }
    Ok(answer)
}

struct Chunks {
    headers: Headers,
    magic: u32,
    request: Option<RequestHeader>,
    done: bool,
}

impl Chunks {
    fn read(
        &mut self,
        input: &mut impl Read,
        find: &mut Option<impl FnOnce(u64) -> RequestHeader>,
        answer: &mut Answer,
        covered: &mut Vec<(u64, u64)>,
    ) -> io::Result<()> {
        let is_extended = self.headers == Headers::Extended;
        let expected =
            if is_extended { NBD_EXTENDED_REPLY_MAGIC } else { NBD_STRUCTURED_REPLY_MAGIC };
        if self.request.is_some() {
            self.magic = narrow(number(input, 4)?);
        }
        assert_eq!(self.magic, expected);
        assert!(self.headers.are_structured());
        let flags = u16::try_from(number(input, 2)?).expect("two bytes");
        let kind = u16::try_from(number(input, 2)?).expect("two bytes");
        let cookie = number(input, 8)?;
        let request = match (self.request, find.take()) {
            (Some(request), _) => request,
            (None, Some(find)) => find(cookie),
            (None, None) => unreachable!("the first chunk finds the request"),
        };
        self.request = Some(request);
        assert_eq!(cookie, request.cookie, "chunks of one reply follow each other");
        if is_extended {
            assert_eq!(number(input, 8)?, request.offset);
        }
        let len = number(input, if is_extended { 8 } else { 4 })?;
        assert_eq!(flags & !NBD_REPLY_FLAG_DONE, 0);
        self.done = flags == NBD_REPLY_FLAG_DONE;
        answer.cookie = cookie;
        let content = bytes(input, len)?;
        self.content(kind, &content, &request, answer, covered)
    }

    fn content(
        &self,
        kind: u16,
        content: &[u8],
        request: &RequestHeader,
        answer: &mut Answer,
        covered: &mut Vec<(u64, u64)>,
    ) -> io::Result<()> {
        let input = &mut &*content;
        let is_in_one = request.flags & NBD_CMD_FLAG_DF != 0;
        match kind {
            NBD_REPLY_TYPE_NONE => assert!(self.done && content.is_empty()),
            NBD_REPLY_TYPE_OFFSET_DATA | NBD_REPLY_TYPE_OFFSET_HOLE => {
                assert_eq!(request.command, NBD_CMD_READ);
                let offset = number(input, 8)?;
                let is_hole = kind == NBD_REPLY_TYPE_OFFSET_HOLE;
                let len = if is_hole { number(input, 4)? } else { wide(input.len()) };
                assert_ne!(len, 0);
                assert!(request.offset <= offset && offset + len <= request.offset + request.len);
                assert!(covered.is_empty() || !is_in_one, "the client wanted one chunk");
                covered.push((offset, len));
                let start = usize::try_from(offset - request.offset).expect("read in whole");
                let end = start + usize::try_from(len).expect("read in whole");
                answer.data.resize(answer.data.len().max(end), 0);
                if !is_hole {
                    answer.data[start..end].copy_from_slice(input);
                    *input = &[];
                }
                assert!(input.is_empty());
            }
            NBD_REPLY_TYPE_BLOCK_STATUS | NBD_REPLY_TYPE_BLOCK_STATUS_EXT => {
                assert_eq!(request.command, NBD_CMD_BLOCK_STATUS);
                answer.status.push(self.status(kind, input, request)?);
            }
            NBD_REPLY_TYPE_ERROR | NBD_REPLY_TYPE_ERROR_OFFSET => {
                answer.error = narrow(number(input, 4)?);
                assert!(ERROR_CODES.contains(&answer.error));
                let message_len = number(input, 2)?;
                assert!(message_len <= wide(STRING_LEN_MAX));
                let message = bytes(input, message_len)?;
                assert!(std::str::from_utf8(&message).is_ok() && !message.contains(&0));
                if kind == NBD_REPLY_TYPE_ERROR_OFFSET {
                    let offset = number(input, 8)?;
                    assert!(request.offset <= offset && offset < request.offset + request.len);
                }
                assert!(input.is_empty());
            }
            _ => panic!("unknown chunk {kind}"),
        }
        Ok(())
    }

    fn status(
        &self,
        kind: u16,
        input: &mut &[u8],
        request: &RequestHeader,
    ) -> io::Result<(u32, Vec<(u64, u64)>)> {
        let is_extended = self.headers == Headers::Extended;
        assert_eq!(kind == NBD_REPLY_TYPE_BLOCK_STATUS_EXT, is_extended);
        let id = narrow(number(input, 4)?);
        let field_len = if is_extended { 8 } else { 4 };
        if is_extended {
            assert_eq!(number(input, 4)? * 16, wide(input.len()));
        }
        let mut runs = Vec::new();
        let mut before_last = 0;
        while !input.is_empty() {
            let (len, flags) = (number(input, field_len)?, number(input, field_len)?);
            assert_ne!(len, 0);
            assert!(before_last < request.len, "extents begin in the range");
            before_last += len;
            runs.push((len, flags));
        }
        assert!(!runs.is_empty() && runs.len() <= 1 << 20);
        if request.flags & NBD_CMD_FLAG_REQ_ONE != 0 {
            assert!(runs.len() == 1 && runs[0].0 <= request.len);
        }
        Ok((id, runs))
    }
}

/// Makes the bytes of an option.
pub(crate) fn option(option: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short");
    [&IHAVEOPT.to_be_bytes()[..], &option.to_be_bytes(), &len.to_be_bytes(), payload].concat()
}

/// Makes the payload of `NBD_OPT_GO` and `NBD_OPT_INFO` that asks for these kinds of information.
pub(crate) fn info(name: &[u8], kinds: &[u16]) -> Vec<u8> {
    let count = u16::try_from(kinds.len()).expect("few").to_be_bytes();
    let kinds: Vec<u8> = kinds.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    [&string(name)[..], &count, &kinds].concat()
}

/// Makes the payload of the options about metadata contexts.
pub(crate) fn queries(name: &[u8], queries: &[&str]) -> Vec<u8> {
    let mut payload = string(name);
    payload.extend(u32::try_from(queries.len()).expect("few").to_be_bytes());
    payload.extend(queries.iter().flat_map(|query| string(query.as_bytes())));
    payload
}

fn string(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("short").to_be_bytes()[..], text].concat()
}

fn number(input: &mut impl Read, len: usize) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes[8 - len..])?;
    Ok(u64::from_be_bytes(bytes))
}

fn bytes(input: &mut impl Read, len: u64) -> io::Result<Vec<u8>> {
    assert!(len <= 64 << 20, "no reply is so long");
    let mut bytes = vec![0; usize::try_from(len).expect("checked")];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("read from four bytes")
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("at most 64 bits")
}
