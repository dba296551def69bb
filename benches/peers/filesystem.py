"""ext4 images: made from a tree of files, and changed afterwards as a day's work changes a file system.

With root an image is mounted and the kernel writes into it; without, debugfs does: it replaces files, and pages of a file
that changed in place are written where the file system has them.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile

UUIDS = {"day": "6e0bd0c2-8a5e-4c41-9f0e-1d5b7c0a0001", "other": "6e0bd0c2-8a5e-4c41-9f0e-1d5b7c0a0002",
         "sparse": "6e0bd0c2-8a5e-4c41-9f0e-1d5b7c0a0003"}
PAGE_LEN = 4096
# All that mke2fs and debugfs write by the clock is of this time.
CLOCK = "1767225600"
# What debugfs says when there is nothing to remove or a directory is there already, and its version.
EXPECTED = ("debugfs 1.", "File not found by ext2_lookup", "directory already exists")


def run(*command, **options):
    environment = dict(os.environ, E2FSPROGS_FAKE_TIME=CLOCK, SOURCE_DATE_EPOCH=CLOCK)
    return subprocess.run([str(word) for word in command], check=True, env=environment, **options)


def create(image, size, kind, tree=None, offset=0, options=()):
    """Makes an image of `size` bytes with a file system from `offset` on that holds `tree`."""
    image.unlink(missing_ok=True)
    with open(image, "wb") as file:
        file.truncate(size)
    if offset:
        script = f"label: gpt\nlabel-id: {UUIDS[kind]}\nstart={offset // 512}, type=linux, uuid={UUIDS[kind]}\n"
        run("sfdisk", "-q", image, input=script.encode())
    extended = f"root_owner=0:0,hash_seed={UUIDS[kind]}" + (f",offset={offset}" if offset else "")
    # The last 1 MiB of a partitioned image belongs to the second copy of the GPT.
    blocks = (size - offset - (1 << 20 if offset else 0)) // PAGE_LEN
    content = ("-d", tree) if tree else ()
    run("mkfs.ext4", "-q", "-F", "-b", PAGE_LEN, "-U", UUIDS[kind], "-E", extended, *options, *content, image, blocks)


@contextlib.contextmanager
def mounted(image, offset=0):
    """Mounts an image for a while; needs root and a free loop device."""
    with tempfile.TemporaryDirectory(dir=image.parent) as directory:
        run("mount", "-o", f"loop,offset={offset}", image, directory)
        try:
            yield pathlib.Path(directory)
        finally:
            run("umount", directory)


def can_mount(directory):
    """Whether this machine and user can mount an image that lies in a directory."""
    if os.geteuid() != 0:
        return False
    image = directory / "mount-test.img"
    try:
        create(image, 4 << 20, "day", options=("-O", "^has_journal"))
        with mounted(image):
            return True
    except (subprocess.CalledProcessError, OSError):
        return False
    finally:
        image.unlink(missing_ok=True)


def day_by_kernel(image, overlay, removed, in_place):
    """Removes and installs files in the mounted image, then lets `in_place` change others: path to a function of a path."""
    with mounted(image) as root:
        for path in removed:
            (root / path).unlink(missing_ok=True)
        # As dpkg does: a file is replaced by a new one, a link to a directory stays.
        with subprocess.Popen(["tar", "-c", "-C", overlay, "."], stdout=subprocess.PIPE) as archive:
            run("tar", "-x", "-C", root, "--keep-directory-symlink", stdin=archive.stdout)
        run("chown", "-R", "0:0", root / "var/lib/shop")
        for path, change in in_place.items():
            change(root / path)


def day_by_debugfs(image, overlay, removed, in_place):
    """Does the same without root."""
    lines = [f'rm "/{path}"' for path in removed]
    for directory, names, _ in os.walk(overlay):
        names.sort()
        here = pathlib.Path("/") / pathlib.Path(directory).relative_to(overlay)
        lines += [f'mkdir "{here}"', f'cd "{here}"']
        for name in sorted(os.listdir(directory)):
            path = pathlib.Path(directory) / name
            if path.is_symlink():
                lines += [f'rm "{name}"', f'symlink "{name}" "{os.readlink(path)}"']
            elif path.is_file():
                lines += [f'rm "{name}"', f'write "{path}" "{name}"']
    debugfs(image, lines)
    for path, change in in_place.items():
        with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
            change_in_place(image, path, change, pathlib.Path(scratch) / "file")


def debugfs(image, lines):
    """Runs debugfs commands and returns what they print. It exits with 0 whatever happens, so its messages are read."""
    with tempfile.NamedTemporaryFile("w", dir=image.parent) as script:
        script.write(f"set_current_time @{CLOCK}\n" + "\n".join(lines) + "\n")
        script.flush()
        done = run("debugfs", "-w", "-f", script.name, image, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    failures = [line for line in done.stderr.splitlines() if line and not any(known in line for known in EXPECTED)]
    if failures:
        raise RuntimeError(f"debugfs on {image.name}: {failures[0]}")
    return done.stdout


def change_in_place(image, path, change, scratch):
    """Changes a file and writes the pages that differ to the blocks that hold them."""
    debugfs(image, [f'dump "/{path}" {scratch}'])
    before = scratch.read_bytes()
    change(scratch)
    after = scratch.read_bytes()
    if len(after) != len(before):
        debugfs(image, [f'rm "/{path}"', f'cd "/{pathlib.Path(path).parent}"', f'write {scratch} "{pathlib.Path(path).name}"'])
        return
    pages = [at // PAGE_LEN for at in range(0, len(after), PAGE_LEN) if after[at:at + PAGE_LEN] != before[at:at + PAGE_LEN]]
    output = debugfs(image, [f'bmap "/{path}" {page}' for page in pages])
    blocks = [int(line) for line in output.splitlines() if line.strip().isdigit()]
    if len(blocks) != len(pages) or 0 in blocks:
        raise RuntimeError(f"debugfs did not say where the pages of {path} are")
    with open(image, "r+b") as file:
        for page, block in zip(pages, blocks):
            file.seek(block * PAGE_LEN)
            file.write(after[page * PAGE_LEN:(page + 1) * PAGE_LEN])


def copy_sparse(source, target):
    """Copies an image with its holes."""
    run("cp", "--sparse=always", "--reflink=never", source, target)


def dig_holes(image):
    """Makes holes of zeros that mkfs wrote or only allocated, so that all images are sparse in the same way."""
    scratch = image.with_suffix(".sparse")
    copy_sparse(image, scratch)
    scratch.replace(image)


def fill_shuffled(image, tree, offset, order):
    """Copies a tree into the mounted image, its parts in the given order, so that the kernel lays them out otherwise."""
    with mounted(image, offset) as root:
        for part in order:
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", tree / part, root / part)
        shutil.copystat(tree, root)


def sha256(path):
    return run("sha256sum", path, stdout=subprocess.PIPE, text=True).stdout.split()[0].lstrip("\\")
