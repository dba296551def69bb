//! The examples and the limits in `docs/format.md` are what the library writes and reads.
//!
//! Every fenced block whose language is `hex` or `json` is an example. A block that no test here knows fails,
//! and so does a structure without a block.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use chunkstore::compression::Expander;
use chunkstore::format::{
    BackupStatistics, BlockState, BlockStates, ChunkingConfig, Codec, CondemnedList, FileMetadata,
    FooterRecord, FormatError, GivenUp, Ledger, LedgerEntry, MismatchReport, ObjectKind,
    OverlayHeader, OverlayMapKind, OverlayMapPage, PackFooter, PackHeader, PackKind, Page,
    PageEntry, Quarantined, QuarantinedRecord, RecordHeader, RevisionKind, RevisionRecord,
    RevisionState, Root, SessionKind, SessionRecord, SpanRef, StoreConfig, TreeEntry, TreePage,
    TreePageRef, TreePath, TreeRoot, Trust,
};
use chunkstore::id::{ChunkId, OverlayId, PackId, RevisionId, SessionId, StoreId};
use chunkstore::limits;
use chunkstore::time::Timestamp;
use chunkstore::units::PackOffset;

const DOCUMENT: &str = include_str!("../../docs/format.md");
const LIMITS_SOURCE: &str = include_str!("../src/limits.rs");

const EXAMPLES: [&str; 22] = [
    "pack-header",
    "record",
    "record-of-points",
    "pack-footer",
    "pack-id",
    "page",
    "page-id",
    "root",
    "root-id",
    "tree-page",
    "tree-root",
    "store-config",
    "revision-record",
    "revision-state",
    "session-record",
    "condemned-list",
    "ledger",
    "mismatch-report",
    "quarantine-file",
    "given-up",
    "overlay-header",
    "overlay-map",
];

/// Returns the bytes of all examples by name.
fn examples() -> BTreeMap<String, Vec<u8>> {
    let mut examples = BTreeMap::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(marker) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let bytes = match marker.split_once(' ') {
            Some(("hex", _)) => block.iter().flat_map(|line| hex_of_line(line)).collect(),
            Some(("json", _)) => format!("{}\n", block.join("\n")).into_bytes(),
            _ if marker.starts_with("hex") || marker.starts_with("json") => {
                panic!("an example without a name: {marker}")
            }
            _ => continue,
        };
        let (_, name) = marker.split_once(' ').unwrap();
        assert_eq!(examples.insert(name.to_owned(), bytes), None, "two examples {name}");
    }
    examples
}

/// Returns the bytes of a line: pairs of digits up to two spaces in a row, which begin the explanation. A pair with a count
/// stands for as many.
fn hex_of_line(line: &str) -> Vec<u8> {
    let (pairs, _) = line.split_once("  ").unwrap_or((line, ""));
    if let Some((pair, count)) = pairs.split_once(" x") {
        return vec![u8::from_str_radix(pair, 16).expect(line); count.parse().expect(line)];
    }
    pairs.split(' ').map(|pair| u8::from_str_radix(pair, 16).expect(line)).collect()
}

fn example(name: &str) -> Vec<u8> {
    examples().remove(name).unwrap_or_else(|| panic!("no example {name}"))
}

/// Checks that the example is what `value` encodes to, and decodes to `value`.
fn assert_example<T: PartialEq + Debug>(
    name: &str,
    value: &T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    let bytes = example(name);
    let text = String::from_utf8_lossy(&bytes);
    let encoded = encode(value);
    assert_eq!(encoded, bytes, "{name}: {} is {text}", String::from_utf8_lossy(&encoded));
    assert_eq!(decode(&bytes).as_ref(), Ok(value), "{name}");
}

fn noon() -> Timestamp {
    "2026-11-20T12:00:00.000Z".parse().unwrap()
}

fn store_id() -> StoreId {
    "5d0c1a7e3b964f2288e1f07a42c95b13".parse().unwrap()
}

fn session_id() -> SessionId {
    "a1f4c2d07788439b9c35e6120fd4b86e".parse().unwrap()
}

fn revision_id() -> RevisionId {
    "0e9b7c5512f84ad6b7a3c1d0984e6f21".parse().unwrap()
}

/// Returns the first block of the image.
fn plain() -> Vec<u8> {
    let mut plain = b"hello".to_vec();
    plain.resize(4096, 0);
    plain
}

fn chunk_id() -> ChunkId {
    ObjectKind::Data.chunk_id(&plain())
}

/// Returns the whole pack: the examples of its three parts.
fn pack() -> Vec<u8> {
    [example("pack-header"), example("record"), example("pack-footer")].concat()
}

fn pack_id() -> PackId {
    PackId::from_bytes(*blake3::hash(&pack()).as_bytes())
}

