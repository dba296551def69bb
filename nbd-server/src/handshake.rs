//! The handshake, without I/O: from the greeting to the choice of an export.
//!
//! Source: protocol document, sections "Newstyle negotiation", "Fixed newstyle negotiation" and "Option types".
//! Whoever drives it sends [`Handshake::GREETING`], and then reads exactly [`Handshake::wants`] bytes again and again and
//! gives them to [`Handshake::receive`]. That bounds memory: nothing longer than [`OPTION_LEN_MAX`] is ever asked for.
//! If TLS is required, nothing else is answered before it. Whatever was agreed on before is forgotten then: somebody on
//! the way could have put it in (CVE-2021-3716).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::export::{Exports, NamedExport, OpenError};
use crate::limits::{
    LISTED_COUNT_MAX, OPTION_COUNT_LIMIT, OPTION_COUNT_MAX, OPTION_COUNT_PER_EXPORT,
    OPTION_LEN_MAX, OPTION_REPLY_LEN_MAX, PAYLOAD_LEN_MAX,
};
use crate::option::{ContextRequest, InfoRequest, OptionReplies, Refusal};
use crate::proto::{
    Fields, Headers, NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES, NBD_FLAG_FIXED_NEWSTYLE,
    NBD_FLAG_NO_ZEROES, NBD_OPT_ABORT, NBD_OPT_EXPORT_NAME, NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO,
    NBD_OPT_INFO, NBD_OPT_LIST, NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT,
    NBD_OPT_STARTTLS, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NBD_REP_ERR_EXT_HEADER_REQD,
    NBD_REP_ERR_POLICY, NBD_REP_ERR_SHUTDOWN, NBD_REP_ERR_TLS_REQD, NBD_REP_ERR_TOO_BIG,
    NBD_REP_ERR_UNKNOWN, NBD_REP_ERR_UNSUP, OptionHeader, STRING_LEN_MAX,
};
use crate::session::{Context, Session};

/// Whether a connection has to be encrypted. There is nothing in between: a client that could choose could be made to
/// choose wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// TLS is not offered.
    Off,
    /// Nothing is served without TLS.
    Required,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// Send the output, then read on.
    Continue,
    /// Send the output, then begin with TLS, and give everything that comes through it to the same handshake. Bytes of the
    /// client that are there already, before TLS, end the connection.
    StartTls,
    /// Send the output, then begin with requests.
    Transmit(Session),
    /// Send the output, then close the connection: it is over, or the client broke a rule.
    Close,
}

#[derive(Clone, Copy, Debug)]
enum State {
    ClientFlags,
    Header,
    Payload(OptionHeader),
}

/// One handshake.
#[derive(Debug)]
pub struct Handshake {
    exports: Arc<dyn Exports>,
    state: State,
    has_zeroes: bool,
    encryption: Encryption,
    is_encrypted: bool,
    headers: Headers,
    option_count: u32,
    option_count_max: u32,
    /// The export that was asked for last, so that information and transmission are about the same one.
    opened: Option<(String, NamedExport)>,
    /// Contexts, and the name that was given with them.
    contexts: Option<(String, Vec<(u32, Context)>)>,
}

impl Handshake {
    /// What the server sends first.
    pub const GREETING: [u8; 18] = *b"NBDMAGICIHAVEOPT\x00\x03";

    /// Begins a handshake.
    #[must_use]
    pub fn new(exports: Arc<dyn Exports>, encryption: Encryption) -> Self {
        const { assert!(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES == 3) };
        Self {
            exports,
            state: State::ClientFlags,
            has_zeroes: true,
            encryption,
            is_encrypted: false,
            headers: Headers::Simple,
            option_count: 0,
            option_count_max: OPTION_COUNT_MAX,
            opened: None,
            contexts: None,
        }
    }

    /// Returns how many bytes [`Handshake::receive`] takes next.
    #[must_use]
    pub fn wants(&self) -> usize {
        match self.state {
            State::ClientFlags => 4,
            State::Header => OptionHeader::LEN,
            State::Payload(header) => usize::try_from(header.len).unwrap_or(usize::MAX),
        }
    }

