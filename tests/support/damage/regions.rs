//! Who must find damage, file by file and byte by byte; and of what nobody needs to, because nothing depends on it.

use std::path::{Path, PathBuf};

use chunkstore::format::{Codec, FooterRecord, PackFooter, RecordHeader};
use chunkstore::id::RevisionId;

use super::check::Outcome;
use super::kind::FileKind;
use super::scene::{StoreAtRest, range_of};

/// Who must find damage, and what it may cost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finder {
    /// Whoever opens the store: it does not open.
    Open,
    /// The history names the record; that revision is lost.
    HistoryOfRecord(RevisionId),
    /// The history names the state. Nothing is lost, unless it looks as if a newer program had written it.
    HistoryOfState(RevisionId),
    /// Whoever asks for the revision: there is none.
    Absent(RevisionId),
    /// A scrub names the pack, and the revisions that a record of it costs.
    ScrubOfRecord(PathBuf),
    /// As of a record; but where the payload is a frame, it may be another frame that expands to the same bytes.
    ScrubOfPayload(PathBuf),
    /// A scrub names the pack. Nothing is lost: every record can still be found.
    ScrubOfTable(PathBuf),
    /// A scrub names the pack, and the revisions that what is gone of it costs.
    ScrubOfPack(PathBuf),
    /// A scrub names the pack that was replaced by another sound one, a verification the revisions that need what it held.
    Replaced(PathBuf),
    /// Whoever needs what the pack held names it: what can still be had is had.
    Gone(PathBuf),
    /// A scrub names the pack that is another one than its name says. Nothing is lost: what it should hold is elsewhere.
    Misnamed(PathBuf),
    /// The history names a record that is in the directory of another source. Nothing is lost.
    Stray(RevisionId),
    /// A scrub finds again what was in quarantine. Nothing is lost.
    FoundAgain,
    /// A scrub says that the file is damaged. Nothing is lost.
    Note(PathBuf),
    /// A scrub says that the file is damaged, and may find again what it named. Nothing is lost.
    NoteOfQuarantine(PathBuf),
    /// A repair says which condemned list it is. Nothing is lost.
    Plan(u64),
    /// Nobody: for this reason it is harmless.
    Nobody(&'static str),
}

impl Finder {
    /// Returns whether a scrub may find packs damaged.
    pub(super) fn is_scrub(&self) -> bool {
        matches!(
            self,
            Self::ScrubOfRecord(_)
                | Self::ScrubOfPayload(_)
                | Self::ScrubOfTable(_)
                | Self::ScrubOfPack(_)
                | Self::NoteOfQuarantine(_)
                | Self::Gone(_)
                | Self::Replaced(_)
                | Self::Misnamed(_)
                | Self::FoundAgain
        )
    }

    /// Returns whether a scrub has something to say.
    pub(super) fn needs_scrub(&self) -> bool {
        self.is_scrub() || matches!(self, Self::Note(_))
    }

    /// Returns whether damage of this kind may stop an operation.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        matches!(
            self,
            Self::Note(_)
                | Self::NoteOfQuarantine(_)
                | Self::FoundAgain
                | Self::Misnamed(_)
                | Self::Plan(_)
                | Self::Nobody(_)
        )
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Open => Outcome::Named("open"),
            Self::HistoryOfRecord(_) | Self::HistoryOfState(_) => Outcome::Named("history"),
            Self::Stray(_) => Outcome::Named("history"),
            Self::Replaced(_) => Outcome::Named("verify"),
            Self::Absent(_) | Self::Gone(_) => Outcome::Named("whoever asks for it"),
            Self::FoundAgain => Outcome::Named("scrub"),
            Self::ScrubOfRecord(_)
            | Self::ScrubOfPayload(_)
            | Self::ScrubOfTable(_)
            | Self::ScrubOfPack(_)
            | Self::Misnamed(_) => Outcome::Named("scrub"),
            Self::Note(_) | Self::NoteOfQuarantine(_) => Outcome::Named("note of a scrub"),
            Self::Plan(_) => Outcome::Named("repair"),
            Self::Nobody(reason) => Outcome::Harmless(reason),
        }
    }
}

