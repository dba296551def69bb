//! Runs a case and checks what must be true for every fault, besides what its row says: the command ends by itself
//! and without a panic; one line says what failed, with `--json` one object; revisions that were acknowledged restore as they were;
//! the next backup works and leaves no temporary file.

use std::process::Command;
use std::time::{Duration, Instant};

use super::row::{After, Case, Fault, Run};
use super::stage::Stage;
use crate::scene::{IMAGE, Output, files_below};
use crate::system::machine::{skip, tool};
use crate::system::running::Running;

/// Time in which a command must have ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a case; says what is wrong.
pub(super) fn prove(id: &str, case: &Case) -> Result<(), String> {
    let stage = Stage::new();
    let mut fault = match (case.make)(&stage) {
        Ok(fault) => fault,
        Err(reason) => {
            skip(&format!("fault {id}"), &reason);
            return Ok(());
        }
    };
    for run in case.runs {
        for is_json in [false, true] {
            let output = execute(&stage, &fault, run, is_json);
            check_run(&fault, run, is_json, &output).map_err(|problem| {
                let stdout = String::from_utf8_lossy(&output.stdout);
                format!(
                    "{id}: `{}`: {problem}: code {:?}\n{}{:.400}",
                    run.command, output.code, output.stderr, stdout
                )
            })?;
        }
    }
    if let Some(undo) = fault.undo.take() {
        undo(&stage.scene);
    }
    drop(fault.guard.take());
    check_store(&stage, case.after).map_err(|problem| format!("{id}: {problem}"))
}

/// Checks revisions, the next backup, and that nothing is left.
pub(super) fn check_store(stage: &Stage, after: After) -> Result<(), String> {
    for (id, image) in &stage.revisions {
        let (output, bytes) = stage.restore(id);
        match output.code {
            Some(0) if bytes == *image => {}
            Some(0) => return Err(format!("{id} restores other bytes")),
            Some(4) if after == After::Wounded => {}
            code => return Err(format!("{id} is lost: {code:?}: {}", output.stderr)),
        }
    }
    let (_, newest) = stage.revisions.last().expect("there are revisions");
    stage.scene.write(IMAGE, newest);
    let backup = stage.scene.run(["backup", "manual:next"]);
    if backup.code != Some(0) {
        return Err(format!("next backup: {:?}: {}", backup.code, backup.stderr));
    }
    let (output, bytes) = stage.restore("latest");
    if output.code != Some(0) || bytes != *newest {
        return Err(format!("next backup does not restore: {:?}: {}", output.code, output.stderr));
    }
    let left = files_below(&stage.scene.backup_path("tmp"));
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
}

fn execute(stage: &Stage, fault: &Fault, run: &Run, is_json: bool) -> Output {
    let words = fault.fill(run.command);
    let mut arguments: Vec<&str> = words.split_whitespace().collect();
    if is_json {
        arguments.insert(0, "--json");
    }
    // What a former run has left in the place of its target.
    std::fs::remove_file(stage.scene.path("out")).ok();
    let plain = stage.scene.command(&arguments);
    let mut running = Running::start(&mut wrapped(&plain, &fault.wrapper));
    let began = Instant::now();
    while !running.has_ended() {
        assert!(began.elapsed() < PATIENCE, "`{words}` does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.finish()
}

/// Returns a command with another one before it.
fn wrapped(plain: &Command, wrapper: &[String]) -> Command {
    let mut command = match wrapper.split_first() {
        None => Command::new(plain.get_program()),
        Some((first, rest)) => {
            let mut command = tool(first);
            command.args(rest).arg(plain.get_program());
            command
        }
    };
    command.args(plain.get_args());
    command.current_dir(plain.get_current_dir().expect("commands run in their scene"));
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

fn check_run(fault: &Fault, run: &Run, is_json: bool, output: &Output) -> Result<(), String> {
    if output.code != Some(run.code) {
        return Err(format!("exit code {} is expected", run.code));
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (mut text, hint) = match (run.code, is_json) {
        (0, _) => (output.stderr.clone(), false),
        (_, false) => {
            let is_error = |line: &&str| line.starts_with("error: ");
            let errors: Vec<_> = output.stderr.lines().filter(is_error).collect();
            let [error] = errors[..] else { return Err("one line of error is expected".into()) };
            (error.to_owned(), output.stderr.lines().any(|line| line.starts_with("hint: ")))
        }
        (code, true) => {
            let last = output.stderr.lines().last().unwrap_or_default();
            let object: serde_json::Value =
                serde_json::from_str(last).map_err(|error| format!("no JSON object: {error}"))?;
            if object["exit_code"] != code {
                return Err("another exit code in the JSON object".into());
            }
            let causes = object["causes"].as_array().into_iter().flatten();
            let parts = [&object["error"]].into_iter().chain(causes);
            let parts: Vec<_> = parts.filter_map(serde_json::Value::as_str).collect();
            (parts.join(": "), object["hint"].is_string())
        }
    };
    if run.code == 4 || run.code == 0 {
        // Commands that collect findings name them before they sum them up.
        text = format!("{text}\n{}\n{stdout}", output.stderr);
    }
    if run.has_hint && !hint {
        return Err("it does not say what to do".into());
    }
    let missing = run.names.iter().map(|name| fault.fill(name)).find(|name| !text.contains(name));
    match missing {
        Some(name) => Err(format!("{name:?} is not named")),
        None => Ok(()),
    }
}
