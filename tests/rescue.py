#!/usr/bin/env python3
"""Reads a store without the programs that wrote it.

    rescue.py list STORE                       revisions, oldest first
    rescue.py restore STORE REVISION TARGET    writes an image, or the files of a tree below a
                                               directory; REVISION is an id or its start
    rescue.py files STORE REVISION             files of a tree: since when they are so, size, path
    rescue.py file STORE REVISION PATH TARGET  writes one file of a tree
    rescue.py check STORE                      reads and compares every byte of the store

Written from docs/format.md alone and shares no code with the library: it is the last resort if the
programs are lost, and it proves that the document is complete. Needs Python 3.10 and the packages
blake3 and zstandard. It never writes to the store and never reads the index.

Exit codes: 0 done, 2 usage, 4 damage found, 6 unknown format, 8 input or output failed,
10 no such store or revision.
"""

import datetime
import json
import mmap
import os
import re
import stat
import struct
import sys
from dataclasses import dataclass

import blake3
import zstandard

# docs/format.md, section "Limits".
CHUNK_LEN_MAX = 16 << 20
STORED_OVERHEAD_MAX = 64 << 10
PACK_LEN_MAX = 256 << 20
PACK_RECORD_COUNT_MAX = 1 << 20
IMAGE_LEN_MAX = 1 << 50
ROOT_SPAN_COUNT_MAX = 1 << 18
SPAN_LEN_MIN = 64 << 20
NAME_LEN_MAX = 255
TREE_PATH_LEN_MAX = 4096
TREE_PAGE_LEN_MAX = 8 << 20
DOCUMENT_LEN_MAX = 1 << 20
CONDEMNED_COUNT_MAX = 1 << 24

DATA, PAGE, ROOT = 0, 1, 2
KIND_NAMES = {DATA: "data chunk", PAGE: "page", ROOT: "root"}
ID_CONTEXTS = {
    PAGE: "chunkstore 2026-11-20 chunk list page v1",
    ROOT: "chunkstore 2026-11-20 chunk list root v1",
}
RAW, ZSTD, POINTS = 0, 1, 2

HEADER_LEN = 80
RECORD_LEN = 56
ENTRY_LEN = 48
TRAILER_LEN = 64
READ_LEN = 1 << 20
POINT_LEN = 12
DECIMALS_MAX = 6


class Damage(Exception):
    """An object is not what it must be."""


class Unsupported(Exception):
    """An object has a format that this program does not know."""


class NotFound(Exception):
    """There is no such store or revision."""


class Usage(Exception):
    """The command makes no sense."""


def digest(data):
    return blake3.blake3(data).digest()


def checksum8(data):
    return digest(data)[:8]


def magic(sentence, length):
    return digest(sentence.encode())[:length]


def chunk_id(kind, plain):
    if kind == DATA:
        return digest(plain)
    return blake3.blake3(plain, derive_key_context=ID_CONTEXTS[kind]).digest()


PACK_MAGIC = magic("chunkstore pack v1", 8)
RECORD_MAGIC = magic("chunkstore record v1", 4)
PACK_END_MAGIC = magic("chunkstore pack end v1", 8)
PAGE_MAGIC = magic("chunkstore page v1", 4)
ROOT_MAGIC = magic("chunkstore root v1", 4)
TREE_PAGE_MAGIC = magic("chunkstore tree page v1", 4)
TREE_ROOT_MAGIC = magic("chunkstore tree root v1", 4)
CONDEMNED_MAGIC = magic("chunkstore condemned v1", 8)


def require(condition, message):
    if not condition:
        raise Damage(message)


def complain(message):
    print(f"error: {message}", file=sys.stderr)


# --- Documents -------------------------------------------------------------------------------


def read_document(path, magic_text, version_max=1):
    """Returns the body of a document."""
    with open(path, "rb") as file:
        raw = file.read(DOCUMENT_LEN_MAX + 1)
    require(len(raw) <= DOCUMENT_LEN_MAX, f"{path}: longer than {DOCUMENT_LEN_MAX} bytes")
    start = b'{"magic":"' + magic_text.encode() + b'","version":'
    require(raw.startswith(start), f"{path}: does not begin as a {magic_text} document does")
    match = re.compile(rb'([1-9][0-9]{0,9}),').match(raw, len(start))
    require(match is not None, f"{path}: its version is not a number")
    version = match[1]
    match = re.compile(rb'"checksum":"([0-9a-f]{64})","body":').match(raw, match.end())
    require(match is not None, f"{path}: its envelope is damaged")
    require(raw.endswith(b"}\n") and len(raw) >= match.end() + 2, f"{path}: its end is missing")
    body = raw[match.end() : -2]
    covered = body if version == b"1" else version + body
    require(digest(covered).hex() == match[1].decode(), f"{path}: its checksum does not match")
    if int(version) > version_max:
        raise Unsupported(f"{path}: version {version.decode()}, this program reads up to {version_max}")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Damage(f"{path}: {error}") from error
    require(isinstance(value, dict), f"{path}: its body is not an object")
    return value


