//! What must hold after a call has failed: exit code, message, syncs, and the store.

use std::path::{Path, PathBuf};

use super::stage::{Command, Kind, Stage};
use super::tracer::{Call, Injection, Outcome};
use crate::scene::{BACKUP_DIR, IMAGE, files_below};

/// Says what is wrong with how a command ended, and with what it has left.
pub(super) fn check(
    stage: &Stage,
    command: &Command,
    injection: &Injection,
    outcome: &Outcome,
) -> Result<(), String> {
    let hits = hits(stage, outcome);
    let case = format!(
        "{:?}, {injection:?} at {hits:?}, exit code {:?}: {}",
        command.arguments, outcome.output.code, outcome.output.stderr
    );
    check_code(stage, command, injection, outcome, &hits)
        .and_then(|()| check_message(stage, outcome, &hits))
        .and_then(|()| check_syncs(stage, outcome))
        .and_then(|()| check_store(stage, command))
        .map_err(|problem| format!("{problem}\n    {case}"))
}

/// Says what is wrong unless the condition holds.
fn must(condition: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(problem()) }
}

/// Returns the paths in the scene whose calls failed.
fn hits(stage: &Stage, outcome: &Outcome) -> Vec<PathBuf> {
    let injected = outcome.calls.iter().filter(|call| call.is_injected);
    // What is printed may be about the scene, and is not of it.
    let injected = injected.filter(|call| !(call.name == "write" && call.text.starts_with("1<")));
    let mut paths: Vec<_> = injected.flat_map(|call| call.paths(&stage.scene)).collect();
    paths.dedup();
    paths
}

/// Returns where in the backup directory a path is; `None` if it is elsewhere.
fn inside<'a>(stage: &Stage, path: &'a Path) -> Option<&'a Path> {
    let root = stage.scene.root().join(BACKUP_DIR);
    path.strip_prefix(root).ok()
}

fn is_source(stage: &Stage, path: &Path) -> bool {
    let root = stage.scene.root();
    path.starts_with(root.join(IMAGE)) || path.starts_with(root.join("tree"))
}

/// Returns the exit code that an error of the operating system means where nothing else is said.
fn code_of(error: &str) -> i32 {
    match error {
        "ENOSPC" | "EDQUOT" => 5,
        "EROFS" | "EACCES" => 7,
        _ => 8,
    }
}

fn check_code(
    stage: &Stage,
    command: &Command,
    injection: &Injection,
    outcome: &Outcome,
    hits: &[PathBuf],
) -> Result<(), String> {
    let Some(code) = outcome.output.code else { return Err("ended by a signal".to_owned()) };
    if hits.is_empty() {
        // What failed was no business of the store, such as a file of /proc or of time zones.
        let is_elsewhere = outcome.calls.iter().any(|call| call.is_injected);
        return must(is_elsewhere || code == 0, || "nothing failed".to_owned());
    }
    if code == 0 {
        let is_told =
            ["warning: ", "cannot "].iter().any(|word| outcome.output.stderr.contains(word));
        let is_again = injection.call == "pwrite64" && writes_are_made_again(stage, outcome);
        let can_go_on = |path: &PathBuf| {
            let is_tmp = inside(stage, path).is_some_and(|path| path.starts_with("tmp"));
            is_again && is_tmp || goes_on(stage, command, injection, path)
        };
        let all_can_go_on = hits.iter().all(can_go_on);
        return must(is_told || all_can_go_on, || "nobody is told".to_owned());
    }
    let may_be_damage = matches!(injection.call, "openat" | "pread64" | "statx");
    let is_permitted = |path: &PathBuf| {
        let top = inside(stage, path).and_then(|path| path.iter().next()?.to_str());
        match top {
            _ if is_source(stage, path) => code == 3,
            // A directory that cannot be looked at is made, and is there.
            _ if injection.call == "statx" && code == 8 => true,
            // Files of a tree that cannot be restored are counted; the others are restored.
            None if stage.kind == Kind::Tree && code == 3 => true,
            Some("packs") if code == 4 => may_be_damage,
            _ => code == code_of(injection.error),
        }
    };
    must(hits.iter().any(is_permitted), || "wrong exit code".to_owned())
}

/// Returns whether each write that failed in `tmp` was made again at the same offset of the same file, and then succeeded: packs are
/// written past the page cache, and through it where that fails.
fn writes_are_made_again(stage: &Stage, outcome: &Outcome) -> bool {
    let in_tmp = |paths: &[PathBuf]| {
        paths.iter().all(|path| inside(stage, path).is_some_and(|path| path.starts_with("tmp")))
    };
    let mut failed = outcome.calls.iter().enumerate().filter(|(_, call)| call.is_injected);
    failed.all(|(place, failed)| {
        let paths = failed.paths(&stage.scene);
        let is_again = |later: &Call| {
            !later.is_injected
                && later.name == "pwrite64"
                && later.offset() == failed.offset()
                && later.paths(&stage.scene) == paths
        };
        !in_tmp(&paths) || outcome.calls[place + 1..].iter().any(is_again)
    })
}

