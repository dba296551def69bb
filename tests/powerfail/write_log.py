"""The log of a disk, as blklogwrites and dm-log-writes write it, and disks made anew from it.

A super block (magic, version, count of entries, sector length) is followed by the entries: each a header in
a sector of its own (first sector, count of sectors, flags, length of data) and the bytes written. All
numbers are little-endian.
"""

import os
import struct

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4
SECTOR = 512


class Entry:
    """One request that the disk had completed before the next entry began."""

    def __init__(self, offset, length, flags, data_at):
        self.offset, self.length, self.flags, self.data_at = offset, length, flags, data_at


class WriteLog:
    def __init__(self, path):
        self.file = os.open(path, os.O_RDONLY)
        magic, version, count, sector_len = struct.unpack("<QQQI", os.pread(self.file, 28, 0))
        assert (magic, version, sector_len) == (MAGIC, 1, SECTOR), "the log is not of the kind that is known"
        self.entries = []
        at = SECTOR
        for _ in range(count):
            sector, sectors, flags, _ = struct.unpack("<QQQQ", os.pread(self.file, 32, at))
            assert flags & ~(FLUSH | FUA | DISCARD) == 0, f"unknown flags {flags}"
            self.entries.append(Entry(sector * SECTOR, sectors * SECTOR, flags, at + SECTOR))
            at += SECTOR + (0 if flags & DISCARD else sectors * SECTOR)
        rest = os.fstat(self.file).st_size - at
        assert 0 <= rest, "the log is shorter than its super block says"

    def data(self, entry):
        if entry.flags & DISCARD:
            return bytes(entry.length)
        data = os.pread(self.file, entry.length, entry.data_at)
        assert len(data) == entry.length, "the log ends within an entry"
        return data

    def marks(self, marks_at):
        """Returns (index of the entry, number) of all marks."""
        at_marks = ((index, entry) for index, entry in enumerate(self.entries) if entry.offset == marks_at and entry.length)
        return [(index, struct.unpack("<Q", self.data(entry)[16:24])[0]) for index, entry in at_marks]


class Disk:
    """A disk on which the first `position` entries of the log were carried out."""

    def __init__(self, log, path, length):
        self.log, self.path, self.length, self.position = log, path, length, 0
        self.file = os.open(path, os.O_RDWR)

    def apply(self, entry, pick=None):
        """Carries an entry out; `pick`, if given, says for each of its pieces (offset, length) whether it was."""
        if entry.length == 0 or self.length <= entry.offset:
            return
        data = self.log.data(entry)
        if pick is None:
            assert os.pwrite(self.file, data, entry.offset) == len(data)
            return
        for start, end in pick(entry):
            os.pwrite(self.file, data[start:end], entry.offset + start)

    def advance(self, position):
        assert self.position <= position, "the log is carried out forwards only"
        for entry in self.log.entries[self.position : position]:
            self.apply(entry)
        self.position = position

    def close(self):
        os.close(self.file)
