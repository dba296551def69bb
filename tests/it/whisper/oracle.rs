//! The Python package as a process that answers requests.

use std::cell::RefCell;
use std::env;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use chunkstore::whisper::{Aggregation, Retention, WhisperFile};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cases::{History, Step};

/// A running `oracle.py`.
pub(super) struct Oracle {
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
    child: Child,
    _scratch: TempDir,
}

impl Oracle {
    /// Starts it, or returns `None` if this machine cannot.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    pub(super) fn start() -> Option<Self> {
        let python = env::var("BACKY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let reason =
            match Command::new(&python).args(["-c", "from whisper import update_many"]).output() {
                Ok(output) if output.status.success() => return Some(Self::run(&python)),
                Ok(output) => {
                    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("").to_owned()
                }
                Err(error) => format!("{python}: {error}"),
            };
        println!("SKIPPED whisper: {reason}");
        None
    }

    fn run(python: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("whisper/oracle.py");
        let mut command = Command::new(python);
        command.arg(script).arg(scratch.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { pipes: RefCell::new((input, output)), child, _scratch: scratch }
    }

    fn ask(&self, request: &Value) -> Value {
        let (input, output) = &mut *self.pipes.borrow_mut();
        writeln!(input, "{request}").unwrap();
        let mut reply = String::new();
        output.read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap_or_else(|_| panic!("no reply to {request}"))
    }

    /// Returns what the package makes of a history, and its answers to the steps.
    pub(super) fn live(&self, history: &History, any_order: bool) -> (WhisperFile, Vec<Value>) {
        let archives: Vec<[u32; 2]> = history.schema.retentions.iter().map(pair).collect();
        let reply = self.ask(&json!({
            "aggregation": history.schema.aggregation.name(),
            "x_files_factor": hex(&f64::from(history.schema.x_files_factor).to_be_bytes()),
            "archives": archives,
            "steps": history.steps.iter().map(request).collect::<Vec<_>>(),
            "any_order": any_order,
        }));
        (file(&reply), reply["answers"].as_array().unwrap().clone())
    }

    /// Returns the target as `whisper-fill.py` leaves it.
    pub(super) fn fill(&self, source: &WhisperFile, target: &WhisperFile, now: u32) -> WhisperFile {
        let (source, target) = (hex(source.bytes()), hex(target.bytes()));
        file(&self.ask(&json!({ "source": source, "target": target, "now": now })))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn pair(retention: &Retention) -> [u32; 2] {
    [retention.seconds_per_point, retention.points]
}

fn request(step: &Step) -> Value {
    match step {
        Step::Update { now, point } => json!(["update", now, point.time, value(point.value)]),
        Step::UpdateMany { now, points } => {
            let points: Vec<_> =
                points.iter().map(|point| json!([point.time, value(point.value)])).collect();
            json!(["update_many", now, points])
        }
        Step::Fetch { now, from, until } => json!(["fetch", now, from, until]),
    }
}

/// Writes a value as the oracle does.
pub(super) fn value(value: f64) -> Value {
    json!(hex(&value.to_be_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn file(reply: &Value) -> WhisperFile {
    let text = reply["file"].as_str().unwrap();
    let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    WhisperFile::decode(bytes.collect::<Result<_, _>>().unwrap()).unwrap()
}

/// All eight, for strategies.
pub(super) const AGGREGATIONS: [Aggregation; 8] = Aggregation::ALL;