def is_hex(value, length):
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) is not None


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def is_tag(value):
    return (
        isinstance(value, str)
        and 0 < len(value.encode()) <= NAME_LEN_MAX
        and not any(symbol == "," or symbol.isspace() or is_control(symbol) for symbol in value)
    )


def is_control(symbol):
    return ord(symbol) < 0x20 or 0x7F <= ord(symbol) < 0xA0


def is_source_name(value):
    permitted = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}"
    return isinstance(value, str) and re.fullmatch(permitted, value) is not None


def read_config(store):
    path = os.path.join(store, "store.json")
    if not os.path.isfile(path):
        raise NotFound(f"{store} is not a store: it has no store.json")
    body = read_document(path, "chunkstore store")
    flags = body.get("incompatible_flags")
    require(isinstance(flags, list), f"{path}: incompatible_flags is not a list")
    if flags:
        raise Unsupported(f"{path}: the store needs {', '.join(map(str, flags))}")
    require(is_hex(body.get("store_id"), 32), f"{path}: store_id is not an id")
    return body


def read_revision(path):
    body = read_document(path, "chunkstore revision")
    directory, name = os.path.split(path)
    require(is_hex(body.get("id"), 32), f"{path}: id is not an id")
    require(name == body["id"] + ".rev", f"{path}: it is the record of revision {body['id']}")
    require(is_source_name(body.get("source")), f"{path}: source is not a name")
    require(os.path.basename(directory) == body["source"], f"{path}: it is of {body['source']}")
    require(is_hex(body.get("root"), 64), f"{path}: root is not an id")
    require(is_count(body.get("sequence")) and body["sequence"] > 0, f"{path}: sequence is wrong")
    require(is_count(body.get("size")) and body["size"] <= IMAGE_LEN_MAX, f"{path}: size is wrong")
    if body.get("kind") not in ("image", "tree"):
        raise Unsupported(f"{path}: kind {body.get('kind')!r}, this program reads images and trees")
    tags = body.get("tags")
    require(isinstance(tags, list) and all(map(is_tag, tags)), f"{path}: tags are wrong")
    require(isinstance(body.get("time"), str), f"{path}: time is not a text")
    return body


def read_state(path):
    body = read_document(path, "chunkstore state")
    own_name = f"{body.get('id')}.state"
    require(os.path.basename(path) == own_name, f"{path}: it is of another revision")
    tags = body.get("tags")
    require(isinstance(tags, list) and all(map(is_tag, tags)), f"{path}: tags are wrong")
    known = ("trusted", "distrusted", "verified", "damaged")
    require(body.get("trust") in known, f"{path}: trust is wrong")
    require(isinstance(body.get("protected"), bool), f"{path}: protected is wrong")
    return body


def read_condemned(path):
    with open(path, "rb") as file:
        raw = file.read(CONDEMNED_COUNT_MAX * 32 + 65)
    require(len(raw) >= 64 and raw[:8] == CONDEMNED_MAGIC, f"{path}: not a condemned list")
    require(digest(raw[:-32]) == raw[-32:], f"{path}: its checksum does not match")
    version, reserved, count, generation, _ = struct.unpack_from("<HHIQq", raw, 8)
    if version != 1:
        raise Unsupported(f"{path}: version {version}, this program reads up to 1")
    require(reserved == 0 and len(raw) == 64 + 32 * count, f"{path}: its length is wrong")
    require(os.path.basename(path) == f"{generation:020}", f"{path}: it is of {generation}")
    packs = [raw[32 + 32 * i : 64 + 32 * i] for i in range(count)]
    require(all(one < two for one, two in zip(packs, packs[1:])), f"{path}: packs do not ascend")
    return packs


def files_below(*parts):
    """Returns the regular files below a directory, sorted; links are not followed."""
    found = []
    for directory, _, names in os.walk(os.path.join(*parts)):
        paths = (os.path.join(directory, name) for name in names)
        found += [path for path in paths if stat.S_ISREG(os.lstat(path).st_mode)]
    return sorted(found)


def read_revisions(store):
    """Returns the revisions, oldest first by source, and how many records are damaged."""
    revisions, damaged = [], 0
    for path in files_below(store, "revisions"):
        if not path.endswith(".rev"):
            continue
        try:
            revision = read_revision(path)
            revision["path"] = path
            revisions.append(revision)
        except (Damage, Unsupported, OSError) as error:
            complain(error)
            damaged += 1
    revisions.sort(key=lambda revision: (revision["source"], revision["sequence"]))
    return revisions, damaged


