//! R: targets that cannot be written, or should not be.

use super::row::{Fault, Proof, Row, hinted, row, run, whole};
use super::stage::Stage;
use crate::system::machine::{LoopDevice, Mount, create_sparse, run_tool};

/// Returns a block device of so many bytes.
fn device(stage: &Stage, len: u64) -> Result<LoopDevice, String> {
    let backing = stage.scene.path("backing");
    drop(create_sparse(&backing, len));
    LoopDevice::attach(&backing)
}

pub(super) const ROWS: &[Row] = &[
    row(
        "R1",
        "the target exists",
        "9",
        "the target, and --overwrite",
        whole(
            |stage| {
                stage.scene.write("precious", "mine");
                Ok(Fault::default().undone_by(|scene| assert_eq!(scene.read("precious"), b"mine")))
            },
            &[hinted("restore precious", 9, &["precious"])],
        ),
    ),
    row(
        "R2",
        "the device is smaller than the image",
        "9",
        "device and both sizes; nothing is written",
        whole(
            |stage| {
                let device = device(stage, 256 << 10)?;
                let path = device.path.to_str().unwrap().to_owned();
                let fault = Fault::naming("device", path);
                Ok(Fault { guard: Some(Box::new(device)), ..fault })
            },
            &[hinted("restore --overwrite {device}", 9, &["{device}"])],
        ),
    ),
    row(
        "R3",
        "the device is mounted",
        "9",
        "the device",
        whole(
            |stage| {
                let mount = Mount::small_file_system(&stage.scene, 16 << 20)?;
                let text =
                    run_tool("findmnt", ["-n", "-o", "SOURCE", mount.point.to_str().unwrap()])?;
                let fault = Fault::naming("device", text);
                Ok(Fault { guard: Some(Box::new(mount)), ..fault })
            },
            &[hinted("restore --overwrite {device}", 9, &["{device}"])],
        ),
    ),
    row(
        "R4",
        "the file system of the target is full",
        "5",
        "the target; no part of a file is left",
        Proof::Tests(&[
            "tests/cli/system/full_disk.rs restore_to_a_full_disk_leaves_no_file_behind",
            "tests/cli/system/failing_calls/mod.rs restore_survives_the_failure_of_any_call",
        ]),
    ),
    row(
        "R5",
        "the target cannot be written",
        "8",
        "the target",
        whole(
            |stage| {
                stage.scene.write("target", vec![9; 900_000]);
                run_tool("strace", ["-o", "/dev/null", "true"])?;
                let path = stage.scene.root().join("target");
                Ok(Fault::injected(&[
                    "-P",
                    path.to_str().unwrap(),
                    "-e",
                    "trace=pwrite64",
                    "-e",
                    "inject=pwrite64:error=EIO:when=1+",
                ]))
            },
            &[run("restore --overwrite target", 8, &["target", "Input/output error"])],
        ),
    ),
    row(
        "R6",
        "the reader of standard output is gone",
        "8",
        "standard output; a listing ends without a word and with 0",
        Proof::Tests(&[
            "tests/cli/locks_and_signals.rs reader_that_closes_its_pipe_makes_a_restore_fail",
            "tests/cli/locks_and_signals.rs reader_that_closes_its_pipe_ends_a_listing_quietly",
        ]),
    ),
    row(
        "R7",
        "paths of a tree lead out of the target, directly or by links that are put there meanwhile",
        "4 for the list, 3 for the files",
        "the path; nothing outside is touched",
        Proof::Tests(&[
            "chunkstore/src/format/tree_path.rs paths_that_lead_elsewhere_are_refused",
            "tests/it/tree_restore/existing.rs links_below_the_target_are_not_followed",
            "tests/it/tree_restore/races.rs file_that_is_replaced_while_it_is_waited_for_is_opened_again",
        ]),
    ),
    row(
        "R8",
        "a tree has devices, set-uid files or extended attributes",
        "-",
        "-",
        Proof::None("trees are of whisper files: regular files with mode, owner and time"),
    ),
    row(
        "R9",
        "a chunk is damaged",
        "4",
        "chunk and ranges; --keep-going leaves zeros there",
        Proof::Tests(&[
            "tests/cli/damage.rs keep_going_restores_what_is_left",
            "tests/cli/damage.rs flipped_byte_in_a_pack_is_damage",
        ]),
    ),
    row(
        "R10",
        "the target does not read back as it was written",
        "8",
        "the range",
        Proof::Tests(&[
            "tests/it/restore.rs reading_back_finds_data_and_zeros_that_differ",
            "tests/cli/restore.rs restore_reads_back_when_asked",
        ]),
    ),
    row(
        "R11",
        "the target is a directory, or below one that is not there",
        "9, 8",
        "the target",
        whole(
            |stage| {
                std::fs::create_dir(stage.scene.path("place")).unwrap();
                Ok(Fault::default())
            },
            &[
                hinted("restore --overwrite place", 9, &["place"]),
                run("restore no/such/place", 8, &["no/such"]),
            ],
        ),
    ),
];
