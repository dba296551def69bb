//! Tests that run in a process of their own, because they count its threads and descriptors.

use std::process::Command;
use std::{env, fs};

use crate::scene::wait_until;

/// Set in the child: for how many seconds it shall run.
const SECONDS: &str = "NBD_SERVER_TEST_SECONDS";

/// Runs an ignored test in a process of its own, and shows what it printed.
#[track_caller]
pub(crate) fn run_child(child: &str, seconds: u64) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture", "--test-threads=1"])
        .env(SECONDS, seconds.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    println!("{text}");
}

/// Returns how long to run; `None` if this is not the child, but a run of all ignored tests.
pub(crate) fn seconds() -> Option<u64> {
    env::var(SECONDS).ok()?.parse().ok()
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings {
    descriptor_count: usize,
    thread_count: usize,
    /// Resident memory in KiB.
    memory_kib: u64,
}

impl Holdings {
    pub(crate) fn now() -> Self {
        let count = |path: &str| fs::read_dir(path).unwrap().count();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            descriptor_count: count("/proc/self/fd"),
            thread_count: count("/proc/self/task"),
            memory_kib: line.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// Waits until there are no more threads and descriptors than before, and asserts that memory has not grown by more
    /// than this.
    pub(crate) fn assert_given_back(self, growth_kib_max: u64) {
        wait_until(|| {
            let now = Self::now();
            now.descriptor_count <= self.descriptor_count && now.thread_count <= self.thread_count
        });
        let now = Self::now();
        println!("before: {self:?}\nafter: {now:?}");
        assert!(now.memory_kib <= self.memory_kib + growth_kib_max);
    }
}
