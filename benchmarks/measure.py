"""Measuring beside a peer: rounds of ours and theirs alternate, the median counts, the ratio is printed."""

from __future__ import annotations

import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Run = Callable[[], object]

#: what podman and crun need on machines without CAP_SYS_RESOURCE or with cgroup v1; the same everywhere, to be fair
PEER_LIMITS = ["--cgroups=disabled", "--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1000:1000"]
BUSYBOX = "/bin/busybox"
DISK_BYTES = 3 << 30


def seconds(run: Run) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def compare(ours: Run, theirs: Run, rounds: int, warm: int = 1) -> tuple[float, float]:
    """Median seconds of each, in alternating rounds. Each timed run follows `warm` untimed ones of its own kind, so
    that neither pays for what the other left behind: caches, and namespaces that the kernel is still taking apart."""

    def sample(run: Run) -> float:
        for _ in range(warm):
            run()
        return seconds(run)

    samples = [(sample(ours), sample(theirs)) for _ in range(rounds)]
    return statistics.median(a for a, _ in samples), statistics.median(b for _, b in samples)


def report(what: str, ours: float, theirs: float, peer: str, budget: str = "", unit: str = "ms") -> None:
    """One line: ``ours / peer`` and the ratio. Less is better for times."""
    scale = 1000 if unit == "ms" else 1
    print(
        f"{what:44} {ours * scale:9.2f} {unit}   {peer:22} {theirs * scale:9.2f} {unit}   "
        f"{theirs / ours:6.1f} x faster   {budget}",
        flush=True,
    )


def quiet(*command: str, input: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a program; what it says is shown only when it fails."""
    done = subprocess.run(command, input=input, capture_output=True, check=False)
    if check and done.returncode != 0:
        sys.stderr.write(done.stderr.decode(errors="replace"))
        raise SystemExit(f"{' '.join(command[:4])} … ended with {done.returncode}")
    return done


def busybox_tree(directory: str) -> str:
    """A root file system of busybox alone, as a directory."""
    os.makedirs(f"{directory}/bin")
    for name in ("proc", "sys", "dev", "tmp", "etc", "run"):
        os.makedirs(f"{directory}/{name}")
    shutil.copy2(BUSYBOX, f"{directory}/bin/busybox")
    for name in ("sh", "true", "cat", "sleep", "echo", "yes", "head", "dd"):
        os.symlink("busybox", f"{directory}/bin/{name}")
    with open(f"{directory}/etc/passwd", "w") as file:
        file.write("root:x:0:0::/root:/bin/sh\n")
    return directory


def tar_of(directory: str) -> io.BytesIO:
    """The directory as an uncompressed tar."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(directory, arcname=".")
    archive.seek(0)
    return archive


def resident_private(pid: int) -> int:
    """Private KiB of a process (Private_* of smaps_rollup)."""
    total = 0
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Private_"):
                total += int(line.split()[1])
    return total


@contextmanager
def new_disk(directory: str) -> Iterator[str]:
    """A new ext4 in a file, mounted; its path. It is what machines have below their engines: the root of a build
    machine may be an ext4 without a journal, which is slow to use inodes again that were freed in the last seconds."""
    image, path = f"{directory}/disk.img", f"{directory}/disk"
    os.mkdir(path)
    with open(image, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, DISK_BYTES)
    quiet("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", image)
    # With direct I/O the file's own pages are no second cache below the one that is measured.
    device = quiet("losetup", "--direct-io=on", "--show", "-f", image).stdout.decode().strip()
    try:
        quiet("mount", device, path)
        try:
            yield path
        finally:
            quiet("umount", "--recursive", path)
    finally:
        quiet("losetup", "-d", device)