fn record_header() -> RecordHeader {
    RecordHeader {
        kind: ObjectKind::Data,
        codec: Codec::Zstd,
        id: chunk_id(),
        plain_len: 4096,
        stored_len: 23,
    }
}

fn page() -> Page {
    let data = PageEntry::Data { len: 4096, id: chunk_id() };
    Page { entries: vec![data, PageEntry::Zero { len: 65536 }] }
}

fn page_id() -> ChunkId {
    ObjectKind::Page.chunk_id(&page().encode())
}

fn root() -> Root {
    Root { image_len: 69632, span_len: 64 << 20, spans: vec![SpanRef::Page(page_id())] }
}

fn root_id() -> ChunkId {
    ObjectKind::Root.chunk_id(&root().encode())
}

#[test]
fn every_example_is_known_and_every_structure_has_one() {
    let documented: BTreeSet<String> = examples().into_keys().collect();
    assert_eq!(documented, EXAMPLES.iter().copied().map(str::to_owned).collect());
}

#[test]
fn pack_header_is_as_documented() {
    let header = PackHeader {
        kind: PackKind::Data,
        store_id: store_id(),
        session_id: session_id(),
        created: noon(),
    };
    assert_example("pack-header", &header, |header| header.encode().to_vec(), PackHeader::decode);
}

#[test]
fn record_is_as_documented() {
    let bytes = example("record");
    let (header, payload) = bytes.split_at(RecordHeader::LEN);
    assert_eq!(RecordHeader::decode(header), Ok(record_header()));
    assert_eq!(record_header().encode(), header);
    assert_eq!(payload.len(), 23);
    assert_eq!(zstd::bulk::decompress(payload, 4096).unwrap(), plain());
}

#[test]
fn record_of_points_is_as_documented() {
    let bytes = example("record-of-points");
    let (header, payload) = bytes.split_at(RecordHeader::LEN);
    let point = |slot: u32| {
        let value = f64::from(2150 + 5 * (slot % 4)) / 100.0;
        [&(1_709_337_600 + 60 * slot).to_be_bytes()[..], &value.to_be_bytes()].concat()
    };
    let points: Vec<u8> = (0..16).flat_map(point).collect();
    let expected = RecordHeader {
        kind: ObjectKind::Data,
        codec: Codec::Points,
        id: ObjectKind::Data.chunk_id(&points),
        plain_len: 192,
        stored_len: u32::try_from(payload.len()).unwrap(),
    };
    assert_eq!(RecordHeader::decode(header), Ok(expected));
    assert_eq!(expected.encode(), header);
    let mut out = Vec::new();
    Expander::new().expand(&expected, payload, &mut out).unwrap();
    assert_eq!(out, points);
}

#[test]
fn pack_footer_is_as_documented() {
    let header = record_header();
    let record = FooterRecord {
        id: header.id,
        offset: PackOffset(80),
        plain_len: header.plain_len,
        stored_len: header.stored_len,
        kind: header.kind,
        codec: header.codec,
    };
    assert_eq!(record.header(), header);
    let footer = PackFooter { records: vec![record] };
    let file_len = u64::try_from(pack().len()).unwrap();
    let table_offset = 80 + record.len_in_pack();
    assert_example(
        "pack-footer",
        &footer,
        |footer| footer.encode(table_offset),
        |bytes| PackFooter::decode(bytes, file_len),
    );
    assert!(DOCUMENT.contains(&format!("a whole pack of {file_len} bytes")));
}

#[test]
fn ids_are_as_documented() {
    assert_eq!(example("pack-id"), pack_id().as_bytes());
    assert_eq!(example("page-id"), page_id().as_bytes());
    assert_eq!(example("root-id"), root_id().as_bytes());
}

#[test]
fn page_is_as_documented() {
    assert_example("page", &page(), Page::encode, Page::decode);
}

#[test]
fn root_is_as_documented() {
    assert_example("root", &root(), Root::encode, Root::decode);
}

#[test]
fn store_configuration_is_as_documented() {
    let config = StoreConfig {
        store_id: store_id(),
        created: noon(),
        chunking: ChunkingConfig { min: 16384, average: 65536, max: 262_144 },
        compression_level: 1,
        incompatible_flags: Vec::new(),
    };
    assert_example("store-config", &config, StoreConfig::encode, StoreConfig::decode);
}