    /// Takes what the client sent, and appends what it shall be sent.
    ///
    /// # Panics
    ///
    /// If there are not [`Handshake::wants`] bytes.
    pub fn receive(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Step {
        assert_eq!(bytes.len(), self.wants(), "the driver reads what is wanted");
        match self.state {
            State::ClientFlags => self.client_flags(bytes),
            State::Header => self.header(bytes, output),
            State::Payload(header) => {
                self.state = State::Header;
                self.option(header.option, bytes, output)
            }
        }
    }

    fn client_flags(&mut self, bytes: &[u8]) -> Step {
        let Some(flags) = Fields::new(bytes).u32() else { return Step::Close };
        // A client without fixed newstyle sends nothing but NBD_OPT_EXPORT_NAME, which works as well.
        if flags & !(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES) != 0 {
            return Step::Close;
        }
        // TLS needs fixed newstyle, so there is nothing that this client could be served.
        if self.encryption == Encryption::Required && flags & NBD_FLAG_C_FIXED_NEWSTYLE == 0 {
            return Step::Close;
        }
        self.has_zeroes = flags & NBD_FLAG_C_NO_ZEROES == 0;
        self.state = State::Header;
        Step::Continue
    }

    fn header(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Step {
        let Some(header) = OptionHeader::decode(bytes) else { return Step::Close };
        self.option_count += 1;
        let is_long = OPTION_LEN_MAX < header.len;
        if is_long || self.option_count_max < self.option_count {
            let message = if is_long { "the option is too long" } else { "too many options" };
            let mut replies = OptionReplies { option: header.option, output };
            match header.option {
                // Nothing can be said to this one, and nothing else to that one.
                NBD_OPT_EXPORT_NAME => {}
                NBD_OPT_ABORT => replies.reply(NBD_REP_ACK, &[]),
                _ => replies.refuse(&Refusal::new(NBD_REP_ERR_TOO_BIG, message)),
            }
            return Step::Close;
        }
        if header.len == 0 {
            return self.option(header.option, &[], output);
        }
        self.state = State::Payload(header);
        Step::Continue
    }

    fn option(&mut self, option: u32, payload: &[u8], output: &mut Vec<u8>) -> Step {
        let must_encrypt = self.encryption == Encryption::Required && !self.is_encrypted;
        if option == NBD_OPT_EXPORT_NAME {
            return if must_encrypt { Step::Close } else { self.export_name(payload, output) };
        }
        let mut replies = OptionReplies { option, output };
        let result = match option {
            NBD_OPT_ABORT => {
                replies.reply(NBD_REP_ACK, &[]);
                return Step::Close;
            }
            NBD_OPT_STARTTLS => match self.start_tls(payload) {
                Ok(()) => {
                    replies.reply(NBD_REP_ACK, &[]);
                    return Step::StartTls;
                }
                Err(refusal) => Err(refusal),
            },
            _ if must_encrypt => {
                Err(Refusal::new(NBD_REP_ERR_TLS_REQD, "this server is for TLS only"))
            }
            NBD_OPT_LIST => self.list(payload, &mut replies),
            NBD_OPT_INFO => self.info(payload, &mut replies).map(drop),
            NBD_OPT_GO => match self.info(payload, &mut replies) {
                Ok(session) => {
                    replies.reply(NBD_REP_ACK, &[]);
                    return Step::Transmit(session);
                }
                Err(refusal) => Err(refusal),
            },
            NBD_OPT_STRUCTURED_REPLY => self.set_headers(Headers::Structured, payload),
            NBD_OPT_EXTENDED_HEADERS => self.set_headers(Headers::Extended, payload),
            NBD_OPT_LIST_META_CONTEXT => self.list_contexts(payload, &mut replies),
            NBD_OPT_SET_META_CONTEXT => {
                self.contexts = None;
                self.set_contexts(payload, &mut replies)
            }
            _ => Err(Refusal::new(NBD_REP_ERR_UNSUP, "this server does not know the option")),
        };
        match result {
            Ok(()) => replies.reply(NBD_REP_ACK, &[]),
            Err(refusal) => replies.refuse(&refusal),
        }
        Step::Continue
    }

    fn start_tls(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        if self.encryption == Encryption::Off {
            return Err(Refusal::new(NBD_REP_ERR_UNSUP, "this server has no TLS"));
        }
        if self.is_encrypted {
            return Err(Refusal::invalid("TLS is on already"));
        }
        without_payload(payload)?;
        self.is_encrypted = true;
        self.headers = Headers::Simple;
        self.opened = None;
        self.contexts = None;
        Ok(())
    }

    fn set_headers(&mut self, headers: Headers, payload: &[u8]) -> Result<(), Refusal> {
        without_payload(payload)?;
        if self.headers == Headers::Extended && headers != Headers::Extended {
            let message = "extended headers are on already";
            return Err(Refusal::new(NBD_REP_ERR_EXT_HEADER_REQD, message));
        }
        if self.headers == headers {
            return Err(Refusal::invalid("that was agreed on already"));
        }
        self.headers = headers;
        Ok(())
    }

    /// Nothing can be refused here: the connection is closed instead.
    fn export_name(&mut self, payload: &[u8], output: &mut Vec<u8>) -> Step {
        // The extension for extended headers forbids the old way.
        if self.headers == Headers::Extended {
            return Step::Close;
        }
        let Some(name) = Fields::new(payload).string(payload.len()) else { return Step::Close };
        let Ok(named) = self.open(name) else { return Step::Close };
        let session = self.session(name, named);
        output.extend_from_slice(&session.export.size().to_be_bytes());
        output.extend_from_slice(&session.flags().to_be_bytes());
        if self.has_zeroes {
            output.extend_from_slice(&[0; 124]);
        }
        Step::Transmit(session)
    }

    fn list(&mut self, payload: &[u8], replies: &mut OptionReplies<'_>) -> Result<(), Refusal> {
        without_payload(payload)?;
        let listed = self.exports.list().map_err(|error| refusal(&error))?;
        let start = replies.output.len();
        let mut count = 0;
        for one in listed.iter().filter(|one| can_be_sent(&one.name)) {
            replies.server(&one.name, &one.description);
            count += 1;
            if LISTED_COUNT_MAX < count || OPTION_REPLY_LEN_MAX < replies.output.len() - start {
                replies.output.truncate(start);
                return Err(Refusal::new(NBD_REP_ERR_TOO_BIG, "too many exports for a list"));
            }
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let option_count_max = OPTION_COUNT_MAX + count.saturating_mul(OPTION_COUNT_PER_EXPORT);
        self.option_count_max = option_count_max.min(OPTION_COUNT_LIMIT);
        Ok(())
    }

    fn info(
        &mut self,
        payload: &[u8],
        replies: &mut OptionReplies<'_>,
    ) -> Result<Session, Refusal> {
        let request = InfoRequest::decode(payload)?;
        let named = self.open(request.name)?;
        let canonical_name = named.name.clone();
        let session = self.session(request.name, named);
        replies.info_export(session.export.size(), session.flags());
        if request.wants_name {
            replies.info_name(&canonical_name);
        }
        if let Some(text) = session.export.description().filter(|_| request.wants_description) {
            replies.info_description(&text);
        }
        let block_sizes = session.export.block_sizes().allowed();
        let payload_len_max = u32::try_from(PAYLOAD_LEN_MAX).unwrap_or(u32::MAX);
        replies.info_block_size(block_sizes.min, block_sizes.preferred, payload_len_max);
        Ok(session)
    }

    fn list_contexts(
        &mut self,
        payload: &[u8],
        replies: &mut OptionReplies<'_>,
    ) -> Result<(), Refusal> {
        let request = ContextRequest::decode(payload)?;
        let named = self.open(request.name)?;
        let listed = [ALLOCATION.to_owned()].into_iter().chain(named.export.contexts());
        let listed: Vec<String> = listed.filter(|name| can_be_sent(name)).collect();
        let mut found = BTreeSet::new();
        if request.queries.is_empty() {
            found.extend(listed.iter().map(String::as_str));
        }
        for query in request.queries {
            if is_kind(query) {
                found.extend(listed.iter().map(String::as_str).filter(|of| of.starts_with(query)));
            } else if open_context(&named, query)?.is_some() {
                found.insert(query);
            }
        }
        let start = replies.output.len();
        for name in found {
            replies.meta_context(0, name);
            if OPTION_REPLY_LEN_MAX < replies.output.len() - start {
                replies.output.truncate(start);
                return Err(Refusal::new(NBD_REP_ERR_TOO_BIG, "too many metadata contexts"));
            }
        }
        Ok(())
    }

    fn set_contexts(
        &mut self,
        payload: &[u8],
        replies: &mut OptionReplies<'_>,
    ) -> Result<(), Refusal> {
        if !self.headers.are_structured() {
            return Err(Refusal::invalid("structured replies come first"));
        }
        let request = ContextRequest::decode(payload)?;
        let named = self.open(request.name)?;
        let mut queries = request.queries;
        queries.sort_unstable();
        queries.dedup();
        let mut selected = Vec::new();
        for (query, id) in queries.iter().zip(1..) {
            if let Some(context) = open_context(&named, query)? {
                selected.push((id, *query, context));
            }
        }
        // Nothing is sent before nothing can fail any more.
        for (id, query, _) in &selected {
            replies.meta_context(*id, query);
        }
        let selected = selected.into_iter().map(|(id, _, context)| (id, context)).collect();
        self.contexts = Some((request.name.to_owned(), selected));
        Ok(())
    }

    fn open(&mut self, name: &str) -> Result<NamedExport, Refusal> {
        if let Some((_, opened)) = self.opened.as_ref().filter(|(of, _)| of == name) {
            return Ok(opened.clone());
        }
        let opened = self.exports.open(name).map_err(|error| refusal(&error))?;
        if i64::try_from(opened.export.size()).is_err() {
            return Err(refusal(&OpenError::Failed("the export is too large".to_owned())));
        }
        self.opened = Some((name.to_owned(), opened.clone()));
        Ok(opened)
    }

    /// Contexts hold only for the export that they were chosen for.
    fn session(&self, name: &str, named: NamedExport) -> Session {
        let chosen = self.contexts.as_ref().filter(|(of, _)| of == name);
        let contexts = chosen.map(|(_, contexts)| contexts.clone()).unwrap_or_default();
        Session { name: named.name, export: named.export, headers: self.headers, contexts }
    }
}

/// The metadata context that every export has.
const ALLOCATION: &str = "base:allocation";

/// A name that no client could ask for is not offered.
fn can_be_sent(name: &str) -> bool {
    name.len() <= STRING_LEN_MAX && !name.contains('\0')
}

/// Whether a query stands for all names that begin so, such as `base:` and `qemu:dirty-bitmap:`.
fn is_kind(query: &str) -> bool {
    query.ends_with(':')
}

fn open_context(named: &NamedExport, name: &str) -> Result<Option<Context>, Refusal> {
    if name == ALLOCATION {
        return Ok(Some(Context::Allocation));
    }
    // A kind selects nothing, and the document alone says what `base` has.
    if is_kind(name) || name.starts_with("base:") {
        return Ok(None);
    }
    match named.export.open_context(name) {
        Ok(context) => Ok(Some(Context::Own(context))),
        Err(OpenError::Unknown) => Ok(None),
        Err(error) => Err(refusal(&error)),
    }
}

fn without_payload(payload: &[u8]) -> Result<(), Refusal> {
    if payload.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid("the option has no data"))
}

fn refusal(error: &OpenError) -> Refusal {
    let reply = match error {
        OpenError::Unknown => NBD_REP_ERR_UNKNOWN,
        OpenError::Refused(_) => NBD_REP_ERR_POLICY,
        // The protocol has no reply for "not now" but this one.
        OpenError::Failed(_) => NBD_REP_ERR_SHUTDOWN,
    };
    Refusal::new(reply, error.to_string())
}

#[cfg(test)]
mod tests;
