//! Carries a request out on its export and makes the reply. Knows no sockets.
//!
//! What an export answers is not trusted: extents are clipped to the request, and a place outside of it is not passed on.

use crate::export::{Export, ExportError, ExportWriter, ZeroOptions};
use crate::limits::{EXTENT_COUNT_MAX, HOLE_LEN_MIN, IMMEDIATE_LEN_MAX};
use crate::proto::{ErrorCode, Headers, NBD_STATE_HOLE, NBD_STATE_ZERO};
use crate::reply::{Chunks, Reply, ReplyTo};
use crate::session::{Context, Session};
use crate::transmission::{Command, Request};

/// Carries a request out that passed all checks, with the payload of a write.
///
/// # Errors
///
/// What the export said; [`error_reply`] makes the reply from it.
pub fn execute(session: &Session, request: &Request, payload: &[u8]) -> Result<Reply, ExportError> {
    let export = &*session.export;
    let Request { offset, len, .. } = *request;
    match request.command {
        Command::Read { in_one_chunk } => return read(session, request, in_one_chunk),
        Command::BlockStatus { in_one_extent } => {
            return block_status(session, request, in_one_extent);
        }
        Command::Cache => export.cache(offset, len)?,
        Command::Write { is_durable } => {
            let writer = writer(export)?;
            writer.write(offset, payload)?;
            flush_if(writer, is_durable)?;
        }
        Command::WriteZeroes { is_durable, options } => {
            let writer = writer(export)?;
            writer.write_zeroes(offset, len, options)?;
            flush_if(writer, is_durable)?;
        }
        Command::Trim { is_durable } => {
            let writer = writer(export)?;
            writer.trim(offset, len)?;
            flush_if(writer, is_durable)?;
        }
        Command::Flush => writer(export)?.flush()?,
    }
    Ok(Reply::done(reply_to(session, request)))
}

/// Carries a request out if that needs no waiting: a short read of bytes that the export has at hand.
#[must_use]
pub fn execute_immediately(session: &Session, request: &Request) -> Option<Reply> {
    if !matches!(request.command, Command::Read { .. }) || IMMEDIATE_LEN_MAX < request.len {
        return None;
    }
    let read = |place: &mut [u8]| {
        let is_read = session.export.read_immediately(request.offset, place);
        if is_read { Ok(()) } else { Err(()) }
    };
    Reply::data(reply_to(session, request), memory_len(request.len), read).ok()
}

/// Makes the reply to a request that the export could not carry out.
#[must_use]
pub fn error_reply(session: &Session, request: &Request, error: &ExportError) -> Reply {
    let end = request.offset.saturating_add(request.len);
    let offset = error.offset.filter(|offset| (request.offset..end).contains(offset));
    Reply::error(
        reply_to(session, request),
        allowed_code(request, error.code),
        &error.message,
        offset,
    )
}

/// Two codes mean something special to clients, and only for certain requests (protocol document, section "Error values").
fn allowed_code(request: &Request, code: ErrorCode) -> ErrorCode {
    let must_be_fast = matches!(
        request.command,
        Command::WriteZeroes { options: ZeroOptions { must_be_fast: true, .. }, .. }
    );
    match code {
        ErrorCode::NotSupported if !must_be_fast => ErrorCode::Invalid,
        // The server has judged the length; an export that fails later has another reason.
        ErrorCode::Overflow => ErrorCode::Invalid,
        code => code,
    }
}

fn reply_to(session: &Session, request: &Request) -> ReplyTo {
    ReplyTo { headers: session.headers, cookie: request.cookie, offset: request.offset }
}

fn writer(export: &dyn Export) -> Result<&dyn ExportWriter, ExportError> {
    let read_only = || ExportError::new(ErrorCode::NotPermitted, "the export is read-only");
    export.writer().ok_or_else(read_only)
}

fn flush_if(writer: &dyn ExportWriter, is_durable: bool) -> Result<(), ExportError> {
    if is_durable { writer.flush() } else { Ok(()) }
}

/// A run of zeros, or of what may be something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ContentRun {
    len: u64,
    is_zero: bool,
}

