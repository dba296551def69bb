"""Works with the program on the disk that is recorded, and notes what was acknowledged, and when.

Usage: workload.py PROGRAM MOUNT WORK RECORDING --marks DEVICE --marks-at OFFSET --rounds N --seed N

When a command has returned, a mark with the next number is written into the log of the disk: all that
was written before the acknowledgement is before the mark. Then the history is asked for, and a line
of RECORDING/ledger tells what stands from this mark on: each revision with its digest and state.
So whoever has the log up to some place knows from the last mark what must be there, and from the next one
what may have changed already.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import struct

from program import JOBS, PLACES, Program, digest_at, file_digest, tree_digest

IMAGE_LEN = (3 << 20) + 1234
SCHEDULE = "schedule:\n  fast: {interval: 1s, keep: 2}\n"
MARK_MAGIC = b"backy power mark"
POINTS = 200


class Workload:
    def __init__(self, options):
        wrapper = ()
        if options.lie:
            calls = options.lie
            wrapper = ("strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", f"trace={calls}",
                       "-e", f"inject={calls}:retval=0")
        self.program = Program(options.program, options.mount, wrapper)
        self.lie_in = options.lie_in
        self.asking = Program(options.program, options.mount)
        self.random = random.Random(options.seed)
        self.work = pathlib.Path(options.work)
        self.image, self.tree = self.work / "disk.img", self.work / "tree"
        self.recording = pathlib.Path(options.recording)
        self.ledger = open(self.recording / "ledger", "w", encoding="utf-8")
        self.marks = os.open(options.marks, os.O_RDWR)
        self.marks_at = options.marks_at
        self.mark_count = self.started_count = self.killed_count = 0
        self.lies = bool(wrapper)
        self.digests = {}
        # Files outside of the store that were acknowledged, with their digests.
        self.files = {}

    def write_mark(self):
        """Writes the next mark; it is in the log, behind everything before, when this returns."""
        self.mark_count += 1
        mark = (MARK_MAGIC + struct.pack("<Q", self.mark_count)).ljust(512, b"\0")
        assert os.pwrite(self.marks, mark, self.marks_at) == len(mark)

    def note(self, command):
        """Notes that a command was acknowledged, and what is there now."""
        self.write_mark()
        jobs = {job: self.asking.status(job) for job in JOBS}
        for job, revisions in jobs.items():
            for revision, entry in revisions.items():
                # What is new is of the present source: no command makes two.
                if revision not in self.digests:
                    self.digests[revision] = file_digest(self.image) if job == "vm1" else tree_digest(self.tree)
                entry["digest"] = self.digests[revision]
        line = {"mark": self.mark_count, "command": command, "jobs": jobs, "files": self.files}
        self.ledger.write(json.dumps(line) + "\n")
        self.ledger.flush()
        return jobs

    def run(self, job, *arguments):
        program = self.program if self.lie_in in (None, arguments[0]) else self.asking
        program.run(job, *arguments)

    def do(self, job, *arguments):
        self.run(job, *arguments)
        return self.note([job, *arguments])

    def restore(self, job, revision, target):
        """Restores to a place on the disk, which has all of it from the acknowledgement on."""
        self.files.pop(target, None)
        path = self.program.directory / target
        self.run(job, "restore", "-r", revision, *(["--overwrite"] if path.exists() else []), str(path))
        self.files[target] = digest_at(path)
        self.note([job, "restore", target])

    def kill(self, *command):
        """Kills a command at one of the calls that make durable what it did, or give it a name."""
        if self.lies:
            # What the dead one synced would be durable.
            return
        place, number = self.random.choice(list(PLACES)), self.random.choice((1, 1, 2, 2, 3, 5, 8))
        if place.startswith("directory"):
            number = 1
        self.started_count += 1
        self.killed_count += self.asking.run_until(place, number, *command)

    def backup(self, job, tags):
        before = len(self.digests)
        jobs = self.do(job, "backup", "-f", tags)
        assert len(self.digests) == before + 1, "a backup makes one revision"
        return list(jobs[job])[-1]

    def backup_after_killed(self, job, tags):
        """Backs up what a backup was killed with: this one relies on what the dead one left."""
        before = len(self.digests)
        self.kill(job, "backup", "-f", tags)
        self.do(job, "backup", "-f", tags)
        assert len(self.digests) - before in (1, 2), "each of the two makes one revision at the most"

    def change_image(self):
        with open(self.image, "r+b") as image:
            for _ in range(3):
                image.seek(self.random.randrange(IMAGE_LEN - (200 << 10)))
                image.write(self.random.randbytes(self.random.randrange(1, 200 << 10)))
            image.seek(self.random.randrange(IMAGE_LEN - (256 << 10)))
            image.write(bytes(256 << 10))

    def change_tree(self):
        """Writes whisper files with one archive each, of which more and more points are filled."""
        for number in range(3):
            path = self.tree / f"servers/host{number}/load.wsp"
            path.parent.mkdir(parents=True, exist_ok=True)
            header = struct.pack(">LLfL", 1, 60 * POINTS, 0.5, 1) + struct.pack(">LLL", 28, 60, POINTS)
            filled = self.random.randrange(1, POINTS)
            points = (struct.pack(">Ld", 1_700_000_040 + 60 * point, self.random.random()) for point in range(filled))
            path.write_bytes((header + b"".join(points)).ljust(28 + 12 * POINTS, b"\0"))

    def begin(self):
        self.image.write_bytes(self.random.randbytes(IMAGE_LEN))
        self.change_tree()
        # Only on demand with a lie: revisions are what is to be lost otherwise.
        init = self.run if self.lie_in == "init" else self.asking.run
        init("vm1", "init", "file", str(self.image))
        store = str(self.program.directory / "vm1")
        init("graphite", "init", "whisper", str(self.tree), "--store", store)
        configs = [f"{job}/config" for job in JOBS]
        self.files = {config: digest_at(self.program.directory / config) for config in configs}
        self.note(["init"])
        first, tree = self.backup("vm1", "manual:first"), self.backup("graphite", "manual:first")
        self.restore("vm1", first, "restored.img")
        self.restore("graphite", tree, "restored-tree")
        self.write_schedule("vm1/config")

    def write_schedule(self, config):
        path = self.program.directory / config
        text = path.read_text(encoding="utf-8").split("schedule:")[0]
        del self.files[config]
        new = path.with_name("config.new")
        with open(new, "w", encoding="utf-8") as file:
            file.write(text + SCHEDULE)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, path)
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        self.files[config] = digest_at(path)
        self.note(["schedule"])

    def round(self, number):
        self.change_image()
        self.backup("vm1", "fast")
        self.change_image()
        tagged = self.backup("vm1", "fast,manual:kept")
        self.change_tree()
        self.backup("graphite", "manual:tree")
        self.do("vm1", "tags", "add", "-f", "-r", tagged, "manual:added")
        for _ in range(3):
            self.change_image()
            self.backup_after_killed("vm1", "fast")
        self.do("vm1", "protect", "-r", "0")
        self.do("vm1", "purge")
        self.do("vm1", "expire", "--force")
        self.kill("vm1", "purge", "--now")
        self.do("vm1", "purge", "--now")
        self.do("vm1", "unprotect", "-r", "all")
        self.do("vm1", "distrust", "-r", "0")
        self.change_image()
        self.backup("vm1", "manual:after-doubt")
        forgotten = list(self.asking.status("vm1"))[0]
        jobs = self.do("vm1", "forget", "-r", forgotten)
        assert forgotten not in jobs["vm1"], "what was forgotten is gone"
        if number % 2 == 0:
            self.kill("vm1", "index", "rebuild")
            self.do("vm1", "index", "rebuild")
        else:
            os.remove(self.program.directory / "vm1/index.redb")
            self.kill("vm1", "repair")
            self.do("vm1", "repair")
        self.change_tree()
        self.backup_after_killed("graphite", "manual:tree")
        self.do("vm1", "verify", "-r", "all")
        self.restore("vm1", tagged, f"restored-{number}.img")
        self.restore("vm1", "latest", "restored.img")
        self.restore("graphite", "latest", f"restored-tree-{number}")
        if 2 < len(self.asking.status("graphite")):
            self.do("graphite", "forget", "-r", "first")
        self.do("graphite", "purge", "--now")
        self.do("vm1", "scrub")

    def end(self):
        """Keeps the sources as they are after one more change: what the next backups will meet."""
        self.change_image()
        self.change_tree()
        shutil.copyfile(self.image, self.recording / "disk.img")
        shutil.copytree(self.tree, self.recording / "tree")
        # Six in a round, of which most come so far.
        assert self.killed_count or not self.started_count, "some commands were killed"
        print(f"{self.killed_count} of {self.started_count} commands killed before they were carried out again")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("program", "mount", "work", "recording"):
        parser.add_argument(name, type=os.path.abspath)
    parser.add_argument("--marks", required=True)
    parser.add_argument("--marks-at", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lie", help="calls that return 0 and are not carried out")
    parser.add_argument("--lie-in", help="only in this command")
    options = parser.parse_args()
    workload = Workload(options)
    workload.begin()
    for number in range(options.rounds):
        workload.round(number)
    workload.end()


main()
