//! Running commands: waited for, measured, stopped and killed.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::machine::skip;
use crate::scene::{Output, Scene, files_below};

/// Time in which anything must have happened.
const PATIENCE: Duration = Duration::from_secs(120);

/// Most bytes that a command may have in memory, whatever the size of the image.
const RESIDENT_MAX: u64 = 256 << 20;

/// A started command. Killed when it is dropped, so that no test leaves one behind.
#[derive(Debug)]
pub(crate) struct Running {
    child: Option<Child>,
    name: String,
}

impl Running {
    /// Starts a command; its output is collected at the end.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn();
        let arguments: Vec<_> = command.get_args().map(|text| text.to_string_lossy()).collect();
        let name = arguments.join(" ");
        Self { child: Some(child.expect("the binary can be run")), name }
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it was not waited for yet")
    }

    pub(crate) fn id(&mut self) -> u32 {
        self.child().id()
    }

    /// Returns what the command prints, to be read while it runs.
    pub(crate) fn take_stdout(&mut self) -> ChildStdout {
        self.child().stdout.take().expect("it is taken once")
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child().try_wait().expect("a child can be waited for").is_some()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("an id is a number");
        kill_process(id, signal).expect("a child that was not waited for can be signalled");
    }

    /// Waits until `condition` holds. Returns whether the command was still running then.
    pub(crate) fn wait_until(&mut self, condition: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        while !condition() {
            if self.has_ended() {
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "{}: it does not happen", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
        !self.has_ended()
    }

    /// Waits until a backup has begun its work in the store of the scene, and stops it there.
    #[track_caller]
    pub(crate) fn stop_at_work(&mut self, scene: &Scene) {
        let sessions = scene.backup_path("sessions");
        // Those that failed before have left theirs.
        let own = format!("\"process\":{}", self.id());
        let is_own =
            |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(&own));
        let has_begun = || files_below(&sessions).iter().any(is_own);
        assert!(self.wait_until(has_begun), "it ended too early");
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.id());
        let is_stopped = || fs::read_to_string(&stat).is_ok_and(|text| text.contains(") T "));
        assert!(self.wait_until(is_stopped), "it ended before it could be stopped");
    }

    /// Ends the command at once, at whatever it is. Returns whether it had not ended by itself.
    pub(crate) fn kill(mut self) -> bool {
        let mut child = self.child.take().expect("it was not waited for yet");
        child.kill().expect("a child can be killed");
        let status = child.wait().expect("a child can be waited for");
        assert!(status.success() || status.code().is_none(), "{}: {status}", self.name);
        status.code().is_none()
    }

    /// Ends the command at once, at whatever it is, unless it has ended. Its exit code is none if it was killed.
    pub(crate) fn kill_or_finish(mut self) -> Output {
        self.child().kill().expect("a child can be killed");
        self.finish()
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Output {
        let child = self.child.take().expect("it was not waited for yet");
        let output = child.wait_with_output().expect("a child can be waited for");
        let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
        assert!(!stderr.contains("panicked"), "{}: {stderr}", self.name);
        Output { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// Waits for an end with success.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Output {
        let name = self.name.clone();
        let output = self.finish();
        assert_eq!(output.code, Some(0), "{name}: {}", output.stderr);
        output
    }

    /// Waits for an end with success, and watches how much memory is resident meanwhile. What the
    /// command prints must fit into a pipe.
    #[track_caller]
    pub(crate) fn succeeds_in_bounded_memory(mut self) -> Output {
        let status = format!("/proc/{}/status", self.id());
        let (name, mut peak) = (self.name.clone(), None);
        let began = Instant::now();
        while !self.has_ended() {
            // The kernel keeps the highest value itself: only the last moments can be missed.
            peak = peak.max(fs::read_to_string(&status).ok().as_deref().and_then(resident_peak));
            assert!(began.elapsed() < PATIENCE, "{name} does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = self.succeeds();
        match peak {
            Some(peak) => {
                super::machine::figure(&format!("{} MiB resident: {name}", peak >> 20));
                assert!(peak < RESIDENT_MAX, "{name}: {peak} bytes resident");
            }
            None => skip("peak of memory", "not possible here: /proc does not tell it"),
        }
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // A test has failed already, or does not care.
            let _killed = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Returns the highest number of resident bytes that a `/proc/PID/status` tells.
fn resident_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
