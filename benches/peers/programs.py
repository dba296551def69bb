"""The programs compared: how each is found, and its command line for every step.

Each keeps its store in a directory of its own beside the others', on the same file system, and finds its caches there.
`absent` has the reason for each step that a program has no command for.
"""

import os
import pathlib
import shlex
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def synced(command, path):
    """The command, then what makes its result durable; both are timed."""
    return ["sh", "-c", f"{shlex.join(map(str, command))} && sync {shlex.quote(str(path))}"]


class Program:
    """One program. `role` is "backy", "peer" (a store with deduplication) or "bound" (what any program must at least do)."""

    name = executable = install = ""
    role = "peer"
    version_option = "--version"
    environment = {}
    absent = {}

    def __init__(self):
        self.path = self.find()
        self.home = self.store = None

    def place(self, directory):
        """Says where the program's store and caches are from now on."""
        self.home = directory / self.name
        self.store = self.home / "store"

    def find(self):
        """The executable: from the environment (RUSTIC=...), or in PATH."""
        return shutil.which(os.environ.get(self.executable.upper().replace("-", "_"), self.executable))

    def version(self):
        done = subprocess.run([self.path, self.version_option], capture_output=True, text=True, check=True)
        return (done.stdout or done.stderr).splitlines()[0].strip(" *")

    def environ(self):
        own = {key: str(value).format(home=self.home) for key, value in self.environment.items()}
        return dict(os.environ, HOME=str(self.home), XDG_CACHE_HOME=str(self.home / "cache"), LC_ALL="C.UTF-8", **own)

    def action(self, step):
        """What the program does in a step: the name of a method, or None if it takes no part."""
        action = step.bounds.get(self.name) if self.role == "bound" else step.action
        return None if action in self.absent else action

    def create(self):
        """Commands that make the store; not timed."""
        return [["mkdir", "-p", self.store]]

    def register(self, _source):
        """Commands that a source needs before its first backup; not timed."""
        return []


class Backy(Program):
    name, executable, role = "backy", "backy", "backy"
    install = "cargo build --release -p backy-cli"

    def find(self):
        built = ROOT / "target/release/backy"
        return shutil.which(os.environ.get("BACKY", str(built))) or super().find()

    def directory(self, source):
        return self.home / source.stem

    def register(self, source):
        return [[self.path, "-q", "-b", self.directory(source), "init", "file", source, "--store", self.store]]

    def backup(self, source, _label):
        return [self.path, "-q", "-b", self.directory(source), "backup"]

    def restore(self, source, _label, target):
        return synced([self.path, "-q", "-b", self.directory(source), "restore", target], target)

    def delta(self, source, _label, target):
        return synced([self.path, "-q", "-b", self.directory(source), "restore", "--delta", target], target)

    def verify(self, source):
        return [self.path, "-q", "-b", self.directory(source), "verify", "-r", "all"]


