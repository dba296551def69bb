//! One operation of a history, and its three bytes.

/// What rots: at a byte that depends on `place`, in a file that depends on it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A bit of the index.
    Index,
    /// The index is gone.
    NoIndex,
    /// A bit of the state of a revision: its tags are lost, its image is not.
    State,
    /// A bit of a revision record: the revision is lost, and nothing else.
    Record,
    /// A bit of a condemned list.
    Condemned,
    /// A bit of the ledger.
    Ledger,
    /// A bit of the file of a session.
    Session,
}

impl Fate {
    const ALL: [Self; 7] = [
        Self::Index,
        Self::NoIndex,
        Self::State,
        Self::Record,
        Self::Condemned,
        Self::Ledger,
        Self::Session,
    ];
}

/// What somebody does with the store. A `pick` chooses among the revisions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operation {
    /// Changes the image of a source and makes a revision.
    BackUp {
        source: u8,
        edit: u8,
    },
    /// Changes the tree and makes a revision.
    BackUpTree {
        edit: u8,
    },
    Forget {
        pick: u8,
    },
    /// Gives a revision the tags that the bits of `tags` stand for.
    Tag {
        pick: u8,
        tags: u8,
        autoremove: bool,
    },
    Protect {
        pick: u8,
        is_protected: bool,
    },
    Distrust {
        pick: u8,
    },
    /// By a schedule that keeps so many of the tag `daily`.
    Expire {
        source: u8,
        keep: u8,
    },
    Purge {
        has_grace: bool,
    },
    Verify,
    Scrub,
    RebuildIndex,
    Repair,
    Reopen,
    PassTime {
        hours: u8,
    },
    /// Time does its work; nobody acts.
    Rot {
        fate: Fate,
        place: u8,
    },
}

/// Which operation a first byte stands for, modulo the length: what is made often comes often.
const KINDS: [fn(u8, u8) -> Operation; 32] = {
    use Operation::*;
    const BACK_UP: fn(u8, u8) -> Operation = |a, edit| BackUp { source: a % 3, edit };
    const FORGET: fn(u8, u8) -> Operation = |_, pick| Forget { pick };
    const TAG: fn(u8, u8) -> Operation =
        |a, pick| Tag { pick, tags: a & 3, autoremove: a & 4 != 0 };
    const EXPIRE: fn(u8, u8) -> Operation = |a, b| Expire { source: a % 3, keep: 1 + b % 3 };
    const PURGE: fn(u8, u8) -> Operation = |a, _| Purge { has_grace: a & 1 != 0 };
    const REPAIR: fn(u8, u8) -> Operation = |_, _| Repair;
    const ROT: fn(u8, u8) -> Operation =
        |a, place| Rot { fate: Fate::ALL[a as usize % Fate::ALL.len()], place };
    [
        BACK_UP,
        |_, edit| BackUpTree { edit },
        FORGET,
        TAG,
        |a, pick| Protect { pick, is_protected: a & 1 != 0 },
        |_, pick| Distrust { pick },
        EXPIRE,
        PURGE,
        |_, _| Verify,
        |_, _| Scrub,
        |_, _| RebuildIndex,
        REPAIR,
        |_, _| Reopen,
        |_, hours| PassTime { hours },
        ROT,
        BACK_UP,
        BACK_UP,
        BACK_UP,
        BACK_UP,
        BACK_UP,
        BACK_UP,
        FORGET,
        FORGET,
        FORGET,
        TAG,
        TAG,
        EXPIRE,
        PURGE,
        PURGE,
        PURGE,
        REPAIR,
        ROT,
    ]
};

impl Operation {
    /// Bytes of the encoded form.
    pub const LEN: usize = 3;

    /// Returns the operation that three bytes stand for; all do.
    #[must_use]
    pub fn decode([kind, a, b]: [u8; Self::LEN]) -> Self {
        KINDS[usize::from(kind) % KINDS.len()](a, b)
    }

    /// Returns bytes that stand for this operation.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let flag = u8::from;
        match *self {
            Self::BackUp { source, edit } => [0, source, edit],
            Self::BackUpTree { edit } => [1, 0, edit],
            Self::Forget { pick } => [2, 0, pick],
            Self::Tag { pick, tags, autoremove } => [3, tags & 3 | flag(autoremove) << 2, pick],
            Self::Protect { pick, is_protected } => [4, flag(is_protected), pick],
            Self::Distrust { pick } => [5, 0, pick],
            Self::Expire { source, keep } => [6, source, keep - 1],
            Self::Purge { has_grace } => [7, flag(has_grace), 0],
            Self::Verify => [8, 0, 0],
            Self::Scrub => [9, 0, 0],
            Self::RebuildIndex => [10, 0, 0],
            Self::Repair => [11, 0, 0],
            Self::Reopen => [12, 0, 0],
            Self::PassTime { hours } => [13, 0, hours],
            Self::Rot { fate, place } => {
                let place_of = |other: &Fate| *other == fate;
                let index = Fate::ALL.iter().position(place_of).expect("all are listed");
                [14, u8::try_from(index).expect("few"), place]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_three_bytes_are_an_operation_that_encodes_to_itself() {
        for kind in 0..=255 {
            for a in 0..=255 {
                let operation = Operation::decode([kind, a, kind ^ a]);
                assert_eq!(Operation::decode(operation.encode()), operation);
            }
        }
    }
}
