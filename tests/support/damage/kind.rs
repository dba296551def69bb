//! What the files of a store are, by their paths.

use std::path::Path;

use crate::simulated_store::STORE_PATH;

/// What a file of a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// The store configuration.
    Config,
    /// A pack of data chunks, or of lists: the name does not tell.
    Pack,
    /// A revision record.
    Record,
    /// The state of a revision.
    State,
    /// A condemned list.
    Condemned,
    /// When packs were last read.
    Ledger,
    /// The index.
    Index,
    /// A session.
    Session,
    /// A lock file.
    Lock,
    /// Records that were found damaged.
    Quarantined,
    /// Roots and pages that were given up.
    GivenUp,
    /// A report of what was read back wrongly.
    Mismatch,
    /// One side of a mismatch.
    Evidence,
    /// A condemned list that was found damaged.
    AsideList,
    /// A revision record that was found damaged.
    AsideRecord,
    /// A state that was found damaged.
    AsideState,
    /// The file that takes up space.
    Ballast,
    /// A pack that was removed.
    Trash,
    /// What somebody began to write.
    Temporary,
}

impl FileKind {
    /// All kinds.
    pub const ALL: [Self; 19] = [
        Self::Config,
        Self::Pack,
        Self::Record,
        Self::State,
        Self::Condemned,
        Self::Ledger,
        Self::Index,
        Self::Session,
        Self::Lock,
        Self::Quarantined,
        Self::GivenUp,
        Self::Mismatch,
        Self::Evidence,
        Self::AsideList,
        Self::AsideRecord,
        Self::AsideState,
        Self::Ballast,
        Self::Trash,
        Self::Temporary,
    ];

    /// Returns the kind of a file by its path.
    ///
    /// # Panics
    ///
    /// If a store has no such file.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let inside = path.strip_prefix(STORE_PATH).expect("a file of the store");
        let mut parts = inside.iter().map(|part| part.to_str().expect("an ASCII name"));
        let top = parts.next().expect("a name");
        let end = path.extension().and_then(|end| end.to_str());
        match (top, parts.next().unwrap_or(""), end) {
            ("store.json", ..) => Self::Config,
            ("index.redb", ..) => Self::Index,
            ("ledger", ..) => Self::Ledger,
            ("ballast", ..) => Self::Ballast,
            ("packs", ..) => Self::Pack,
            ("condemned", ..) => Self::Condemned,
            ("sessions", ..) => Self::Session,
            ("locks", ..) => Self::Lock,
            ("trash", ..) => Self::Trash,
            ("tmp", ..) => Self::Temporary,
            ("revisions", _, Some("rev")) => Self::Record,
            ("revisions", _, Some("state")) => Self::State,
            ("quarantine", "revisions", Some("rev")) => Self::AsideRecord,
            ("quarantine", "revisions", Some("state")) => Self::AsideState,
            ("quarantine", name, None) => Self::in_quarantine(name),
            _ => panic!("unexpected file {}", path.display()),
        }
    }

    fn in_quarantine(name: &str) -> Self {
        match name.split_once('-') {
            Some(("condemned", _)) => Self::AsideList,
            Some(("mismatch", _)) => Self::Mismatch,
            Some(("bytes", _)) => Self::Evidence,
            Some(("given", _)) => Self::GivenUp,
            _ => Self::Quarantined,
        }
    }
}
