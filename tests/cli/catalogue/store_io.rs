//! I: calls on the files of the store that fail, and file systems that are not what they seem.

use std::fs;

use super::row::{Fault, Proof, Row, hinted, row, run, whole};
use super::stage::Stage;
use crate::scene::IMAGE;
use crate::system::machine::{Mount, run_tool};

/// Makes all calls of one name fail, and gives the backup something to write.
///
/// The loader calls none of those that are used here.
fn failing(stage: &Stage, call: &str, what: &str) -> Result<Fault, String> {
    run_tool("strace", ["-o", "/dev/null", "true"])?;
    let mut image = stage.scene.read(IMAGE);
    image.extend(crate::scene::random_bytes(100_000, 77));
    stage.scene.write(IMAGE, image);
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{what}"));
    Ok(Fault::injected(&["-e", &trace, "-e", &inject]))
}

pub(super) const ROWS: &[Row] = &[
    row(
        "I1",
        "no space is left, at any write",
        "5",
        "the path",
        Proof::Tests(&[
            "tests/cli/system/failing_calls/mod.rs backup_survives_the_failure_of_any_call",
            "tests/cli/system/full_disk.rs full_disk_keeps_what_is_stored_and_a_backup_goes_on_later",
            "tests/reliability/faults.rs full_disk_at_any_byte_fails_the_backup_and_nothing_else",
        ]),
    ),
    row(
        "I2",
        "the quota is used up",
        "5",
        "the path",
        whole(
            |stage| failing(stage, "pwrite64", "error=EDQUOT:when=1+"),
            &[hinted("backup", 5, &["/vm1/", "quota exceeded"])],
        ),
    ),
    row(
        "I3",
        "the file system becomes read-only while a command runs",
        "7",
        "the path",
        whole(
            |stage| failing(stage, "pwrite64", "error=EROFS:when=1+"),
            &[run("backup", 7, &["/vm1/", "Read-only file system"])],
        ),
    ),
    row(
        "I4",
        "a write fails",
        "8",
        "the path",
        whole(
            |stage| failing(stage, "pwrite64", "error=EIO:when=1+"),
            &[run("backup", 8, &["/vm1/", "Input/output error"])],
        ),
    ),
    row(
        "I5",
        "the sync of a file fails",
        "8",
        "the path. It is not tried again, and the file is not used again",
        whole(
            |stage| failing(stage, "fdatasync", "error=EIO:when=1"),
            &[run("backup", 8, &["cannot sync", "/vm1/", "Input/output error"])],
        ),
    ),
    row(
        "I6",
        "the sync of a directory fails",
        "8",
        "the directory",
        whole(
            |stage| failing(stage, "fsync", "error=EIO:when=1"),
            &[run("backup", 8, &["cannot sync", "/vm1", "Input/output error"])],
        ),
    ),
    row(
        "I7",
        "a rename fails",
        "8",
        "the path",
        whole(
            |stage| failing(stage, "renameat2", "error=EIO:when=1+"),
            &[run("backup", 8, &["/vm1/", "Input/output error"])],
        ),
    ),
    row(
        "I8",
        "the process may not open more files",
        "8",
        "the path",
        whole(
            |_| {
                run_tool("prlimit", ["--version"])?;
                let wrapper = ["prlimit", "--nofile=6"].map(str::to_owned).into();
                Ok(Fault { wrapper, ..Fault::default() })
            },
            &[run("verify -r all --all-data", 8, &["/vm1/", "Too many open files"])],
        ),
    ),
    row(
        "I9",
        "reads and writes are interrupted again and again",
        "0",
        "nothing: they are done again",
        whole(
            |stage| failing(stage, "pread64,pwrite64", "error=EINTR:when=3+2"),
            &[run("backup", 0, &[])],
        ),
    ),
    row(
        "I10",
        "the file system cannot set space aside",
        "0",
        "nothing",
        whole(
            |stage| failing(stage, "fallocate", "error=EOPNOTSUPP:when=1+"),
            &[run("backup", 0, &[]), run("purge", 0, &[])],
        ),
    ),
    row(
        "I11",
        "a write was confirmed and never reached the medium: a pack of zeros",
        "4",
        "the pack",
        super::row::wounded(
            |stage| {
                let pack = stage.data_packs().remove(0);
                super::stage::put(&pack.path, &vec![0; pack.bytes.len()]);
                Ok(Fault::naming("pack", pack.name()))
            },
            &[
                run("verify -r all --all-data", 4, &["{pack}"]),
                hinted("restore -r first out", 4, &["chunk"]),
            ],
        ),
    ),
    row(
        "I12",
        "a write went to the wrong place: bytes of one pack lie in another",
        "4",
        "the pack that was hit",
        super::row::wounded(
            |stage| {
                let mut packs = stage.data_packs();
                let other = packs.remove(1);
                let mut hit = packs.remove(0);
                let start = hit.payload_offset(1);
                let from = other.payload(0);
                let len = from.len().min(50_000);
                hit.bytes[start..start + len].copy_from_slice(&from[..len]);
                super::stage::put(&hit.path, &hit.bytes);
                Ok(Fault::naming("pack", hit.name()))
            },
            &[run("verify -r all --all-data", 4, &["{pack}"])],
        ),
    ),
    row(
        "I13",
        "an old state of the index is read",
        "0",
        "nothing: what it does not know is found in the packs",
        whole(
            |stage| {
                let index = stage.scene.backup_path("index.redb");
                let old = fs::read(&index).unwrap();
                let mut image = stage.scene.read(IMAGE);
                image.extend(crate::scene::random_bytes(300_000, 78));
                stage.scene.write(IMAGE, image);
                stage.scene.succeeds(["backup", "manual:newest"]);
                super::stage::put(&index, &old);
                Ok(Fault::default())
            },
            &[run("restore out", 0, &[]), run("verify -r all --all-data", 0, &[])],
        ),
    ),
    row(
        "I14",
        "the directory of the store is moved away while a backup runs",
        "8",
        "the path",
        Proof::Scene(super::moments::store_that_is_moved_away_ends_a_backup),
    ),
    row(
        "I15",
        "the file system of the store is unmounted while a backup runs",
        "8",
        "the path",
        Proof::Scene(super::moments::store_that_is_unmounted_ends_a_backup),
    ),
    row(
        "I16",
        "the space for the index is used up, that of packs is not",
        "5",
        "the index; packs stay, and the next command makes the index anew",
        Proof::Tests(&[
            "tests/reliability/faults.rs full_disk_at_any_byte_fails_the_backup_and_nothing_else",
            "tests/reliability/faults.rs handle_that_met_a_full_disk_sees_what_comes_later",
        ]),
    ),
    row(
        "I17",
        "the file system cannot sync directories",
        "8",
        "the directory. To go on would promise what nobody keeps",
        whole(
            |stage| failing(stage, "fsync", "error=EINVAL:when=1+"),
            &[run("backup", 8, &["/vm1", "cannot make names durable"])],
        ),
    ),
    row(
        "I18",
        "tmp is another file system than the rest of the store",
        "8",
        "both paths, or the file that cannot be renamed",
        whole(
            |stage| {
                let mount = Mount::memory_at(stage.scene.backup_path("tmp"))?;
                Ok(Fault { guard: Some(Box::new(mount)), ..Fault::default() })
            },
            &[run("backup", 8, &["/vm1/", "cross-device"])],
        ),
    ),
];
