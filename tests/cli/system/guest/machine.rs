//! A virtual machine that runs scripts. It ends with the test, or by itself after ten minutes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::scene::Scene;
use crate::system::machine::skip;

/// Time in which a script must have ended. What waits in a script gives up sooner.
const PATIENCE: Duration = Duration::from_secs(120);

/// A virtual machine that runs. It is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    console: PathBuf,
}

impl Guest {
    /// Starts a machine that has booted, unless this one has none: then it says so.
    pub(super) fn start(scene: &Scene) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        if !root.join("target/guest/initramfs").exists() {
            skip("virtual machine", "tests/guest/prepare has made no target/guest");
            return None;
        }
        let console = scene.path("console");
        let mut command = Command::new(root.join("tests/guest/start"));
        command.arg(&console).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the guest can be started");
        let stdin = child.stdin.take().expect("it is taken once");
        let lines = lines_of(child.stdout.take().expect("it is taken once"));
        let mut guest = Self { child, stdin, lines, console };
        guest.lines_until("=== ready");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        // The first byte may get lost. For a machine that was saved it is as late as it was then.
        guest.succeeds(&format!("\ndate -s @{now}"));
        Some(guest)
    }

    /// Runs a script to its end. Returns its exit code and what it printed.
    #[track_caller]
    pub(super) fn run(&mut self, script: &str) -> (i32, String) {
        self.stdin.write_all(format!("{script}\n=== run\n").as_bytes()).expect("the guest runs");
        let (mut text, end) = self.lines_until("=== exit ");
        // The line break before the mark.
        text.pop();
        (end.parse().expect("an exit code is a number"), text)
    }

    /// Runs a script that must succeed, and returns what it printed.
    #[track_caller]
    pub(super) fn succeeds(&mut self, script: &str) -> String {
        let (code, text) = self.run(script);
        assert_eq!(code, 0, "{script}\n{text}\n{}", self.console());
        text
    }

    /// Runs a script that must fail, and returns what it printed.
    #[track_caller]
    pub(super) fn fails(&mut self, script: &str) -> String {
        let (code, text) = self.run(script);
        assert_ne!(code, 0, "{script}\n{text}\n{}", self.console());
        text
    }

    /// Waits for a condition of the shell, a minute at most.
    #[track_caller]
    pub(super) fn wait_for(&mut self, condition: &str) {
        let script = format!(
            "turn=0; until {condition}; do [ $turn -lt 600 ] || exit 1; turn=$((turn + 1)); sleep 0.1; done"
        );
        self.succeeds(&format!("({script})"));
    }

    /// Ends the machine at once, as a loss of power would.
    pub(super) fn kill(self) {
        drop(self);
    }

    /// Returns the lines before the one that begins with `mark`, and the rest of that one.
    #[track_caller]
    fn lines_until(&self, mark: &str) -> (String, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut text = String::new();
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(rest) else {
                panic!("the guest does not answer; it printed {text:?}\n{}", self.console());
            };
            if let Some(end) = line.strip_prefix(mark) {
                return (text, end.to_owned());
            }
            text.push_str(&line);
            text.push('\n');
        }
    }

    /// Returns what the kernel has said.
    fn console(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Reads lines on a thread, so that they can be waited for.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}
