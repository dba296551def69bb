//! Document: a JSON body in an envelope with magic, version and checksum.
//!
//! Layout: `docs/format.md`, section "Document". Every byte of a document is fixed or covered by the checksum, so
//! a changed byte is always noticed, although people can read the file and `b3sum` can check it. The
//! checksum is over the bytes of the body as they stand: nothing is serialised again to check it. That of version 1 is over
//! the body only; those of later versions are over the version, too, so that a flipped digit is no newer version.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::format::{ByteReader, FormatError};
use crate::limits::DOCUMENT_LEN_MAX;
use crate::planted::{Bug, has};

const MAGIC_KEY: &[u8] = b"{\"magic\":\"";
const VERSION_KEY: &[u8] = b"\",\"version\":";
const CHECKSUM_KEY: &[u8] = b",\"checksum\":\"";
const BODY_KEY: &[u8] = b"\",\"body\":";
const END: &[u8] = b"}\n";
const CHECKSUM_DIGITS: usize = 64;
/// A version has at most as many digits as a `u32`.
const VERSION_DIGITS_MAX: usize = 10;

/// Returns the stored form of `body`.
///
/// # Panics
///
/// If the document is longer than [`DOCUMENT_LEN_MAX`]: nobody could read it again, so it must not be
/// written. Also if `body` has a map whose keys are not text.
#[must_use]
pub fn encode_document<T: Serialize>(magic: &'static str, version: u32, body: &T) -> Vec<u8> {
    let body = serde_json::to_vec(body).expect("bodies of documents have text for keys");
    let checksum = checksum(version, &body).to_hex();
    let version = version.to_string();
    let document = [
        MAGIC_KEY,
        magic.as_bytes(),
        VERSION_KEY,
        version.as_bytes(),
        CHECKSUM_KEY,
        checksum.as_bytes(),
        BODY_KEY,
        &body,
        END,
    ]
    .concat();
    assert!(fits(&document), "a {magic} document is longer than 1 MiB");
    document
}

/// Reads a body from the bytes of a document. Members of the body that this program does not know
/// are passed over.
///
/// # Errors
///
/// - [`FormatError::OutOfRange`] if it is longer than [`DOCUMENT_LEN_MAX`].
/// - [`FormatError::WrongMagic`] if it is another kind of document, or none.
/// - [`FormatError::Unsupported`] if a newer program wrote it.
/// - [`FormatError::WrongChecksum`] if a byte of the body, or of the version, was changed.
/// - [`FormatError::Truncated`] or [`FormatError::TrailingBytes`] if it is cut off or has more bytes.
/// - [`FormatError::Document`] if the envelope or the body is not what it must be.
pub fn decode_document<T: DeserializeOwned>(
    magic: &'static str,
    version_max: u32,
    bytes: &[u8],
) -> Result<T, FormatError> {
    if !fits(bytes) {
        let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        return Err(FormatError::out_of_range("document length", found, "at most 1 MiB"));
    }
    let body = checked_body(magic, version_max, bytes)?;
    serde_json::from_slice(body)
        .map_err(|error| FormatError::Document { reason: error.to_string() })
}

/// Returns the bytes of the body once everything around it is right.
fn checked_body<'a>(
    magic: &'static str,
    version_max: u32,
    bytes: &'a [u8],
) -> Result<&'a [u8], FormatError> {
    let mut input = ByteReader::new(bytes);
    let start = [MAGIC_KEY, magic.as_bytes(), VERSION_KEY].concat();
    if input.take(start.len(), "magic")? != start {
        return Err(FormatError::WrongMagic { expected: magic });
    }
    let version = version(&mut input)?;
    expect(&mut input, CHECKSUM_KEY)?;
    let stored_checksum = input.take(CHECKSUM_DIGITS, "checksum")?;
    expect(&mut input, BODY_KEY)?;
    let body_len =
        input.remaining().checked_sub(END.len()).ok_or(FormatError::Truncated { field: "body" })?;
    let body = input.take(body_len, "body")?;
    let is_right = stored_checksum == checksum(version, body).to_hex().as_bytes();
    if !is_right && !has(Bug::DocumentUnchecked) {
        return Err(FormatError::WrongChecksum { structure: magic });
    }
    expect(&mut input, END)?;
    input.finish(magic)?;
    // Last of all: what is damaged is not taken for something that a newer program wrote.
    if version_max < version {
        return Err(FormatError::Unsupported {
            structure: magic,
            found: version,
            supported: version_max,
        });
    }
    Ok(body)
}

/// Returns the checksum that a document of this version has.
fn checksum(version: u32, body: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    if version != 1 {
        hasher.update(version.to_string().as_bytes());
    }
    hasher.update(body).finalize()
}

/// Takes a decimal number without leading zeros.
fn version(input: &mut ByteReader<'_>) -> Result<u32, FormatError> {
    let mut rest = input.clone();
    let mut digits = String::new();
    while digits.len() <= VERSION_DIGITS_MAX {
        match rest.u8("version")? {
            digit @ b'0'..=b'9' => digits.push(char::from(digit)),
            _ => break,
        }
    }
    input.take(digits.len(), "version")?;
    let version = digits.parse().ok().filter(|_| !digits.starts_with('0'));
    version.ok_or_else(|| FormatError::Document { reason: "the version is not a number".into() })
}