# --- Packs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """One record of a pack, as its header or the footer has it."""

    offset: int
    kind: int
    codec: int
    id: bytes
    plain_len: int
    stored_len: int

    @property
    def end(self):
        return self.offset + RECORD_LEN + self.stored_len


def check_record(record, name):
    require(record.kind in KIND_NAMES, f"{name}: object kind {record.kind}")
    require(record.codec in (RAW, ZSTD, POINTS), f"{name}: codec {record.codec}")
    require(1 <= record.plain_len <= CHUNK_LEN_MAX, f"{name}: plain length {record.plain_len}")
    stored_max = record.plain_len + STORED_OVERHEAD_MAX
    require(1 <= record.stored_len <= stored_max, f"{name}: stored length {record.stored_len}")
    equal = record.stored_len == record.plain_len
    require(record.codec != RAW or equal, f"{name}: a raw record with two lengths")
    whole = record.plain_len % POINT_LEN == 0
    require(record.codec != POINTS or whole, f"{name}: a part of a point")


def parse_record(raw, offset, name):
    """Returns the record whose header is `raw`, which lies at `offset`."""
    require(len(raw) == RECORD_LEN, f"{name}: the record at {offset} is cut off")
    require(raw[:4] == RECORD_MAGIC, f"{name}: no record begins at {offset}")
    require(checksum8(raw[:48]) == raw[48:], f"{name}: the record header at {offset} is damaged")
    kind, codec, reserved, id_, plain_len, stored_len = struct.unpack_from("<BBH32sII", raw, 4)
    require(reserved == 0, f"{name}: the record at {offset} has reserved bytes")
    record = Record(offset, kind, codec, id_, plain_len, stored_len)
    check_record(record, f"{name}: record at {offset}")
    return record


class Pack:
    """An open pack."""

    def __init__(self, path):
        self.name = path
        self.file = open(path, "rb")
        self.len = os.fstat(self.file.fileno()).st_size

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def read(self, offset, length):
        raw = os.pread(self.file.fileno(), length, offset)
        require(len(raw) == length, f"{self.name}: cut off at {offset + len(raw)}")
        return raw

    def digest(self):
        hasher = blake3.blake3()
        for offset in range(0, self.len, READ_LEN):
            hasher.update(self.read(offset, min(READ_LEN, self.len - offset)))
        return hasher.digest()

    def check_header(self, store_id=None):
        """Returns the pack kind."""
        raw = self.read(0, HEADER_LEN)
        require(raw[:8] == PACK_MAGIC, f"{self.name}: does not begin as a pack does")
        require(checksum8(raw[:72]) == raw[72:], f"{self.name}: its header is damaged")
        version, flags, kind, reserved, store, _, key, _, more = struct.unpack_from(
            "<HHB3s16s16sQq8s", raw, 8
        )
        if (version, flags, key) != (1, 0, 0):
            raise Unsupported(f"{self.name}: version {version}, flags {flags}, key {key}")
        require(kind in (0, 1), f"{self.name}: pack kind {kind}")
        require(not any(reserved + more), f"{self.name}: reserved bytes in its header")
        wanted = store_id in (None, store.hex())
        require(wanted, f"{self.name}: it belongs to store {store.hex()}")
        return kind

    def footer(self):
        """Returns the records as the footer has them."""
        name = f"{self.name}: footer"
        require(HEADER_LEN + TRAILER_LEN <= self.len <= PACK_LEN_MAX, f"{name}: wrong file length")
        trailer = self.read(self.len - TRAILER_LEN, TRAILER_LEN)
        require(trailer[56:] == PACK_END_MAGIC, f"{name}: the file does not end as a pack does")
        require(checksum8(trailer[:48]) == trailer[48:56], f"{name}: its checksum does not match")
        table_digest, count, start, total = struct.unpack_from("<32sIIQ", trailer)
        require(1 <= count <= PACK_RECORD_COUNT_MAX, f"{name}: {count} records")
        adds_up = start + count * ENTRY_LEN + TRAILER_LEN == self.len
        require(adds_up, f"{name}: its lengths do not add up")
        table = self.read(start, count * ENTRY_LEN)
        require(digest(table) == table_digest, f"{name}: its table is damaged")
        records, offset = [], HEADER_LEN
        for number in range(count):
            id_, place, plain_len, stored_len, kind, codec, reserved = struct.unpack_from(
                "<32sIIIBBH", table, number * ENTRY_LEN
            )
            require(reserved == 0, f"{name}: reserved bytes in entry {number}")
            require(place == offset, f"{name}: entry {number} is not where the last one ends")
            record = Record(place, kind, codec, id_, plain_len, stored_len)
            check_record(record, f"{name}: entry {number}")
            records.append(record)
            offset = record.end
        require(offset == start, f"{name}: its table is not where the last record ends")
        require(sum(record.plain_len for record in records) == total, f"{name}: wrong total")
        return records

    def scan(self):
        """Yields the records that can be found without the footer."""
        if self.len <= HEADER_LEN:
            return
        with mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            offset = HEADER_LEN
            while 0 <= offset < self.len:
                try:
                    record = parse_record(view[offset : offset + RECORD_LEN], offset, self.name)
                    require(record.end <= self.len, f"{self.name}: cut off at {self.len}")
                except Damage:
                    offset = view.find(RECORD_MAGIC, offset + 1)
                    continue
                yield record
                # After damage the search may find a record inside a payload, where an image holds a
                # store. That does no harm: bytes are used only if they hash to their id.
                offset = record.end

    def plain(self, record):
        """Returns the plain bytes of a record."""
        kind_name = KIND_NAMES[record.kind]
        name = f"{self.name}: {kind_name} {record.id.hex()} at {record.offset}"
        header = self.read(record.offset, RECORD_LEN)
        require(parse_record(header, record.offset, self.name) == record, f"{name}: another header")
        payload = self.read(record.offset + RECORD_LEN, record.stored_len)
        plain = decode(record.codec, payload, record.plain_len, name)
        found = chunk_id(record.kind, plain)
        require(found == record.id, f"{name}: its bytes hash to {found.hex()}")
        return plain


