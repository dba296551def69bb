"""The programs compared on trees of files, and their command lines: those of `benches/peers/`, given a directory, and whisper-backup.

A tree is backed up with what each program does on its own: unlike on images, files that look unchanged need not be read.
"""

import os
import pathlib
import shlex
import sys

import programs

HERE = pathlib.Path(__file__).resolve().parent


def durable(command, target):
    """The command, then what makes all its files durable; both are timed."""
    return ["sh", "-c", f"{shlex.join(map(str, command))} && sync -f {shlex.quote(str(target))}"]


class Backy(programs.Backy):
    def directory(self):
        return self.home / "backups"

    def register(self, tree):
        return [[self.path, "-q", "-b", self.directory(), "init", "whisper", tree, "--name", "tree", "--store", self.store]]

    def backup(self, _tree, _label):
        return [self.path, "-q", "-b", self.directory(), "backup"]

    def restore(self, _tree, _label, target):
        return durable([self.path, "-q", "-b", self.directory(), "restore", target], target)


class WhisperBackup(programs.Program):
    """The real one: Python 2 (PYTHON2=) runs the checkout that WHISPER_BACKUP names, with its four processes and gzip."""

    name, executable, role = "whisper-backup", "python2", "predecessor"
    install = "a Python 2 with whisper and lockfile as PYTHON2=, a checkout of jjneely/whisper-backup as WHISPER_BACKUP="
    absent = {"restore": "finds nothing in a store on a disk"}
    has_processes = True

    def find(self):
        checkout = os.environ.get("WHISPER_BACKUP")
        return super().find() if checkout and (pathlib.Path(checkout) / "whisperbackup/whisperbackup.py").is_file() else None

    def version(self):
        script = pathlib.Path(os.environ["WHISPER_BACKUP"], "setup.py").read_text()
        return "whisper-backup " + script.split('"version": "', 1)[1].split('"', 1)[0]

    def backup(self, tree, _label):
        script = pathlib.Path(os.environ["WHISPER_BACKUP"], "whisperbackup/whisperbackup.py")
        quiet = ["-q", "--nolog", "--nolock", "--nostamp"]
        return [self.path, script, "-p", tree, "-b", self.store, *quiet, "backup", "disk"]


class GzipEach(programs.Program):
    """What whisper-backup calls for each file, for machines that have no Python 2."""

    name, executable, role = "gzip-each", "python3", "predecessor"
    absent = {"restore": "only writes"}
    has_processes = True

    def find(self):
        return sys.executable

    def backup(self, tree, label):
        return [self.path, HERE / "gzip-each", tree, self.store, label]


class Borg(programs.Borg):
    def backup(self, tree, label):
        return [self.path, "create", f"{self.store}::{label}", tree.name]

    def restore(self, _tree, label, target):
        return durable([self.path, "extract", f"{self.store}::{label}"], target.parent)


class Restic(programs.Restic):
    def backup(self, tree, _label):
        return [self.path, "-q", "backup", tree.name]

    def restore(self, _tree, _label, target):
        return durable([self.path, "-q", "restore", "latest", "--target", target.parent], target.parent)


class Rustic(programs.Rustic):
    def backup(self, tree, _label):
        return [self.path, "backup", tree.name]

    def restore(self, tree, _label, target):
        return durable([self.path, "restore", f"latest:{tree.name}", target], target)


class Casync(programs.Casync):
    def index(self, label):
        return [f"--store={self.store}/default.castr", f"{self.store}/{label}.caidx"]

    def restore(self, _tree, label, target):
        return durable([self.path, "extract", *self.index(label), target], target)


class Cp(programs.Cp):
    """What any restore must at least do."""

    def restore(self, tree, _label, target):
        return durable([self.path, "-r", "--reflink=never", tree, target], target)


ALL = (Backy, WhisperBackup, GzipEach, Borg, Restic, Rustic, Casync, Cp)
