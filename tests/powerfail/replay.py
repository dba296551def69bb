"""Makes the disk anew as it is after a loss of power at many places of the log, and asks the program for everything.

Usage: replay.py PROGRAM MOUNT WORK RECORDING --fs TYPE --fs-len N --sector-len N --cuts N --seed N [--expect-loss]

RECORDING: `base` (the file system when it was new), `log`, `ledger`, `disk.img` and `tree` (the sources afterwards). A state is
named CUT:VARIANT:SEED, where CUT is how many entries of the log reached the disk or were under way to it.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

from program import FIELDS, JOBS, CommandFailed, Program, digest_at, file_digest, tree_digest
from write_log import FLUSH, FUA, Disk, WriteLog

# Violations that are told in full: all that anybody reads, and a few that were asked for.
TOLD_MAX = 20
TOLD_IN_SELF_TEST = 5


class Violation(Exception):
    pass


def must(condition, text):
    if not condition:
        raise Violation(text)


class Ledger:
    """What stands from each mark on."""

    def __init__(self, path):
        lines = [json.loads(line) for line in open(path, encoding="utf-8")]
        assert [line["mark"] for line in lines] == list(range(1, len(lines) + 1)), "no mark is missing"
        self.lines = lines

    def before_and_after(self, mark):
        """Returns what was acknowledged at a mark, and what it may have become since."""
        acknowledged = self.lines[mark - 1]
        return acknowledged, self.lines[min(mark, len(self.lines) - 1)]


class Replay:
    def __init__(self, options):
        self.options = options
        self.recording, self.work = pathlib.Path(options.recording), pathlib.Path(options.work)
        self.log = WriteLog(self.recording / "log")
        self.ledger = Ledger(self.recording / "ledger")
        self.marks = self.log.marks(options.fs_len)
        assert [number for _, number in self.marks] == list(range(1, len(self.ledger.lines) + 1)), \
            "all marks are in the log, in order"
        self.flushes = [index for index, entry in enumerate(self.log.entries) if entry.flags & FLUSH]
        # The disk as its last flush before a cut left it, and one that the kernel and the program work on.
        self.durable, self.disk = self.work / "durable", self.work / "state"
        # The same as while recording: configurations name the store with its full path.
        self.mount_point = pathlib.Path(options.mount)
        self.program = Program(options.program, self.mount_point)
        self.after = {"vm1": file_digest(self.recording / "disk.img"), "graphite": tree_digest(self.recording / "tree")}
        shutil.copyfile(self.recording / "disk.img", self.work / "disk.img")
        shutil.copytree(self.recording / "tree", self.work / "tree", dirs_exist_ok=True)
        self.state_count = self.violation_count = self.cut_count = 0

    def last_mark(self, cut):
        numbers = [number for index, number in self.marks if index < cut]
        return numbers[-1] if numbers else 0

    def last_flush(self, cut):
        """Returns how many entries are durable for sure at a cut."""
        durable = [index + 1 for index in self.flushes if index < cut]
        return durable[-1] if durable else 0

    def choose_cuts(self, count, chance):
        """Returns cuts: right after acknowledgements and flushes, right before flushes, and anywhere between."""
        first, last = self.marks[0][0] + 1, self.marks[-1][0] + 1
        inside = range(first, last + 1)
        kinds = [
            [index + 1 for index, _ in self.marks],
            [index for index in self.flushes if index in inside],
            [index + 1 for index in self.flushes if index + 1 in inside],
            [cut for cut in inside if 1 < cut - self.last_flush(cut)],
        ]
        chosen = set()
        for kind in kinds:
            chance.shuffle(kind)
        while len(chosen) < count and any(kinds):
            for kind in kinds:
                if kind and len(chosen) < count:
                    chosen.add(kind.pop())
        return sorted(chosen)

    def states_of(self, cut, chance):
        """Returns the variants of a cut; without writes since the last flush there is just one."""
        states = [("ordered", 0)]
        if any(entry.length for entry in self.log.entries[self.last_flush(cut) : cut]):
            for _ in range(self.options.variant_seeds):
                states += [(variant, chance.randrange(1 << 32)) for variant in ("dropped", "torn")]
        return states

    def make_disk(self, cut, variant, seed, durable):
        """Makes the disk of a state from the one that holds what was durable."""
        subprocess.run(["cp", "--sparse=always", self.durable, self.disk], check=True)
        disk = Disk(self.log, self.disk, self.options.fs_len)
        chance = random.Random(seed)
        for entry in self.log.entries[durable:cut]:
            if variant == "ordered" or entry.flags & FUA:
                disk.apply(entry)
            elif variant == "dropped":
                if chance.random() < 0.5:
                    disk.apply(entry)
            else:
                disk.apply(entry, lambda entry: self.torn(entry, chance))
        disk.close()

    def torn(self, entry, chance):
        """Yields the pieces of a write that reached the disk: all, none, or some of its sectors."""
        fate = chance.randrange(3)
        if fate == 0:
            yield 0, entry.length
        elif fate == 1:
            step = self.options.sector_len
            for start in range(0, entry.length, step):
                if chance.random() < 0.5:
                    yield start, min(start + step, entry.length)

    def mounted(self, what):
        """Mounts the disk, which makes the kernel replay its journal, and does `what` with it."""
        done = subprocess.run(["mount", "-o", "loop", self.disk, self.mount_point], capture_output=True, text=True)
        must(done.returncode == 0, f"the file system cannot be mounted: {done.stderr.strip()}")
        try:
            what()
        finally:
            subprocess.run(["umount", self.mount_point], check=True)

    def find_all(self, acknowledged, later):
        """Compares the history with the ledger; returns the revisions that are there, with their digests."""
        found = {}
        for job in JOBS:
            before, after = acknowledged["jobs"][job], later["jobs"][job]
            listed = self.program.status(job)
            for revision in before.keys() & after.keys():
                must(revision in listed, f"{job}: acknowledged revision {revision} is lost")
            for revision, state in listed.items():
                known = [place[revision] for place in (before, after) if revision in place]
                must(known, f"{job}: revision {revision} is back, or was never made")
                for field in FIELDS:
                    allowed = [one[field] for one in known]
                    must(state[field] in allowed, f"{job}: {field} of {revision}: {state[field]}, not {allowed}")
                found[job, revision] = known[0]["digest"]
        return found

    def check_files(self, acknowledged, later):
        """Looks at the files outside of the store that were acknowledged and are not being replaced."""
        for name, digest in acknowledged["files"].items():
            if later["files"].get(name) == digest:
                path = self.mount_point / name
                must(path.exists(), f"{name} is lost")
                must(digest_at(path) == digest, f"{name} has other bytes")

    def restore_all(self, found):
        for (job, revision), digest in found.items():
            restored = self.program.digest(job, revision, self.work)
            must(restored == digest, f"{job}: revision {revision} restores other bytes")

    def examine(self, mark):
        """Asks for all that was acknowledged, and works on."""
        self.check_files(*self.ledger.before_and_after(mark))
        found = self.find_all(*self.ledger.before_and_after(mark))
        self.restore_all(found)
        # The index is a cache: one state in four does without it, another has all repaired.
        match self.state_count % 4:
            case 1:
                (self.mount_point / "vm1/index.redb").unlink(missing_ok=True)
            case 3:
                self.program.run("vm1", "repair")
        for job in JOBS:
            self.program.run(job, "verify", "-r", "all", "--all-data")
        for job in JOBS:
            report = json.loads(self.program.run(job, "--json", "backup", "-f", "manual:after"))
            found[job, report["id"]] = self.after[job]
        self.program.run("vm1", "purge", "--now")
        for job in JOBS:
            listed = set(self.program.status(job))
            must(listed == {one for of, one in found if of == job}, f"{job}: other revisions after the purge: {listed}")
        self.restore_all(found)
        for place in ("tmp", "trash", "sessions"):
            left = [str(path) for path in (self.mount_point / "vm1" / place).rglob("*") if path.is_file()]
            must(not left, f"left behind: {left}")

    def run_state(self, cut, variant, seed):
        mark = self.last_mark(cut)
        try:
            self.make_disk(cut, variant, seed, self.last_flush(cut))
            self.mounted(lambda: self.examine(mark))
        except (Violation, CommandFailed) as violation:
            self.violation_count += 1
            if self.violation_count <= (TOLD_IN_SELF_TEST if self.options.expect_loss else TOLD_MAX):
                during = self.ledger.before_and_after(mark)[1]["command"]
                print(f"{cut}:{variant}:{seed} (after mark {mark}, during {' '.join(during)}): {violation}")
        self.state_count += 1

    def run(self, cuts):
        """Runs all states of these cuts, in the order of the log."""
        shutil.copyfile(self.recording / "base", self.durable)
        durable = Disk(self.log, self.durable, self.options.fs_len)
        for cut, states in cuts:
            durable.advance(self.last_flush(cut))
            for variant, seed in states:
                self.run_state(cut, variant, seed)
            self.cut_count += 1
            if self.options.verbose and self.cut_count % 20 == 0:
                print(f"... {self.cut_count} cuts, {self.state_count} states", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("program", "mount", "work", "recording"):
        parser.add_argument(name, type=os.path.abspath)
    parser.add_argument("--fs", required=True)
    for name, default in (("fs-len", None), ("sector-len", None), ("cuts", 0), ("seed", 0), ("variant-seeds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default, required=default is None)
    parser.add_argument("--only", help="CUT:VARIANT:SEED")
    parser.add_argument("--expect-loss", action="store_true", help="fail unless there are violations")
    parser.add_argument("--verbose", action="store_true", default="VERBOSE" in os.environ)
    return parser.parse_args()


def main():
    options = arguments()
    began = time.monotonic()
    replay = Replay(options)
    chance = random.Random(options.seed)
    if options.only:
        cut, variant, seed = options.only.split(":")
        cuts = [(int(cut), [(variant, int(seed))])]
    else:
        cuts = [(cut, replay.states_of(cut, chance)) for cut in replay.choose_cuts(options.cuts, chance)]
    assert cuts, "there is something to replay"
    replay.run(cuts)
    writes = sum(1 for entry in replay.log.entries if entry.length)
    print(f"{options.fs}: {replay.cut_count} cuts, {replay.state_count} states, {replay.violation_count} violations "
          f"(seed {options.seed}; {writes} writes, {len(replay.flushes)} flushes, {len(replay.marks)} acknowledgements; "
          f"{time.monotonic() - began:.0f} s)")
    if options.expect_loss:
        print("the lie was noticed" if replay.violation_count else "THE LIE WAS NOT NOTICED: this proves nothing")
    sys.exit(0 if bool(replay.violation_count) == options.expect_loss else 1)


main()
