"""The tables of a run, in Markdown."""

import shlex

from bars import MIB, Figures, bars
from steps import STEPS

BEGIN = "<!-- benches/peers/run begins -->"
END = "<!-- benches/peers/run ends -->"


def number(value, places=2):
    return "" if value is None else f"{value:.{places}f}"


def mib(value):
    return "" if value is None else f"{value / MIB:.1f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def step_table(step, figures, session):
    """One step: every program, with the ratio of its time to backy's; what did not take part says why."""
    rows = []
    backy = figures.median(step.name, "backy")
    for program in session["programs"]:
        name = program["name"]
        wall = figures.median(step.name, name)
        if wall is None:
            why = program["skipped"] or (program["absent"].get(step.action) if program["role"] != "bound" else None)
            if why and program["role"] != "bound":
                rows.append([name, 0, f"skipped: {why}", "", "", "", "", ""])
            continue
        rows.append([
            name,
            figures.rounds(step.name, name),
            number(wall),
            number(figures.median(step.name, name, "cpu")),
            mib((figures.median(step.name, name, "rss_kib") or 0) * 1024),
            mib(figures.median(step.name, name, "stored")),
            mib(figures.added(step.name, name)),
            "" if name == "backy" or not backy else f"{wall / backy:.2f} x",
        ])
    head = ["program", "runs", "wall s", "CPU s", "peak MiB", "store MiB", "added MiB", "wall to backy's"]
    return ["", f"#### {step.title[0].upper()}{step.title[1:]}", "", *table(head, rows)] if rows else []


def bar_rows(rows):
    words = {True: "yes", False: "**no**", None: "not measured"}
    for row in rows:
        measured = "" if row["measured"] is None else f"{row['measured']:.3g} x"
        met = row["note"] if row["required"] == "none" else words[row["met"]]
        note = f" ({row['note']})" if row["note"] and row["required"] != "none" else ""
        yield [row["bar"] + note, row["required"], measured, met]


def machine(session):
    facts = session["machine"]
    yield (f"{session['date']}; {facts['processors']} x {facts['processor']}, {facts['memory_gib']} GiB, Linux {facts['kernel']}, "
           f"{facts['file_system']}. The images fit into the page cache.")


def images(session):
    rows = [[name, mib(image["len"]), mib(image["allocated"]), image["sha256"][:16]] for name, image in session["images"].items()]
    return table(["image", "MiB", "allocated MiB", "SHA-256 begins"], rows)


def versions(session):
    return table(["program", "version"], [[p["name"], p["version"] or f"skipped: {p['skipped']}"] for p in session["programs"]])


def commands(session, records):
    """One command line for each program and use, with the paths of this run replaced by names."""
    seen = {}
    for record in records:
        seen.setdefault((record["program"], record["action"]), shlex.join(record["command"]))
    places = [(session["directory"] + "/run/source", "SOURCE"), (session["directory"] + "/run/restored", "RESTORED"),
              (session["directory"] + "/run", "RUN")]
    for program in session["programs"]:
        for (name, _), command in seen.items():
            if name == program["name"]:
                for path, short in [(program["path"], program["executable"]), *places]:
                    command = command.replace(path, short)
                yield command


def markdown(session, records):
    """The whole block that belongs into docs/performance.md, markers included."""
    figures = Figures(records)
    ran = [step for step in STEPS if any(record["step"] == step.name for record in records)]
    rounds = sorted({figures.rounds(record["step"], record["program"]) for record in records})
    counts = " to ".join(str(count) for count in sorted({rounds[0], rounds[-1]})) if rounds else "0"
    lines = [BEGIN, *machine(session), f"Rounds: {counts}; medians.", "", *versions(session), "", *images(session)]
    for step in ran:
        lines += step_table(step, figures, session)
    lines += ["", "#### Bars", "", *table(["bar", "required", "measured", "met"], bar_rows(bars(figures)))]
    lines += ["", "#### Command lines", "", "```text", *commands(session, records), "```", END]
    return "\n".join(lines) + "\n"


def place(path, block, begin=BEGIN, end=END):
    """Writes the block between the marker lines of a document, or as a document of its own."""
    text = path.read_text() if path.exists() else ""
    if begin in text and end in text:
        before, rest = text.split(begin, 1)
        block = before + block.rstrip("\n") + rest.split(end, 1)[1]
    elif text:
        raise RuntimeError(f"{path} has no line {begin} and {end}")
    path.write_text(block)
