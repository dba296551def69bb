//! Help texts and usage errors.

use crate::scene::Scene;

#[test]
fn help_of_each_command_has_its_options() {
    let scene = Scene::new();
    let commands: [(&[&str], &[&str]); 22] = [
        (
            &["init"],
            &[
                "TYPE",
                "SOURCE",
                "--name",
                "--store",
                "--chunk-size",
                "--average-chunk-size",
                "--compression-level",
            ],
        ),
        (&["backup"], &["TAGS", "manual:cli", "--source", "--from-overlay", "--force"]),
        (
            &["restore"],
            &[
                "TARGET",
                "--revision",
                "--overwrite",
                "--delta",
                "--sparse",
                "--verify",
                "--keep-going",
            ],
        ),
        (&["status"], &["--revision", "--yaml", "--space"]),
        (&["find"], &["--revision", "--uuid"]),
        (&["verify"], &["--revision"]),
        (&["scrub"], &["--older-than", "--limit"]),
        (&["diff"], &["--revision", "the same in both"]),
        (&["forget"], &["--revision"]),
        (&["tags"], &["set", "add", "remove"]),
        (&["tags", "set"], &["TAGS", "--revision", "--expect", "--autoremove", "--force"]),
        (&["tags", "add"], &["TAGS", "--revision", "--expect", "--autoremove", "--force"]),
        (&["tags", "remove"], &["TAGS", "--revision", "--expect", "--autoremove"]),
        (&["protect"], &["--revision"]),
        (&["unprotect"], &["--revision"]),
        (&["expire"], &["--dry-run", "--force", "keep-weekly"]),
        (&["purge"], &["--dry-run", "--now"]),
        (&["repair"], &["--plan", "verify --all-data"]),
        (&["index"], &["rebuild"]),
        (&["index", "rebuild"], &[]),
        (&["store", "info"], &[]),
        (&["completions"], &["SHELL"]),
    ];
    let global = [
        "--backup-dir",
        "BACKY_BACKUP_DIR",
        "--verbose",
        "--quiet",
        "--logfile",
        "--json",
        "--progress",
    ];
    for (command, options) in commands {
        let output = scene.succeeds(command.iter().chain(&["--help"]));
        for option in options.iter().chain(&global) {
            assert!(output.text().contains(option), "{command:?} {option}");
        }
        assert_eq!(output.stderr, "", "{command:?}");
    }
    assert!(scene.succeeds(["--help"]).text().contains("Exit codes"));
}

#[test]
fn no_command_prints_the_usage() {
    let scene = Scene::new();
    let output = scene.succeeds::<&str>([]);
    assert!(output.text().contains("Usage: backy"), "{}", output.text());
}

#[test]
fn version_names_the_store_formats() {
    let scene = Scene::new();
    let output = scene.succeeds(["--version"]);
    assert!(output.text().starts_with("backy ") && output.text().contains("store format"));
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let scene = Scene::new();
    let wrong: [&[&str]; 8] = [
        &["nonsense"],
        &["--nonsense", "status"],
        &["init", "file"],
        &["restore"],
        &["forget"],
        &["restore", "--sparse", "sometimes", "out"],
        &["init", "file", "x", "--chunk-size", "1,2,3", "--average-chunk-size", "64KiB"],
        &["-v", "-q", "status"],
    ];
    for arguments in wrong {
        scene.fails(2, arguments);
    }
    assert_eq!(scene.run(["status", "--json", "--yaml"]).code, Some(2));
}