class Borg(Program):
    name, executable = "borg", "borg"
    install = "apt-get install borgbackup"
    environment = {"BORG_BASE_DIR": "{home}", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
    absent = {"delta": "writes every byte"}
    chunking = ()

    def create(self):
        return [[self.path, "init", "-e", "none", self.store]]

    def backup(self, source, label):
        # Without this option borg does not read a file whose times have not changed; a disk has no such times.
        unread = ["--files-cache", "disabled"]
        return [self.path, "create", *unread, *self.chunking, f"{self.store}::{label}", source.name]

    def restore(self, _source, label, target):
        return synced([self.path, "extract", "--sparse", f"{self.store}::{label}"], target)

    def verify(self, _source):
        return [self.path, "check", "--verify-data", self.store]


class BorgFixed(Borg):
    name = "borg-fixed"
    chunking = ("--chunker-params", "fixed,4194304")


class BorgFixedSparse(BorgFixed):
    """The same, told to ask the file system for holes, which it can with fixed chunks only."""

    name = "borg-fixed-sparse"
    chunking = (*BorgFixed.chunking, "--sparse")


class Restic(Program):
    name, executable, version_option = "restic", "restic", "version"
    install = "apt-get install restic"
    environment = {"RESTIC_PASSWORD": "peers", "RESTIC_CACHE_DIR": "{home}/cache", "RESTIC_REPOSITORY": "{home}/store"}
    absent = {"delta": "this version writes every byte"}

    def __init__(self):
        super().__init__()
        options = self.help("restore")
        self.sparse = ["--sparse"] if "--sparse" in options else []
        if "--overwrite" in options:
            self.absent = {}

    def help(self, command):
        return subprocess.run([self.path, command, "--help"], capture_output=True, text=True, check=False).stdout if self.path else ""

    def create(self):
        return [[self.path, "-q", "init"]]

    def backup(self, source, _label):
        return [self.path, "-q", "backup", "--force", "--tag", source.stem, source.name]

    def restore(self, source, _label, target):
        command = [self.path, "-q", "restore", "latest", "--tag", source.stem, *self.sparse, "--target", target.parent]
        return synced(command, target)

    def delta(self, source, label, target):
        return self.restore(source, label, target)

    def verify(self, _source):
        return [self.path, "-q", "check", "--read-data"]


class Rustic(Program):
    name, executable = "rustic", "rustic"
    install = "cargo install --locked rustic-rs"
    environment = {"RUSTIC_PASSWORD": "peers", "RUSTIC_REPOSITORY": "{home}/store", "RUSTIC_CACHE_DIR": "{home}/cache",
                   "RUSTIC_LOG_LEVEL": "error", "RUSTIC_NO_PROGRESS": "true"}

    def create(self):
        return [[self.path, "init"]]

    def backup(self, source, _label):
        return [self.path, "backup", "--force", "--tag", source.stem, source.name]

    def restore(self, source, _label, target):
        return synced(self.words(source, target), target)

    def words(self, source, target, *options):
        sparse = ["--sparse", "by-content"]
        return [self.path, "restore", "--filter-tags", source.stem, *sparse, *options, f"latest:{source.name}", target]

    def delta(self, source, _label, target):
        return synced(self.words(source, target, "--verify-existing"), target)

    def verify(self, _source):
        return [self.path, "check", "--read-data"]


class Casync(Program):
    name, executable = "casync", "casync"
    install = "apt-get install casync"
    absent = {"verify": "has no such command"}

    def index(self, label):
        return [f"--store={self.store}/default.castr", f"{self.store}/{label}.caibx"]

    def backup(self, source, label):
        return [self.path, "make", *self.index(label), source]

    def restore(self, _source, label, target):
        return synced([self.path, "extract", *self.index(label), target], target)

    def delta(self, _source, label, target):
        # It cannot read and write one file; yesterday's is the seed of a new one that then takes its place.
        new = target.with_suffix(".new")
        seeded = [self.path, "extract", f"--seed={target}", "--seed-output=no", *self.index(label), new]
        return ["sh", "-c", f"{shlex.join(map(str, seeded))} && mv {new} {target} && sync {target}"]


class QemuImg(Program):
    name, executable, role = "qemu-img", "qemu-img", "bound"
    install = "apt-get install qemu-utils"

    def copy(self, source, _label):
        target = self.store / "image.qcow2"
        return synced([self.path, "convert", "-c", "-f", "raw", "-O", "qcow2", source, target], target)


class Cp(Program):
    name, executable, role = "cp", "cp", "bound"
    install = "apt-get install coreutils"

    def copy(self, source, _label):
        target = self.store / "image"
        return synced([self.path, "--sparse=always", "--reflink=never", source, target], target)

    def restore(self, source, _label, target):
        return synced([self.path, "--sparse=always", "--reflink=never", source, target], target)


class Zstd(Program):
    name, executable, role = "zstd", "zstd", "bound"
    install = "apt-get install zstd"

    def compress(self, source):
        return [self.path, "-q", "-1", "-T2", "-c", source]


class B3sum(Program):
    name, executable, role = "b3sum", "b3sum", "bound"
    install = "cargo install --locked b3sum"

    def read(self, source):
        return [self.path, source]


ALL = (Backy, Borg, BorgFixed, BorgFixedSparse, Restic, Rustic, Casync, QemuImg, Cp, Zstd, B3sum)
