//! Compresses and expands one chunk.
//!
//! Document: `docs/format.md`, sections "Record" and "Points". A compressed chunk is exactly one zstd frame that states its
//! content size and uses no dictionary. Invariants: what [`Compressor`] returns was expanded again and hashes to its id; [`Expander`] returns
//! bytes that hash to the id or an error, and takes no memory beyond the stated plain length, which is limited.

pub mod columns;
mod points;

use std::fmt;
use std::io;
use std::mem;

use zstd::bulk;
use zstd::zstd_safe::{self, CParameter, DParameter, WriteBuf};

use self::points::PointCompressor;
use crate::format::{Codec, FormatError, ObjectKind, POINT_LEN, RecordHeader, Transform};
use crate::id::ChunkId;
use crate::limits::CHUNK_LEN_MAX;
use crate::planted::{Bug, has};

/// Level of a store that asks for no other.
pub const LEVEL_DEFAULT: i32 = 1;
const LEVEL_MIN: i32 = -7;
/// Beyond it a chunk takes many times as long and a context many times the memory, for a few percent.
const LEVEL_MAX: i32 = 12;

/// Highest level that gives up quickly on data that does not shrink: for 64 KiB of random bytes, level 1 takes
/// 11 us, level 9 takes 31 us, level 12 takes 130 us, and the hash takes 13 us. A sample of 4 KiB would take 3 us, but
/// would miss what repeats at a distance. So higher levels first try the whole chunk at level 1.
const LEVEL_WITHOUT_TRIAL_MAX: i32 = 9;
const TRIAL_LEVEL: i32 = 1;

/// From this level on the tables of the compressor would grow with long chunks, to 72 MiB at level 12. They are
/// kept at this base-two logarithm of their entries, which chunks below 1 MiB do not reach.
const LEVEL_OF_LARGE_TABLES_MIN: i32 = 9;
const TABLE_LOG_MAX: u32 = 20;

/// Levels by which the few new chunks of a mostly known image are compressed higher.
const DENSER_BY: i32 = 2;
/// Highest level that new chunks are raised to: beyond it the tables of the compressor take more memory.
const DENSER_LEVEL_MAX: i32 = 4;

/// Returns the level for new chunks of an image that the store mostly has: they are few, so their time counts less than
/// their bytes, which stay. Levels below 1 ask for speed before all, and higher ones have traded time for bytes already, so
/// they remain what they are.
#[must_use]
pub const fn denser_level(level: i32) -> i32 {
    if level < 1 || DENSER_LEVEL_MAX < level + DENSER_BY { level } else { level + DENSER_BY }
}

/// Base-two logarithm of the largest window that a frame may ask for: that of the longest chunk.
const WINDOW_LOG_MAX: u32 = CHUNK_LEN_MAX.ilog2();
const FRAME_MAGIC: [u8; 4] = zstd_safe::MAGICNUMBER.to_le_bytes();

/// Why a chunk cannot be compressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// The level is not one that a store may use.
    #[error("compression level is {level}, expected {LEVEL_MIN} to {LEVEL_MAX}")]
    Level {
        /// What was asked for.
        level: i32,
    },
    /// The compressor failed, which it does for want of memory only.
    #[error("cannot compress {len} bytes")]
    Encoder {
        /// Length of the chunk in bytes.
        len: usize,
        /// What it said.
        source: io::Error,
    },
    /// What was compressed does not expand to the chunk: a bug, or memory that cannot be relied upon.
    #[error("chunk {id} does not expand to what was compressed")]
    Mismatch {
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it.
        source: FormatError,
    },
}

/// Compresses chunks, one after another, with contexts that are made once.
pub struct Compressor {
    level: i32,
    context: bulk::Compressor<'static>,
    trial: Option<bulk::Compressor<'static>>,
    points: Option<PointCompressor>,
    /// A second stored form, to compare lengths.
    other: Vec<u8>,
    expander: Expander,
    expanded: Vec<u8>,
}

