//! Runs a check of one of many states, and says which one failed.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Failures that are listed; more are only counted.
const LISTED_MAX: usize = 12;

/// Returns why `check` panicked, if it did.
pub fn panic_of(check: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(check)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(text.unwrap_or_else(|| "a panic without text".to_owned()))
}

/// Counts states and collects those that failed.
#[derive(Debug, Default)]
pub struct Attempts {
    count: u64,
    failures: Vec<String>,
}

impl Attempts {
    /// Runs `check`, and remembers `name` if it panics.
    pub fn attempt(&mut self, name: impl FnOnce() -> String, check: impl FnOnce()) {
        self.count += 1;
        if let Some(reason) = panic_of(check) {
            self.failures.push(format!("{}: {reason}", name()));
        }
    }

    /// Prints how many states there were.
    ///
    /// # Panics
    ///
    /// If one of them failed.
    pub fn finish(self, what: &str) {
        println!("{what}: {} states, {} failed", self.count, self.failures.len());
        let listed = self.failures.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>();
        assert!(listed.is_empty(), "{} failed:\n{}", self.failures.len(), listed.join("\n"));
    }
}