#[test]
fn revision_record_is_as_documented() {
    let record = RevisionRecord {
        id: revision_id(),
        source: "vm1".parse().unwrap(),
        sequence: 2,
        session: session_id(),
        time: noon(),
        kind: RevisionKind::Image,
        size: root().image_len,
        root: root_id(),
        parent: Some("77e2d1905b3c4e8f8a6149d2c0b3f51a".parse().unwrap()),
        host: "backup1".into(),
        origin: "/dev/vg0/vm1".into(),
        tags: vec!["daily".into(), "manual:cli".into()],
        statistics: BackupStatistics {
            read_bytes: 4096,
            hole_bytes: 65536,
            new_bytes: 4096,
            stored_bytes: 79,
            reused_bytes: 0,
            new_chunks: 1,
            reused_chunks: 0,
            duration_milliseconds: 12,
        },
        thinned: None,
    };
    assert_example("revision-record", &record, RevisionRecord::encode, RevisionRecord::decode);
}

#[test]
fn revision_state_is_as_documented() {
    let state = RevisionState {
        id: revision_id(),
        tags: vec!["daily".into()],
        trust: Trust::Verified,
        protected: true,
        verified: Some("2026-11-21T03:30:00.250Z".parse().unwrap()),
        doubted: None,
        heals_to: None,
        rewritten: None,
    };
    assert_example("revision-state", &state, RevisionState::encode, RevisionState::decode);
}

#[test]
fn session_is_as_documented() {
    let session = SessionRecord {
        id: "c49d3e0b6f1248a5a0577be9d3126c80".parse().unwrap(),
        kind: SessionKind::Restore,
        start_generation: 7,
        pinned_roots: vec![root_id()],
        host: "backup1".into(),
        process: 4711,
        command: "backy restore -r latest /tmp/vm1.img".into(),
        started: noon(),
    };
    assert_example("session-record", &session, SessionRecord::encode, SessionRecord::decode);
}

#[test]
fn condemned_list_is_as_documented() {
    let list = CondemnedList { generation: 7, condemned_at: noon(), packs: vec![pack_id()] };
    assert_example("condemned-list", &list, CondemnedList::encode, CondemnedList::decode);
}

#[test]
fn ledger_is_as_documented() {
    let ledger = Ledger { entries: vec![LedgerEntry { pack: pack_id(), read: noon() }] };
    assert_example("ledger", &ledger, Ledger::encode, Ledger::decode);
}

#[test]
fn mismatch_report_is_as_documented() {
    let report = MismatchReport {
        revision: revision_id(),
        source: "vm1".parse().unwrap(),
        origin: "/dev/vg0/vm1".into(),
        time: noon(),
        offset: 65536,
        len: 4096,
        stored: ChunkId::from_bytes(*blake3::hash(&[0; 4096]).as_bytes()),
        found: ChunkId::from_bytes(*blake3::hash(&[1; 4096]).as_bytes()),
    };
    let name = [
        b"vm1\0".as_slice(),
        &65536_u64.to_le_bytes(),
        report.stored.as_bytes(),
        report.found.as_bytes(),
    ];
    assert_eq!(report.name().as_bytes(), blake3::hash(&name.concat()).as_bytes());
    assert_example("mismatch-report", &report, MismatchReport::encode, MismatchReport::decode);
}

/// Returns the rows of the table of limits.
fn documented_limits() -> BTreeMap<&'static str, u64> {
    let (_, section) = DOCUMENT.split_once("\n## Limits\n").expect("a section on limits");
    let (section, _) = section.split_once("\n## ").expect("another section behind it");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let name = cells.next().unwrap().trim_matches('`');
        (name, cells.next().unwrap().parse().expect(row))
    })
    .collect()
}

#[test]
fn limits_are_as_documented() {
    let len = |value: usize| u64::try_from(value).unwrap();
    let limits = BTreeMap::from([
        ("CHUNK_LEN_MAX", limits::CHUNK_LEN_MAX.into()),
        ("STORED_OVERHEAD_MAX", limits::STORED_OVERHEAD_MAX.into()),
        ("PACK_LEN_MAX", limits::PACK_LEN_MAX),
        ("PACK_RECORD_COUNT_MAX", limits::PACK_RECORD_COUNT_MAX.into()),
        ("IMAGE_LEN_MAX", limits::IMAGE_LEN_MAX),
        ("ROOT_SPAN_COUNT_MAX", limits::ROOT_SPAN_COUNT_MAX.into()),
        ("SPAN_LEN_MIN", limits::SPAN_LEN_MIN),
        ("NAME_LEN_MAX", len(limits::NAME_LEN_MAX)),
        ("TREE_PATH_LEN_MAX", len(limits::TREE_PATH_LEN_MAX)),
        ("TREE_PAGE_LEN_MAX", len(limits::TREE_PAGE_LEN_MAX)),
        ("DOCUMENT_LEN_MAX", limits::DOCUMENT_LEN_MAX),
        ("CONDEMNED_COUNT_MAX", limits::CONDEMNED_COUNT_MAX.into()),
        ("LEDGER_COUNT_MAX", limits::LEDGER_COUNT_MAX.into()),
        ("QUARANTINE_EVIDENCE_LEN_MAX", limits::QUARANTINE_EVIDENCE_LEN_MAX.into()),
        ("QUARANTINE_TEXT_LEN_MAX", limits::QUARANTINE_TEXT_LEN_MAX.into()),
        ("GIVEN_UP_COUNT_MAX", len(limits::GIVEN_UP_COUNT_MAX)),
        ("ZERO_BLOCK_LEN", limits::ZERO_BLOCK_LEN),
        ("ZERO_RUN_LEN_MIN", limits::ZERO_RUN_LEN_MIN),
    ]);
    assert_eq!(documented_limits(), limits);
}