def decode(codec, payload, plain_len, name):
    """Returns the plain bytes of a payload."""
    if codec == RAW:
        return payload
    if codec == ZSTD:
        return expand(payload, plain_len, name)
    return points(payload[0], expand(payload[1:], plain_len, name), name)


def points(transform, columns, name):
    """Returns points, given the planes of their bytes. docs/format.md, section "Points"."""
    known = transform < 2 or (transform & 0x90 == 0x10 and transform & 0x0F <= DECIMALS_MAX)
    require(known, f"{name}: transform {transform}")
    count = len(columns) // POINT_LEN
    plain = bytearray()
    time = step = number = 0
    for index in range(count):
        time_number, value_number = struct.unpack(">IQ", columns[index::count])
        step = (step + time_number) % 2**32
        time = (time + step) % 2**32
        if transform == 0:
            number = value_number
        else:
            difference = (value_number >> 1) ^ -(value_number & 1)
            number = (number + difference) % 2**64
        bits = number if transform < 2 else value_bits(transform, number)
        plain += struct.pack(">IQ", time, bits)
    return bytes(plain)


def value_bits(transform, number):
    """Returns the bits of the value that a count of units stands for."""
    signed = number - 2**64 if number >= 2**63 else number
    if abs(signed) >= 2**51:
        return number
    units = (6 if transform & 0x20 else 1) * 10 ** (transform & 0x0F)
    count, error = signed, 0
    if transform & 0x40:
        count = (signed + 8) // 16
        error = signed - 16 * count
    (bits,) = struct.unpack(">Q", struct.pack(">d", float(count) / float(units)))
    return (bits + error) % 2**64


