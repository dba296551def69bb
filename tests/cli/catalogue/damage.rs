//! D: files of the store that were changed at rest.

use std::fs;
use std::path::Path;

use super::row::{Fault, Proof, Row, hinted, row, run, whole, wounded};
use super::stage::{Stage, put};

/// Changes the largest pack of data, which the oldest revision needs.
fn hit_pack(stage: &Stage, change: impl FnOnce(&mut Vec<u8>)) -> Fault {
    let mut pack = stage.data_packs().remove(0);
    change(&mut pack.bytes);
    put(&pack.path, &pack.bytes);
    Fault::naming("pack", pack.name())
}

/// Changes a file below the backup directory, and puts it back at the end.
fn hit_file(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Fault {
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    change(&mut bytes);
    put(path, &bytes);
    let path = path.to_owned();
    Fault::default().undone_by(move |_| put(&path, &before))
}

fn hit_record(stage: &Stage, change: impl FnOnce(&mut Vec<u8>)) -> Fault {
    let fault = hit_file(&stage.record_path(0), change);
    Fault { words: vec![("id", stage.id(0)), ("other", stage.id(1))], ..fault }
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
}

const RECORD_RUNS: &[super::row::Run] = &[
    run("status", 4, &["{id}"]),
    run("restore -r {other} out", 0, &[]),
    hinted("restore -r {id} out", 10, &["{id}"]),
    run("purge --now", 4, &["{id}"]),
];

/// The bytes are all there, under another name.
const CONTENT_RUNS: &[super::row::Run] = &[
    run("restore -r first out", 0, &[]),
    run("verify -r all --all-data", 0, &[]),
    run("scrub", 4, &["{pack}", "another pack than its name says"]),
    run("purge --now", 0, &[]),
];

const INDEX_RUNS: &[super::row::Run] = &[
    run("restore -r first out", 0, &[]),
    run("verify -r all --all-data", 0, &[]),
    run("backup manual:again", 0, &[]),
];

fn hit_index(stage: &Stage, bytes: &[u8]) -> Result<Fault, String> {
    put(&stage.scene.backup_path("index.redb"), bytes);
    Ok(Fault::default())
}

pub(super) const ROWS: &[Row] = &[
    row(
        "D1",
        "a bit of a pack flips",
        "4",
        "chunk, pack, revision and range; other revisions restore",
        wounded(
            |stage| {
                let fault = hit_pack(stage, |bytes| flip(bytes));
                Ok(Fault { words: [fault.words, vec![("id", stage.id(0))]].concat(), ..fault })
            },
            &[
                run("verify -r all --all-data", 4, &["{pack}", "{id}", "chunk"]),
                hinted("restore -r first out", 4, &["chunk"]),
                run("restore --keep-going -r first out", 4, &["{id}"]),
            ],
        ),
    ),
    row(
        "D2",
        "a range of a pack reads as zeros",
        "4",
        "the pack",
        wounded(
            |stage| Ok(hit_pack(stage, |bytes| bytes[20_000..90_000].fill(0))),
            &[run("verify -r all --all-data", 4, &["{pack}"])],
        ),
    ),
    row(
        "D3",
        "a pack is cut",
        "4",
        "the pack",
        wounded(
            |stage| Ok(hit_pack(stage, |bytes| bytes.truncate(bytes.len() / 2))),
            &[run("scrub", 4, &["{pack}"]), run("verify -r all --all-data", 4, &["{pack}"])],
        ),
    ),
    row(
        "D4",
        "a pack has bytes at its end that are not its own",
        "4",
        "the pack; every revision restores",
        whole(
            |stage| Ok(hit_pack(stage, |bytes| bytes.extend([7; 1000]))),
            &[run("scrub", 4, &["{pack}"])],
        ),
    ),
    row(
        "D5",
        "a pack is gone",
        "4",
        "the pack",
        wounded(
            |stage| {
                let pack = stage.data_packs().remove(0);
                fs::remove_file(&pack.path).unwrap();
                Ok(Fault::naming("pack", pack.name()))
            },
            &[
                run("verify -r all --all-data", 4, &["{pack}"]),
                hinted("restore -r first out", 4, &["{pack}"]),
            ],
        ),
    ),
    row(
        "D6",
        "a pack is there a second time, under another name",
        "0, 4",
        "by a scrub the pack; every record is checked by its own id, wherever it lies",
        whole(
            |stage| {
                let pack = stage.data_packs().remove(0);
                let name = "0".repeat(64);
                put(&stage.scene.backup_path(&format!("packs/00/{name}")), &pack.bytes);
                Ok(Fault::naming("pack", name))
            },
            CONTENT_RUNS,
        ),
    ),
    row(
        "D7",
        "a pack has another name than its digest",
        "0, 4",
        "by a scrub the pack; its records are found under its name",
        whole(
            |stage| {
                let pack = stage.data_packs().remove(0);
                let name = "ab".repeat(32);
                put(&stage.scene.backup_path(&format!("packs/ab/{name}")), &pack.bytes);
                fs::remove_file(&pack.path).unwrap();
                Ok(Fault::naming("pack", name))
            },
            CONTENT_RUNS,
        ),
    ),
    row(
        "D8",
        "two packs have changed places",
        "0, 4",
        "by a scrub the packs; the index is made anew",
        whole(
            |stage| {
                let packs = stage.data_packs();
                put(&packs[0].path, &packs[1].bytes);
                put(&packs[1].path, &packs[0].bytes);
                Ok(Fault::naming("pack", packs[0].name()))
            },
            CONTENT_RUNS,
        ),
    ),
    row(
        "D9",
        "a bit of a revision record flips",
        "4",
        "the revision; others are there, and nothing is purged",
        whole(|stage| Ok(hit_record(stage, |bytes| flip(bytes))), RECORD_RUNS),
    ),
    row(
        "D9a",
        "a revision record is cut, or is nothing but zeros",
        "4",
        "the revision",
        whole(|stage| Ok(hit_record(stage, |bytes| bytes.truncate(100))), RECORD_RUNS),
    ),
    row(
        "D9b",
        "a revision record lies under the name of another one",
        "4",
        "the revision",
        whole(
            |stage| {
                let other = fs::read(stage.record_path(1)).unwrap();
                Ok(hit_record(stage, |bytes| *bytes = other))
            },
            RECORD_RUNS,
        ),
    ),
    row(
        "D10",
        "a bit of the configuration of the store flips",
        "4",
        "the file",
        whole(
            |stage| Ok(hit_file(&stage.scene.backup_path("store.json"), |bytes| flip(bytes))),
            &[hinted("status", 4, &["store.json"]), hinted("backup", 4, &["store.json"])],
        ),
    ),
    row(
        "D10a",
        "the configuration of the store is gone",
        "10",
        "the directory",
        whole(
            |stage| {
                let path = stage.scene.backup_path("store.json");
                let before = fs::read(&path).unwrap();
                fs::remove_file(&path).unwrap();
                Ok(Fault::default().undone_by(move |_| put(&path, &before)))
            },
            &[hinted("status", 10, &["vm1"]), hinted("backup", 10, &["vm1"])],
        ),
    ),
    row(
        "D11",
        "bits of the index flip",
        "0",
        "nothing: it is made anew from the packs",
        whole(
            |stage| {
                let mut bytes = fs::read(stage.scene.backup_path("index.redb")).unwrap();
                bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 1);
                hit_index(stage, &bytes)
            },
            INDEX_RUNS,
        ),
    ),
    row(
        "D12",
        "a text is in the place of the index",
        "0",
        "nothing",
        whole(|stage| hit_index(stage, b"this is no index\n"), INDEX_RUNS),
    ),
    row(
        "D13",
        "the index is empty",
        "0",
        "nothing",
        whole(|stage| hit_index(stage, b""), INDEX_RUNS),
    ),
    row(
        "D14",
        "the index is 10 GiB of zeros",
        "0",
        "nothing",
        whole(
            |stage| {
                hit_index(stage, b"")?;
                let index = stage.scene.backup_path("index.redb");
                let file = fs::File::options().write(true).open(index).unwrap();
                file.set_len(10 << 30).map_err(|error| format!("not possible here: {error}"))?;
                Ok(Fault::default())
            },
            INDEX_RUNS,
        ),
    ),
    row(
        "D15",
        "the index is that of another store",
        "0",
        "nothing",
        whole(
            |stage| {
                let other = Stage::new();
                hit_index(stage, &fs::read(other.scene.backup_path("index.redb")).unwrap())
            },
            INDEX_RUNS,
        ),
    ),
    row(
        "D16",
        "the index leads to a wrong place",
        "0",
        "nothing: every place is compared with the record that lies there",
        Proof::Tests(&[
            "tests/it/flip/index.rs no_index_entry_that_leads_elsewhere_costs_anything",
            "tests/it/restore.rs index_that_is_wrong_about_a_place_costs_no_byte",
        ]),
    ),
    row(
        "D17",
        "files that are none of the store's lie in all of its directories",
        "0",
        "nothing: they are passed over, and stay",
        whole(
            |stage| {
                for place in [
                    "",
                    "packs/",
                    "packs/zz/",
                    "revisions/",
                    "revisions/vm1/",
                    "condemned/",
                    "sessions/",
                    "locks/",
                    "trash/",
                    "quarantine/",
                ] {
                    put(&stage.scene.backup_path(&format!("{place}foreign")), b"mine");
                }
                Ok(Fault::default().undone_by(|scene| {
                    assert_eq!(fs::read(scene.backup_path("packs/zz/foreign")).unwrap(), b"mine");
                    assert_eq!(fs::read(scene.backup_path("revisions/foreign")).unwrap(), b"mine");
                }))
            },
            &[
                run("status", 0, &[]),
                run("verify -r all --all-data", 0, &[]),
                run("purge --now", 0, &[]),
                run("repair", 0, &[]),
            ],
        ),
    ),
    row(
        "D18",
        "files of a writer that is gone lie in tmp",
        "0",
        "nothing: the next writer removes them",
        whole(
            |stage| {
                put(&stage.scene.backup_path(&format!("tmp/{}", "a".repeat(32))), b"half a pack");
                Ok(Fault::default().undone_by(|scene| {
                    assert_eq!(fs::read_dir(scene.backup_path("tmp")).unwrap().count(), 0);
                }))
            },
            &[run("backup manual:again", 0, &[])],
        ),
    ),
    row(
        "D19",
        "files of a writer that is at work lie in tmp",
        "0",
        "nothing: they are left alone",
        Proof::Scene(super::moments::temporary_file_of_a_living_writer_is_left_alone),
    ),
    row(
        "D20",
        "two packs have the same records",
        "0",
        "nothing",
        Proof::Tests(&[
            "tests/it/cost.rs chunk_with_two_copies_survives_the_loss_of_either",
            "tests/it/regressions.rs second_copy_of_a_chunk_is_found_when_the_pack_of_the_first_is_lost",
        ]),
    ),
    row(
        "D21",
        "a pack is there that no index knows",
        "0",
        "nothing: it is adopted",
        whole(
            |stage| {
                fs::remove_file(stage.scene.backup_path("index.redb")).unwrap();
                Ok(Fault::default())
            },
            INDEX_RUNS,
        ),
    ),
    row(
        "D22",
        "a revision needs a chunk that is nowhere",
        "4",
        "the revision, the range and the chunk",
        wounded(
            |stage| {
                let pack = stage.data_packs().remove(0);
                fs::remove_file(&pack.path).unwrap();
                fs::remove_file(stage.scene.backup_path("index.redb")).unwrap();
                Ok(Fault {
                    words: vec![("chunk", pack.records[0].id.to_string()), ("id", stage.id(0))],
                    ..Fault::default()
                })
            },
            &[
                run("verify -r all --all-data", 4, &["{chunk}", "{id}"]),
                hinted("restore -r first out", 4, &["chunk"]),
            ],
        ),
    ),
];
