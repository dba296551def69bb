//! Loop devices, mounts and other users. Guards give everything back, also when a test fails.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::scene::Scene;

/// User and group that own nothing.
const NOBODY: &str = "65534";

/// Says that a part of the system is not tested here.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
pub(crate) fn skip(component: &str, reason: &str) {
    println!("SKIPPED {component}: {reason}");
}

/// Prints a measured figure, for people who look at the output of a passed test.
#[expect(clippy::print_stdout, reason = "figures are for people")]
pub(crate) fn figure(text: &str) {
    println!("{text}");
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns a command of the system; the place of its administrative tools is searched too.
pub(crate) fn tool(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs a command of the system and returns what it printed, or why it failed.
pub(crate) fn run_tool<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, String> {
    let output = tool(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        return Err(format!("{program}: {}: {stderr}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// As [`run_tool`], tried again for a while: two tests may reach for the same free loop device.
fn run_tool_patiently(program: &str, arguments: &[&OsStr]) -> Result<String, String> {
    for _ in 0..10 {
        if let Ok(output) = run_tool(program, arguments) {
            return Ok(output);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    run_tool(program, arguments)
}

/// Creates a file of zeros that take no space.
pub(crate) fn create_sparse(path: &Path, len: u64) -> File {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(len).unwrap();
    file
}

/// A file as a block device.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
}

impl LoopDevice {
    /// Attaches a file; says why if this machine cannot.
    pub(crate) fn attach(file: &Path) -> Result<Self, String> {
        if !is_root() {
            return Err("not possible here: loop devices need root".to_owned());
        }
        let arguments = [OsStr::new("--find"), OsStr::new("--show"), file.as_os_str()];
        match run_tool_patiently("losetup", &arguments) {
            Ok(path) => Ok(Self { path: path.into() }),
            Err(reason) => Err(format!("not possible here: {reason}")),
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(reason) = run_tool("losetup", [OsStr::new("--detach"), self.path.as_os_str()]) {
            figure(&format!("left behind: {reason}"));
        }
    }
}

/// Something that is mounted.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
}

impl Mount {
    fn new(arguments: &[&OsStr], point: PathBuf) -> Result<Self, String> {
        if !is_root() {
            return Err("not possible here: mounting needs root".to_owned());
        }
        let arguments: Vec<_> = arguments.iter().copied().chain([point.as_os_str()]).collect();
        let result = run_tool_patiently("mount", &arguments);
        match result {
            Ok(_) => Ok(Self { point }),
            Err(reason) => Err(format!("not possible here: {reason}")),
        }
    }

    /// Mounts a small file system of its own on `mnt` of the scene; root has no reserve in it.
    pub(crate) fn small_file_system(scene: &Scene, len: u64) -> Result<Self, String> {
        let (image, point) = (scene.path("small.img"), scene.path("mnt"));
        drop(create_sparse(&image, len));
        fs::create_dir(&point).unwrap();
        let options = ["-q", "-F", "-m", "0"].map(OsStr::new);
        run_tool("mkfs.ext4", options.into_iter().chain([image.as_os_str()]))?;
        Self::new(&[OsStr::new("-o"), OsStr::new("loop"), image.as_os_str()], point)
    }

    /// Mounts the file system of an image on `mnt` of the scene.
    pub(crate) fn image(scene: &Scene, image: &Path) -> Result<Self, String> {
        let point = scene.path("mnt");
        fs::create_dir_all(&point).unwrap();
        Self::new(&[OsStr::new("-o"), OsStr::new("loop"), image.as_os_str()], point)
    }

    /// Mounts a file system in memory on `mnt` of the scene.
    pub(crate) fn memory(scene: &Scene) -> Result<Self, String> {
        let point = scene.path("mnt");
        fs::create_dir(&point).unwrap();
        Self::memory_at(point)
    }

    /// Mounts a file system in memory on a directory.
    pub(crate) fn memory_at(point: PathBuf) -> Result<Self, String> {
        Self::new(&["-t", "tmpfs", "tmpfs"].map(OsStr::new), point)
    }

    /// Shows a directory a second time, on `mnt` of the scene, where nothing can be written.
    pub(crate) fn read_only(scene: &Scene, directory: &Path) -> Result<Self, String> {
        let point = scene.path("mnt");
        fs::create_dir(&point).unwrap();
        let mount = Self::new(&[OsStr::new("--bind"), directory.as_os_str()], point)?;
        let remount = ["-o", "remount,bind,ro"].map(OsStr::new);
        run_tool("mount", remount.into_iter().chain([mount.point.as_os_str()]))?;
        Ok(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if run_tool("umount", [&self.point]).is_ok() {
            return;
        }
        if let Err(reason) = run_tool("umount", [OsStr::new("--lazy"), self.point.as_os_str()]) {
            figure(&format!("left behind: {reason}"));
        }
    }
}

/// Runs the binary as a user who owns nothing here.
#[derive(Debug)]
pub(crate) struct OtherUser {
    program: PathBuf,
}

impl OtherUser {
    /// Makes the scene, and a copy of the binary in it, reachable for all users.
    pub(crate) fn new(scene: &Scene) -> Result<Self, String> {
        if is_root() {
            run_tool("setpriv", ["--version"])?;
        }
        fs::set_permissions(scene.path("."), fs::Permissions::from_mode(0o755)).unwrap();
        let program = scene.path("backy-copy");
        fs::copy(env!("CARGO_BIN_EXE_backy"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Ok(Self { program })
    }

    /// Returns a command like [`Scene::command`]. Who is not root already is that other user.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        scene: &Scene,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        if !is_root() {
            return scene.command(arguments);
        }
        let mut command = tool("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]);
        command.arg(&self.program).args(arguments);
        command.current_dir(scene.path(".")).env("BACKY_BACKUP_DIR", "vm1").env("TZ", "UTC");
        command
    }
}
