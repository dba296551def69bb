"""What a comparison keeps between its pieces: the facts of its session and a record for each measurement, a line of JSON each."""

import json
import os
import pathlib
import platform
import subprocess

import filesystem


def machine(directory):
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    memory = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    kind = filesystem.run("findmnt", "-n", "-o", "FSTYPE", "-T", directory, stdout=subprocess.PIPE, text=True).stdout.strip()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {"processors": os.cpu_count(), "processor": models[0] if models else platform.machine(),
            "memory_gib": round(memory / (1 << 20)), "kernel": platform.release(), "file_system": kind}


def load(results):
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return lines[0], lines[1:]


def save(results, session, records):
    """Replaces the results, so that they are whole whenever this program ends."""
    scratch = results.with_suffix(".new")
    scratch.write_text("".join(json.dumps(line) + "\n" for line in (session, *records)))
    scratch.replace(results)
