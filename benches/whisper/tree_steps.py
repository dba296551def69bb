"""The steps of one round on a tree, and how one program's turn in one of them is prepared, measured and compared.

The tree is at one path and changes there as carbon changes it: in place, so that the files keep their inodes.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import threading
import time

from steps import disk_usage


@dataclasses.dataclass(frozen=True)
class Step:
    """What every program does once in each round."""

    name: str
    title: str
    day: str
    action: str
    # What programs without a store do in its place: by name of the program, the name of a method.
    bounds: dict = dataclasses.field(default_factory=dict)
    needs: str = ""


STEPS = (
    Step("first", "first backup (day 1)", "day1", "backup"),
    Step("unchanged", "unchanged tree again", "day1", "backup", needs="first"),
    Step("day2", "a day later, new points in every file (day 2)", "day2", "backup", needs="unchanged"),
    Step("restore", "restore of the whole tree to an empty place", "day2", "restore", {"cp": "restore"}, "day2"),
)

# Seconds between two looks at the memory of a program with several processes.
SAMPLE_SECONDS = 0.2


def update(live, day):
    """Makes `live` the same as the tree of a day. Files stay where they are and are written from their beginning."""
    wanted = set()
    for directory, _, names in os.walk(day):
        relative = pathlib.Path(directory).relative_to(day)
        (live / relative).mkdir(parents=True, exist_ok=True)
        for name in names:
            wanted.add(str(relative / name))
            source, target = pathlib.Path(directory, name), live / relative / name
            with open(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
                file.write(source.read_bytes())
                file.truncate()
            shutil.copystat(source, target)
    for directory, _, names in os.walk(live):
        for name in names:
            path = pathlib.Path(directory, name)
            if str(path.relative_to(live)) not in wanted:
                path.unlink()


def proportional_kib(pid):
    """Memory of a process and of those that it started: what they share is counted once."""
    total, waiting = 0, [pid]
    while waiting:
        process = pathlib.Path("/proc", str(waiting.pop()))
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for children in process.glob("task/*/children"):
                waiting += children.read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended meanwhile.
    return total


class Turn:
    """One program's turn in one step."""

    def __init__(self, work, tree, program, step):
        self.work, self.program, self.step = work, program, step
        program.place(work)
        self.day = tree / step.day
        self.live = work / "live"
        self.restored = work / "restored" / "live"
        self.action = program.action(step)

    def prepare(self):
        """Everything that is not timed: the store, the tree of the day, an empty place, warm caches, nothing to write."""
        self.make_live()
        if self.action == "backup" and not self.step.needs:
            shutil.rmtree(self.program.home, ignore_errors=True)
            self.program.home.mkdir(parents=True)
            self.run_all(self.program.create() + self.program.register(self.live))
        self.program.home.mkdir(parents=True, exist_ok=True)
        self.clean_up()
        self.restored.parent.mkdir(parents=True)
        subprocess.run(["sync"], check=True)
        warm = [self.live] if self.action == "backup" or self.program.role == "bound" else [self.program.store]
        subprocess.run(["find", *warm, "-type", "f", "-exec", "cat", "{}", "+"], check=True, stdout=subprocess.DEVNULL)

    def make_live(self):
        note = self.work / "live.day"
        if note.exists() and note.read_text() == self.step.day:
            return
        note.unlink(missing_ok=True)
        update(self.live, self.day)
        note.write_text(self.step.day)

    def run_all(self, commands):
        for command in commands:
            subprocess.run([str(word) for word in command], check=True, env=self.program.environ(),
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def measure(self):
        """Runs the command and returns what it took. Wall time is that of this process' clock; the rest is GNU time's."""
        arguments = (self.live, self.step.name) if self.action == "backup" else (self.live, "day2", self.restored)
        command = [str(word) for word in getattr(self.program, self.action)(*arguments)]
        figures = self.work / "time"
        timed = ["/usr/bin/time", "-o", str(figures), "-f", "%U %S %M", *command]
        directory = self.restored.parent if self.action == "restore" else self.live.parent
        with open(self.work / "output", "wb") as output:
            started = time.monotonic()
            running = subprocess.Popen(timed, cwd=directory, env=self.program.environ(),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output)
            sampled = self.watch(running)
            running.wait()
            wall = time.monotonic() - started
        said = (self.work / "output").read_text(errors="replace")
        if running.returncode != 0:
            raise RuntimeError(f"{self.program.name} failed in step {self.step.name} ({running.returncode}): {' '.join(command)}\n{said[-1000:]}")
        user, system, resident = figures.read_text().split()[-3:]
        if self.action == "restore":
            subprocess.run(["diff", "-r", "-q", self.day, self.restored], check=True)
        return {"wall": round(wall, 4), "cpu": round(float(user) + float(system), 2), "rss_kib": max(sampled(), int(resident)),
                **self.stored(), "action": self.action, "command": command}

    def watch(self, running):
        """Looks at the memory of a program with several processes until it ends. Returns what tells the most that they had."""
        if not getattr(self.program, "has_processes", False):
            return lambda: 0
        peaks = [0]

        def look():
            while running.poll() is None:
                peaks.append(max(peaks.pop(), proportional_kib(running.pid)))
                time.sleep(SAMPLE_SECONDS)

        thread = threading.Thread(target=look)
        thread.start()

        def peak():
            thread.join()
            return peaks[0]

        return peak

    def stored(self):
        """What the program's store takes: by blocks of the file system, by the lengths of the files, and their number."""
        if self.action != "backup":
            return {}
        subprocess.run(["sync"], check=True)
        files = sum(len(names) for _, _, names in os.walk(self.program.store))
        return {"stored": disk_usage(self.program.store), "stored_len": disk_usage(self.program.store, "--apparent-size"), "store_files": files}

    def clean_up(self):
        shutil.rmtree(self.restored.parent, ignore_errors=True)
