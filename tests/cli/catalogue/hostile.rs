//! D, continued: files that were made to deceive. Their checksums are right; what they say is not.

use std::fs;

use chunkstore::format::{Codec, FooterRecord, ObjectKind, PackFooter, RecordHeader};
use chunkstore::format::{RevisionRecord, StoreConfig};
use chunkstore::id::{ChunkId, RevisionId};
use chunkstore::units::PackOffset;

use super::row::{Fault, Proof, Row, hinted, row, run, whole, wounded};
use super::stage::{Pack, Stage, put, put_pack};
use crate::scene::{Scene, newer_config};

/// Most memory that a command gets under these faults, threads and all. Whoever believes a length gets no memory for it.
const MEMORY: &str = "--as=2147483648";

const VERIFY: &[super::row::Run] = &[run("verify -r all --all-data", 4, &["{pack}"])];
const VERIFY_CHUNK: &[super::row::Run] = &[
    run("verify -r all --all-data", 4, &["{chunk}", "{pack}"]),
    hinted("restore -r first out", 4, &["{chunk}"]),
];

/// Returns the first 8 bytes of a digest.
fn checksum8(bytes: &[u8]) -> [u8; 8] {
    ObjectKind::Data.chunk_id(bytes).as_bytes()[..8].try_into().unwrap()
}

/// Puts a pack in the place of another one. The index, which knows the old one, goes.
fn replace(stage: &Stage, old: &Pack, bytes: &[u8]) -> Fault {
    fs::remove_file(&old.path).unwrap();
    fs::remove_file(stage.scene.backup_path("index.redb")).unwrap();
    let pack = put_pack(&stage.scene, bytes);
    Fault {
        words: vec![("pack", pack.to_string()), ("chunk", old.records[0].id.to_string())],
        wrapper: ["prlimit", MEMORY].map(str::to_owned).into(),
        ..Fault::default()
    }
}

/// Puts the largest pack back with other bytes.
fn changed_pack(stage: &Stage, change: impl FnOnce(&Pack) -> Vec<u8>) -> Result<Fault, String> {
    crate::system::machine::run_tool("prlimit", ["--version"])?;
    let pack = stage.data_packs().remove(0);
    let bytes = change(&pack);
    Ok(replace(stage, &pack, &bytes))
}

/// Returns a pack with another payload in its first record, and all else as it must be.
fn with_payload(pack: &Pack, codec: Codec, payload: &[u8]) -> Vec<u8> {
    let mut bytes = pack.header().to_vec();
    let mut records = Vec::new();
    for (number, old) in pack.records.iter().enumerate() {
        let (codec, payload) =
            if number == 0 { (codec, payload) } else { (old.codec, pack.payload(number)) };
        let stored_len = u32::try_from(payload.len()).unwrap();
        let offset = PackOffset(u32::try_from(bytes.len()).unwrap());
        let FooterRecord { id, plain_len, kind, .. } = *old;
        bytes.extend(RecordHeader { kind, codec, id, plain_len, stored_len }.encode());
        bytes.extend(payload);
        records.push(FooterRecord { id, offset, plain_len, stored_len, kind, codec });
    }
    let table_offset = u32::try_from(bytes.len()).unwrap();
    bytes.extend(PackFooter { records }.encode(table_offset));
    bytes
}

