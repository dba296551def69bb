"""What the comparison on trees is to show, and its tables in Markdown."""

import pathlib
import shlex

from bars import MIB, Figures, bar, faster, fastest, ratio
from report import bar_rows, machine, mib, number, table
from tree_steps import STEPS

BEGIN = "<!-- benches/whisper/run begins -->"
END = "<!-- benches/whisper/run ends -->"
HERE = pathlib.Path(__file__).resolve().parent
PEERS = ("borg", "restic", "rustic", "casync")
# The real one, or what it calls for each file.
PREDECESSORS = ("whisper-backup", "gzip-each")
# The tree of which speed and bytes are compared, and the one with many files. Others have tables and no bars.
LARGE, MANY = "t2200", "t100k"
MEMORY_MAX = 256 * MIB


def figures_of(records, tree):
    return Figures([record for record in records if record["tree"] == tree])


def fewer_bytes(figures, step, predecessor, limit):
    measured = ratio(figures.added(step, "backy"), figures.added(step, predecessor))
    return bar(f"{step}: bytes added, to {predecessor}", limit, measured, True)


def bars(records):
    """All bars, in the order of the steps."""
    large, many = figures_of(records, LARGE), figures_of(records, MANY)
    predecessor = next((name for name in PREDECESSORS if large.median("first", name)), PREDECESSORS[0])
    rows = []
    for step, limit in (("first", 1 / 2), ("day2", 1 / 15)):
        rows.append(faster(large, f"{step}: faster than {predecessor}", step, predecessor, 80))
        rows.append(above_one(fastest(large, f"{step}: faster than the fastest peer", step, 1, PEERS)))
        rows.append(fewer_bytes(large, step, predecessor, limit))
    rows.append(above_one(fastest(large, "restore: faster than the fastest peer", "restore", 1, PEERS)))
    peaks = [peak for peak in (many.median(step.name, "backy", "rss_kib") for step in STEPS) if peak is not None]
    rows.append(bar("100,000 files: peak memory, to 256 MiB", 1, max(peaks) * 1024 / MEMORY_MAX if peaks else None, True))
    return rows


def above_one(row):
    met = None if row["measured"] is None else row["measured"] > 1
    return row | {"required": "above 1 x", "met": met}


def step_table(step, figures, session):
    """One step: every program that took part, with the ratio of its time to backy's; of the others why they did not."""
    rows = []
    backy = figures.median(step.name, "backy")
    for program in session["programs"]:
        name = program["name"]
        wall = figures.median(step.name, name)
        if wall is None:
            if program["skipped"] == "not chosen":
                continue
            why = program["absent"].get(step.action) or program["skipped"]
            if why and program["role"] != "bound":
                rows.append([name, 0, f"skipped: {why}", *[""] * 6])
            continue
        files = figures.median(step.name, name, "store_files")
        rows.append([name, figures.rounds(step.name, name), number(wall), number(figures.median(step.name, name, "cpu")),
                     mib(figures.median(step.name, name, "rss_kib") * 1024), mib(figures.median(step.name, name, "stored")),
                     mib(figures.added(step.name, name)), "" if files is None else f"{files:.0f}",
                     "" if name == "backy" or not backy else f"{wall / backy:.2f} x"])
    head = ["program", "runs", "wall s", "CPU s", "peak MiB", "store MiB", "added MiB", "files in the store", "wall to backy's"]
    return ["", f"#### {step.title[0].upper()}{step.title[1:]}", "", *table(head, rows)] if rows else []


def commands(session, records):
    """One command line for each program and use, with the paths of this run replaced by names."""
    seen = {}
    for record in records:
        seen.setdefault((record["program"], record["action"]), record)
    for program in session["programs"]:
        for (name, _), record in seen.items():
            if name == program["name"]:
                command = shlex.join(record["command"]).replace(f"{session['directory']}/run/{record['tree']}", "RUN")
                for path, short in [(program["path"], program["executable"]), (session["checkout"], "CHECKOUT"), (str(HERE), "benches/whisper")]:
                    command = command.replace(path, short) if path else command
                yield command


def markdown(session, records):
    """The whole block that belongs into docs/performance.md, markers included."""
    versions = [[p["name"], p["version"] or f"skipped: {p['skipped']}"] for p in session["programs"]]
    lines = [BEGIN, *(line.replace("images", "trees") for line in machine(session)), "", *table(["program", "version"], versions)]
    for name, tree in session["trees"].items():
        figures = figures_of(records, name)
        lines += ["", f"### {tree['files']} files, {mib(tree['bytes'])} MiB"]
        for step in STEPS:
            if any(record["tree"] == name and record["step"] == step.name for record in records):
                lines += step_table(step, figures, session)
    lines += ["", "### Bars for whisper trees", "", *table(["bar", "required", "measured", "met"], bar_rows(bars(records)))]
    lines += ["", "### Command lines for whisper trees", "", "```text", *commands(session, records), "```", END]
    return "\n".join(lines) + "\n"
