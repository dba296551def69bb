//! Identifiers: fixed-size newtypes that are written as lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::NAME_LEN_MAX;

/// Why a text is not an identifier or a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// The text does not consist of exactly the expected number of lower-case hexadecimal digits.
    #[error("not {expected} lower-case hexadecimal digits: {text:?}")]
    NotHex {
        /// How many digits were expected.
        expected: usize,
        /// What was found, shortened.
        text: String,
    },
    /// The text is not a permitted name of a source.
    #[error(
        "not a name: {text:?} (1 to 255 of A-Z a-z 0-9 . _ -, and neither '.' nor '-' at the start)"
    )]
    NotAName {
        /// What was found, shortened.
        text: String,
    },
}

/// Appends the lower-case hexadecimal form of `bytes`.
fn write_hex(bytes: &[u8], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let not_hex =
        || ParseIdError::NotHex { expected: 2 * N, text: text.chars().take(80).collect() };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(not_hex());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |symbol: u8| match symbol {
            b'0'..=b'9' => Some(symbol - b'0'),
            b'a'..=b'f' => Some(symbol - b'a' + 10),
            _ => None,
        };
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return Err(not_hex());
        };
        *byte = high << 4 | low;
    }
    Ok(bytes)
}

macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident, $len:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Returns the identifier with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, formatter)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier!(
    /// Name of a chunk: BLAKE3-256 of its plain bytes, in a context of its own for every kind of
    /// object (see [`crate::format::ObjectKind`]). For a data chunk it is what `b3sum` prints.
    ChunkId,
    32
);
identifier!(
    /// Name of a pack: BLAKE3-256 of the whole file.
    PackId,
    32
);
identifier!(
    /// Name of a quarantine file: BLAKE3-256 of the whole file.
    QuarantineId,
    32
);
identifier!(
    /// Name of a revision: 128 random bits.
    RevisionId,
    16
);
identifier!(
    /// Name of a store: 128 random bits, in the header of each of its packs.
    StoreId,
    16
);
identifier!(
    /// Name of a session: 128 random bits, in the header of each pack that it wrote.
    SessionId,
    16
);
identifier!(
    /// Name of an overlay: 128 random bits, in its header and in each page of its map.
    OverlayId,
    16
);

/// Name of a source: 1 to 255 bytes of `[A-Za-z0-9._-]`, without `.` or `-` at the start.
///
/// It is also the name of a directory and of a lock, so no other text is ever accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SourceName(String);

impl SourceName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for SourceName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let permitted = |symbol: u8| symbol.is_ascii_alphanumeric() || b"._-".contains(&symbol);
        let starts_well = !text.starts_with(['.', '-']);
        let fits = !text.is_empty() && text.len() <= NAME_LEN_MAX;
        if !fits || !starts_well || !text.bytes().all(permitted) {
            return Err(ParseIdError::NotAName { text: text.chars().take(80).collect() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for SourceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_prints_as_lower_case_hex_and_reads_back() {
        let id = SessionId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
    }

    #[test]
    fn id_of_wrong_length_or_case_is_rejected() {
        assert!("ab".parse::<SessionId>().is_err());
        assert!("AB".repeat(16).parse::<SessionId>().is_err());
        assert!("0g".repeat(16).parse::<SessionId>().is_err());
    }

    #[test]
    fn name_is_checked_at_its_limits() {
        assert!("a".repeat(NAME_LEN_MAX).parse::<SourceName>().is_ok());
        assert!("a".repeat(NAME_LEN_MAX + 1).parse::<SourceName>().is_err());
        for bad in ["", ".", "..", "-rf", "a/b", "a b", "\u{e4}", "a\0"] {
            assert!(bad.parse::<SourceName>().is_err(), "{bad:?}");
        }
        assert!("vm-1.example_0".parse::<SourceName>().is_ok());
    }
}
