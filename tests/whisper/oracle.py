"""Answers what the Python package whisper does with a file.

Reads one JSON request from each line of standard input and writes one JSON reply to each line of standard output. Files are
hexadecimal, values are the 16 hexadecimal digits of their bits. Usage: oracle.py SCRATCH_DIRECTORY

The package is used as it is, but for three things that would make its answers depend on the moment or the machine:
- its clock is the one of the request;
- a Python set, whose order decides which coarser point is written first, is gone through in ascending order (unless
  the request says "any_order");
- sums are not compensated, as in Python up to 3.11.
"""

import importlib.machinery
import importlib.util
import json
import os
import struct
import sys

import whisper

SCRIPT = os.path.join(os.path.dirname(sys.executable), "whisper-fill.py")


class Clock:
    """Stands in for the module `time`."""

    now = 0

    @classmethod
    def time(cls):
        return cls.now


def plain_sum(values):
    total = 0
    for value in values:
        total += value
    return total


def load_script():
    loader = importlib.machinery.SourceFileLoader("whisper_fill", SCRIPT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("whisper_fill", loader))
    loader.exec_module(module)
    module.time = Clock
    return module


def value_of(text):
    return struct.unpack(">d", bytes.fromhex(text))[0]


def text_of(value):
    return None if value is None else struct.pack(">d", value).hex()


def write(path, text):
    with open(path, "wb") as file:
        file.write(bytes.fromhex(text))


def read(path):
    with open(path, "rb") as file:
        return file.read().hex()


def fetch(path, start, end, now):
    found = whisper.fetch(path, start, end, now=now)
    if found is None:
        return None
    (start, end, step), values = found
    return [start, end, step, [text_of(value) for value in values]]


def step(path, request):
    kind, now = request[0], request[1]
    if kind == "fetch":
        return fetch(path, request[2], request[3], now)
    if kind == "update":
        try:
            whisper.update(path, value_of(request[3]), request[2], now=now)
        except whisper.TimestampNotCovered:
            return "not covered"
        return None
    assert kind == "update_many"
    whisper.update_many(path, [(time, value_of(value)) for time, value in request[2]], now=now)
    return None


def history(scratch, request):
    path = os.path.join(scratch, "history.wsp")
    if os.path.exists(path):
        os.remove(path)
    archives = [tuple(archive) for archive in request["archives"]]
    factor = value_of(request["x_files_factor"])
    whisper.create(path, archives, factor, request["aggregation"])
    answers = [step(path, one) for one in request["steps"]]
    return {"file": read(path), "answers": answers}


def fill(scratch, script, request):
    source, target = os.path.join(scratch, "source.wsp"), os.path.join(scratch, "target.wsp")
    write(source, request["source"])
    write(target, request["target"])
    Clock.now = request["now"]
    script.fill_archives(source, target, request["now"])
    return {"file": read(target)}


def main():
    scratch = sys.argv[1]
    script = load_script()
    whisper.time = Clock
    whisper.sum = plain_sum
    for line in sys.stdin:
        request = json.loads(line)
        whisper.set = set if request.get("any_order") else lambda items: sorted(set(items))
        if "steps" in request:
            reply = history(scratch, request)
        else:
            reply = fill(scratch, script, request)
        print(json.dumps(reply), flush=True)


main()