impl Compressor {
    /// Gets ready to compress with this level, -7 to 12.
    ///
    /// # Errors
    ///
    /// - [`CompressionError::Level`] if the level is outside of that.
    /// - [`CompressionError::Encoder`] if there is no memory.
    pub fn new(level: i32) -> Result<Self, CompressionError> {
        if !(LEVEL_MIN..=LEVEL_MAX).contains(&level) {
            return Err(CompressionError::Level { level });
        }
        let context = |level| {
            let new_context = || {
                let mut context = bulk::Compressor::new(level)?;
                context.set_parameter(CParameter::ContentSizeFlag(true))?;
                context.set_parameter(CParameter::ChecksumFlag(false))?;
                if LEVEL_OF_LARGE_TABLES_MIN <= level {
                    context.set_parameter(CParameter::HashLog(TABLE_LOG_MAX))?;
                    context.set_parameter(CParameter::ChainLog(TABLE_LOG_MAX))?;
                }
                Ok(context)
            };
            new_context().map_err(|source| CompressionError::Encoder { len: 0, source })
        };
        let has_trial = level > LEVEL_WITHOUT_TRIAL_MAX;
        Ok(Self {
            level,
            context: context(level)?,
            trial: has_trial.then(|| context(TRIAL_LEVEL)).transpose()?,
            points: None,
            other: Vec::new(),
            expander: Expander::new(),
            expanded: Vec::new(),
        })
    }

    /// Replaces `out` by the stored form of `plain`, and returns how it is stored. Compressed bytes are
    /// shorter than `plain`; what does not shrink is copied.
    ///
    /// The result is expanded and hashed again, as a reader does.
    ///
    /// # Errors
    ///
    /// - [`CompressionError::Encoder`] if there is no memory.
    /// - [`CompressionError::Mismatch`] if the result does not expand to bytes with this id. It must not
    ///   be stored.
    pub fn compress(
        &mut self,
        kind: ObjectKind,
        id: &ChunkId,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Codec, CompressionError> {
        let codec = self
            .encode(plain, out)
            .map_err(|source| CompressionError::Encoder { len: plain.len(), source })?;
        self.check(kind, id, plain, codec, out)?;
        Ok(codec)
    }

    /// As [`Self::compress`], for chunks of points of whisper files: what shrinks more as columns is stored so. Any bytes may be
    /// given; those that are no whole number of points are compressed as general data.
    ///
    /// # Errors
    ///
    /// As [`Self::compress`].
    pub fn compress_points(
        &mut self,
        kind: ObjectKind,
        id: &ChunkId,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Codec, CompressionError> {
        let codec = self
            .encode_points(plain, out)
            .map_err(|source| CompressionError::Encoder { len: plain.len(), source })?;
        self.check(kind, id, plain, codec, out)?;
        Ok(codec)
    }

    /// Returns the most bytes that [`Self::compress_points`] takes in addition, once it was called, if no chunk is longer
    /// than `chunk_len`.
    #[must_use]
    pub fn points_memory(chunk_len: usize) -> usize {
        // Columns twice, the other form, the input that zstd keeps; its tables and its buffer for a block.
        4 * chunk_len + (1 << 20)
    }

    /// Expands what was made, just as a reader does.
    fn check(
        &mut self,
        kind: ObjectKind,
        id: &ChunkId,
        plain: &[u8],
        codec: Codec,
        out: &[u8],
    ) -> Result<(), CompressionError> {
        let mismatch = |source| CompressionError::Mismatch { id: *id, source };
        let header = RecordHeader {
            kind,
            codec,
            id: *id,
            plain_len: len_of_chunk(plain).map_err(mismatch)?,
            stored_len: len_of_chunk(out).map_err(mismatch)?,
        };
        match codec {
            // It is what a reader will hash, without another copy.
            Codec::Raw => check_hash(&header, out),
            Codec::Zstd | Codec::Points => self.expander.expand(&header, out, &mut self.expanded),
        }
        .map_err(mismatch)
    }

    /// Returns the most bytes that the contexts of a compressor take, if no chunk is longer than `chunk_len`. The
    /// buffer for what is expanded again is not in it, nor is what [`Self::points_memory`] tells.
    #[must_use]
    pub fn memory(level: i32, chunk_len: usize) -> usize {
        // Hash and chain table have 4 bytes for an entry, rows of the hash table 1 more.
        let tables = if level <= 4 { 5 << 20 } else { 12 << 20 };
        tables.min((2 << 20) + 16 * chunk_len)
    }

    /// As [`Self::encode`], for points: the shorter of two forms, where it is not clear which one that is.
    fn encode_points(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<Codec> {
        if plain.is_empty() || !plain.len().is_multiple_of(POINT_LEN) {
            return self.encode(plain, out);
        }
        let points = match &mut self.points {
            Some(points) => points,
            none => none.insert(PointCompressor::new(self.level)?),
        };
        let is_regular = points.encode(plain, out)?;
        if is_regular && out.len() < plain.len() {
            return Ok(Codec::Points);
        }
        let mut other = mem::take(&mut self.other);
        let codec = self.encode(plain, &mut other);
        let is_shorter = other.len() <= out.len();
        if is_shorter {
            mem::swap(out, &mut other);
        }
        self.other = other;
        codec.map(|codec| if is_shorter { codec } else { Codec::Points })
    }

    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<Codec> {
        out.clear();
        out.reserve(zstd_safe::compress_bound(plain.len()));
        let mut shrinks = true;
        if let Some(trial) = &mut self.trial {
            shrinks = trial.compress_to_buffer(plain, out)? < plain.len();
            out.clear();
        }
        if shrinks && self.context.compress_to_buffer(plain, out)? < plain.len() {
            return Ok(Codec::Zstd);
        }
        out.clear();
        out.extend_from_slice(plain);
        Ok(Codec::Raw)
    }
}

/// Returns the most bytes that the stored form of `plain_len` bytes takes while it is made.
#[must_use]
pub fn stored_len_max(plain_len: usize) -> usize {
    zstd_safe::compress_bound(plain_len)
}

impl fmt::Debug for Compressor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Compressor(level {})", self.level)
    }
}

/// Expands chunks, one after another, with a context that is made once.
pub struct Expander {
    context: bulk::Decompressor<'static>,
    /// What a frame of columns expands to.
    columns: Vec<u8>,
}

impl Expander {
    /// Gets ready to expand.
    ///
    /// # Panics
    ///
    /// If there is no memory for the context, as every allocation does.
    #[must_use]
    pub fn new() -> Self {
        let mut context = bulk::Decompressor::new().expect("a context without dictionary is made");
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .expect("the window of the longest chunk is within the limits of zstd");
        Self { context, columns: Vec::new() }
    }

