//! The revision language: how people and scripts name revisions of a history.
//!
//! Grammar, from the loosest binding to the tightest; spaces between words are free:
//!
//! ```text
//! spec   = both { "," both }              union, the order of the left side first
//! both   = range { "&" range }            intersection, in the order of the left side
//! range  = single | [single] ".." [single]   in the order of the history; sides may be swapped
//! single = "(" spec ")" | ("first" | "last" | "not" | "reverse") "(" spec ")" | word
//! word   = number from the newest | id | prefix of an id | "latest" | "last" | "first"
//!        | "all" | "clean" | "tag:" tag | "trust:" trust | date (only beside "..")
//!        | "local" | "remote" | "server:" name
//! ```
//!
//! All revisions of a store are complete and local. So `clean` and `local` are all of them, as in scripts for stores where others
//! exist; `remote` and `server:NAME` are none.
//!
//! Pure: the history is a slice of [`Candidate`], oldest first, and the time zone of dates is an argument.
//! Neither parsing nor selecting panics on any input; depth and length are bounded.

use jiff::civil;
use jiff::tz::TimeZone;

use crate::format::Trust;
use crate::id::RevisionId;
use crate::limits::NAME_LEN_MAX;
use crate::time::Timestamp;

mod days;
mod evaluate;
mod parse;

pub use days::Days;

/// Longest text of a specification in bytes.
pub const SPEC_LEN_MAX: usize = 4096;

/// Most parentheses around a part of a specification.
pub const SPEC_DEPTH_MAX: usize = 32;

/// Fewest characters of an id that name a revision.
pub const ID_PREFIX_LEN_MIN: usize = 4;

/// Most digits of a number. A longer run of digits is the prefix of an id.
pub const NUMBER_LEN_MAX: usize = 9;

/// Returns whether `tag:` and this text names a tag: 1 to 255 bytes of `A-Z a-z 0-9 : . _ - + @ / =`, without `..`.
#[must_use]
pub fn is_tag_word(text: &str) -> bool {
    let permitted = |symbol: u8| symbol.is_ascii_alphanumeric() || b":._-+@/=".contains(&symbol);
    !text.is_empty()
        && text.len() <= NAME_LEN_MAX
        && text.bytes().all(permitted)
        && !text.contains("..")
}

/// What a specification looks at in a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: RevisionId,
    /// When it was made.
    pub time: Timestamp,
    /// Its tags.
    pub tags: Vec<String>,
    /// How far it is trusted.
    pub trust: Trust,
}

/// Why a specification cannot be read, or names nothing in a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The text is longer than [`SPEC_LEN_MAX`].
    #[error("a revision specification has at most {SPEC_LEN_MAX} bytes, this one has {len}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// More than [`SPEC_DEPTH_MAX`] parentheses are open at once.
    #[error("more than {SPEC_DEPTH_MAX} parentheses are open in a revision specification")]
    TooDeep,
    /// The text does not follow the grammar.
    #[error("expected {expected}, found {found}")]
    Syntax {
        /// What could have stood there.
        expected: &'static str,
        /// What stood there.
        found: String,
    },
    /// No revision has this number or id.
    #[error("no revision matches {spec:?}")]
    Unknown {
        /// The number, id or prefix.
        spec: String,
    },
    /// The first or last of no revisions at all.
    #[error("no revision matches: {function} of an empty selection")]
    Empty {
        /// The function.
        function: &'static str,
    },
    /// Several ids begin like this.
    #[error("revision {prefix:?} is ambiguous: {}", list(candidates))]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// All ids that begin with it.
        candidates: Vec<RevisionId>,
    },
    /// One revision is needed, and the selection has several.
    #[error("one revision is needed, but {count} match: {}", list(candidates))]
    NotSingle {
        /// How many match.
        count: usize,
        /// Some of them.
        candidates: Vec<RevisionId>,
    },
    /// One revision is needed, and the selection has none.
    #[error("no revision matches")]
    NoMatch,
}

impl SpecError {
    /// Returns whether the specification is fine, but nothing in the history matches it.
    #[must_use]
    pub const fn is_no_such_revision(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Empty { .. } | Self::NoMatch)
    }
}

/// A specification that follows the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionSpec {
    root: Node,
}

impl RevisionSpec {
    /// Reads a specification.
    ///
    /// # Errors
    ///
    /// - [`SpecError::TooLong`], [`SpecError::TooDeep`] beyond the limits.
    /// - [`SpecError::Syntax`] if the text does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        parse::parse(text).map(|root| Self { root })
    }

    /// Returns the positions in `history` (oldest first) of the revisions that are meant, in the order that the
    /// specification asks for, each one once. Dates without a zone are in `timezone`.
    ///
    /// # Errors
    ///
    /// - [`SpecError::Unknown`] if a number or id is not in the history.
    /// - [`SpecError::Empty`] if `first` or `last` is applied to nothing.
    /// - [`SpecError::Ambiguous`] if a prefix fits several ids.
    /// - [`SpecError::NotSingle`], [`SpecError::NoMatch`] if the side of a range is not one revision.
    pub fn select(
        &self,
        history: &[Candidate],
        timezone: &TimeZone,
    ) -> Result<Vec<usize>, SpecError> {
        evaluate::select(&self.root, history, timezone)
    }

    /// Returns whether each revision is selected by what it is itself: its id, tags or trust. Then it
    /// makes no difference whether other revisions are in the history.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        self.root.is_by_name()
    }

    /// Returns the position in `history` of the one revision that is meant.
    ///
    /// # Errors
    ///
    /// - Those of [`RevisionSpec::select`].
    /// - [`SpecError::NoMatch`], [`SpecError::NotSingle`] if it is not exactly one.
    pub fn select_one(
        &self,
        history: &[Candidate],
        timezone: &TimeZone,
    ) -> Result<usize, SpecError> {
        evaluate::single(&self.select(history, timezone)?, history)
    }
}

/// A part of a specification.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Union(Vec<Self>),
    Intersection(Vec<Self>),
    Range(Option<Side>, Option<Side>),
    Function(Function, Box<Self>),
    Word(Word),
}

impl Node {
    fn is_by_name(&self) -> bool {
        match self {
            Self::Union(parts) | Self::Intersection(parts) => parts.iter().all(Self::is_by_name),
            Self::Function(Function::Not | Function::Reverse, inner) => inner.is_by_name(),
            Self::Function(Function::First | Function::Last, _) | Self::Range(..) => false,
            Self::Word(word) => !matches!(word, Word::Number(_) | Word::Latest | Word::First),
        }
    }
}

/// One side of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    Date(Date),
    Revision(Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    First,
    Last,
    Not,
    Reverse,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// Counted from the newest, which is 0.
    Number(u32),
    /// A whole id or its beginning, in lower case.
    Prefix(String),
    Latest,
    First,
    /// Every revision, every complete one, every local one: there are no others in a store.
    All,
    /// Every revision of another server.
    Remote,
    Tag(String),
    Trust(Trust),
}

/// An instant, or a local date and time that becomes one in a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Date {
    Instant(jiff::Timestamp),
    Local(civil::DateTime),
}

fn list(ids: &[RevisionId]) -> String {
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
