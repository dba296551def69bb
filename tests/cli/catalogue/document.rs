//! `docs/faults.md` has the rows of the catalogue, and what the rows refer to is there.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::SECTIONS;
use super::row::Proof;

/// The text before the tables.
const PREAMBLE: &str = "\
# Faults

What can go wrong, and what happens then. `tests/cli/catalogue` has these rows as a table and runs them; a test compares it with this page
(`BACKY_WRITE_DOCUMENTS=1` makes the page anew).

For every fault: the command ends by itself and does not panic; one line `error: ...` says what failed and why, with `--json` one
object; revisions that were acknowledged restore as they were, or are said to be damaged; the next backup works and leaves no
temporary file. *Case* means that the row is run against a real store by the driver of the catalogue. Exit codes are those of `backy --help`.
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns the page as it must be.
fn page() -> String {
    let mut page = PREAMBLE.to_owned();
    for (title, rows) in SECTIONS {
        write!(
            page,
            "\n## {title}\n\n| id | fault | exit code | named | proof |\n|---|---|---|---|---|\n"
        )
        .unwrap();
        for row in rows {
            let proof = match row.proof {
                Proof::Case(_) | Proof::Scene(_) => "case".to_owned(),
                Proof::Tests(tests) => {
                    let name = |test: &&str| {
                        let (file, name) = test.split_once(' ').unwrap();
                        format!("`{name}` in `{file}`")
                    };
                    tests.iter().map(name).collect::<Vec<_>>().join(", ")
                }
                Proof::None(reason) => format!("none: {reason}"),
            };
            writeln!(
                page,
                "| {} | {} | {} | {} | {proof} |",
                row.id, row.fault, row.outcome, row.names
            )
            .unwrap();
        }
    }
    page
}

#[test]
fn document_has_the_rows_of_the_catalogue() {
    let path = root().join("docs/faults.md");
    let expected = page();
    if std::env::var_os("BACKY_WRITE_DOCUMENTS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "BACKY_WRITE_DOCUMENTS=1 makes the page anew");
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

#[test]
fn ids_of_the_catalogue_are_unique() {
    let ids: Vec<_> = SECTIONS.iter().flat_map(|(_, rows)| rows.iter().map(|row| row.id)).collect();
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), unique.len());
}

#[test]
fn tests_that_the_catalogue_names_are_there() {
    let mut missing = Vec::new();
    for row in SECTIONS.iter().flat_map(|(_, rows)| rows.iter()) {
        let Proof::Tests(tests) = row.proof else { continue };
        assert!(!tests.is_empty(), "{}", row.id);
        for test in tests {
            let (file, name) = test.split_once(' ').unwrap_or((test, "?"));
            let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            // A test may be made by a macro that takes its name.
            let is_there = text.contains(&format!("fn {name}("))
                || text.lines().any(|line| line.trim_start().starts_with(&format!("{name}:")));
            if !is_there {
                missing.push(format!("{}: {test}", row.id));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