/// Returns whether a command may go on without a word after such a failure.
fn goes_on(stage: &Stage, command: &Command, injection: &Injection, path: &Path) -> bool {
    let Some(path) = inside(stage, path) else {
        // Whether a target is there is asked before it is made, and its making never replaces one. A file of a tree that
        // was stored and cannot be read once more is not compared with what was stored.
        return match is_source(stage, path) {
            true => stage.kind == Kind::Tree,
            false => injection.call == "statx",
        };
    };
    if stage.kind == Kind::Empty && injection.call == "statx" {
        // What is asked before it is made, too, and no making replaces anything.
        return true;
    }
    let is_full = matches!(injection.error, "ENOSPC" | "EDQUOT");
    let is_refused = matches!(injection.error, "EROFS" | "EACCES");
    match path.iter().next().and_then(|top| top.to_str()) {
        // Derived: made again, or done without.
        Some("index.redb") => true,
        // The text in a lock is for people, and a lock that cannot be had for reading is done without.
        Some("locks" | "whisper.lock") => true,
        // Purge makes room on a full disk and begins again.
        _ if command.purges && is_full => true,
        // Whoever only reads does so where nothing can be written, and leaves no trace there.
        Some("tmp" | "sessions") if command.reads && (is_full || is_refused) => true,
        // Leftovers go next time.
        Some("tmp" | "trash" | "sessions" | "ballast") if injection.call == "unlink" => true,
        // A file that is locked is looked at once more, in case its name was taken away meanwhile.
        Some("tmp" | "store.json") => injection.call == "statx",
        // Is read again, or from another copy.
        Some("packs") => matches!(injection.call, "pread64" | "openat" | "statx"),
        _ => false,
    }
}

fn check_message(stage: &Stage, outcome: &Outcome, hits: &[PathBuf]) -> Result<(), String> {
    let output = &outcome.output;
    if output.code == Some(0) || hits.is_empty() {
        return Ok(());
    }
    let errors: Vec<_> = output.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { return Err("no error line, or several".to_owned()) };
    // Commands that go on with other chunks or files name what they find before they sum it up.
    let text = if matches!(output.code, Some(3 | 4)) { output.stderr.as_str() } else { error };
    let root = stage.scene.root();
    let names = |path: &Path| {
        let from_scene = path.strip_prefix(&root).unwrap_or(path);
        text.contains(path.to_str().unwrap()) || text.contains(from_scene.to_str().unwrap())
    };
    let is_named = |path: &PathBuf| match inside(stage, path) {
        // A target is written beside its name. Of a tree, the directory is named, or the file below it.
        None => {
            let is_file = text.contains(".wsp: ");
            names(path) || is_source(stage, path) || names(&root.join("out")) || is_file
        }
        // A file gets its name when it is complete.
        Some(inner) if inner.starts_with("tmp") => names(path) || names(&root.join(BACKUP_DIR)),
        Some(inner) => {
            let name = inner.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let stem = name.split('.').next().unwrap_or(name);
            let is_id = 32 <= stem.len();
            names(path)
                || (is_id && text.contains(stem))
                || (!is_id && path.parent().is_some_and(names))
        }
    };
    must(hits.iter().any(is_named), || "names no path".to_owned())
}

/// A sync that failed is not tried again on the same file, nor does that file get its name.
fn check_syncs(stage: &Stage, outcome: &Outcome) -> Result<(), String> {
    let is_sync = |name: &str| matches!(name, "fdatasync" | "fsync");
    for (place, failed) in outcome.calls.iter().enumerate() {
        if !failed.is_injected || !is_sync(&failed.name) {
            continue;
        }
        for path in failed.paths(&stage.scene).iter().filter(|path| !path.is_dir()) {
            for later in &outcome.calls[place + 1..] {
                let paths = later.paths(&stage.scene);
                if !paths.contains(path) {
                    continue;
                }
                let is_rename = later.name.starts_with("rename");
                let is_from = paths.first() == Some(path);
                // Another file has that name from here on.
                if is_rename && !is_from || later.text.contains("O_EXCL") {
                    break;
                }
                let is_used = is_sync(&later.name) || is_rename;
                must(!is_used, || format!("used after a failed sync: {later:?}"))?;
            }
        }
    }
    Ok(())
}

fn check_store(stage: &Stage, command: &Command) -> Result<(), String> {
    for (number, (id, content)) in stage.acknowledged.iter().enumerate() {
        match stage.restore(id) {
            Ok(found) => must(found == *content, || format!("{id} restores other bytes"))?,
            Err((Some(10), _)) if number == 0 && command.removes_first => {}
            Err(error) => return Err(format!("{id} is lost: {error:?}")),
        }
    }
    let next = stage.back_up();
    must(next.code == Some(0), || format!("next backup: {:?}, {}", next.code, next.stderr))?;
    let left = files_below(&stage.scene.backup_path("tmp"));
    must(left.is_empty(), || format!("left behind: {left:?}"))?;
    if stage.kind != Kind::Tree {
        let source = stage.scene.read(IMAGE);
        let newest = stage.restore("latest").map(|files| files[0].1 == source);
        must(newest == Ok(true), || format!("next backup restores {newest:?}"))?;
    }
    Ok(())
}