fn expect(input: &mut ByteReader<'_>, text: &'static [u8]) -> Result<(), FormatError> {
    if input.take(text.len(), "envelope")? == text {
        return Ok(());
    }
    let expected = String::from_utf8_lossy(text);
    Err(FormatError::Document { reason: format!("{expected:?} is not where it must be") })
}

fn fits(document: &[u8]) -> bool {
    u64::try_from(document.len()).is_ok_and(|len| len <= DOCUMENT_LEN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected};

    const MAGIC: &str = "chunkstore example";

    fn decode(bytes: &[u8]) -> Result<Vec<String>, FormatError> {
        decode_document(MAGIC, 12, bytes)
    }

    /// Returns a document of version 1 with this text for its version.
    fn with_version(version: &str) -> Vec<u8> {
        let text = String::from_utf8(encode_document(MAGIC, 1, &["a"])).unwrap();
        text.replace("\"version\":1,", &format!("\"version\":{version},")).into_bytes()
    }

    #[test]
    fn envelope_is_as_documented() {
        let document = String::from_utf8(encode_document(MAGIC, 1, &["a"])).unwrap();
        let checksum = blake3::hash(b"[\"a\"]").to_hex();
        let expected = format!(
            "{{\"magic\":\"chunkstore example\",\"version\":1,\"checksum\":\"{checksum}\",\
             \"body\":[\"a\"]}}\n"
        );
        assert_eq!(document, expected);
        let json: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(json.get("version"), Some(&1.into()));
    }

    #[test]
    fn document_reads_back() {
        let body = vec![String::new(), "\"}\n".to_owned(), "\u{e4}".to_owned()];
        assert_eq!(decode(&encode_document(MAGIC, 1, &body)), Ok(body));
    }

    #[test]
    fn damaged_document_is_rejected() {
        let document = encode_document(MAGIC, 1, &["some", "text"]);
        assert_flips_rejected(&document, |bytes| decode_document::<Vec<String>>(MAGIC, 1, bytes));
        assert_exact_length(&document, decode);
    }

    #[test]
    fn newer_version_is_refused_if_its_checksum_is_right() {
        let newer = |version| encode_document(MAGIC, version, &["a"]);
        assert!(decode(&newer(12)).is_ok());
        for version in [13, u32::MAX] {
            let unsupported =
                FormatError::Unsupported { structure: MAGIC, found: version, supported: 12 };
            assert_eq!(decode(&newer(version)), Err(unsupported));
        }
        let mut longer = newer(13);
        longer.push(b'\n');
        let mut shorter = newer(13);
        shorter.truncate(shorter.len() - 5);
        for damaged in [longer, shorter] {
            let error = decode(&damaged).unwrap_err();
            assert!(!matches!(error, FormatError::Unsupported { .. }), "{error}");
        }
        assert_flips_rejected(&newer(7), decode);
    }

    #[test]
    fn flipped_version_is_damage_and_no_newer_version() {
        for version in ["0", "2", "3", "5", "9", "12", "13", "4294967295"] {
            let error = decode(&with_version(version)).unwrap_err();
            assert!(!matches!(error, FormatError::Unsupported { .. }), "{version}: {error}");
        }
    }

    #[test]
    fn version_that_is_no_plain_number_is_rejected() {
        for version in ["", "0", "01", "-1", "+1", "1.0", " 1", "4294967296", "11111111111111"] {
            let result = decode(&with_version(version));
            assert!(matches!(result, Err(FormatError::Document { .. })), "{version:?}: {result:?}");
        }
    }

    #[test]
    fn other_kind_of_document_is_rejected() {
        let document = encode_document("chunkstore revision", 1, &["a"]);
        assert_eq!(decode(&document), Err(FormatError::WrongMagic { expected: MAGIC }));
        assert!(decode(b"").is_err());
    }

    #[test]
    fn length_is_checked_at_its_limit() {
        let empty = encode_document(MAGIC, 1, &[""]).len();
        let limit = usize::try_from(DOCUMENT_LEN_MAX).unwrap();
        let body = |len: usize| vec!["x".repeat(len - empty)];
        for len in [limit - 1, limit] {
            let document = encode_document(MAGIC, 1, &body(len));
            assert_eq!(document.len(), len);
            assert_eq!(decode(&document), Ok(body(len)));
        }
        let mut longer = encode_document(MAGIC, 1, &body(limit));
        longer.push(b'\n');
        assert!(matches!(decode(&longer), Err(FormatError::OutOfRange { .. })));
    }

    #[test]
    #[should_panic(expected = "longer than 1 MiB")]
    fn document_that_nobody_could_read_is_not_written() {
        let limit = usize::try_from(DOCUMENT_LEN_MAX).unwrap();
        drop(encode_document(MAGIC, 1, &["x".repeat(limit)]));
    }

    #[test]
    fn deep_nesting_is_rejected() {
        let depth = 100_000;
        let body = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let checksum = blake3::hash(body.as_bytes()).to_hex();
        let document = format!(
            "{{\"magic\":\"{MAGIC}\",\"version\":1,\"checksum\":\"{checksum}\",\"body\":{body}}}\n"
        );
        let result = decode_document::<serde_json::Value>(MAGIC, 1, document.as_bytes());
        assert!(matches!(result, Err(FormatError::Document { .. })), "{result:?}");
    }
}
