//! Tables of the documents, for tests that compare them with the code.

use std::fs;
use std::path::Path;

/// Returns the rows of the table in `docs/NAME` whose heading begins with `heading`.
///
/// # Panics
///
/// If the document cannot be read.
#[must_use]
pub fn table_rows(name: &str, heading: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let document = fs::read_to_string(path).expect("the document can be read");
    let rows = document.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
    rows.take_while(|line| line.starts_with('|')).map(str::to_owned).collect()
}
