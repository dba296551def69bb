//! What was measured at growing sizes, as tables in Markdown.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;

use crate::step::Outcome;

/// Everything that was measured at one size.
#[derive(Debug)]
pub(crate) struct Column {
    /// Heading.
    pub name: String,
    /// How much there is of what grows.
    pub units: u64,
    /// What was done, in the same order in all columns.
    pub rows: Vec<(String, Outcome)>,
    /// What the store is then, in the same order in all columns.
    pub facts: Vec<(String, String)>,
}

/// Prints times with their growth, memory, and what the store is.
///
/// Growth is how many times as long it took, divided by how many times as much there was: 1.00 is linear, above is worse.
pub(crate) fn print(title: &str, columns: &[Column]) -> Result<()> {
    let Some(first) = columns.first() else { return Ok(()) };
    let mut out = io::stdout().lock();
    writeln!(out, "\n### {title}\n")?;
    heading(&mut out, "what", columns, columns.len() * 2 + columns.len() - 1)?;
    for (row, (what, _)) in first.rows.iter().enumerate() {
        let outcomes: Vec<&Outcome> = columns.iter().map(|column| &column.rows[row].1).collect();
        let times = outcomes.iter().map(|outcome| seconds(outcome.duration));
        let growth = columns.windows(2).zip(outcomes.windows(2)).map(|(columns, outcomes)| {
            let more = float(columns[1].units) / float(columns[0].units);
            let longer = outcomes[1].duration.as_secs_f64() / outcomes[0].duration.as_secs_f64();
            format!("{:.2}", longer / more)
        });
        let peaks = outcomes.iter().map(|outcome| (outcome.peak_kib >> 10).to_string());
        let cells: Vec<String> = times.chain(growth).chain(peaks).collect();
        writeln!(out, "| {what} | {} |", cells.join(" | "))?;
    }
    if !first.facts.is_empty() {
        writeln!(out)?;
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        writeln!(out, "| store | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()))?;
        for (row, (what, _)) in first.facts.iter().enumerate() {
            let facts: Vec<&str> =
                columns.iter().map(|column| column.facts[row].1.as_str()).collect();
            writeln!(out, "| {what} | {} |", facts.join(" | "))?;
        }
    }
    Ok(())
}

fn heading(out: &mut impl Write, what: &str, columns: &[Column], count: usize) -> Result<()> {
    let times = columns.iter().map(|column| format!("{}: s", column.name));
    let growth = columns.windows(2).map(|pair| format!("growth to {}", pair[1].name));
    let peaks = columns.iter().map(|column| format!("{}: peak MiB", column.name));
    let cells: Vec<String> = times.chain(growth).chain(peaks).collect();
    writeln!(out, "| {what} | {} |\n|---|{}", cells.join(" | "), "---|".repeat(count))?;
    Ok(())
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 { format!("{seconds:.4}") } else { format!("{seconds:.1}") }
}

/// Returns a number for ratios, where the last digits do not matter.
#[expect(clippy::cast_precision_loss, reason = "ratios are printed with three digits")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}
