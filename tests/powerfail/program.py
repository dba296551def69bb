"""The program under test, and what it must give back: used while recording and while replaying."""

import hashlib
import json
import pathlib
import shutil
import signal
import subprocess

# Backup directories: an image, and a tree of whisper files in the same store.
JOBS = ("vm1", "graphite")

# Seconds after which a command counts as hanging.
PATIENCE = 120

# Places where a command can be killed, before the call is carried out: a system call, and what it must be of if
# that matters. At the directory of a pack, and of a record, the file has its name already.
PLACES = {
    "directory of a pack": ("fsync", [f"packs/{byte:02x}" for byte in range(256)]),
    "directory of a record": ("fsync", [f"revisions/{job}" for job in JOBS]),
    "any directory": ("fsync", []),
    "any file": ("fdatasync", []),
    "any name": ("renameat2", []),
}

# What is remembered of a revision beside its bytes.
FIELDS = ("tags", "protected", "trust")


class CommandFailed(Exception):
    """A command ended otherwise than it should."""


class Program:
    """Runs the program in a directory that has the backup directories of all jobs."""

    def __init__(self, program, directory, wrapper=()):
        self.command = [*wrapper, str(program)]
        self.directory = pathlib.Path(directory)

    def run(self, job, *arguments):
        """Returns what the command printed; it must succeed."""
        command = [*self.command, "-b", str(self.directory / job), *arguments]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{job}: {' '.join(arguments)}: hangs") from error
        stderr = done.stderr.decode(errors="replace").strip()
        if done.returncode != 0 or "panicked" in stderr:
            raise CommandFailed(f"{job}: {' '.join(arguments)}: exit code {done.returncode}: {stderr}")
        return done.stdout

    def run_until(self, place, number, job, *arguments):
        """Runs a command that is killed where one of its threads comes to a place of PLACES for the `number`th time.

        Returns whether it came so far.
        """
        call, paths = PLACES[place]
        store = self.directory / "vm1"
        kill = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        kill += ["-e", f"inject={call}:signal=KILL:when={number}"]
        kill += [argument for path in paths for argument in ("-P", str(store / path))]
        command = [*kill, *self.command, "-b", str(self.directory / job), *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        if done.returncode not in (0, -signal.SIGKILL):
            stderr = done.stderr.decode(errors="replace").strip()
            raise CommandFailed(f"{job}: {' '.join(arguments)}: {done.returncode}, not killed: {stderr}")
        return done.returncode != 0

    def status(self, job):
        """Returns all revisions: a dict of FIELDS by id, oldest first."""
        listed = json.loads(self.run(job, "--json", "status"))
        return {one["id"]: {field: one[field] for field in FIELDS} for one in listed}

    def digest(self, job, revision, scratch):
        """Restores a revision and returns the digest of what came out."""
        if job == "vm1":
            return hashlib.sha256(self.run(job, "restore", "-r", revision, "-")).hexdigest()
        target = pathlib.Path(scratch) / "tree-out"
        shutil.rmtree(target, ignore_errors=True)
        self.run(job, "restore", "-r", revision, str(target))
        return tree_digest(target)


def tree_digest(directory):
    """Returns a digest of names and contents of all files below a directory."""
    files = sorted(path for path in pathlib.Path(directory).rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(directory)} {content}\n".encode())
    return digest.hexdigest()


def file_digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def digest_at(path):
    """Returns the digest of a file, or of all files of a directory."""
    return tree_digest(path) if pathlib.Path(path).is_dir() else file_digest(path)
