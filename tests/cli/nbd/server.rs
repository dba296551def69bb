//! A server that runs for a test, and the clients that talk to it. Nothing outlives its test: the server is stopped when it is
//! dropped, and each client has a time limit.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::scene::Scene;
use crate::system::machine::{skip, tool};

/// Longest time that one client may take.
const CLIENT_SECONDS: &str = "100";

/// A running `backy nbd-server`.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// What it printed when it was ready.
    pub(crate) report: serde_json::Value,
}

impl Server {
    /// Starts a server on a Unix socket in the scene. Arguments may say otherwise.
    #[track_caller]
    pub(crate) fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let words = ["--json", "nbd-server"].iter().chain(arguments);
        let is_told = ["-p", "-H", "--socket"].iter().any(|word| arguments.contains(word));
        let socket = ["--socket", "s"];
        let mut command = scene.command(words.chain(if is_told { &[] } else { &socket[..] }));
        Self::begin(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    #[track_caller]
    pub(crate) fn begin(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary can be run");
        let mut text = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        while !text.ends_with("\n}\n") {
            if stdout.read_line(&mut text).expect("stdout can be read") == 0 {
                let mut stderr = String::new();
                child
                    .stderr
                    .take()
                    .expect("stderr is a pipe")
                    .read_to_string(&mut stderr)
                    .expect("stderr can be read");
                panic!("the server did not begin: {stderr}");
            }
        }
        Self { child, report: serde_json::from_str(&text).expect("it is a JSON document") }
    }

    /// Returns the address of an export.
    pub(crate) fn uri(&self, export: &str) -> String {
        let uri = self.report["uris"][0].as_str().expect("there is an address");
        match uri.split_once("/?") {
            Some((start, query)) => format!("{start}/{export}?{query}"),
            None => format!("{uri}/{export}"),
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("ids of processes are small");
        kill_process(Pid::from_raw(id).expect("it is not 0"), signal).expect("the server runs");
    }

    /// Stops the server as an administrator does, and returns what it printed on stderr.
    #[track_caller]
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let code = self.wait();
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .expect("stderr is a pipe")
            .read_to_string(&mut stderr)
            .expect("stderr can be read");
        assert_eq!(code, Some(0), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    }

    /// Waits for the end. The limit is far above what is promised: a machine may be busy.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns how many descriptors the server has open.
    pub(crate) fn descriptor_count(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the server runs").count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a client printed.
#[derive(Debug)]
pub(crate) struct ClientOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a client in a directory; `None`, with a line that says so, if it is not installed.
pub(crate) fn run_client<S: AsRef<OsStr>>(
    directory: &Path,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Option<ClientOutput> {
    if tool("which").arg(program).output().is_ok_and(|output| !output.status.success()) {
        skip(program, "it is not installed");
        return None;
    }
    // The modules of Debian are those of Debian's Python.
    let path = format!("/usr/bin:{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = tool("timeout");
    command.args(["--kill-after=5", CLIENT_SECONDS, program]).args(arguments);
    let output =
        command.env("PATH", path).current_dir(directory).output().expect("timeout can be run");
    Some(ClientOutput {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// As [`run_client`], for one that must succeed. Returns its stdout.
#[track_caller]
pub(crate) fn client<S: AsRef<OsStr>>(
    directory: &Path,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Option<String> {
    let output = run_client(directory, program, arguments)?;
    assert_eq!(output.code, Some(0), "{program}: {} {}", output.stdout, output.stderr);
    Some(output.stdout)
}

/// Runs a script of `nbdsh`, connected to an export. It must succeed: what it expects it asserts.
#[track_caller]
pub(crate) fn nbdsh(directory: &Path, uri: &str, script: &str) -> Option<String> {
    let connect = format!("import nbd, errno\nuri = {uri:?}\n");
    client(directory, "nbdsh", ["-c", &connect, "-c", script])
}
