//! Reads a pack without an index: its header, its table of records, one record header.

use std::io;

use rustix::io::Errno;

use crate::error::{Error, ObjectName, Result};
use crate::format::{FooterRecord, FormatError, PackFooter, PackHeader, RecordHeader};
use crate::id::PackId;
use crate::limits::{PACK_LEN_MAX, PACK_RECORD_COUNT_MAX};
use crate::storage::{ObjectKey, Storage};
use crate::units::PackOffset;

/// What a pack says of itself.
#[derive(Clone, Debug)]
pub(crate) struct PackContents {
    pub(crate) header: Option<PackHeader>,
    pub(crate) file_len: u64,
    pub(crate) records: Vec<FooterRecord>,
    /// What is damaged: the records were then found by reading their headers one by one.
    pub(crate) damage: Option<FormatError>,
}

/// Reads header and table of a pack; scans the records if the table is damaged.
///
/// Fails with [`Error::Missing`] if there is no such pack, and with [`Error::Damaged`] if neither way
/// finds a record.
pub(crate) fn read_contents(storage: &dyn Storage, id: &PackId) -> Result<PackContents> {
    let key = ObjectKey::Pack(*id);
    let object = || ObjectName::Pack(*id);
    let Some(file_len) = storage.object_len(&key)? else {
        return Err(Error::Missing { object: object() });
    };
    if PACK_LEN_MAX < file_len {
        let source = FormatError::out_of_range("pack length", file_len, "at most 256 MiB");
        return Err(Error::Damaged { object: object(), source });
    }
    let header = match read_header(storage, id) {
        Err(error) => Err(damage_of(error)?),
        Ok(header) => Ok(header),
    };
    let (records, damage) = match read_footer(storage, id, file_len) {
        Ok(footer) => (footer.records, None),
        Err(error) => {
            let damage = damage_of(error)?;
            (scan(storage, id, file_len)?, Some(damage))
        }
    };
    let damage = damage.or(header.as_ref().err().cloned());
    match damage {
        Some(source) if records.is_empty() => Err(Error::Damaged { object: object(), source }),
        damage => Ok(PackContents { header: header.ok(), file_len, records, damage }),
    }
}

/// Returns what is damaged, if an error says so. A place that the medium cannot read counts too: it costs this
/// pack, and must not keep anybody from the others.
fn damage_of(error: Error) -> Result<FormatError> {
    match error {
        Error::Damaged { source, .. } => Ok(source),
        Error::Storage { source, .. } if Errno::from_io_error(&source) == Some(Errno::IO) => {
            Ok(FormatError::Unreadable { reason: source.to_string() })
        }
        other => Err(other),
    }
}

/// Reads the header of a pack.
pub(crate) fn read_header(storage: &dyn Storage, id: &PackId) -> Result<PackHeader> {
    let mut bytes = [0; PackHeader::LEN];
    read(storage, id, &mut bytes, 0)?;
    PackHeader::decode(&bytes).map_err(|source| unsupported_or_damaged(id, source))
}

/// Reads the header of the record at `offset`.
pub(crate) fn read_record_header(
    storage: &dyn Storage,
    id: &PackId,
    offset: PackOffset,
) -> Result<RecordHeader> {
    let mut bytes = [0; RecordHeader::LEN];
    read(storage, id, &mut bytes, u64::from(offset.0))?;
    RecordHeader::decode(&bytes).map_err(|source| unsupported_or_damaged(id, source))
}

/// Fills `record` with the bytes at `offset`: header and payload of one or more records.
pub(crate) fn read_record(
    storage: &dyn Storage,
    id: &PackId,
    record: &mut [u8],
    offset: PackOffset,
) -> Result<()> {
    read(storage, id, record, u64::from(offset.0))
}

fn read_footer(storage: &dyn Storage, id: &PackId, file_len: u64) -> Result<PackFooter> {
    let damaged = |source| unsupported_or_damaged(id, source);
    let trailer_len = PackFooter::TRAILER_LEN as u64;
    let Some(trailer_offset) = file_len.checked_sub(trailer_len) else {
        return Err(damaged(FormatError::Truncated { field: "pack trailer" }));
    };
    let mut trailer = [0; PackFooter::TRAILER_LEN];
    read(storage, id, &mut trailer, trailer_offset)?;
    let table = PackFooter::table_range(&trailer, file_len).map_err(damaged)?;
    let len = usize::try_from(file_len.saturating_sub(table.start))
        .map_err(|_| damaged(FormatError::Truncated { field: "pack table" }))?;
    let mut bytes = vec![0; len];
    read(storage, id, &mut bytes, table.start)?;
    PackFooter::decode(&bytes, file_len).map_err(damaged)
}

/// Finds records by their headers, from the first one up to where none follows.
fn scan(storage: &dyn Storage, id: &PackId, file_len: u64) -> Result<Vec<FooterRecord>> {
    let mut records = Vec::new();
    let mut offset = PackHeader::LEN as u64;
    while records.len() < PACK_RECORD_COUNT_MAX as usize {
        let Ok(place) = u32::try_from(offset).map(PackOffset) else { break };
        let header = match read_record_header(storage, id, place) {
            Ok(header) => header,
            Err(error) => {
                damage_of(error)?;
                break;
            }
        };
        let end = offset + RecordHeader::LEN as u64 + u64::from(header.stored_len);
        if file_len < end {
            break;
        }
        records.push(FooterRecord {
            id: header.id,
            offset: place,
            plain_len: header.plain_len,
            stored_len: header.stored_len,
            kind: header.kind,
            codec: header.codec,
        });
        offset = end;
    }
    Ok(records)
}

/// Reads from a pack; a pack that ends too early is damaged, one that is not there, or is a directory, is missing.
fn read(storage: &dyn Storage, id: &PackId, buffer: &mut [u8], offset: u64) -> Result<()> {
    match storage.read_exact_at(&ObjectKey::Pack(*id), buffer, offset) {
        Err(Error::Storage { source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) =>
        {
            Err(Error::Missing { object: ObjectName::Pack(*id) })
        }
        Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => {
            let source = FormatError::Truncated { field: "pack" };
            Err(Error::Damaged { object: ObjectName::Pack(*id), source })
        }
        other => other,
    }
}

fn unsupported_or_damaged(id: &PackId, source: FormatError) -> Error {
    match source {
        FormatError::Unsupported { found, supported, .. } => {
            Error::UnsupportedFormat { object: ObjectName::Pack(*id), found, supported }
        }
        source => Error::Damaged { object: ObjectName::Pack(*id), source },
    }
}
