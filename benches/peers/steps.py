"""The steps of one round, and how one program's turn in one of them is prepared, measured and compared.

Between steps a program's store stays. All programs see the same paths: a source is a hard link to the image of the day.
"""

import dataclasses
import filecmp
import os
import shutil
import subprocess
import time


@dataclasses.dataclass(frozen=True)
class Step:
    """What every program does once in each round."""

    name: str
    title: str
    source: str
    image: str
    action: str
    # What programs without a store do in its place: by name of the program, the name of a method.
    bounds: dict = dataclasses.field(default_factory=dict)
    needs: str = ""


COPY = {"zstd": "compress", "cp": "copy", "qemu-img": "copy"}
STEPS = (
    Step("first", "first backup (day 1)", "disk", "day1", "backup", COPY),
    Step("unchanged", "unchanged image again", "disk", "day1", "backup", {"b3sum": "read"}, "first"),
    Step("day2", "changed day (day 2)", "disk", "day2", "backup", {"b3sum": "read"}, "unchanged"),
    Step("day3", "changed day (day 3)", "disk", "day3", "backup", {}, "day2"),
    Step("other", "other image, same store", "other", "other", "backup", {}, "day3"),
    Step("restore", "restore to a new file", "disk", "day3", "restore", {"cp": "restore"}, "day3"),
    Step("delta", "restore onto yesterday's file", "disk", "day3", "delta", {"b3sum": "read"}, "day3"),
    Step("verify", "verify everything", "disk", "day3", "verify", {"b3sum": "read"}, "other"),
    Step("sparse", "sparse image, empty store", "sparse", "sparse", "backup", COPY),
    Step("random", "random bytes, empty store", "random", "random", "backup", COPY),
)
ALONE = ("sparse", "random")


class Turn:
    """One program's turn in one step."""

    def __init__(self, work, images, program, step):
        self.work, self.program, self.step = work, program, step
        # The store of the series stays; what is copied or backed up alone has a place of its own.
        self.alone = step.name in ALONE or program.role == "bound"
        program.place(work / ("alone" if self.alone else "series"))
        self.image = images / f"{step.image}.img"
        self.source = work / "source" / f"{step.source}.img"
        self.restored = work / "restored" / f"{step.source}.img"
        self.action = program.action(step)

    def prepare(self):
        """Everything that is not timed: the store, the source of the day, an empty place, warm caches, nothing to write."""
        if self.action == "copy" or (self.action == "backup" and not self.step.needs):
            shutil.rmtree(self.program.home, ignore_errors=True)
            self.program.home.mkdir(parents=True)
            self.run_all(self.program.create())
        self.program.home.mkdir(parents=True, exist_ok=True)
        self.source.parent.mkdir(parents=True, exist_ok=True)
        self.source.unlink(missing_ok=True)
        os.link(self.image, self.source)
        if self.action == "backup" and (not self.step.needs or self.step.name == "other"):
            self.run_all(self.program.register(self.source))
        shutil.rmtree(self.restored.parent, ignore_errors=True)
        self.restored.parent.mkdir(parents=True)
        if self.action == "delta":
            yesterday = self.image.with_name("day2.img")
            subprocess.run(["cp", "--sparse=always", "--reflink=never", yesterday, self.restored], check=True)
        subprocess.run(["sync"], check=True)
        self.warm()

    def warm(self):
        """Reads what the step will read, so that no program waits for the disk and none gains from its turn."""
        paths = [self.source, self.restored]
        if self.action in ("restore", "delta", "verify"):
            paths.append(self.program.store)
        subprocess.run(["find", *[path for path in paths if path.exists()], "-type", "f", "-exec", "cat", "{}", "+"],
                       check=True, stdout=subprocess.DEVNULL)

    def run_all(self, commands):
        for command in commands:
            subprocess.run([str(word) for word in command], check=True, env=self.program.environ(),
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def command(self):
        label = self.step.name
        arguments = {
            "backup": (self.source, label),
            "copy": (self.source, label),
            "restore": (self.source, label, self.restored),
            "delta": (self.source, "day3", self.restored),
            "compress": (self.source,),
            "read": (self.source,),
            "verify": (self.source,),
        }[self.action]
        if self.action == "restore":
            arguments = (self.source, "day3", self.restored)
        return [str(word) for word in getattr(self.program, self.action)(*arguments)]

    def measure(self):
        """Runs the command and returns what it took. Wall time is that of this process' clock; the rest is GNU time's."""
        command = self.command()
        figures = self.work / "time"
        directory = self.restored.parent if self.action in ("restore", "delta") else self.source.parent
        timed = ["/usr/bin/time", "-o", figures, "-f", "%U %S %M", *command]
        with open(self.work / "output", "wb") as output:
            started = time.monotonic()
            done = subprocess.run([str(word) for word in timed], cwd=directory, env=self.program.environ(), check=False,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output)
            wall = time.monotonic() - started
        if done.returncode != 0:
            said = (self.work / "output").read_text(errors="replace")[-1000:]
            raise RuntimeError(f"{self.program.name} failed in step {self.step.name} ({done.returncode}): {' '.join(command)}\n{said}")
        user, system, resident = figures.read_text().split()[-3:]
        if self.action in ("restore", "delta"):
            self.compare()
        return {"wall": round(wall, 4), "cpu": round(float(user) + float(system), 2), "rss_kib": int(resident),
                **self.stored(), "action": self.action, "command": command}

    def compare(self):
        if not filecmp.cmp(self.restored, self.image, shallow=False):
            raise RuntimeError(f"{self.program.name} restored other bytes than those of {self.image.name}")

    def stored(self):
        """What the program's store takes: by blocks of the file system, and by the lengths of the files."""
        if self.action not in ("backup", "copy"):
            return {}
        subprocess.run(["sync"], check=True)
        return {"stored": disk_usage(self.program.store), "stored_len": disk_usage(self.program.store, "--apparent-size")}

    def clean_up(self):
        shutil.rmtree(self.restored.parent, ignore_errors=True)
        if self.alone:
            shutil.rmtree(self.program.home, ignore_errors=True)


def disk_usage(path, *options):
    # The ballast of a store is free space that a purge may use, and not what was backed up.
    done = subprocess.run(["du", "-s", "--block-size=1", "--exclude=ballast", *options, path], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[0])


def with_needs(names):
    """The named steps and those whose stores they need, in order."""
    wanted = set(names)
    for step in reversed(STEPS):
        if step.name in wanted and step.needs:
            wanted.add(step.needs)
    return [step for step in STEPS if step.name in wanted]

