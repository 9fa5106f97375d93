"""Load of a docker-archive of a Debian base, beside ``podman load`` and ``tar xf`` of the same layer.

Ours includes reading, the digests, the blob that is kept, the unpacked layer and waiting for the disk (syncfs);
``tar xf`` writes one copy and waits for nothing, so ``tar xf`` with ``sync -f`` is shown as well. Before anything is
timed, the layer is compared with what GNU tar makes of it.

All of it happens on an ext4 with a journal, made for this run, because rounds remove what the round before made: an
ext4 without a journal, as some virtual machines have it, passes over inodes that were freed in the last minutes one
by one, and making a file takes ten times as long there, for whoever makes it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import tarfile
from collections.abc import Callable

from measure import new_disk, quiet, report, seconds

from pyengine.store.store import Store
from pyengine.transports import load

CACHE = "/var/cache/pyengine-bench"
ROUNDS = 7


def debian_base() -> str:
    """The path of a tar of Debian's minimal base, made once (8,700 files, 170 MB)."""
    path = f"{CACHE}/bookworm.tar"
    if not os.path.exists(path):
        os.makedirs(CACHE, exist_ok=True)
        quiet("mmdebstrap", "--variant=minbase", "bookworm", f"{path}.new.tar")
        os.rename(f"{path}.new.tar", path)
    return path


def docker_archive(layer: str, path: str, compress: bool) -> str:
    """A docker-archive with this one layer, plain or with gzip inside."""
    with open(layer, "rb") as file:
        content = file.read()
    diff_id = hashlib.sha256(content).hexdigest()
    if compress:
        content = gzip.compress(content, 6)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }
    item = {"Config": "config.json", "RepoTags": ["example.com/bench:1"], "Layers": ["layer.tar"]}
    with tarfile.open(path, "w") as archive:
        for name, data in (
            ("layer.tar", content),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps([item]).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def same_as_tar(ours: str, theirs: str) -> int:
    """Compare names, modes, owners, times, hard links and contents; returns how many files there are."""
    compared = ["rsync", "-aHAXn", "--delete", "--checksum", "--itemize-changes", f"{ours}/", f"{theirs}/"]
    if shutil.which("rsync"):
        difference = quiet(*compared).stdout.decode()
    else:
        listing = "find . -printf '%p %m %U %G %T@ %n %y %l %s\\n' | sort"
        listing += "; find . -type f -print0 | sort -z | xargs -0 sha256sum"
        one, two = (quiet("sh", "-c", f"cd {path} && ({listing})").stdout for path in (ours, theirs))
        # the size of a directory is the file system's
        lines = [[line for line in text.decode().splitlines() if " d  " not in line] for text in (one, two)]
        difference = "\n".join(sorted(set(lines[0]) ^ set(lines[1])))
    if difference:
        raise SystemExit(f"the layer is not what GNU tar makes of it:\n{difference[:2000]}")
    return sum(len(names) + len(directories) for _, directories, names in os.walk(ours))


def main(directory: str) -> None:
    layer = debian_base()
    archives = {
        "plain": docker_archive(layer, f"{directory}/plain.tar", False),
        "gzip": docker_archive(layer, f"{directory}/gzip.tar", True),
    }
    with new_disk(directory) as disk:
        measure(layer, archives, f"{disk}/place")


def measure(layer: str, archives: dict[str, str], place: str) -> None:
    podman = [
        "podman",
        "--root",
        f"{place}/root",
        "--runroot",
        f"{place}/run",
        "--storage-driver=overlay",
        "load",
        "-q",
    ]

    def ours(archive: str) -> float:
        with Store(f"{place}/root", f"{place}/run") as store:
            return seconds(lambda: load(store, archive))

    def tar_alone() -> float:
        return seconds(lambda: subprocess.run(["tar", "-xf", layer, "-C", place], check=True))

    def tar_and_sync() -> float:
        script = f"tar -xf {layer} -C {place} && sync -f {place}"
        return seconds(lambda: subprocess.run(["sh", "-c", script], check=True))

    contenders: dict[str, Callable[[], float]] = {
        "ours": lambda: ours(archives["plain"]),
        "podman": lambda: seconds(lambda: quiet(*podman, "-i", archives["plain"])),
        "tar": tar_alone,
        "tar and sync": tar_and_sync,
        "ours, gzip": lambda: ours(archives["gzip"]),
        "podman, gzip": lambda: seconds(lambda: quiet(*podman, "-i", archives["gzip"])),
    }
    os.mkdir(place)
    ours(archives["plain"])
    os.mkdir(f"{place}/tar")
    quiet("tar", "-xpf", layer, "-C", f"{place}/tar", "--xattrs", "--xattrs-include=*", "--numeric-owner")
    print(f"load: {same_as_tar(f'{place}/root/layers/1/diff', f'{place}/tar')} files are what GNU tar makes of them")
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            shutil.rmtree(place)
            os.mkdir(place)
            os.sync()
            samples[name].append(contender())
    shutil.rmtree(place)
    median = {name: statistics.median(times) for name, times in samples.items()}
    least = {name: min(times) for name, times in samples.items()}

    def times_tar(name: str) -> str:
        ratios = f"{median[name] / median['tar']:.2f} x, minima {least[name] / least['tar']:.2f} x"
        return f"budget <= 1.5 x tar: {ratios}"

    report("load docker-archive, Debian base", median["ours"], median["podman"], "podman load", "budget >= 4 x")
    report("  …", median["ours"], median["tar"], "tar xf", times_tar("ours"))
    report("  …", median["ours"], median["tar and sync"], "tar xf && sync -f", "")
    report("  … with a gzip layer", median["ours, gzip"], median["podman, gzip"], "podman load", "budget >= 4 x")
    report("  …", median["ours, gzip"], median["tar"], "tar xf, of the plain tar", times_tar("ours, gzip"))