fn read(session: &Session, request: &Request, in_one_chunk: bool) -> Result<Reply, ExportError> {
    let (to, export) = (reply_to(session, request), &*session.export);
    let whole = ContentRun { len: request.len, is_zero: false };
    let mut runs = vec![whole];
    if session.headers.are_structured() && HOLE_LEN_MIN <= request.len {
        runs = content_runs(export, request)?;
    }
    if in_one_chunk && 1 < runs.len() {
        runs = vec![whole];
    }
    if runs == [whole] {
        let read = |place: &mut [u8]| export.read(request.offset, place);
        return Reply::data(to, memory_len(request.len), read);
    }
    let data_len = runs.iter().filter(|run| !run.is_zero).map(|run| memory_len(run.len)).sum();
    let mut chunks = Chunks::new(to, data_len, runs.len());
    let mut offset = request.offset;
    for ContentRun { len, is_zero } in runs {
        if is_zero {
            chunks.hole(offset, u32::try_from(len).expect("payload has less than 4 GiB"));
        } else {
            export.read(offset, chunks.data(offset, memory_len(len)))?;
        }
        offset += len;
    }
    Ok(chunks.finish())
}

/// Divides the range of a read into runs of data and of zeros that are worth a chunk of their own.
fn content_runs(export: &dyn Export, request: &Request) -> Result<Vec<ContentRun>, ExportError> {
    // A longer list would be of runs so short that they are not worth it.
    let count_max = memory_len(request.len.div_ceil(HOLE_LEN_MIN)) + 1;
    let extents = export.extents(request.offset, request.len, count_max)?;
    let known = clipped(extents.iter().map(|one| (one.len, u32::from(one.is_zero))), request.len);
    let known_len: u64 = known.iter().map(|(len, _)| len).sum();
    let mut runs: Vec<ContentRun> = Vec::new();
    for (len, flags) in known.into_iter().chain([(request.len - known_len, 0)]) {
        let is_zero = flags == 1 && HOLE_LEN_MIN <= len;
        match runs.last_mut() {
            _ if len == 0 => {}
            Some(last) if last.is_zero == is_zero => last.len += len,
            _ => runs.push(ContentRun { len, is_zero }),
        }
    }
    Ok(runs)
}

fn block_status(
    session: &Session,
    request: &Request,
    in_one_extent: bool,
) -> Result<Reply, ExportError> {
    let count_max = if in_one_extent { 1 } else { EXTENT_COUNT_MAX };
    let Request { offset, len, .. } = *request;
    let mut chunks = Chunks::new(reply_to(session, request), 0, session.contexts.len());
    for (id, context) in &session.contexts {
        let mut runs = match context {
            Context::Allocation => {
                let extents = session.export.extents(offset, len, count_max)?;
                let state = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
                let flags = extents.iter().map(|one| {
                    let flags =
                        state(one.is_hole, NBD_STATE_HOLE) | state(one.is_zero, NBD_STATE_ZERO);
                    (one.len, flags)
                });
                clipped(flags, len)
            }
            Context::Own(context) => {
                let extents = context.extents(offset, len, count_max)?;
                clipped(extents.iter().map(|one| (one.len, one.flags)), len)
            }
        };
        runs.truncate(count_max);
        if runs.is_empty() {
            let message = "the export says nothing about the range";
            return Err(ExportError::new(ErrorCode::Io, message));
        }
        chunks.block_status(*id, &runs);
    }
    Ok(chunks.finish())
}

/// Joins runs that are alike and cuts them off at `len`.
fn clipped(runs: impl Iterator<Item = (u64, u32)>, len: u64) -> Vec<(u64, u32)> {
    let mut left = len;
    let mut clipped: Vec<(u64, u32)> = Vec::new();
    for (run_len, flags) in runs {
        let run_len = run_len.min(left);
        left -= run_len;
        match clipped.last_mut() {
            _ if run_len == 0 => {}
            Some(last) if last.1 == flags => last.0 += run_len,
            _ => clipped.push((run_len, flags)),
        }
    }
    clipped
}

/// Returns the most memory that a request and its reply take up.
pub(crate) fn memory_len_max(session: &Session, request: &Request) -> usize {
    match request.command {
        Command::Read { .. } | Command::Write { .. } => memory_len(request.len),
        Command::BlockStatus { in_one_extent: false } => {
            // Runs are at least one byte long; each takes some 48 bytes in a list, and 8 or 16 in the reply.
            let count = request.len.min(EXTENT_COUNT_MAX as u64);
            let reply_len = if session.headers == Headers::Extended { 16 } else { 8 };
            memory_len(count) * (48 + reply_len * session.contexts.len())
        }
        _ => 0,
    }
}

fn memory_len(len: u64) -> usize {
    usize::try_from(len).expect("checked against the limit of payloads and extents")
}

#[cfg(test)]
mod tests;
