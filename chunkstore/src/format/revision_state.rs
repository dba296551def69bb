//! Revision state: what people and programs may change about a revision.
//!
//! Layout: `docs/format.md`, section "Revision state". Absent until something is changed, then replaced as a whole.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::format::tag::check_tags;
use crate::format::{FormatError, RevisionRecord, decode_document, encode_document};
use crate::id::RevisionId;
use crate::time::Timestamp;

const MAGIC: &str = "chunkstore state";
const VERSION: u32 = 1;

/// How far a revision is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Trust {
    /// Nothing speaks against it.
    Trusted,
    /// Somebody doubts it: the next backup of its source is full.
    Distrusted,
    /// All of its chunks were read and matched their ids.
    Verified,
    /// A read found damage.
    Damaged,
}

impl fmt::Display for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Trusted => "trusted",
            Self::Distrusted => "distrusted",
            Self::Verified => "verified",
            Self::Damaged => "damaged",
        })
    }
}

/// What may change about a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionState {
    /// The revision, also the name of the file.
    pub id: RevisionId,
    /// Tags that it has now.
    pub tags: Vec<String>,
    /// How far it is believed.
    pub trust: Trust,
    /// Whether it is kept whatever the schedule says.
    pub protected: bool,
    /// When the verification began after which each of its chunks had been read, where it was then, and matched its id.
    pub verified: Option<Timestamp>,
    /// When it was distrusted or found damaged, if it still is and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubted: Option<Timestamp>,
    /// What it is again, `trusted` or `distrusted`, when the index has a place for all that it needs: it is damaged, and all that was
    /// found damaged is out of the index. Otherwise only a verification takes the damage away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heals_to: Option<Trust>,
    /// The revision, if there is one, for which every chunk was written again because this one was distrusted or damaged. The
    /// doubt has then had its effect; a new one takes this away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<RevisionId>,
}

impl RevisionState {
    /// Returns the state of a revision that has no state file.
    #[must_use]
    pub fn initial(record: &RevisionRecord) -> Self {
        Self {
            id: record.id,
            tags: record.tags.clone(),
            trust: Trust::Trusted,
            protected: false,
            verified: None,
            doubted: None,
            heals_to: None,
            rewritten: None,
        }
    }

    /// Returns what a revision counts as whose state file is damaged: what may have been said against it, or to keep it,
    /// is taken as said.
    #[must_use]
    pub fn cautious(record: &RevisionRecord) -> Self {
        Self { trust: Trust::Distrusted, protected: true, ..Self::initial(record) }
    }

    /// Returns whether the next backup of its source must write every chunk again.
    #[must_use]
    pub const fn is_in_doubt(&self) -> bool {
        let is_set_aside =
            matches!((self.trust, self.heals_to), (Trust::Damaged, Some(Trust::Trusted)));
        self.is_doubted() && self.rewritten.is_none() && !is_set_aside
    }

    /// Returns whether the revision is distrusted or damaged, whether that has had its effect or not.
    #[must_use]
    pub const fn is_doubted(&self) -> bool {
        matches!(self.trust, Trust::Distrusted | Trust::Damaged)
    }

    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If the document is longer than 1 MiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert_eq!(check_tags(&self.tags), Ok(()));
        encode_document(MAGIC, VERSION, self)
    }

    /// Reads a state from the bytes of its file.
    ///
    /// # Errors
    ///
    /// - Those of [`decode_document`].
    /// - [`FormatError::Inconsistent`] if a tag is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let state: Self = decode_document(MAGIC, VERSION, bytes)?;
        check_tags(&state.tags)?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::revision_record::tests::example as example_record;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected};

    fn example() -> RevisionState {
        RevisionState {
            trust: Trust::Verified,
            protected: true,
            verified: Some(Timestamp(1_790_000_000_123)),
            ..RevisionState::initial(&example_record())
        }
    }

    #[test]
    fn state_reads_back() {
        for state in [example(), RevisionState::initial(&example_record())] {
            assert_eq!(RevisionState::decode(&state.encode()), Ok(state));
        }
    }

    #[test]
    fn damaged_state_is_rejected() {
        assert_flips_rejected(&example().encode(), RevisionState::decode);
        assert_exact_length(&example().encode(), RevisionState::decode);
    }

    #[test]
    fn trust_is_stored_as_it_prints() {
        for trust in [Trust::Trusted, Trust::Distrusted, Trust::Verified, Trust::Damaged] {
            assert_eq!(serde_json::to_value(trust).unwrap(), trust.to_string());
        }
    }

    #[test]
    fn text_that_is_no_tag_is_rejected() {
        let state = RevisionState { tags: vec![String::new()], ..example() };
        let result = RevisionState::decode(&encode_document(MAGIC, VERSION, &state));
        assert!(matches!(result, Err(FormatError::Inconsistent { .. })), "{result:?}");
    }

    #[test]
    fn record_is_not_a_state() {
        let result = RevisionState::decode(&example_record().encode());
        assert!(matches!(result, Err(FormatError::WrongMagic { .. })), "{result:?}");
    }
}
