"""What the comparison is to show, and whether it does: each bar with its limit and the figure of the same run."""

import statistics

PEERS = ("borg", "borg-fixed", "restic", "rustic", "casync")
MIB = 1 << 20


class Figures:
    """Medians over the rounds, by step, program and field. A figure that was not measured is None."""

    def __init__(self, records):
        self.values = {}
        for record in records:
            for field in ("wall", "cpu", "rss_kib", "stored", "stored_len", "store_files"):
                if field in record:
                    self.values.setdefault((record["step"], record["program"], field), []).append(record[field])

    def median(self, step, program, field="wall"):
        values = self.values.get((step, program, field))
        return statistics.median(values) if values else None

    def rounds(self, step, program):
        return len(self.values.get((step, program, "wall"), ()))

    def added(self, step, program, field="stored"):
        """What a backup added to the store of its series."""
        before = {"unchanged": "first", "day2": "unchanged", "day3": "day2", "other": "day3"}.get(step)
        now = self.median(step, program, field)
        earlier = self.median(before, program, field) if before else 0
        return None if now is None or earlier is None else now - earlier

    def best(self, step, names):
        """The fastest of the named programs that took part, and its time."""
        rows = [(self.median(step, name), name) for name in names if self.median(step, name) is not None]
        return min(rows) if rows else (None, None)


def ratio(number, other):
    return None if number is None or not other else number / other


def bar(text, limit, measured, at_most, note=""):
    """One row. `measured` None means that something needed was not run."""
    sign = "at most" if at_most else "at least"
    met = None if measured is None else (measured <= limit if at_most else measured >= limit)
    return {"bar": text, "required": f"{sign} {limit:g} x", "measured": measured, "met": met, "note": note}


def slower(figures, text, step, bound, limit):
    """backy may take at most `limit` times what `bound` takes; `bound` may have a step of its own."""
    program, bound_step = bound if isinstance(bound, tuple) else (bound, step)
    return bar(text, limit, ratio(figures.median(step, "backy"), figures.median(bound_step, program)), True)


def faster(figures, text, step, peer, limit):
    return bar(text, limit, ratio(figures.median(step, peer), figures.median(step, "backy")), False)


def fastest(figures, text, step, limit, names=PEERS):
    wall, name = figures.best(step, names)
    return bar(text, limit, ratio(wall, figures.median(step, "backy")), False, name or "")


def stored(figures, text, peer, limit, field):
    return bar(text, limit, ratio(figures.median("other", "backy", field), figures.median("other", peer, field)), True)


def fewer(figures, step, peer):
    measured = ratio(figures.added(step, "backy"), figures.added(step, peer))
    row = bar(f"{step}: bytes added, to {peer}", 1, measured, True)
    row["required"] = "below 1 x"
    row["met"] = None if measured is None else measured < 1
    return row


def bars(figures):
    """All bars, in the order of the steps."""
    rows = []
    for field, how in (("stored", "du"), ("stored_len", "lengths of files")):
        rows += [stored(figures, f"four backups: stored bytes ({how}), to {peer}", peer, 0.92, field) for peer in ("restic", "rustic")]
        rows.append(stored(figures, f"four backups: stored bytes ({how}), to casync", "casync", 1.05, field))
    rows.append(slower(figures, "unchanged: time, to b3sum", "unchanged", "b3sum", 1.3))
    rows.append(fastest(figures, "unchanged: faster than the fastest peer", "unchanged", 3.5))
    rows += [faster(figures, f"unchanged: faster than {peer}", "unchanged", peer, 7) for peer in ("restic", "borg", "rustic")]
    rows.append(slower(figures, "first: time, to zstd -1 -T2", "first", "zstd", 1.25))
    rows.append(faster(figures, "first: faster than rustic", "first", "rustic", 1.7))
    rows.append(faster(figures, "first: not slower than borg-fixed", "first", "borg-fixed", 1))
    for step in ("day2", "day3"):
        rows.append(fastest(figures, f"{step}: faster than the fastest peer", step, 2.5))
        rows += [faster(figures, f"{step}: faster than {peer}", step, peer, 5) for peer in ("restic", "rustic")]
        rows += [fewer(figures, step, peer) for peer in ("restic", "rustic")]
    rows.append(fastest(figures, "sparse: faster than the best peer", "sparse", 10))
    rows.append(slower(figures, "restore to a new file: time, to cp and sync", "restore", "cp", 1.3))
    rows.append(slower(figures, "restore onto yesterday's file: time, to b3sum", "delta", "b3sum", 2))
    rows.append(fastest(figures, "verify everything: faster than the best peer", "verify", 4))
    rows += beside(figures)
    return rows


def beside(figures):
    """borg asked for holes by an option that its fixed chunks alone know: no bar, but a reader should see it."""
    rows = []
    for step in ("first", "unchanged", "day2", "day3", "sparse"):
        row = faster(figures, f"{step}: to borg-fixed-sparse", step, "borg-fixed-sparse", 1)
        rows.append(row | {"required": "none", "met": None, "note": "no bar"})
    return [row for row in rows if row["measured"] is not None]