/// The kinds of files to which damage is harmless, with the reason. Of all others, each byte is covered by a checksum or an id.
pub const HARMLESS: [(FileKind, &str); 11] = [
    (FileKind::Index, "it is made from the packs, and everything that it says is checked there"),
    (FileKind::Session, "its process has ended"),
    (FileKind::Lock, "the lock is flock's, the text is for people"),
    (
        FileKind::GivenUp,
        "the lists were written anew since; until then, a purge would stop at them",
    ),
    (FileKind::Mismatch, "it is for people; that it is there is what counts"),
    (FileKind::Evidence, "it is for people; its name is its digest"),
    (FileKind::AsideList, "it is kept as it was found"),
    (FileKind::AsideRecord, "it is kept as it was found"),
    (FileKind::AsideState, "it is kept as it was found"),
    (FileKind::Ballast, "its bytes mean nothing"),
    (FileKind::Trash, "the next purge removes it"),
];

const TEMPORARY: &str = "nobody knows its name; the next purge removes it";
/// Zstandard has several frames for the same bytes, and a bit that means nothing. An id is one of plain bytes.
pub(super) const SAME_BYTES: &str = "the frame expands to the same bytes";
const SET_ASIDE: &str = "the record is in quarantine, so nothing leads there";

impl StoreAtRest {
    /// Returns who must find damage to a byte of a file.
    ///
    /// # Panics
    ///
    /// If the name of the file is not that of its kind.
    #[must_use]
    pub fn finder(&self, path: &Path, kind: FileKind, offset: u64) -> Finder {
        let harmless = HARMLESS.iter().find(|(harmless, _)| *harmless == kind);
        match (kind, harmless) {
            (_, Some((_, reason))) => Finder::Nobody(reason),
            (FileKind::Temporary, _) => Finder::Nobody(TEMPORARY),
            (FileKind::Config, _) => Finder::Open,
            (FileKind::Record, _) => Finder::HistoryOfRecord(name_of(path)),
            (FileKind::State, _) => Finder::HistoryOfState(name_of(path)),
            (FileKind::Condemned, _) => Finder::Plan(name_of(path)),
            (FileKind::Pack, _) => self.finder_in_pack(path, offset),
            (FileKind::Quarantined, _) => Finder::NoteOfQuarantine(path.to_path_buf()),
            (_, None) => Finder::Note(path.to_path_buf()),
        }
    }

    fn finder_in_pack(&self, path: &Path, offset: u64) -> Finder {
        let is_here = |(pack, range): &(PathBuf, std::ops::Range<u64>)| {
            pack == path && range.contains(&offset)
        };
        if self.quarantined.iter().any(is_here) {
            return Finder::Nobody(SET_ASIDE);
        }
        let records = &self.records[path];
        match records.iter().find(|record| range_of(record).contains(&offset)) {
            None => Finder::ScrubOfTable(path.to_path_buf()),
            Some(record) if record.codec != Codec::Raw && is_in_payload(record, offset) => {
                Finder::ScrubOfPayload(path.to_path_buf())
            }
            Some(_) => Finder::ScrubOfRecord(path.to_path_buf()),
        }
    }
}

fn is_in_payload(record: &FooterRecord, offset: u64) -> bool {
    range_of(record).start + RecordHeader::LEN as u64 <= offset
}

/// Returns what a file is named after.
///
/// # Panics
///
/// If its name is none.
pub fn name_of<T: std::str::FromStr>(path: &Path) -> T {
    let name = path.file_stem().and_then(|name| name.to_str()).expect("an ASCII name");
    name.parse().ok().expect("the name of such a file")
}

/// Returns the records of a pack by its table.
///
/// # Panics
///
/// If it is damaged.
#[must_use]
pub fn records_of(pack: &[u8]) -> Vec<FooterRecord> {
    let trailer = &pack[pack.len() - PackFooter::TRAILER_LEN..];
    let table = PackFooter::table_range(trailer, pack.len() as u64).expect("a trailer");
    let start = usize::try_from(table.start).expect("it is in memory");
    PackFooter::decode(&pack[start..], pack.len() as u64).expect("a table").records
}
