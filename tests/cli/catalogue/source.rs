//! S: sources that cannot be read, change, or are strange.

use std::fs;

use super::row::{Fault, Proof, Row, hinted, row, run, whole};
use super::stage::Stage;
use crate::scene::IMAGE;
use crate::system::machine::run_tool;

/// Makes reads of the image fail or lie: what `strace` is to inject into `pread64`.
fn reading(stage: &Stage, what: &str) -> Result<Fault, String> {
    run_tool("strace", ["-o", "/dev/null", "true"])?;
    let path = stage.scene.root().join(IMAGE);
    let inject = format!("inject=pread64:{what}");
    Ok(Fault::injected(&["-P", path.to_str().unwrap(), "-e", "trace=pread64", "-e", &inject]))
}

fn image_of_len(stage: &Stage, len: u64) -> Result<Fault, String> {
    let file = fs::File::create(stage.scene.path(IMAGE)).unwrap();
    file.set_len(len).map_err(|error| format!("not possible here: {error}"))?;
    Ok(Fault::default())
}

pub(super) const ROWS: &[Row] = &[
    row(
        "S1",
        "the source is not there",
        "3",
        "the path and the reason",
        whole(
            |stage| {
                fs::remove_file(stage.scene.path(IMAGE)).unwrap();
                Ok(Fault::default())
            },
            &[run("backup", 3, &["disk.img", "No such file"])],
        ),
    ),
    row(
        "S2",
        "a directory is in the place of the image",
        "3",
        "the path and what it is (2 only if the arguments could not be understood)",
        whole(
            |stage| {
                fs::remove_file(stage.scene.path(IMAGE)).unwrap();
                fs::create_dir(stage.scene.path(IMAGE)).unwrap();
                Ok(Fault::default().undone_by(|scene| fs::remove_dir(scene.path(IMAGE)).unwrap()))
            },
            &[
                run("backup", 3, &["disk.img", "a directory"]),
                run("-b other init file disk.img", 3, &["disk.img", "a directory"]),
            ],
        ),
    ),
    row(
        "S3",
        "the source may not be read",
        "3",
        "the path and the permission",
        Proof::Tests(&["tests/cli/system/bad_source.rs source_that_may_not_be_read_is_told"]),
    ),
    row(
        "S4",
        "one read of the source fails, and succeeds when it is tried again",
        "0",
        "the source and the place, in a warning: it is read again, in smaller parts, and what was read is compared with what is stored",
        whole(
            |stage| reading(stage, "error=EIO:when=1"),
            &[run("backup", 0, &["disk.img failed, ", "byte 0", "Input/output error"])],
        ),
    ),
    row(
        "S4a",
        "every read of the source fails",
        "3",
        "offset and length",
        whole(
            |stage| reading(stage, "error=EIO:when=1+"),
            &[run("backup", 3, &["disk.img", "at byte 0", "Input/output error"])],
        ),
    ),
    row(
        "S5",
        "a part of the source cannot be read at all",
        "3",
        "offset and length",
        Proof::Tests(&[
            "tests/cli/system/bad_source.rs unreadable_part_of_a_device_is_told_with_its_place",
        ]),
    ),
    row(
        "S6",
        "a part of the source cannot be read, and zeros are wanted in its place",
        "-",
        "-",
        Proof::None("there is no such option: a revision is what the source was, or is not made"),
    ),
    row(
        "S7",
        "the source becomes shorter while it is read",
        "3",
        "path, old and new size",
        Proof::Tests(&[
            "tests/cli/system/bad_source.rs source_that_is_cut_meanwhile_makes_no_revision",
        ]),
    ),
    row(
        "S7a",
        "reads of the source say that it ends before its size",
        "3",
        "the path",
        whole(|stage| reading(stage, "retval=0:when=1+"), &[run("backup", 3, &["disk.img"])]),
    ),
    row(
        "S8",
        "the source becomes longer while it is read",
        "3",
        "path and new size. A size that changed is a source that was in use",
        Proof::Tests(&[
            "tests/cli/system/bad_source.rs source_that_grows_meanwhile_makes_no_revision",
        ]),
    ),
    row(
        "S9",
        "another file gets the name of the source while it is read",
        "0",
        "nothing: what was opened is read to its end",
        Proof::Scene(super::moments::source_that_is_replaced_meanwhile_is_read_to_its_end),
    ),
    row(
        "S10",
        "the source has no bytes",
        "0",
        "nothing: it restores to no bytes",
        whole(|stage| image_of_len(stage, 0), &[run("backup", 0, &[]), run("restore out", 0, &[])]),
    ),
    row(
        "S11",
        "the source has one byte",
        "0",
        "nothing",
        Proof::Tests(&["tests/cli/backup.rs empty_and_tiny_images_are_backed_up"]),
    ),
    row(
        "S12",
        "sizes around the length of the longest chunk, and of a span",
        "0",
        "nothing",
        Proof::Tests(&["tests/it/sizes.rs full_images_come_back"]),
    ),
    row(
        "S13",
        "a size that is no multiple of a sector",
        "0",
        "nothing: it is restored to the byte",
        Proof::Tests(&["tests/cli/restore.rs each_revision_restores_to_what_the_image_was"]),
    ),
    row(
        "S14",
        "a sparse source beyond the longest image of the format",
        "3",
        "the path and both sizes, before anything is read",
        whole(
            |stage| {
                let mount = crate::system::machine::Mount::memory(&stage.scene)?;
                let huge = mount.point.join("huge");
                drop(crate::system::machine::create_sparse(&huge, (1 << 50) + 4096));
                fs::remove_file(stage.scene.path(IMAGE)).unwrap();
                std::os::unix::fs::symlink(huge, stage.scene.path(IMAGE)).unwrap();
                let fault = Fault { guard: Some(Box::new(mount)), ..Fault::default() };
                Ok(fault.undone_by(|scene| fs::remove_file(scene.path(IMAGE)).unwrap()))
            },
            &[run("backup", 3, &["disk.img"])],
        ),
    ),
    row(
        "S15",
        "a terabyte that is nearly all zeros",
        "0",
        "nothing: seconds, and kilobytes",
        Proof::Tests(&[
            "tests/cli/system/real_images.rs terabyte_with_three_islands_takes_seconds_and_kilobytes",
        ]),
    ),
    row(
        "S16",
        "nothing comes from standard input",
        "-",
        "-",
        Proof::None("standard input and commands are no sources yet"),
    ),
    row(
        "S17",
        "the command that produces the source fails after a gigabyte",
        "-",
        "-",
        Proof::None("standard input and commands are no sources yet"),
    ),
    row(
        "S18",
        "the command that produces the source is killed",
        "-",
        "-",
        Proof::None("standard input and commands are no sources yet"),
    ),
    row(
        "S19",
        "standard input cannot be read",
        "-",
        "-",
        Proof::None("standard input and commands are no sources yet"),
    ),
    row(
        "S20",
        "the source, or the target of a restore, is a file of the store",
        "9",
        "the path",
        whole(
            |stage| {
                let pack = stage.data_packs().remove(0).path;
                fs::remove_file(stage.scene.path(IMAGE)).unwrap();
                std::os::unix::fs::symlink(&pack, stage.scene.path(IMAGE)).unwrap();
                let fault = Fault::naming("pack", pack.to_str().unwrap());
                Ok(fault.undone_by(|scene| fs::remove_file(scene.path(IMAGE)).unwrap()))
            },
            &[
                hinted("backup", 9, &["disk.img"]),
                hinted("restore --overwrite {pack}", 9, &["{pack}"]),
                hinted("restore --overwrite vm1/store.json", 9, &["store.json"]),
            ],
        ),
    ),
    row(
        "S21",
        "a list of changes, or what was predicted, says less than has changed",
        "4",
        "the places, with both sides kept as evidence; the backups after it compare more",
        Proof::Tests(&[
            "tests/it/sample.rs source_that_changed_leaves_no_revision_and_both_sides_as_evidence",
            "tests/cli/trust.rs image_that_changes_while_it_is_read_ends_with_4_and_evidence",
        ]),
    ),
    row(
        "S22",
        "the revision before is distrusted",
        "0",
        "the revision, and that everything is written again",
        Proof::Tests(&[
            "tests/cli/trust.rs backup_after_a_distrust_says_why_it_is_full_and_what_became_of_the_doubt",
        ]),
    ),
    row(
        "S23",
        "the device of the source goes away",
        "3",
        "the path and what the system says",
        whole(
            |stage| reading(stage, "error=ENXIO:when=1+"),
            &[run("backup", 3, &["disk.img", "No such device"])],
        ),
    ),
    row(
        "S24",
        "the file system does not take unbuffered reads of the source",
        "-",
        "-",
        Proof::None(
            "sources are read through the page cache, so there is nothing to fall back from",
        ),
    ),
];