#[test]
fn every_limit_is_documented() {
    let constants = LIMITS_SOURCE.lines().filter_map(|line| line.strip_prefix("pub const "));
    let names: BTreeSet<&str> = constants.map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(names, documented_limits().into_keys().collect());
}

#[test]
fn quarantine_file_is_as_documented() {
    let mut evidence = example("record");
    evidence[RecordHeader::LEN + 11] ^= 1;
    let record = QuarantinedRecord {
        id: chunk_id(),
        record_index: 0,
        offset: 80,
        evidence_len: u32::try_from(evidence.len()).unwrap(),
    };
    let file = Quarantined {
        pack: pack_id(),
        found: noon(),
        command: "backy verify".to_owned(),
        reason: "it cannot be expanded".to_owned(),
        records: vec![record],
        evidence,
    };
    assert_example("quarantine-file", &file, Quarantined::encode, Quarantined::decode);
}

#[test]
fn given_up_lists_are_as_documented() {
    let root = "7b846899cdff2ff22776047b5593022755a949e49bc28744d2b5e7353688c9ac";
    let file = GivenUp {
        time: noon(),
        command: "backy repair".to_owned(),
        lists: vec![root.parse().unwrap()],
    };
    assert_example("given-up", &file, GivenUp::encode, GivenUp::decode);
}

fn overlay_id() -> OverlayId {
    "7f3a52c90b1e4d6896a0c4d2e8f15b37".parse().unwrap()
}

#[test]
fn overlay_header_is_as_documented() {
    let header = OverlayHeader {
        id: overlay_id(),
        store_id: store_id(),
        revision: revision_id(),
        source: "vm1".parse().unwrap(),
        image_len: root().image_len,
    };
    let encode = |header: &OverlayHeader| header.encode().to_vec();
    assert_example("overlay-header", &header, encode, OverlayHeader::decode);
}

#[test]
fn overlay_map_is_as_documented() {
    let mut states = BlockStates::new();
    states.set(0, BlockState::Data);
    states.set(2, BlockState::Zero);
    let page = OverlayMapPage {
        kind: OverlayMapKind::Map,
        is_closed: false,
        overlay: overlay_id(),
        number: 0,
        sequence: 2,
        states,
    };
    assert_example("overlay-map", &page, OverlayMapPage::encode, OverlayMapPage::decode);
}

fn tree_page() -> TreePage {
    let entry = TreeEntry {
        path: TreePath::new(b"a/cpu.wsp").unwrap(),
        metadata: FileMetadata {
            mode: 0o644,
            user: 998,
            group: 998,
            inode: 131_073,
            modified_nanoseconds: 1_795_176_000_000_000_000,
            changed_nanoseconds: 1_795_176_000_000_000_000,
        },
        since: noon(),
        is_carried: false,
        is_unsettled: false,
        content: vec![
            PageEntry::Data { len: 4096, id: chunk_id() },
            PageEntry::Zero { len: 65536 },
        ],
    };
    TreePage { entries: vec![entry] }
}

#[test]
fn tree_examples_are_what_the_library_writes() {
    let page = tree_page();
    assert_example("tree-page", &page, TreePage::encode, TreePage::decode);
    let id = ObjectKind::Page.chunk_id(&page.encode());
    let root = TreeRoot { pages: vec![TreePageRef { id, entry_count: 1, content_len: 69632 }] };
    assert_example("tree-root", &root, TreeRoot::encode, TreeRoot::decode);
}

#[test]
fn end_of_a_tree_page_is_where_the_document_says() {
    let page = tree_page();
    for number in 0..200_000_u32 {
        let path = TreePath::new(number.to_string().as_bytes()).unwrap();
        let entry = TreeEntry { path, ..page.entries[0].clone() };
        let digest = blake3::hash(entry.path.as_bytes());
        let head = u32::from_le_bytes(digest.as_bytes()[..4].try_into().unwrap());
        let len = u128::try_from(entry.encoded_len()).unwrap();
        assert_eq!(entry.ends_page(), u128::from(head) * 65536 < len << 32, "{number}");
    }
}
