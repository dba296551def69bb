//! G: configurations and arguments that make no sense.

use super::row::{Fault, Proof, Row, hinted, row, run, whole};
use super::stage::{Stage, put};
use crate::system::machine::run_tool;

/// Adds a text to the configuration.
fn configured(stage: &Stage, text: &str) -> Fault {
    let path = stage.scene.backup_path("config");
    let before = std::fs::read(&path).unwrap();
    put(&path, &[&before, text.as_bytes()].concat());
    Fault::default().undone_by(move |_| put(&path, &before))
}

pub(super) const ROWS: &[Row] = &[
    row(
        "G1",
        "a key in the configuration that nobody knows",
        "2",
        "file and key",
        whole(
            |stage| {
                Ok(configured(
                    stage,
                    "stroe: /x
",
                ))
            },
            &[run("status", 2, &["config", "stroe"]), run("backup", 2, &["config"])],
        ),
    ),
    row(
        "G2",
        "a key that is there twice",
        "2",
        "file and key",
        whole(
            |stage| {
                Ok(configured(
                    stage,
                    "source: {type: file, filename: /x}
",
                ))
            },
            &[run("status", 2, &["config", "source"]), run("backup", 2, &["config"])],
        ),
    ),
    row(
        "G3",
        "a number or unit that is none",
        "2",
        "file and value",
        whole(
            |stage| {
                Ok(configured(
                    stage,
                    "schedule:
  daily: {interval: 1fortnight, keep: 3}
",
                ))
            },
            &[run("status", 2, &["config", "fortnight"]), run("backup", 2, &["config"])],
        ),
    ),
    row(
        "G4",
        "an environment variable that makes no sense",
        "2, 10",
        "the value",
        whole(
            |_| {
                Ok(Fault {
                    wrapper: ["env", "BACKY_BACKUP_DIR=/dev/null/x"].map(str::to_owned).into(),
                    ..Fault::default()
                })
            },
            &[hinted("status", 10, &["/dev/null/x"])],
        ),
    ),
    row(
        "G5",
        "names that are paths, options, or too long",
        "2",
        "the name",
        whole(
            |_| Ok(Fault::naming("long", "x".repeat(300))),
            &[
                run("-b other init --name ../../etc file disk.img", 2, &["../../etc"]),
                run("-b other init --name=-rf file disk.img", 2, &["-rf"]),
                run("-b other init --name {long} file disk.img", 2, &["xxxx"]),
            ],
        ),
    ),
    row(
        "G6",
        "the configuration is a link to itself",
        "2",
        "the file",
        whole(
            |stage| {
                let path = stage.scene.backup_path("config");
                let before = std::fs::read(&path).unwrap();
                std::fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink("config", &path).unwrap();
                Ok(Fault::default().undone_by(move |_| put(&path, &before)))
            },
            &[run("status", 2, &["config", "symbolic links"])],
        ),
    ),
    row(
        "G7",
        "everybody may write the configuration",
        "-",
        "-",
        Proof::None("nothing in it is run, and who may write there may replace the store as well"),
    ),
    row(
        "G8",
        "the configuration has a gigabyte",
        "2",
        "file and limit",
        whole(
            |stage| {
                let path = stage.scene.backup_path("config");
                let before = std::fs::read(&path).unwrap();
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                file.set_len(1 << 30).unwrap();
                Ok(Fault::default().undone_by(move |_| put(&path, &before)))
            },
            &[run("status", 2, &["config", "1048576"])],
        ),
    ),
    row(
        "G9",
        "the configuration becomes wrong while a scheduler runs",
        "-",
        "-",
        Proof::None("there is no scheduler yet"),
    ),
    row(
        "G10",
        "any error, with --json",
        "as without",
        "one object with error, causes, exit code and hint",
        Proof::Tests(&[
            "tests/cli/json.rs errors_are_one_object_on_stderr",
            "tests/cli/catalogue/driver.rs check_run",
        ]),
    ),
    row(
        "G11",
        "a specification of revisions that makes no sense",
        "2",
        "the specification",
        whole(
            |_| Ok(Fault::default()),
            &[
                hinted("status -r (((", 2, &["((("]),
                hinted("status -r 1..2..3", 2, &["1..2..3"]),
                hinted("status -r not(", 2, &["not("]),
                hinted("status -r @#%", 2, &["@#%"]),
            ],
        ),
    ),
    row(
        "G12",
        "a specification that means several revisions where one is wanted",
        "2",
        "the candidates",
        whole(
            |stage| {
                Ok(Fault {
                    words: vec![("a", stage.id(0)), ("b", stage.id(1))],
                    ..Fault::default()
                })
            },
            &[hinted("restore -r all out", 2, &["all", "{a}", "{b}"])],
        ),
    ),
    row(
        "G13",
        "one read of the configuration fails",
        "8",
        "the file; a job does not go on without its lock",
        whole(
            |stage| {
                run_tool("strace", ["-o", "/dev/null", "true"])?;
                let path = stage.scene.root().join("vm1/config");
                Ok(Fault::injected(&[
                    "-P",
                    path.to_str().unwrap(),
                    "-e",
                    "trace=read",
                    "-e",
                    "inject=read:error=EIO:when=1",
                ]))
            },
            &[
                run("status", 8, &["config", "Input/output error"]),
                run("whisper list", 8, &["config", "Input/output error"]),
                run("whisper restore", 8, &["config", "Input/output error"]),
            ],
        ),
    ),
    row(
        "G14",
        "the command is interrupted while it makes the backup directory",
        "0 for the same command",
        "nothing: it is taken up",
        Proof::Tests(&[
            "tests/cli/backup.rs start_that_was_interrupted_is_taken_up_by_the_same_command",
        ]),
    ),
];
