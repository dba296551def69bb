"""Runs a real carbon-cache that writes whisper files, and feeds it.

Usage: carbon.py DIRECTORY COUNT. The tree is DIRECTORY/storage/whisper. Reads commands from standard input, one in each line, and
answers each with one line:

- `go`: send points, one for each metric a round, until told otherwise
- `pause`: stop sending, and wait until all that was sent is in the files
- `sent`: pause, and answer how many rounds were sent
- `fetch`: answer how many points of those that were sent are missing or wrong, as the package reads the files

carbon ends with this program, and this program ends with its input.

Point `i` of metric `m` has the time START + i and the value (START + i) * 1000 + m, so every slot of a file tells whether it is
right; the newest point of each archive is the newest of all, because a coarser archive has the last value of each step. Metrics
whose number is a multiple of 8 get a point in every 16th round only: files that rest for a while.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import whisper

RETENTIONS = "1s:1h,10s:3h,60s:1d"
ROUNDS_PER_SECOND = 8
PATIENCE_SECONDS = 60

CARBON_CONF = """[cache]
GRAPHITE_ROOT = {directory}
CONF_DIR = {directory}/conf
STORAGE_DIR = {directory}/storage
LOCAL_DATA_DIR = {directory}/storage/whisper/
LOG_DIR = {directory}/log
PID_DIR = {directory}/run
USER =
MAX_CACHE_SIZE = inf
MAX_UPDATES_PER_SECOND = inf
MAX_CREATES_PER_MINUTE = inf
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {line}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {pickle}
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = {query}
ENABLE_UDP_LISTENER = False
WHISPER_LOCK_WRITES = True
WHISPER_AUTOFLUSH = False
CARBON_METRIC_INTERVAL = 0
LOG_UPDATES = False
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def end_with_parent():
    """Asks Linux to end this process when its parent is gone (prctl(2), PR_SET_PDEATHSIG is 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def start_carbon(directory):
    line, pickle, query = free_ports(3)
    text = CARBON_CONF.format(directory=directory, line=line, pickle=pickle, query=query)
    write(f"{directory}/conf/carbon.conf", text)
    write(f"{directory}/conf/storage-schemas.conf", f"[all]\npattern = .*\nretentions = {RETENTIONS}\n")
    aggregation = "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = last\n"
    write(f"{directory}/conf/storage-aggregation.conf", aggregation)
    for name in ("log", "run", "storage/whisper"):
        os.makedirs(f"{directory}/{name}", exist_ok=True)
    program = os.path.join(os.path.dirname(sys.executable), "carbon-cache.py")
    command = [sys.executable, program, f"--config={directory}/conf/carbon.conf", "--nodaemon", "start"]
    log = open(f"{directory}/log/output", "w")
    carbon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent)
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return carbon, socket.create_connection(("127.0.0.1", line))
        except ConnectionRefusedError:
            if carbon.poll() is not None or end < time.monotonic():
                sys.exit(f"carbon does not start: {open(log.name).read()[-2000:]}")
            time.sleep(0.05)


class Feeder(threading.Thread):
    def __init__(self, connection, tree, count):
        super().__init__(daemon=True)
        self.connection, self.tree, self.count = connection, tree, count
        self.start_time = int(time.time()) // 60 * 60 - 3300
        self.rounds = 0
        self.lock = threading.Lock()
        self.is_sending = False

    def run(self):
        while True:
            begun = time.monotonic()
            with self.lock:
                if self.is_sending:
                    self.send()
            time.sleep(max(0.001, begun + 1 / ROUNDS_PER_SECOND - time.monotonic()))

    def send(self):
        at = self.start_time + self.rounds
        metrics = (m for m in range(self.count) if m % 8 or self.rounds % 16 == 0)
        lines = (f"{self.name_of(m)} {at * 1000 + m} {at}\n" for m in metrics)
        self.connection.sendall("".join(lines).encode())
        self.rounds += 1

    def name_of(self, metric):
        return f"group{metric % 10}.host{metric % 3}.m{metric}"

    def path_of(self, metric):
        return os.path.join(self.tree, self.name_of(metric).replace(".", "/") + ".wsp")

    def times_of(self, metric):
        step = 1 if metric % 8 else 16
        return range(self.start_time, self.start_time + self.rounds, step)

    def points_of(self, metric):
        if not os.path.exists(self.path_of(metric)):
            return {}
        (begin, end, step), values = whisper.fetch(self.path_of(metric), self.start_time - 1, self.start_time + self.rounds)
        assert step == 1, step
        return dict(zip(range(begin, end, step), values))

    def go(self):
        with self.lock:
            self.is_sending = True

    def pause(self):
        with self.lock:
            self.is_sending = False
        end = time.monotonic() + PATIENCE_SECONDS
        for metric in range(self.count):
            while self.times_of(metric) and not self.has_newest(metric):
                if end < time.monotonic():
                    sys.exit(f"carbon has not written all points of {self.name_of(metric)}")
                time.sleep(0.02)

    def has_newest(self, metric):
        at = self.times_of(metric)[-1]
        return self.points_of(metric).get(at) == at * 1000 + metric

    def wrong(self):
        wrong = 0
        for metric in range(self.count):
            found = self.points_of(metric)
            wrong += sum(found.get(at) != at * 1000 + metric for at in self.times_of(metric))
        return wrong


def main():
    directory, count = os.path.realpath(sys.argv[1]), int(sys.argv[2])
    carbon, connection = start_carbon(directory)
    feeder = Feeder(connection, f"{directory}/storage/whisper", count)
    feeder.start()
    print("ready", flush=True)
    for line in sys.stdin:
        answer = "done"
        if line == "go\n":
            feeder.go()
        else:
            feeder.pause()
        if line == "sent\n":
            answer = sum(len(feeder.times_of(metric)) for metric in range(count))
        elif line == "fetch\n":
            answer = feeder.wrong()
        print(answer, flush=True)
    carbon.kill()
    carbon.wait()


main()
