"""Makes the files in tests/whisper/golden with the Python package whisper 1.1.10. They are made once and never changed.

Usage: make_golden.py DIRECTORY

For each aggregation NAME.wsp, and NAME.json with what went in and what the package reads from it. Points are written one by
one, so that no order of a Python set decides where they lie.
"""

import json
import os
import sys

import whisper

START = 1_700_000_000
SCHEMA = [(10, 12), (60, 10), (300, 8)]


def points():
    """Twenty minutes with pauses, out of order now and then; values that are exact in every sum."""
    time = START
    for index in range(60):
        time += (10, 10, 10, 40, 10, 5)[index % 6]
        value = (index * 37 % 101 - 50) / 4
        yield time, time, value
        if index % 7 == 0:
            yield time, time - 25, value * 2


def main():
    directory = sys.argv[1]
    for index, name in enumerate(sorted(whisper.aggregationMethods)):
        path = os.path.join(directory, name + ".wsp")
        factor = (0.0, 0.25, 0.5, 0.75)[index % 4]
        whisper.create(path, list(SCHEMA), factor, name)
        history = list(points())
        for now, time, value in history:
            whisper.update(path, value, time, now=now)
        now = history[-1][0]
        readings = []
        for start in (now - 100, now - 500, now - 2000):
            (first, end, step), values = whisper.fetch(path, start, now, now=now)
            readings.append({"from": start, "series": [first, end, step], "values": values})
        content = {"now": now, "archives": SCHEMA, "x_files_factor": factor,
                   "history": history, "readings": readings}
        with open(os.path.join(directory, name + ".json"), "w") as file:
            json.dump(content, file)
            file.write("\n")


main()
