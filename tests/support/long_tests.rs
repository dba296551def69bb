//! How much a test may try: a sample, or everything.

/// Returns whether the environment asks for the full set: `BACKY_LONG_TESTS=1`.
#[must_use]
pub fn are_wanted() -> bool {
    std::env::var("BACKY_LONG_TESTS").is_ok_and(|value| value == "1")
}

/// Returns `short` for a sample and `long` for the full set.
#[must_use]
pub fn choose<T>(short: T, long: T) -> T {
    if are_wanted() { long } else { short }
}