/// Makes a compressed payload of the plain bytes of the first record.
#[expect(clippy::panic_in_result_fn, reason = "what the stage made wrong is no fault of the case")]
fn framed(stage: &Stage, frame: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Fault, String> {
    changed_pack(stage, |pack| {
        assert_eq!(pack.records[0].codec, Codec::Raw, "the image is random");
        with_payload(pack, Codec::Zstd, &frame(pack.payload(0)))
    })
}

/// Returns the block header of Zstandard: RFC 8878, section 3.1.1.2.
fn block_header(is_last: bool, kind: u32, len: usize) -> [u8; 3] {
    let number = u32::from(is_last) | kind << 1 | u32::try_from(len).unwrap() << 3;
    let [low, middle, high, _] = number.to_le_bytes();
    [low, middle, high]
}

/// Returns blocks that hold these bytes as they stand.
fn raw_blocks(plain: &[u8]) -> Vec<u8> {
    let mut parts = plain.chunks(100_000).peekable();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next() {
        bytes.extend(block_header(parts.peek().is_none(), 0, part.len()));
        bytes.extend(part);
    }
    bytes
}

/// Returns a frame that begins like this behind its magic.
fn frame(header: &[u8], blocks: &[u8]) -> Vec<u8> {
    [&[0x28, 0xb5, 0x2f, 0xfd], header, blocks].concat()
}

/// Returns a frame that is as it must be.
fn sound_frame(plain: &[u8]) -> Vec<u8> {
    let len = u32::try_from(plain.len()).unwrap().to_le_bytes();
    frame(&[&[0b1010_0000], &len[..]].concat(), &raw_blocks(plain))
}

/// Changes the trailer of a pack and gives it a checksum again.
fn with_trailer(pack: &Pack, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = pack.bytes.clone();
    let start = bytes.len() - PackFooter::TRAILER_LEN;
    change(&mut bytes[start..start + 40]);
    let checksum = checksum8(&bytes[start..start + 48]);
    bytes[start + 48..start + 56].copy_from_slice(&checksum);
    bytes
}

/// Changes the table of a pack and gives it checksums again.
fn with_table(pack: &Pack, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = pack.bytes.clone();
    let end = bytes.len() - PackFooter::TRAILER_LEN;
    let start = end - pack.records.len() * FooterRecord::LEN;
    change(&mut bytes[start..end]);
    let digest = ObjectKind::Data.chunk_id(&bytes[start..end]);
    let changed = Pack { bytes, path: pack.path.clone(), records: Vec::new() };
    with_trailer(&changed, |trailer| trailer[..32].copy_from_slice(digest.as_bytes()))
}

/// Changes the lengths in the header of the first record, and gives it a checksum again.
fn with_lens(pack: &Pack, len: u32) -> Vec<u8> {
    let mut bytes = pack.bytes.clone();
    let header = pack.payload_offset(0) - RecordHeader::LEN;
    bytes[header + 40..header + 44].copy_from_slice(&len.to_le_bytes());
    bytes[header + 44..header + 48].copy_from_slice(&len.to_le_bytes());
    let checksum = checksum8(&bytes[header..header + 48]);
    bytes[header + 48..header + 56].copy_from_slice(&checksum);
    bytes
}

/// Returns a page of format 1 with these entries, whatever they say.
fn page(span_len: u64, count: u32, entries: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x44, 0x40, 0xfc, 0x08, 1, 0, 0, 0];
    bytes.extend(span_len.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(entries);
    bytes
}

fn data_entry(len: u32, id: ChunkId) -> Vec<u8> {
    [&[1], &len.to_le_bytes()[..], id.as_bytes()].concat()
}

fn zero_entry(len: u64) -> Vec<u8> {
    [&[0], &len.to_le_bytes()[..]].concat()
}

/// Returns a root of format 1 with one page.
fn root(image_len: u64, span_len: u64, page: ChunkId) -> Vec<u8> {
    let mut bytes = vec![0x73, 0x60, 0xfd, 0xb2, 1, 0, 0, 0];
    bytes.extend(image_len.to_le_bytes());
    bytes.extend(span_len.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.push(1);
    bytes.extend(page.as_bytes());
    bytes
}

/// Puts lists into a pack of their own.
fn put_lists(stage: &Stage, lists: &[(ObjectKind, Vec<u8>)]) {
    let model = stage.packs(ObjectKind::Page).remove(0);
    let mut bytes = model.header().to_vec();
    let mut records = Vec::new();
    for (kind, plain) in lists {
        let (kind, codec, id) = (*kind, Codec::Raw, kind.chunk_id(plain));
        let len = u32::try_from(plain.len()).unwrap();
        let offset = PackOffset(u32::try_from(bytes.len()).unwrap());
        let (plain_len, stored_len) = (len, len);
        bytes.extend(RecordHeader { kind, codec, id, plain_len, stored_len }.encode());
        bytes.extend(plain);
        records.push(FooterRecord { id, offset, plain_len, stored_len, kind, codec });
    }
    let table_offset = u32::try_from(bytes.len()).unwrap();
    bytes.extend(PackFooter { records }.encode(table_offset));
    put_pack(&stage.scene, &bytes);
}

/// Adds a revision for each of these lists, with the ids `a1a1...`, `a2a2...` and so on.
fn hostile_revisions(stage: &Stage) -> Result<Fault, String> {
    crate::system::machine::run_tool("prlimit", ["--version"])?;
    let chunk = stage.data_packs()[0].records[0];
    let (id, len) = (chunk.id, chunk.plain_len);
    let span = u64::from(len);
    let entry = data_entry(len, id);
    let pages = [
        // The sum is wrong; a length is 0; a length is another than that of the chunk.
        page(span + 1, 1, &entry),
        page(span, 2, &[entry.clone(), data_entry(0, id)].concat()),
        page(span + 1, 1, &data_entry(len + 1, id)),
        // Two zero entries follow each other; more than an image may have; more entries than there are bytes.
        page(200_000, 2, &[zero_entry(100_000), zero_entry(100_000)].concat()),
        page(u64::MAX, 1, &zero_entry(u64::MAX)),
        page(span, 1_000_000_000, &entry),
    ];
    let mut lists = Vec::new();
    let mut add = |number: u8, size: u64, root: Vec<u8>| {
        let mut record = RevisionRecord::decode(&fs::read(stage.record_path(1)).unwrap()).unwrap();
        record.id = RevisionId::from_bytes([0xa0 + number; 16]);
        (record.root, record.size) = (ObjectKind::Root.chunk_id(&root), size);
        let path = format!("revisions/vm1/{}.rev", record.id);
        put(&stage.scene.backup_path(&path), &record.encode());
        lists.push((ObjectKind::Root, root));
    };
    for (number, page) in (1..).zip(&pages) {
        let size = u64::from_le_bytes(page[8..16].try_into().unwrap()).min(1 << 50);
        add(number, size, root(size, 64 << 20, ObjectKind::Page.chunk_id(page)));
    }
    let good = page(span, 1, &entry);
    let page_id = ObjectKind::Page.chunk_id(&good);
    // The root has another size than the record; a span that is no power of two.
    add(7, span + 5, root(span, 64 << 20, page_id));
    add(8, span, root(span, (64 << 20) + 1, page_id));
    lists.extend(pages.into_iter().chain([good]).map(|page| (ObjectKind::Page, page)));
    put_lists(stage, &lists);
    let fault =
        Fault { wrapper: ["prlimit", MEMORY].map(str::to_owned).into(), ..Fault::default() };
    Ok(fault.undone_by(|scene: &Scene| {
        for digit in 1..=8 {
            let name = format!("a{digit}").repeat(16);
            let path = format!("revisions/vm1/{name}");
            fs::remove_file(scene.backup_path(&format!("{path}.rev"))).unwrap();
            fs::remove_file(scene.backup_path(&format!("{path}.state"))).ok();
        }
    }))
}

pub(super) const ROWS: &[Row] = &[
    row(
        "D23",
        "the header of a record says 4 GiB",
        "4",
        "chunk and pack; no memory is taken for it",
        wounded(|stage| changed_pack(stage, |pack| with_lens(pack, u32::MAX)), VERIFY_CHUNK),
    ),
    row(
        "D24",
        "the table of a pack lies beyond its end",
        "4",
        "the pack",
        wounded(
            |stage| {
                changed_pack(stage, |pack| with_trailer(pack, |trailer| trailer[36..40].fill(0xff)))
            },
            VERIFY,
        ),
    ),
    row(
        "D25",
        "a pack has 2^32 - 1 records",
        "4",
        "the pack",
        wounded(
            |stage| {
                changed_pack(stage, |pack| with_trailer(pack, |trailer| trailer[32..36].fill(0xff)))
            },
            VERIFY,
        ),
    ),
    row(
        "D26",
        "two entries of the table of a pack overlap",
        "4",
        "the pack",
        wounded(
            |stage| {
                changed_pack(stage, |pack| {
                    with_table(pack, |table| {
                        let (first, second) = table.split_at_mut(FooterRecord::LEN);
                        second[32..36].copy_from_slice(&first[32..36]);
                    })
                })
            },
            VERIFY,
        ),
    ),
    row(
        "D27",
        "the table of a pack says something else than the records",
        "4",
        "the chunk that is missing by that",
        wounded(
            |stage| changed_pack(stage, |pack| with_table(pack, |table| table[..32].fill(0x5a))),
            // The pack has the right name, and a scrub checks records: only who needs the chunk misses it.
            &[run("verify -r all --all-data", 4, &["{chunk}"])],
        ),
    ),
    row(
        "D28",
        "a compressed chunk expands to 4 GiB",
        "4",
        "the chunk; no memory is taken for it",
        wounded(
            |stage| {
                framed(stage, |_| {
                    let block = |is_last| [&block_header(is_last, 1, 128 << 10)[..], &[7]].concat();
                    let mut blocks = block(false).repeat((4 << 30 >> 17) - 1);
                    blocks.extend(block(true));
                    // No size of the content; a window of 128 KiB.
                    let mut bomb = frame(&[0, 7 << 3], &blocks);
                    bomb.truncate(100_000);
                    bomb
                })
            },
            VERIFY_CHUNK,
        ),
    ),
    row(
        "D29",
        "a compressed chunk wants a window of 2 GiB",
        "4",
        "the chunk",
        wounded(
            |stage| {
                framed(stage, |plain| frame(&[0, 21 << 3], &raw_blocks(&plain[..plain.len() - 1])))
            },
            VERIFY_CHUNK,
        ),
    ),
    row(
        "D30",
        "a compressed chunk ends too early",
        "4",
        "the chunk",
        wounded(
            |stage| {
                framed(stage, |plain| {
                    let frame = sound_frame(plain);
                    frame[..frame.len() - 10].to_vec()
                })
            },
            VERIFY_CHUNK,
        ),
    ),
    row(
        "D31",
        "bytes follow the frame of a compressed chunk",
        "4",
        "the chunk",
        wounded(
            |stage| framed(stage, |plain| [sound_frame(plain), vec![0; 40]].concat()),
            VERIFY_CHUNK,
        ),
    ),
    row(
        "D32",
        "a skippable frame is before that of a compressed chunk",
        "4",
        "the chunk",
        wounded(
            |stage| {
                framed(stage, |plain| {
                    let skipped = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
                    [&skipped[..], &sound_frame(plain)].concat()
                })
            },
            VERIFY_CHUNK,
        ),
    ),
    row(
        "D33",
        "a compressed chunk needs a dictionary",
        "4",
        "the chunk",
        wounded(
            |stage| {
                framed(stage, |plain| {
                    let len = u32::try_from(plain.len()).unwrap().to_le_bytes();
                    frame(&[&[0b1010_0001, 99], &len[..]].concat(), &raw_blocks(plain))
                })
            },
            VERIFY_CHUNK,
        ),
    ),
    row(
        "D34",
        "a chunk has the right length and other bytes, in a pack with the right digest",
        "4",
        "the chunk",
        wounded(
            |stage| {
                changed_pack(stage, |pack| {
                    let mut payload = pack.payload(0).to_vec();
                    payload[100] ^= 1;
                    with_payload(pack, Codec::Raw, &payload)
                })
            },
            VERIFY_CHUNK,
        ),
    ),
    row(
        "D35",
        "an id has another length in the store than the bytes that a backup has for it",
        "4",
        "chunk and both lengths",
        Proof::Tests(&[
            "tests/it/flip/index.rs no_index_entry_that_leads_elsewhere_costs_anything",
        ]),
    ),
    row(
        "D36",
        "lists of chunks contradict themselves: sums, lengths of 0 or beyond all limits, 10^9 entries, sizes that differ",
        "4",
        "the list; no memory is taken for it",
        whole(
            hostile_revisions,
            &[
                hinted("restore -r a1a1a1a1 out", 4, &["chunk"]),
                hinted("restore -r a2a2a2a2 out", 4, &["chunk"]),
                hinted("restore -r a3a3a3a3 out", 4, &["chunk"]),
                hinted("restore -r a4a4a4a4 out", 4, &["chunk"]),
                hinted("restore -r a5a5a5a5 out", 4, &["chunk"]),
                hinted("restore -r a6a6a6a6 out", 4, &["chunk"]),
                hinted("restore -r a7a7a7a7 out", 4, &[]),
                hinted("restore -r a8a8a8a8 out", 4, &["chunk"]),
            ],
        ),
    ),
    row(
        "D37",
        "the store has a newer format",
        "6",
        "file and version; nothing is written",
        whole(
            |stage| {
                let path = stage.scene.backup_path("store.json");
                let before = fs::read(&path).unwrap();
                put(&path, &newer_config(&before));
                Ok(Fault::default().undone_by(move |_| put(&path, &before)))
            },
            &[
                hinted("status", 6, &["store.json", "2"]),
                hinted("backup", 6, &["store.json"]),
                hinted("purge --now", 6, &["store.json"]),
            ],
        ),
    ),
    row(
        "D38",
        "the store has an extension that this program does not know",
        "6",
        "the file",
        whole(
            |stage| {
                let path = stage.scene.backup_path("store.json");
                let before = fs::read(&path).unwrap();
                let mut config = StoreConfig::decode(&before).unwrap();
                config.incompatible_flags.push("something-new".to_owned());
                put(&path, &config.encode());
                Ok(Fault::default().undone_by(move |_| put(&path, &before)))
            },
            &[hinted("status", 6, &["store.json"]), hinted("backup", 6, &["store.json"])],
        ),
    ),
    row(
        "D39",
        "the store has a setting that this program need not know",
        "-",
        "-",
        Proof::None(
            "format 1 has no such settings: what is optional later comes with a new version",
        ),
    ),
    row(
        "D40",
        "the files of the store belong to somebody else",
        "7",
        "the first file that could not be used",
        Proof::Tests(&[
            "tests/cli/system/read_only.rs store_that_may_not_be_read_is_named",
            "tests/cli/system/read_only.rs store_of_somebody_else_is_readable",
        ]),
    ),
    row(
        "D41",
        "names of packs have become upper case on the way over another file system",
        "4",
        "the packs that are missing",
        wounded(
            |stage| {
                let pack = stage.data_packs().remove(0);
                let upper = pack.path.with_file_name(pack.name().to_uppercase());
                fs::rename(&pack.path, upper).unwrap();
                Ok(Fault::naming("pack", pack.name()))
            },
            VERIFY,
        ),
    ),
    row(
        "D42",
        "a chunk that is in quarantine comes again",
        "0",
        "the revisions that are healed",
        Proof::Tests(&[
            "tests/cli/damage.rs quarantined_chunk_is_named_and_counted_until_a_backup_heals_it",
        ]),
    ),
    row(
        "D43",
        "the state beside a record is damaged",
        "0",
        "the state, as a warning: the revision counts as distrusted and protected",
        Proof::Tests(&[
            "tests/it/regressions.rs damaged_state_costs_neither_the_revision_nor_the_purge",
            "tests/it/retention.rs revision_with_a_damaged_state_counts_as_protected",
        ]),
    ),
    row(
        "D44",
        "a condemned list, the ledger or a quarantine file is damaged",
        "0",
        "the file, as a warning",
        Proof::Tests(&[
            "tests/it/damage.rs damaged_condemned_list_costs_nothing_and_the_generation_does_not_fall",
            "tests/cli/scrub.rs damaged_ledger_is_a_warning",
            "tests/it/quarantine.rs damaged_quarantine_file_is_named_and_harmless",
        ]),
    ),
    row(
        "D45",
        "a symbolic link is in the place of a directory or file of the store",
        "8",
        "the path",
        Proof::Tests(&[
            "tests/it/regressions.rs purge_refuses_to_run_if_a_source_is_a_symbolic_link",
        ]),
    ),
];
