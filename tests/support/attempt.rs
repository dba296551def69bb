//! Runs a check of one of many states, and says which one failed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// Failures that are listed; more are only counted.
const LISTED_MAX: usize = 12;

thread_local! {
    /// Whether a panic of this thread is expected, and its reason returned instead of being printed.
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Lets expected panics print nothing: looking up the names of a backtrace takes longer than most checks.
fn quiet_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                print(panic);
            }
        }));
    });
}

/// Returns why `check` panicked, if it did.
pub fn panic_of(check: impl FnOnce()) -> Option<String> {
    quiet_expected_panics();
    let was_quiet = IS_QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(check));
    IS_QUIET.set(was_quiet);
    let panic = result.err()?;
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
