//! The comparison on trees of whisper files runs as a whole, on a small tree: `benches/whisper/`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::machine::{run_tool, skip, tool};
use crate::scene::Scene;

/// Points of the only archive of a file.
const POINTS: u32 = 60;

/// Seconds between two of them.
const STEP: u32 = 60;

/// Returns a whisper file of which the first `filled` points were written.
fn whisper_file(seed: u32, filled: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let header = [1, STEP * POINTS, 0.5_f32.to_bits(), 1, 28, STEP, POINTS];
    header.iter().for_each(|number: &u32| file.extend_from_slice(&number.to_be_bytes()));
    for point in 0..filled {
        let interval = 1_700_000_040 + STEP * point;
        file.extend_from_slice(&interval.to_be_bytes());
        file.extend_from_slice(&f64::from(seed * 1000 + point).to_be_bytes());
    }
    file.resize(28 + 12 * 60, 0);
    file
}

fn write_day(tree: &Path, filled: u32) {
    for number in 0..5 {
        let path = tree.join(format!("servers/host{}/cpu/user{number}.wsp", number % 2));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, whisper_file(number, filled)).unwrap();
    }
}

fn run(directory: &Path, options: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/whisper/run");
    let mut run: Command = tool("python3");
    run.arg(script).arg(directory).args(["--runs=1", "--programs=gzip-each,borg,cp", "--json"]);
    run.args(options).env("BACKY", env!("CARGO_BIN_EXE_backy")).env("BORG", "/nowhere/borg");
    let output = run.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn comparison_on_whisper_trees_measures_every_step_and_names_what_is_missing() {
    let scene = Scene::new();
    let needed = [("python3", "-V"), ("/usr/bin/time", "--version")];
    if let Some(reason) = needed.iter().find_map(|(name, option)| run_tool(name, [option]).err()) {
        return skip("comparison on whisper trees", &reason);
    }
    let directory = scene.path("trees");
    write_day(&directory.join("t2200/day1"), POINTS / 2);
    write_day(&directory.join("t2200/day2"), POINTS);

    let table = scene.path("table.md");
    let markers = ["<!-- benches/whisper/run begins -->", "<!-- benches/whisper/run ends -->"];
    fs::write(&table, format!("before\n{}\nold\n{}\nafter\n", markers[0], markers[1])).unwrap();
    let result = run(&directory, &["--markdown", table.to_str().unwrap()]);
    let records = result["records"].as_array().unwrap();
    let steps: Vec<(&str, &str)> = records
        .iter()
        .map(|record| (record["step"].as_str().unwrap(), record["program"].as_str().unwrap()))
        .collect();
    let copies = ["first", "unchanged", "day2"].map(|step| (step, "gzip-each"));
    assert_eq!(steps, [copies.as_slice(), &[("restore", "cp")]].concat());
    let files = |index: usize| records[index]["store_files"].as_u64().unwrap();
    assert_eq!([files(0), files(1), files(2)], [10, 10, 20], "two for each new version");
    for record in records {
        assert!(record["wall"].as_f64().unwrap() > 0.0, "{record}");
        assert!(record["rss_kib"].as_u64().unwrap() > 0, "{record}");
    }

    let text = fs::read_to_string(&table).unwrap();
    assert!(text.starts_with("before\n") && text.ends_with("after\n") && !text.contains("old\n"));
    assert!(text.contains("| borg | 0 | skipped: not installed (apt-get install borgbackup) |"));
    assert!(text.contains("| first: faster than gzip-each | at least 80 x |"));

    let resumed = run(&directory, &["--resume"]);
    assert_eq!(resumed["records"], result["records"], "nothing is measured twice");
}
