//! Tests that run in a process of their own, because they measure its memory.

use std::process::Command;
use std::{env, fs};

/// Names the directory of the child.
pub(crate) const CHILD_DIRECTORY: &str = "BACKY_TEST_DIRECTORY";

/// Runs an ignored test in a process of its own, whose peak of memory is then its own too.
#[track_caller]
pub(crate) fn run_child(child: &str) {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIRECTORY, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

/// Returns the largest memory that this process has had resident, in bytes.
pub(crate) fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes << 10
}
