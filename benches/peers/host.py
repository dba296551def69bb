"""Files of this machine as the content of a machine: for small images and without a network.

Every tenth file is held back; the later days install what was held back and remove a few files.
"""

import os
import pathlib
import shutil

ROOTS = ("usr/lib/python3", "usr/share/perl", "usr/share/doc", "usr/bin", "usr/lib", "usr/share")
FILE_LEN_MAX = 8 << 20


def collect(len_wanted):
    """Yields paths of readable files, relative to the root, of about the wanted length in all."""
    total, seen = 0, set()
    for root in ROOTS:
        for directory, names, files in os.walk("/" + root):
            names.sort()
            for name in sorted(files):
                path = pathlib.Path(directory, name)
                if path in seen or path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
                    continue
                seen.add(path)
                if '"' in name or path.stat().st_size > FILE_LEN_MAX:
                    continue
                total += path.stat().st_size
                if total > len_wanted:
                    return
                yield path.relative_to("/")


def lay_out(paths, tree):
    for path in paths:
        (tree / path.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy2("/" / path, tree / path, follow_symlinks=False)
        (tree / path).chmod((tree / path).stat().st_mode | 0o200)


def trees(directory, len_wanted):
    """Makes the first day's tree and one tree for each later day; returns them with the paths that each day removes."""
    paths = list(collect(len_wanted))
    held_back = paths[5::10]
    later = [held_back[::2], held_back[1::2]]
    first = [path for path in paths if path not in set(held_back)]
    lay_out(first, directory / "day1")
    days = []
    for number, content in enumerate(later):
        tree = directory / f"day{number + 2}"
        lay_out(content, tree)
        days.append((tree, first[number::97][:20]))
    return directory / "day1", days
