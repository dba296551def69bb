//! The loss of power on real file systems, by the scripts of `tests/powerfail`, which say how and what they prove.
//!
//! The scripts run in namespaces of their own, whose mounts, loop devices and files go away with their last
//! process, however a test ends.

use std::path::Path;

use super::machine::{figure, skip, tool};

/// Exit code of a script that the machine cannot run.
const SKIPPED: i32 = 77;

/// Places of the log at which the power fails, and rounds of the workload before.
const CUTS: (&str, &str) = ("8", "2");

/// The same in long runs: more than a thousand states.
const CUTS_IN_LONG_RUNS: (&str, &str) = ("450", "4");

/// Exit code of a script that met something else than it wanted to show.
const NOTHING_SHOWN: i32 = 75;

/// How often a script is run that shows nothing.
const ATTEMPTS: u32 = 4;

fn is_long() -> bool {
    std::env::var_os("BACKY_LONG_TESTS").is_some()
}

/// Runs a script of `tests/powerfail`, which must find that all holds.
#[track_caller]
pub(super) fn run_script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/powerfail").join(name);
    let mut command = tool("bash");
    command.arg(&script).args(arguments).env("BACKY", env!("CARGO_BIN_EXE_backy"));
    command.envs(environment.iter().copied());
    let mut run = || command.output().expect("there is a shell");
    let mut output = run();
    for _ in 1..ATTEMPTS {
        if output.status.code() != Some(NOTHING_SHOWN) {
            break;
        }
        output = run();
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(SKIPPED) {
        let line = stdout.lines().last().unwrap_or_default();
        let reason = line.strip_prefix("SKIPPED ").and_then(|line| line.split_once(": "));
        let (component, reason) = reason.unwrap_or_else(|| panic!("no reason: {stdout}{stderr}"));
        return skip(component, reason);
    }
    assert!(output.status.success(), "{}: {}\n{stdout}{stderr}", script.display(), output.status);
    figure(stdout.trim());
}

fn assert_power_loss_is_survived(file_system: &str) {
    let (cuts, rounds) = if is_long() { CUTS_IN_LONG_RUNS } else { CUTS };
    run_script("run", &[file_system, cuts], &[("ROUNDS", rounds)]);
}

#[test]
fn power_loss_on_ext4_loses_nothing() {
    assert_power_loss_is_survived("ext4");
}

#[test]
fn power_loss_on_xfs_loses_nothing() {
    assert_power_loss_is_survived("xfs");
}

#[test]
fn power_loss_on_btrfs_loses_nothing() {
    assert_power_loss_is_survived("btrfs");
}

#[test]
fn power_loss_after_syncs_that_were_not_carried_out_is_noticed() {
    if !is_long() {
        return run_script("run", &["--self-test", "ext4", "6"], &[("ROUNDS", "1")]);
    }
    for file_system in ["ext4", "xfs", "btrfs"] {
        for calls in ["fsync", "fdatasync"] {
            let environment = [("ROUNDS", "1"), ("LIE", calls)];
            run_script("run", &["--self-test", file_system, "20"], &environment);
        }
    }
}

/// Cuts, enough that there is one after each acknowledgement of the workload without rounds.
const CUTS_WITHOUT_ROUNDS: &str = "24";

#[test]
fn power_loss_after_an_init_or_a_restore_without_syncs_is_noticed() {
    let file_systems: &[&str] = if is_long() { &["ext4", "xfs", "btrfs"] } else { &["ext4"] };
    for file_system in file_systems {
        // The first is about files, the last about trees.
        let of_restore: &[&str] = if is_long() { &["fsync", "syncfs"] } else { &["fsync,syncfs"] };
        for (command, calls) in [("init", &["fsync"][..]), ("restore", of_restore)] {
            for calls in calls {
                let environment = [("ROUNDS", "0"), ("LIE", calls), ("LIE_IN", command)];
                let arguments = ["--self-test", file_system, CUTS_WITHOUT_ROUNDS];
                run_script("run", &arguments, &environment);
            }
        }
    }
}
