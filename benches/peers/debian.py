"""Debian packages as the content of a machine: chosen, downloaded and laid out as trees of files.

Works without root and beside the machine's own apt: an apt state of its own, with an empty list of installed packages,
resolves the names in the file `packages`. Two sets are resolved: the point release, and the same with all updates.
What differs between them are the upgrades of the later days.
"""

import os
import pathlib
import shutil
import subprocess

MERGED = ("bin", "sbin", "lib", "lib64")
HERE = pathlib.Path(__file__).resolve().parent


def names():
    lines = (HERE / "packages").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


class Apt:
    """One set of package lists, and the packages that they give for `names()`."""

    def __init__(self, directory, sources):
        self.directory = directory
        (directory / "lists/partial").mkdir(parents=True, exist_ok=True)
        (directory / "sources.list").write_text("".join(line + "\n" for line in sources))
        (directory / "status").write_text("")

    def run(self, archives, *arguments):
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        options = {
            "Dir::Etc::sourcelist": self.directory / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": self.directory,
            "Dir::State::status": self.directory / "status",
            "Dir::Cache": self.directory,
            "Dir::Cache::archives": archives,
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::GzipIndexes": "false",
            "Acquire::Check-Valid-Until": "false",
            "Debug::NoLocking": "true",
        }
        command = ["apt-get", "-qq", "-y"]
        for key, value in options.items():
            command += ["-o", f"{key}={value}"]
        done = subprocess.run(command + list(arguments), check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout


def fetch(directory, mirror, security):
    """Returns the packages of the first day and the upgraded ones, as sorted files. apt has verified them."""
    keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    release = [f"deb {keyring} {mirror} bookworm main"]
    updates = [f"deb {keyring} {mirror} bookworm-updates main", f"deb {keyring} {security} bookworm-security main"]
    sets = []
    for name, sources in (("release", release), ("updates", release + updates)):
        apt = Apt(directory / name, sources)
        archives = directory / "archives"
        apt.run(archives, "update")
        # Read without the archives at hand: apt does not print what it has already.
        uris = apt.run(directory / "none", "install", "--print-uris", *names())
        apt.run(archives, "install", "--download-only", *names())
        sets.append(sorted(archives / line.split()[1] for line in uris.splitlines() if line.startswith("'")))
    first, later = sets
    # A new kernel is another package beside the old one, not an upgrade.
    installed = {name_of(package) for package in first}
    return first, [package for package in later if package not in first and name_of(package) in installed]


def name_of(package):
    return package.name.split("_")[0]


def unpack(package, tree):
    """Unpacks the files of a package. Unlike `dpkg-deb -x` it goes through /bin and the like, which are links here."""
    archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", tree, "--keep-directory-symlink"], stdin=archive.stdout, check=True)
    if archive.wait() != 0:
        raise RuntimeError(f"{package} cannot be unpacked")


def control(package, tree):
    """Does what dpkg keeps about an installed package; returns its entry for the status file."""
    info = tree / "var/lib/dpkg/info"
    info.mkdir(parents=True, exist_ok=True)
    name = name_of(package)
    scratch = tree / "control.tmp"
    subprocess.run(["dpkg-deb", "-e", package, scratch], check=True)
    entry = (scratch / "control").read_text()
    for file in sorted(scratch.iterdir()):
        if file.name != "control":
            shutil.move(file, info / f"{name}.{file.name}")
    shutil.rmtree(scratch)
    listing = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=subprocess.PIPE).stdout
    paths = subprocess.run(["tar", "-t"], input=listing, check=True, stdout=subprocess.PIPE).stdout.decode()
    (info / f"{name}.list").write_text(paths.replace("./", "/"))
    return name, entry.replace("\n", "\nStatus: install ok installed\n", 1)


def lay_out(packages, tree, status):
    """Unpacks packages into a tree and mends `status`, a map from package name to its entry."""
    for name in MERGED:
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (tree / name).is_symlink():
            os.symlink(f"usr/{name}", tree / name)
    for package in packages:
        unpack(package, tree)
        name, entry = control(package, tree)
        status[name] = entry
    text = "\n".join(status[name] for name in sorted(status))
    (tree / "var/lib/dpkg/status").write_text(text)


def lists(directory, tree, earlier):
    """Copies the package lists that `apt-get update` left into a tree, but for those of an earlier tree, which stay as they are."""
    target = tree / "var/lib/apt/lists"
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted((directory / "lists").iterdir()):
        known = [other / "var/lib/apt/lists" / file.name for other in earlier]
        if file.is_file() and "Packages" in file.name and not any(path.exists() for path in known):
            shutil.copyfile(file, target / file.name)
