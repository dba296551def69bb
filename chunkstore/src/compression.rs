//! Compresses and expands one chunk.
//!
//! Document: `docs/format.md`, section "Record". A compressed chunk is exactly one zstd frame that states its
//! content size and uses no dictionary. Invariants: what [`Compressor`] returns was expanded again and hashes to its id; [`Expander`] returns
//! bytes that hash to the id or an error, and takes no memory beyond the stated plain length, which is limited.

use std::fmt;
use std::io;

use zstd::bulk;
use zstd::zstd_safe::{self, CParameter, DParameter, WriteBuf};

use crate::format::{Codec, FormatError, ObjectKind, RecordHeader};
use crate::id::ChunkId;
use crate::limits::CHUNK_LEN_MAX;

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
            expander: Expander::new(),
            expanded: Vec::new(),
        })
    }

    /// Replaces `out` by the stored form of `plain`, and returns how it is stored. Compressed bytes are
    /// shorter than `plain`; what does not shrink is copied.
    ///
    /// The result is expanded and hashed again, just as a reader does.
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
            Codec::Zstd => self.expander.expand(&header, out, &mut self.expanded),
        }
        .map_err(mismatch)?;
        Ok(codec)
    }

    /// Returns the most bytes that the contexts of a compressor take, if no chunk is longer than `chunk_len`. The
    /// buffer for what is expanded again is not in it.
    #[must_use]
    pub fn memory(level: i32, chunk_len: usize) -> usize {
        // Hash and chain table have 4 bytes for an entry, rows of the hash table 1 more.
        let tables = if level <= 4 { 5 << 20 } else { 12 << 20 };
        tables.min((2 << 20) + 16 * chunk_len)
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
        Self { context }
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
        }
        check_hash(header, out)
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
    if found != header.id {
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
mod tests {
    use super::*;

    const LEN: usize = 64 << 10;

    fn random(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        (0..len).map(|_| next()).collect()
    }

    fn text(len: usize) -> Vec<u8> {
        let words = random(len).into_iter().flat_map(|byte| format!("word{byte} ").into_bytes());
        words.take(len).collect()
    }

    fn header(codec: Codec, plain: &[u8], payload: &[u8]) -> RecordHeader {
        RecordHeader {
            kind: ObjectKind::Data,
            codec,
            id: ObjectKind::Data.chunk_id(plain),
            plain_len: len_of_chunk(plain).unwrap(),
            stored_len: len_of_chunk(payload).unwrap(),
        }
    }

    fn compress(level: i32, plain: &[u8]) -> (Codec, Vec<u8>) {
        let mut stored = vec![1, 2, 3];
        let id = ObjectKind::Data.chunk_id(plain);
        let mut compressor = Compressor::new(level).unwrap();
        let codec = compressor.compress(ObjectKind::Data, &id, plain, &mut stored).unwrap();
        (codec, stored)
    }

    /// Expands `payload` as if it were the stored form of `plain`.
    fn expand(codec: Codec, plain: &[u8], payload: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut out = vec![0xee; 100_000];
        Expander::new().expand(&header(codec, plain, payload), payload, &mut out).map(|()| out)
    }

    fn zstd_frame(plain: &[u8]) -> Vec<u8> {
        bulk::compress(plain, 1).unwrap()
    }

    #[test]
    fn chunk_expands_to_what_was_compressed() {
        let mut half = random(LEN);
        half[..LEN / 2].copy_from_slice(&text(LEN / 2));
        let repeated = random(LEN / 2).repeat(2);
        let compressible = [text(LEN), vec![0; LEN], half, repeated, vec![5; 16 << 20]];
        let incompressible = [random(LEN), random(1), random(2), random(255)];
        for level in [-7, 1, 3, 12] {
            for plain in &compressible {
                let (codec, stored) = compress(level, plain);
                // The fastest levels do not even find letters that are frequent.
                assert!(codec == Codec::Zstd || level < 0, "level {level}");
                assert!(codec == Codec::Raw || stored.len() < plain.len());
                assert!(expand(codec, plain, &stored).unwrap() == *plain);
            }
            for plain in &incompressible {
                let (codec, stored) = compress(level, plain);
                assert_eq!(codec, Codec::Raw);
                assert!(stored == *plain);
                assert!(expand(codec, plain, &stored).unwrap() == *plain);
            }
        }
    }

    #[test]
    fn denser_level_is_permitted_and_at_least_the_level() {
        for level in LEVEL_MIN..=LEVEL_MAX {
            let denser = denser_level(level);
            assert!(level <= denser && Compressor::new(denser).is_ok(), "{level}");
        }
        assert_eq!([-1, 0, 1, 2, 3, 12].map(denser_level), [-1, 0, 3, 4, 3, 12]);
    }

    #[test]
    fn level_is_checked_at_its_limits() {
        for level in [LEVEL_MIN, 0, LEVEL_DEFAULT, LEVEL_MAX] {
            assert!(Compressor::new(level).is_ok());
        }
        for level in [LEVEL_MIN - 1, LEVEL_MAX + 1, 22, i32::MIN, i32::MAX] {
            assert!(matches!(Compressor::new(level), Err(CompressionError::Level { .. })));
        }
    }

    #[test]
    fn chunk_that_is_not_what_was_hashed_is_not_stored() {
        let mut compressor = Compressor::new(1).unwrap();
        for plain in [text(LEN), random(LEN)] {
            let mut flipped = plain.clone();
            flipped[1000] ^= 1;
            let id = ObjectKind::Data.chunk_id(&plain);
            let mut out = Vec::new();
            let result = compressor.compress(ObjectKind::Data, &id, &flipped, &mut out);
            assert!(matches!(result, Err(CompressionError::Mismatch { .. })));
            assert!(compressor.compress(ObjectKind::Data, &id, &plain, &mut out).is_ok());
            let result = compressor.compress(ObjectKind::Page, &id, &plain, &mut out);
            assert!(matches!(result, Err(CompressionError::Mismatch { .. })));
        }
    }

    #[test]
    fn frame_is_all_of_the_payload() {
        let plain = text(5000);
        let frame = zstd_frame(&plain);
        assert!(expand(Codec::Zstd, &plain, &frame).unwrap() == plain);
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 1];
        let trailing = |more: &[u8]| expand(Codec::Zstd, &plain, &[&frame[..], more].concat());
        for more in [&[0][..], &skippable, &frame, &zstd_frame(b"")] {
            let expected =
                FormatError::TrailingBytes { structure: "zstd frame", count: more.len() as u64 };
            assert_eq!(trailing(more), Err(expected));
        }
        let leading = expand(Codec::Zstd, &plain, &[&skippable[..], &frame].concat());
        assert!(matches!(leading, Err(FormatError::Compression { .. })));
        for len in 0..frame.len() {
            assert!(expand(Codec::Zstd, &plain, &frame[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn frame_of_another_length_is_refused() {
        let plain = text(5000);
        for other in [text(4999), text(5001), Vec::new(), vec![0; 64 << 20]] {
            let result = expand(Codec::Zstd, &plain, &zstd_frame(&other));
            assert!(matches!(result, Err(FormatError::Compression { .. })));
        }
        // A frame that says nothing about its length, as a stream encoder writes it.
        let unsized_frame = zstd::stream::encode_all(&plain[..], 1).unwrap();
        let result = expand(Codec::Zstd, &plain, &unsized_frame);
        assert!(matches!(result, Err(FormatError::Compression { .. })));
    }

    #[test]
    fn frame_that_lies_about_its_length_is_refused() {
        let bomb = zstd_frame(&vec![0; 4 << 20]);
        // One byte of descriptor, one for the window, then four bytes of content size.
        assert_eq!((bomb[4], &bomb[6..10]), (0b1000_0000, &(4_u32 << 20).to_le_bytes()[..]));
        let plain = vec![0; 5 << 16];
        let mut lying = bomb;
        lying[6..10].copy_from_slice(&(5_u32 << 16).to_le_bytes());
        let result = expand(Codec::Zstd, &plain, &lying);
        assert!(matches!(result, Err(FormatError::Compression { .. })));
        lying[6..10].copy_from_slice(&(16_u32 << 20).to_le_bytes());
        let result = expand(Codec::Zstd, &vec![0; 16 << 20], &lying);
        assert!(matches!(result, Err(FormatError::Compression { .. })));
    }

    #[test]
    fn frame_that_needs_a_dictionary_is_refused() {
        let plain = text(5000);
        let mut frame = zstd_frame(&plain);
        // Two flag bits of the descriptor say how long the dictionary id is that follows.
        assert_eq!(frame[4] & 0b11, 0);
        frame[4] |= 1;
        frame.insert(5, 77);
        let expected = FormatError::Compression { reason: "it needs a dictionary".to_owned() };
        assert_eq!(expand(Codec::Zstd, &plain, &frame), Err(expected));
    }

    #[test]
    fn flipped_bit_never_gives_other_bytes() {
        let plain = text(2000);
        let frame = zstd_frame(&plain);
        for place in 0..frame.len() {
            for bit in 0..8 {
                let mut flipped = frame.clone();
                flipped[place] ^= 1 << bit;
                if let Ok(out) = expand(Codec::Zstd, &plain, &flipped) {
                    assert!(out == plain, "bit {bit} of byte {place}");
                }
            }
        }
        let mut raw = plain.clone();
        raw[7] ^= 1;
        assert!(matches!(expand(Codec::Raw, &plain, &raw), Err(FormatError::WrongHash { .. })));
    }

    #[test]
    fn lengths_are_checked_before_anything_else() {
        let plain = text(100);
        let good = header(Codec::Raw, &plain, &plain);
        let mut out = Vec::new();
        let mut expand = |header: RecordHeader, payload: &[u8]| {
            Expander::new().expand(&header, payload, &mut out)
        };
        assert_eq!(expand(good, &plain), Ok(()));
        let result = expand(RecordHeader { plain_len: 0, ..good }, &plain);
        assert!(matches!(result, Err(FormatError::OutOfRange { .. })));
        let result = expand(RecordHeader { plain_len: CHUNK_LEN_MAX + 1, ..good }, &plain);
        assert!(matches!(result, Err(FormatError::OutOfRange { .. })));
        let result = expand(good, &plain[1..]);
        assert!(matches!(result, Err(FormatError::Inconsistent { .. })));
        let result = expand(RecordHeader { plain_len: 99, ..good }, &plain);
        assert!(matches!(result, Err(FormatError::Inconsistent { .. })));
    }
}
