//! `strace` on a command, from where the program itself begins.
//!
//! The command gets a pipe with a name as its log file and waits there for a reader. Then `strace` is attached; then the pipe is
//! opened. So the calls of the loader are over, and no counter has counted them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::stage::{Command, Stage};
use crate::scene::{BACKUP_DIR, Output, Scene};
use crate::system::machine::{is_root, run_tool, tool};
use crate::system::running::Running;

/// Time in which anything must have happened.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pipe that stands for the log file.
const PIPE: &str = "log.pipe";

/// What `strace` writes.
const TRACE: &str = "trace";

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Injection {
    pub(super) call: &'static str,
    pub(super) error: &'static str,
    /// The first call of a thread is 1.
    pub(super) ordinal: usize,
}

/// A line of a trace: the beginning of a call.
#[derive(Debug)]
pub(super) struct Call {
    thread: String,
    pub(super) name: String,
    /// All that is in the line behind the name.
    pub(super) text: String,
    pub(super) is_injected: bool,
}

/// How a command ended, and what it called.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) output: Output,
    pub(super) calls: Vec<Call>,
}

/// Runs commands under `strace`.
#[derive(Debug)]
pub(super) struct Tracer;

impl Tracer {
    /// Says why if this machine cannot do it.
    pub(super) fn new() -> Result<Self, String> {
        run_tool("strace", ["--version"])?;
        if !is_root() {
            return Err("not possible here: attaching to a process needs root".to_owned());
        }
        // A container may forbid it.
        run_tool("strace", ["-o", "/dev/null", "true"])
            .map_err(|reason| format!("not possible here: {reason}"))?;
        Ok(Self)
    }

    /// Runs a command unharmed and returns which of its calls touch the scene: for each name their
    /// places among the calls of that name in their thread.
    pub(super) fn rehearse(
        &self,
        stage: &Stage,
        command: &Command,
    ) -> BTreeMap<String, BTreeSet<usize>> {
        let outcome = self.trace(&stage.scene, command, None);
        assert_eq!(outcome.output.code, Some(0), "{command:?}: {}", outcome.output.stderr);
        let mut counters: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut found: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for call in outcome.calls {
            let counter = counters.entry((call.thread.clone(), call.name.clone())).or_default();
            *counter += 1;
            if !call.paths(&stage.scene).is_empty() {
                found.entry(call.name).or_default().insert(*counter);
            }
        }
        found
    }

    /// Runs a command one of whose calls fails.
    pub(super) fn run(&self, stage: &Stage, command: &Command, injection: &Injection) -> Outcome {
        self.trace(&stage.scene, command, Some(injection))
    }

    fn trace(&self, scene: &Scene, command: &Command, injection: Option<&Injection>) -> Outcome {
        let pipe = scene.path(PIPE);
        fs::remove_file(&pipe).ok();
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let mut arguments = vec!["--logfile", PIPE];
        arguments.extend_from_slice(command.arguments);
        let mut running = Running::start(scene.command(arguments).env("TZ", "UTC"));
        wait_until_asleep(running.id());
        let mut strace = attach(scene, running.id(), injection);
        let reader = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap())
            .open(&pipe)
            .unwrap();
        let began = Instant::now();
        while !running.has_ended() {
            assert!(began.elapsed() < PATIENCE, "{command:?} with {injection:?} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = running.finish();
        strace.wait().unwrap();
        drop(reader);
        let trace = fs::read(scene.path(TRACE)).unwrap();
        Outcome { output, calls: parse(&String::from_utf8_lossy(&trace)) }
    }
}

/// Waits until the command sleeps: it does so nowhere but at the pipe.
fn wait_until_asleep(id: u32) {
    let began = Instant::now();
    let stat = format!("/proc/{id}/stat");
    while !fs::read_to_string(&stat).unwrap().contains("(backy) S ") {
        assert!(began.elapsed() < PATIENCE, "it does not open its log file");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Attaches `strace` to a process and returns when it is there.
fn attach(scene: &Scene, id: u32, injection: Option<&Injection>) -> Child {
    let names: Vec<_> = super::CALLS.iter().map(|(name, _)| *name).collect();
    let mut strace = tool("strace");
    // Paths are longer than what is shown of a text otherwise.
    strace.args(["-f", "-y", "-s", "512", "-o"]).arg(scene.path(TRACE));
    strace.arg("-e").arg(format!("trace={},execve", names.join(",")));
    if let Some(Injection { call, error, ordinal }) = injection {
        strace.arg("-e").arg(format!("inject={call}:error={error}:when={ordinal}"));
    }
    strace.arg("-p").arg(id.to_string()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut strace = strace.spawn().unwrap();
    let mut messages = BufReader::new(strace.stderr.take().unwrap());
    let mut line = String::new();
    messages.read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "{line}");
    // Nobody is to wait because a pipe is full.
    std::thread::spawn(move || messages.read_to_end(&mut Vec::new()));
    strace
}

/// Reads a trace. A call during which another thread was at work has a second line for its end.
fn parse(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for line in trace.lines() {
        if let Some(call) = Call::parse(line) {
            calls.push(call);
            continue;
        }
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
        if rest.trim_start().starts_with("<...") {
            let begun = calls.iter_mut().rev().find(|call| call.thread == thread);
            let begun = begun.expect("what ends has begun");
            begun.is_injected |= rest.contains("(INJECTED)");
        }
    }
    calls
}

impl Call {
    /// Reads a line of a trace; `None` if no call begins in it.
    fn parse(line: &str) -> Option<Self> {
        let (thread, rest) = line.trim_start().split_once(' ')?;
        if rest.trim_start().starts_with("<...") {
            return None;
        }
        let (name, text) = rest.trim_start().split_once('(')?;
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
        is_name.then(|| Self {
            thread: thread.to_owned(),
            name: name.to_owned(),
            text: text.to_owned(),
            is_injected: text.contains("(INJECTED)"),
        })
    }

    /// Returns the last argument of a call that has an offset there.
    pub(super) fn offset(&self) -> Option<u64> {
        let end = self.text.rfind(") = ").or_else(|| self.text.rfind(" <unfinished"))?;
        self.text[..end].rsplit(", ").next()?.parse().ok()
    }

    /// Returns the paths in the scene that the call is about.
    pub(super) fn paths(&self, scene: &Scene) -> Vec<PathBuf> {
        let root = scene.root();
        let mut found = Vec::new();
        let parts = self.text.split(['"', '<', '>']);
        for (part, before) in parts.clone().skip(1).zip(parts) {
            if before.ends_with("AT_FDCWD") || part == PIPE || part.contains(TRACE) {
                continue;
            }
            let is_relative = [BACKUP_DIR, "out"].iter().any(|name| {
                part.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            let path = Path::new(part);
            if is_relative {
                found.push(root.join(path));
            } else if path.starts_with(&root) && path != root {
                found.push(path.to_owned());
            }
        }
        found.retain(|path| path.file_name().is_some_and(|name| name != PIPE));
        found
    }
}