    /// Replaces `out` by the plain bytes of the record with this header and payload. What `out` holds after an
    /// error is not specified.
    ///
    /// # Errors
    ///
    /// - [`FormatError::OutOfRange`] if the plain length is none of a chunk.
    /// - [`FormatError::Inconsistent`] if a length differs from that in the header.
    /// - [`FormatError::TrailingBytes`] if something follows the compressed chunk.
    /// - [`FormatError::Compression`] if the payload is not one complete frame as this program writes it.
    /// - [`FormatError::WrongHash`] if the plain bytes do not have the id of the header.
    pub fn expand(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let plain_len = check_lengths(header, payload)?;
        // Room that zstd or the copy fills is not cleared before: that would cost a twentieth of a read.
        out.clear();
        out.reserve_exact(plain_len);
        match header.codec {
            Codec::Raw => out.extend_from_slice(payload),
            Codec::Zstd => self.expand_frame(header.plain_len, payload, out)?,
            Codec::Points => {
                out.resize(plain_len, 0);
                self.expand_points(header.plain_len, payload, out)?;
            }
        }
        check_hash(header, out)
    }

    /// Fills `out`, which must be as long as the plain chunk, like [`Self::expand`].
    ///
    /// # Errors
    ///
    /// As [`Self::expand`]; [`FormatError::Inconsistent`] also if `out` has another length.
    pub fn expand_into(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<(), FormatError> {
        if check_lengths(header, payload)? != out.len() {
            return Err(FormatError::Inconsistent { what: "plain_len is not what was expected" });
        }
        match header.codec {
            Codec::Raw => out.copy_from_slice(payload),
            Codec::Zstd => self.expand_frame(header.plain_len, payload, out)?,
            Codec::Points => self.expand_points(header.plain_len, payload, out)?,
        }
        check_hash(header, out)
    }

    fn expand_points(
        &mut self,
        plain_len: u32,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<(), FormatError> {
        let Some((transform, frame)) = payload.split_first() else {
            return Err(FormatError::Truncated { field: "transform" });
        };
        let transform = Transform::from_byte(*transform)?;
        if !out.len().is_multiple_of(POINT_LEN) {
            let what = "plain_len is no whole number of points";
            return Err(FormatError::Inconsistent { what });
        }
        let mut planes = mem::take(&mut self.columns);
        planes.clear();
        planes.reserve_exact(out.len());
        let result = self.expand_frame(plain_len, frame, &mut planes);
        if result.is_ok() {
            columns::join(transform, &planes, out);
        }
        self.columns = planes;
        result
    }

    fn expand_frame<B: WriteBuf + ?Sized>(
        &mut self,
        plain_len: u32,
        frame: &[u8],
        out: &mut B,
    ) -> Result<(), FormatError> {
        check_frame(plain_len, frame)?;
        let written = self
            .context
            .decompress_to_buffer(frame, out)
            .map_err(|error| FormatError::Compression { reason: error.to_string() })?;
        if u32::try_from(written) != Ok(plain_len) {
            return Err(refused("it expands to fewer bytes than it says"));
        }
        Ok(())
    }
}

/// Returns the plain length, before memory is taken for it, if the lengths of a record agree.
fn check_lengths(header: &RecordHeader, payload: &[u8]) -> Result<usize, FormatError> {
    if header.plain_len == 0 || header.plain_len > CHUNK_LEN_MAX {
        return Err(FormatError::out_of_range("plain_len", header.plain_len, "1 B to 16 MiB"));
    }
    if u32::try_from(payload.len()) != Ok(header.stored_len) {
        return Err(FormatError::Inconsistent { what: "payload and stored_len differ" });
    }
    if header.codec == Codec::Raw && header.stored_len != header.plain_len {
        return Err(FormatError::Inconsistent { what: "stored_len and plain_len differ" });
    }
    usize::try_from(header.plain_len).map_err(|_| refused("it is too long"))
}

impl Default for Expander {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Expander {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Expander")
    }
}

/// Checks that plain bytes have the id of the header.
fn check_hash(header: &RecordHeader, plain: &[u8]) -> Result<(), FormatError> {
    let found = header.kind.chunk_id(plain);
    if found != header.id && !has(Bug::ChunkUnhashed) {
        return Err(FormatError::WrongHash { found: found.to_string() });
    }
    Ok(())
}

/// Checks that `frame` is one frame, not a skippable one, without dictionary, of `plain_len` bytes. Left to
/// itself, the decoder would also take several frames, skip over foreign ones, and ignore how many there were.
fn check_frame(plain_len: u32, frame: &[u8]) -> Result<(), FormatError> {
    if !frame.starts_with(&FRAME_MAGIC) {
        return Err(refused("it does not begin with a zstd frame"));
    }
    if zstd_safe::get_dict_id_from_frame(frame).is_some() {
        return Err(refused("it needs a dictionary"));
    }
    match zstd_safe::get_frame_content_size(frame) {
        Ok(Some(content_len)) if content_len == u64::from(plain_len) => {}
        Ok(_) => return Err(refused("its content size is not the plain length")),
        Err(_) => return Err(refused("its frame header is damaged")),
    }
    let frame_len = zstd_safe::find_frame_compressed_size(frame)
        .map_err(|code| refused(zstd_safe::get_error_name(code)))?;
    match frame.len().checked_sub(frame_len) {
        Some(0) => Ok(()),
        Some(count) => {
            Err(FormatError::TrailingBytes { structure: "zstd frame", count: count as u64 })
        }
        None => Err(FormatError::Truncated { field: "zstd frame" }),
    }
}

fn refused(reason: &str) -> FormatError {
    FormatError::Compression { reason: reason.to_owned() }
}

/// Returns the length of plain or stored bytes, neither of which is ever longer than a `u32` can count.
fn len_of_chunk(bytes: &[u8]) -> Result<u32, FormatError> {
    u32::try_from(bytes.len())
        .map_err(|_| FormatError::out_of_range("plain_len", bytes.len() as u64, "1 B to 16 MiB"))
}

#[cfg(test)]
mod tests;
