//! Every call that a command makes on the files of a store, made to fail: the real binary, under `strace`, which gives
//! back an error instead of making the call.
//!
//! A command runs once unharmed, which tells the calls that touch the scene. Then it runs once for each of them and each error,
//! on a fresh copy of the store. `strace` counts for each thread on its own, so "the N-th call" fails in every thread that makes as
//! many. What the loader of the operating system does is over when `strace` is attached (`tracer`).
//!
//! The simulated file system does the same inside of the library, for every call and without gaps
//! (`tests/it/faults.rs`). Here it is about what a user meets: exit code, message, what is left.

mod stage;
mod tracer;
mod verdict;

use std::collections::BTreeSet;

use stage::{Command, Stage};
use tracer::{Injection, Tracer};

use super::machine::{figure, skip};

/// Cases of a command in the short form, for each kind of call.
const SHORT_COUNT: usize = 3;

/// Errors that a kind of call can have, first the one that is tried with every call.
const CALLS: [(&str, &[&str]); 16] = [
    ("openat", &["EIO", "EACCES", "ENOSPC", "EROFS", "EMFILE"]),
    ("read", &["EIO"]),
    ("pread64", &["EIO"]),
    ("pwrite64", &["ENOSPC", "EIO", "EDQUOT", "EROFS"]),
    ("write", &["ENOSPC", "EIO", "EDQUOT"]),
    ("fdatasync", &["EIO", "ENOSPC", "EDQUOT"]),
    ("fsync", &["EIO", "ENOSPC", "EDQUOT"]),
    ("renameat2", &["EIO", "ENOSPC", "EROFS", "EACCES"]),
    ("rename", &["EIO", "ENOSPC", "EROFS", "EACCES"]),
    ("unlink", &["EIO", "EROFS", "EACCES"]),
    ("mkdir", &["ENOSPC", "EIO", "EDQUOT", "EROFS", "EACCES"]),
    ("ftruncate", &["EIO", "EROFS"]),
    ("fallocate", &["ENOSPC", "EIO", "EDQUOT"]),
    ("flock", &["EIO", "ENOLCK"]),
    ("getdents64", &["EIO"]),
    ("statx", &["EIO", "EACCES"]),
];

/// Fails the calls of a command one after the other.
fn fail_all_calls(command: &Command) {
    let tracer = match Tracer::new() {
        Ok(tracer) => tracer,
        Err(reason) => return skip("failing calls", &reason),
    };
    let stage = Stage::new(command);
    stage.reset();
    let calls = tracer.rehearse(&stage, command);
    let mut run_count = 0;
    let mut problems = Vec::new();
    for (number, (name, errors)) in (0..).zip(CALLS) {
        let Some(ordinals) = calls.get(name) else { continue };
        for (error, ordinal) in chosen(ordinals, errors, number) {
            stage.reset();
            let injection = Injection { call: name, error, ordinal };
            let outcome = tracer.run(&stage, command, &injection);
            problems.extend(verdict::check(&stage, command, &injection, &outcome).err());
            run_count += 1;
        }
    }
    assert_ne!(run_count, 0, "{command:?}: no call was made to fail");
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    figure(&format!("{}: {run_count} calls failed", command.arguments.join(" ")));
}

/// Returns which call fails with which error: all with all, or a few.
fn chosen<'a>(
    ordinals: &BTreeSet<usize>,
    errors: &[&'a str],
    seed: usize,
) -> Vec<(&'a str, usize)> {
    let all = errors.iter().flat_map(|error| ordinals.iter().map(|ordinal| (*error, *ordinal)));
    if std::env::var("BACKY_LONG_TESTS").is_ok_and(|value| value == "1") {
        return all.collect();
    }
    // Spread over the whole run; what happens last matters most, so it is always among them.
    let ordinals: Vec<_> = ordinals.iter().copied().collect();
    let count = SHORT_COUNT.min(ordinals.len());
    let place = |number: usize| ordinals[ordinals.len() - 1 - number * ordinals.len() / count];
    (0..count).map(|number| (errors[(seed + number) % errors.len()], place(number))).collect()
}

macro_rules! failing_calls {
    ($($name:ident: $command:expr;)*) => {
        $(#[test] fn $name() { fail_all_calls(&$command); })*
    };
}

failing_calls! {
    init_survives_the_failure_of_any_call: Command::init();
    backup_survives_the_failure_of_any_call: Command::writing(&["backup", "daily"]);
    restore_survives_the_failure_of_any_call: Command::reading(&["restore", "-r", "first", "out"]);
    verify_survives_the_failure_of_any_call:
        Command::reading(&["verify", "-r", "all", "--all-data"]);
    scrub_survives_the_failure_of_any_call: Command::reading(&["scrub"]);
    forget_survives_the_failure_of_any_call: Command::removing(&["forget", "-r", "first"]);
    expire_survives_the_failure_of_any_call: Command::removing(&["expire", "--force"]);
    tags_survive_the_failure_of_any_call:
        Command::writing(&["tags", "add", "-r", "first", "manual:y"]);
    purge_survives_the_failure_of_any_call: Command::purging(&["purge", "--now"]);
    repair_survives_the_failure_of_any_call: Command::reading(&["repair"]);
    index_rebuild_survives_the_failure_of_any_call: Command::writing(&["index", "rebuild"]);
    whisper_backup_survives_the_failure_of_any_call: Command::tree_backup(&["whisper", "backup"]);
    whisper_restore_survives_the_failure_of_any_call:
        Command::tree_restore(&["whisper", "restore", "-p", "out", "-m", "*"]);
}