def expand(payload, plain_len, name):
    try:
        declared = zstandard.frame_content_size(payload)
        require(declared in (-1, plain_len), f"{name}: its frame has {declared} bytes")
        plain = zstandard.ZstdDecompressor().decompress(
            payload, max_output_size=plain_len, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise Damage(f"{name}: {error}") from error
    require(len(plain) == plain_len, f"{name}: it expands to {len(plain)} bytes")
    return plain


class Chunks:
    """Where every chunk is: the only thing that grows with the store."""

    def __init__(self, store, store_id, report=complain):
        self.store_id = store_id
        self.report = report
        self.paths = []
        # (kind, id) to a place: pack number, offset and plain length in one number, which is small.
        self.places = {}
        self.more_places = {}
        # Moved packs come last: their chunks count only if no other copy can be read.
        for directory in ("packs", "trash", "quarantine"):
            for path in files_below(store, directory):
                self.add_pack(path, directory)

    def add_pack(self, path, directory):
        strict = directory == "packs"
        try:
            with Pack(path) as pack:
                try:
                    pack.check_header(self.store_id)
                    records = pack.footer()
                except Damage as error:
                    if strict:
                        self.report(error)
                    records = pack.scan()
                number = len(self.paths)
                self.paths.append(path)
                for record in records:
                    self.add(record, number)
        except (Damage, Unsupported, OSError) as error:
            if strict:
                self.report(error)

    def add(self, record, number):
        key = (record.kind, record.id)
        place = number << 64 | record.offset << 32 | record.plain_len
        if self.places.setdefault(key, place) != place:
            self.more_places.setdefault(key, []).append(place)

    def find(self, kind, id_):
        """Returns (path, offset, plain length) of every copy of a chunk."""
        key = (kind, id_)
        if key not in self.places:
            raise Damage(f"{KIND_NAMES[kind]} {id_.hex()} is missing")
        places = [self.places[key], *self.more_places.get(key, [])]
        return [(self.paths[at >> 64], at >> 32 & 0xFFFFFFFF, at & 0xFFFFFFFF) for at in places]

    def get(self, kind, id_):
        """Returns the plain bytes of a chunk."""
        reasons = []
        for path, offset, _ in self.find(kind, id_):
            try:
                with Pack(path) as pack:
                    record = parse_record(pack.read(offset, RECORD_LEN), offset, path)
                    same = (record.kind, record.id) == (kind, id_)
                    require(same, f"{path}: another record at {offset}")
                    return pack.plain(record)
            except (Damage, OSError) as error:
                reasons.append(str(error))
        raise Damage("; ".join(reasons))


# --- Chunk lists -----------------------------------------------------------------------------


def parse_page(raw, span_len, name):
    """Returns (length, id or None for zeros) of the entries of a page."""
    require(len(raw) >= 20 and raw[:4] == PAGE_MAGIC, f"{name}: not a page")
    version, reserved, found, count = struct.unpack_from("<HHQI", raw, 4)
    if version != 1:
        raise Unsupported(f"{name}: version {version}, this program reads up to 1")
    require(reserved == 0, f"{name}: reserved bytes")
    require(found == span_len, f"{name}: it covers {found} bytes of a span of {span_len}")
    entries, place = parse_entries(raw, 20, count, span_len, name)
    require(place == len(raw), f"{name}: bytes follow its entries")
    return entries


def parse_entries(raw, place, count, length_of_all, name):
    """Returns (length, id or None for zeros) of `count` entries from `place` on, and where they end."""
    entries, covered, last_zero = [], 0, False
    for number in range(count):
        tag = raw[place] if place < len(raw) else None
        entry_len = {0: 9, 1: 37}.get(tag, 0)
        require(entry_len and place + entry_len <= len(raw), f"{name}: entry {number} is wrong")
        if tag == 1:
            (length,) = struct.unpack_from("<I", raw, place + 1)
            require(1 <= length <= CHUNK_LEN_MAX, f"{name}: entry {number} has {length} bytes")
            entries.append((length, raw[place + 5 : place + 37]))
        else:
            (length,) = struct.unpack_from("<Q", raw, place + 1)
            require(1 <= length <= IMAGE_LEN_MAX, f"{name}: entry {number} has {length} bytes")
            require(not last_zero, f"{name}: zero entry {number} follows another")
            entries.append((length, None))
        last_zero = tag == 0
        place += entry_len
        covered += length
    require(covered == length_of_all, f"{name}: its entries cover {covered} bytes of {length_of_all}")
    return entries, place


def parse_root(raw, size, name):
    """Returns the span length and, for each span, a page id or None for zeros."""
    require(len(raw) >= 28 and raw[:4] == ROOT_MAGIC, f"{name}: not a root")
    version, reserved, image_len, span_len, count = struct.unpack_from("<HHQQI", raw, 4)
    if version != 1:
        raise Unsupported(f"{name}: version {version}, this program reads up to 1")
    require(reserved == 0, f"{name}: reserved bytes")
    require(image_len == size, f"{name}: an image of {image_len} bytes, the record says {size}")
    power = span_len & (span_len - 1) == 0
    require(power and SPAN_LEN_MIN <= span_len <= IMAGE_LEN_MAX, f"{name}: span length {span_len}")
    require(count <= ROOT_SPAN_COUNT_MAX, f"{name}: {count} spans")
    require(count == -(-image_len // span_len), f"{name}: {count} spans for {image_len} bytes")
    spans, place = [], 28
    for number in range(count):
        tag = raw[place] if place < len(raw) else None
        require(tag in (0, 1), f"{name}: reference {number} is wrong")
        end = place + (33 if tag else 1)
        require(end <= len(raw), f"{name}: reference {number} is cut off")
        spans.append(raw[place + 1 : end] if tag else None)
        place = end
    require(place == len(raw), f"{name}: bytes follow its references")
    return span_len, spans


@dataclass(frozen=True)
class File:
    """A file of a tree."""

    path: bytes
    mode: int
    modified: int
    since: int
    content: list

    @property
    def size(self):
        return sum(length for length, _ in self.content)


def parse_tree_root(raw, size, name):
    """Returns (page id, entry count, content length) of the pages."""
    require(len(raw) >= 28 and raw[:4] == TREE_ROOT_MAGIC, f"{name}: not a tree root")
    version, reserved, content_len, entry_count, count = struct.unpack_from("<HHQQI", raw, 4)
    if version != 1:
        raise Unsupported(f"{name}: version {version}, this program reads up to 1")
    require(reserved == 0, f"{name}: reserved bytes")
    require(content_len == size, f"{name}: files of {content_len} bytes, the record says {size}")
    require(len(raw) == 28 + 44 * count, f"{name}: {count} pages in {len(raw)} bytes")
    pages = [struct.unpack_from("<32sIQ", raw, 28 + 44 * number) for number in range(count)]
    require(all(page[1] for page in pages), f"{name}: a page without files")
    require(sum(page[1] for page in pages) == entry_count, f"{name}: its counts do not add up")
    require(sum(page[2] for page in pages) == content_len, f"{name}: its lengths do not add up")
    return pages


def is_tree_path(path):
    names = path.split(b"/")
    good = all(0 < len(one) <= NAME_LEN_MAX and one not in (b".", b"..") for one in names)
    return 1 <= len(path) <= TREE_PATH_LEN_MAX and good and 0 not in path


def parse_tree_page(raw, entry_count, content_len, name):
    """Returns the files of a page."""
    require(len(raw) <= TREE_PAGE_LEN_MAX, f"{name}: {len(raw)} bytes")
    require(len(raw) >= 20 and raw[:4] == TREE_PAGE_MAGIC, f"{name}: not a tree page")
    version, reserved, found_len, found_count = struct.unpack_from("<HHQI", raw, 4)
    if version != 1:
        raise Unsupported(f"{name}: version {version}, this program reads up to 1")
    require(reserved == 0, f"{name}: reserved bytes")
    require((found_count, found_len) == (entry_count, content_len), f"{name}: not as its root says")
    files, place = [], 20
    for number in range(found_count):
        require(place + 2 <= len(raw), f"{name}: cut off")
        (path_len,) = struct.unpack_from("<H", raw, place)
        path, place = raw[place + 2 : place + 2 + path_len], place + 2 + path_len
        require(is_tree_path(path), f"{name}: path {path!r}")
        require(not files or files[-1].path < path, f"{name}: {path!r} is out of order")
        require(place + 58 <= len(raw), f"{name}: cut off")
        kind, flags, mode, _, _, _, modified, _, since, length, count = struct.unpack_from(
            "<BBIIIQqqqQI", raw, place
        )
        require(kind == 1 and flags <= 3 and mode <= 0o7777, f"{name}: file {number} is wrong")
        what = f"{name}: {path!r}"
        content, place = parse_entries(raw, place + 58, count, length, what)
        files.append(File(path, mode, modified, since, content))
    require(place == len(raw), f"{name}: bytes follow its entries")
    require(sum(file.size for file in files) == content_len, f"{name}: its lengths do not add up")
    return files


def tree_pages(chunks, revision):
    """Yields (offset in the content, length, files or the Damage of a page)."""
    name = f"root {revision['root']}"
    root = chunks.get(ROOT, bytes.fromhex(revision["root"]))
    offset = 0
    for page_id, entry_count, content_len in parse_tree_root(root, revision["size"], name):
        try:
            page = chunks.get(PAGE, page_id)
            what = parse_tree_page(page, entry_count, content_len, f"page {page_id.hex()}")
        except (Damage, Unsupported) as error:
            what = Damage(str(error))
        yield offset, content_len, what
        offset += content_len


def content_ranges(chunks, revision):
    """As image_ranges, also for the content of a tree."""
    if revision["kind"] == "image":
        yield from image_ranges(chunks, revision)
        return
    for offset, length, what in tree_pages(chunks, revision):
        if isinstance(what, Damage):
            yield offset, length, what
            continue
        for file in what:
            for entry_len, id_ in file.content:
                yield offset, entry_len, id_
                offset += entry_len


def image_ranges(chunks, revision):
    """Yields (offset, length, what): an id, None for zeros, or the Damage of a page."""
    root_id = bytes.fromhex(revision["root"])
    name = f"root {revision['root']}"
    span_len, spans = parse_root(chunks.get(ROOT, root_id), revision["size"], name)
    for number, page_id in enumerate(spans):
        offset = number * span_len
        length = min(span_len, revision["size"] - offset)
        if page_id is None:
            yield offset, length, None
            continue
        try:
            page = chunks.get(PAGE, page_id)
            entries = parse_page(page, length, f"page {page_id.hex()}")
        except (Damage, Unsupported) as error:
            yield offset, length, Damage(str(error))
            continue
        for entry_len, id_ in entries:
            yield offset, entry_len, id_
            offset += entry_len


# --- Commands --------------------------------------------------------------------------------


def command_list(store):
    read_config(store)
    revisions, damaged = read_revisions(store)
    for revision in revisions:
        tags = ",".join(current_tags(revision)) or "-"
        columns = ("id", "source", "sequence", "time", "size")
        print(*(revision[column] for column in columns), tags, sep="\t")
    return 4 if damaged else 0


def current_tags(revision):
    """Returns the tags of the state if there is one, else those of the record."""
    path = revision["path"].removesuffix(".rev") + ".state"
    try:
        return read_state(path)["tags"]
    except FileNotFoundError:
        return revision["tags"]
    except (Damage, Unsupported, OSError) as error:
        complain(error)
        return revision["tags"]


def find_revision(store, prefix):
    found = [one for one in read_revisions(store)[0] if prefix and one["id"].startswith(prefix)]
    if len(found) > 1:
        candidates = ", ".join(one["id"] for one in found)
        raise Usage(f"{prefix} may be {candidates}")
    if not found:
        raise NotFound(f"revision {prefix} does not exist, or its record is damaged")
    return found[0]


def open_target(path, size):
    """Returns the file to write to, and whether it reads as zeros."""
    if not os.path.lexists(path):
        target = open(path, "xb")
        target.truncate(size)
        return target, True
    if not stat.S_ISBLK(os.stat(path).st_mode):
        raise Usage(f"{path} exists")
    target = open(path, "r+b", buffering=0)
    target_len = target.seek(0, os.SEEK_END)
    if target_len < size:
        raise Usage(f"{path} has {target_len} bytes, the image has {size}")
    return target, False


def write_all(target, offset, data):
    view = memoryview(data)
    while view:
        written = os.pwrite(target.fileno(), view, offset)
        view, offset = view[written:], offset + written


def write_zeros(target, offset, length):
    zeros = bytes(min(length, READ_LEN))
    for place in range(offset, offset + length, READ_LEN):
        write_all(target, place, zeros[: offset + length - place])


def command_restore(store, prefix, path):
    config = config_or_none(store)
    revision = find_revision(store, prefix)
    chunks = Chunks(store, config and config["store_id"])
    if revision["kind"] == "tree":
        return restore_tree(chunks, revision, path)
    target, reads_as_zeros = open_target(path, revision["size"])
    damaged = 0
    with target:
        for offset, length, what in image_ranges(chunks, revision):
            try:
                if isinstance(what, Damage):
                    raise what
                plain = None if what is None else chunks.get(DATA, what)
                fits = plain is None or len(plain) == length
                require(fits, f"chunk {what and what.hex()}: not the {length} bytes of its entry")
            except Damage as error:
                complain(f"{error}: bytes {offset} to {offset + length} of the image are left zero")
                damaged += 1
                plain = None
            if plain is not None:
                write_all(target, offset, plain)
            elif not reads_as_zeros:
                write_zeros(target, offset, length)
        os.fsync(target.fileno())
    return 4 if damaged else 0


def tree_files(chunks, revision):
    """Yields the files of a tree, and None for each page that cannot be read, after complaining."""
    for offset, length, what in tree_pages(chunks, revision):
        if isinstance(what, Damage):
            complain(f"{what}: files with bytes {offset} to {offset + length} are left out")
            yield None
        else:
            yield from what


def restore_tree(chunks, revision, directory):
    """Writes all files below a directory; files that exist stay as they are and are complained of."""
    failed = 0
    for file in tree_files(chunks, revision):
        path = file and os.path.join(os.fsencode(directory), file.path)
        failed += file is None or not write_file(chunks, file, path)
    return 4 if failed else 0


def write_file(chunks, file, path):
    """Writes a file of a tree, or nothing. Returns whether it did."""
    scratch = path + b".rescue"
    try:
        parts = []
        for length, id_ in file.content:
            plain = bytes(length) if id_ is None else chunks.get(DATA, id_)
            require(len(plain) == length, f"chunk {id_ and id_.hex()}: not as long as its entry")
            parts.append(plain)
        require(not os.path.lexists(path), "it exists")
        os.makedirs(os.path.dirname(path) or b".", exist_ok=True)
        with open(scratch, "xb") as target:
            target.writelines(parts)
            os.fchmod(target.fileno(), file.mode)
            target.flush()
            os.utime(target.fileno(), ns=(file.modified, file.modified))
            os.fsync(target.fileno())
        os.rename(scratch, path)
        return True
    except Damage as error:
        complain(f"{os.fsdecode(path)} is left out: {error}")
        return False


def tree_revision(store, prefix):
    config = config_or_none(store)
    revision = find_revision(store, prefix)
    if revision["kind"] != "tree":
        raise Usage(f"revision {revision['id']} is an image and has no files")
    return Chunks(store, config and config["store_id"]), revision


def command_files(store, prefix):
    damaged = 0
    for file in tree_files(*tree_revision(store, prefix)):
        if file is None:
            damaged += 1
            continue
        since = datetime.datetime.fromtimestamp(file.since / 1000, datetime.timezone.utc)
        print(since.isoformat(), file.size, os.fsdecode(file.path), sep="\t")
    return 4 if damaged else 0


def command_file(store, prefix, name, target):
    chunks, revision = tree_revision(store, prefix)
    damaged = 0
    for file in tree_files(chunks, revision):
        if file is None:
            damaged += 1
        elif file.path == os.fsencode(name):
            return 0 if write_file(chunks, file, os.fsencode(target)) else 4
    if damaged:
        return 4
    raise NotFound(f"revision {revision['id']} has no file {name}")


def config_or_none(store):
    """Returns the configuration; without it a restore goes on, because packs suffice."""
    try:
        return read_config(store)
    except (Damage, OSError) as error:
        complain(error)
        return None


def command_check(store):
    errors = Errors()
    config = None
    with errors:
        config = read_config(store)
    store_id = config and config["store_id"]
    check_documents(store, errors)
    bad_places = check_packs(store, store_id, errors)
    # What is wrong with the packs was said.
    chunks = Chunks(store, store_id, report=lambda error: None)
    revisions, damaged_records = read_revisions(store)
    errors.count += damaged_records
    for revision in revisions:
        with errors:
            check_revision(chunks, revision, bad_places, errors)
    counts = f"{len(revisions)} revisions, {len(chunks.paths)} packs, {len(chunks.places)} chunks"
    print(f"{counts}, {errors.count} errors")
    return 4 if errors.count else 0


class Errors:
    """Prints and counts the damage that is met within its `with` blocks."""

    def __init__(self):
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        if isinstance(error, (Damage, OSError)):
            self.add(error)
            return True
        return False

    def add(self, message):
        complain(message)
        self.count += 1


def check_documents(store, errors):
    states = [path for path in files_below(store, "revisions") if path.endswith(".state")]
    lists = files_below(store, "condemned")
    for read, paths in ((read_state, states), (read_condemned, lists)):
        for path in paths:
            with errors:
                read(path)


def check_packs(store, store_id, errors):
    """Reads every byte of every pack. Returns (path, offset) of each record that is damaged."""
    bad_places = set()
    for path in files_below(store, "packs"):
        with errors, Pack(path) as pack:
            check_pack_name(pack)
        kind = None
        with errors, Pack(path) as pack:
            kind = pack.check_header(store_id)
        with errors, Pack(path) as pack:
            for record in pack.footer():
                before = errors.count
                with errors:
                    fits = kind is None or (record.kind == DATA) == (kind == 0)
                    require(fits, f"{path}: a {KIND_NAMES[record.kind]} in a pack of kind {kind}")
                    pack.plain(record)
                if errors.count > before:
                    bad_places.add((path, record.offset))
    return bad_places


def check_pack_name(pack):
    directory, name = os.path.split(pack.name)
    require(is_hex(name, 64), f"{pack.name}: not the name of a pack")
    in_place = os.path.basename(directory) == name[:2]
    require(in_place, f"{pack.name}: in the directory of another pack")
    found = pack.digest().hex()
    require(found == name, f"{pack.name}: its bytes hash to {found}")


def check_revision(chunks, revision, bad_places, errors):
    """Checks that the chunk list is complete and needs nothing that check_packs found damaged."""
    name = f"revision {revision['id']} of {revision['source']}"
    try:
        for offset, length, what in content_ranges(chunks, revision):
            try:
                if isinstance(what, Damage):
                    raise what
                if what is not None:
                    check_copies(chunks.find(DATA, what), what, length, bad_places)
            except Damage as error:
                errors.add(f"{name}: bytes {offset} to {offset + length}: {error}")
    except Damage as error:
        errors.add(f"{name}: {error}")


def check_copies(copies, id_, length, bad_places):
    good = [plain_len for path, offset, plain_len in copies if (path, offset) not in bad_places]
    require(good, f"data chunk {id_.hex()} is damaged")
    require(all(plain_len == length for plain_len in good), f"data chunk {id_.hex()}: other length")


def main(arguments):
    commands = {
        "list": (command_list, 1),
        "restore": (command_restore, 3),
        "files": (command_files, 2),
        "file": (command_file, 4),
        "check": (command_check, 1),
    }
    command, count = commands.get(arguments[0] if arguments else "", (None, 0))
    if command is None or len(arguments) != 1 + count:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return command(*arguments[1:])
    except Usage as error:
        complain(error)
        return 2
    except Damage as error:
        complain(error)
        return 4
    except Unsupported as error:
        complain(error)
        return 6
    except NotFound as error:
        complain(error)
        return 10
    except OSError as error:
        complain(error)
        return 8


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
