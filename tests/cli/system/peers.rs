//! The comparison with other programs runs as a whole, on small images: `benches/peers/`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::machine::{run_tool, skip, tool};
use crate::scene::Scene;

/// Steps in which backy takes part, and whether its store is measured after them.
const STEPS: [(&str, bool); 10] = [
    ("first", true),
    ("unchanged", true),
    ("day2", true),
    ("day3", true),
    ("other", true),
    ("restore", false),
    ("delta", false),
    ("verify", false),
    ("sparse", true),
    ("random", true),
];

fn record<'a>(records: &'a [Value], step: &str, program: &str) -> Option<&'a Value> {
    records.iter().find(|record| record["step"] == step && record["program"] == program)
}

/// Says which program is missing that the comparison itself needs.
fn missing() -> Option<String> {
    let needed = [("python3", "-V"), ("sfdisk", "-v"), ("/usr/bin/time", "--version")];
    needed.iter().find_map(|(program, option)| run_tool(program, [option]).err())
}

/// Runs a script of the comparison and returns what it printed.
#[track_caller]
fn run_script(script: &mut Command) -> Vec<u8> {
    let output = script.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn comparison_measures_every_step_and_names_what_is_missing() {
    let scene = Scene::new();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers");
    let directory = scene.path("peers");
    if let Some(reason) = missing() {
        return skip("comparison with other programs", &reason);
    }

    // Small images of files of this machine.
    let mut dataset = tool("python3");
    dataset.arg(scripts.join("dataset")).arg(&directory);
    dataset.args(["--size-mib=32", "--sparse-mib=64", "--sparse-data-mib=2", "--random-mib=2"]);
    dataset.args(["--database-mib=2", "--from=host", "--no-mount"]);
    run_script(&mut dataset);

    let table = scene.path("table.md");
    fs::write(
        &table,
        "before\n<!-- benches/peers/run begins -->\nold\n<!-- benches/peers/run ends -->\nafter\n",
    )
    .unwrap();
    let mut run = tool("python3");
    run.arg(scripts.join("run")).arg(directory).args([
        "--runs=1",
        "--programs=backy,borg,cp",
        "--json",
    ]);
    run.arg("--markdown").arg(&table);
    run.env("BACKY", env!("CARGO_BIN_EXE_backy")).env("BORG", "/nowhere/borg");
    let result: Value = serde_json::from_slice(&run_script(&mut run)).unwrap();
    let records = result["records"].as_array().unwrap();
    for (step, is_stored) in STEPS {
        let figures = record(records, step, "backy").expect("backy takes part in every step");
        assert!(figures["wall"].as_f64().unwrap() > 0.0, "{step}");
        assert!(figures["rss_kib"].as_u64().unwrap() > 0, "{step}");
        assert_eq!(figures["stored"].is_u64(), is_stored, "{step}");
    }
    let stored = |step| record(records, step, "backy").unwrap()["stored_len"].as_u64().unwrap();
    assert!(stored("first") < stored("day2") && stored("day2") < stored("day3"));
    assert!(stored("unchanged") - stored("first") < 64 << 10, "an unchanged image adds a record");
    assert!(record(records, "restore", "cp").is_some());
    assert!(record(records, "first", "borg").is_none());

    let text = fs::read_to_string(&table).unwrap();
    assert!(text.starts_with("before\n") && text.ends_with("after\n") && !text.contains("old\n"));
    assert!(text.contains("| borg | 0 | skipped: not installed (apt-get install borgbackup) |"));
    assert!(text.contains("| restore to a new file: time, to cp and sync | at most 1.3 x |"));
}
