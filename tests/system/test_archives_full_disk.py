"""The disk fills up during a load: one error that says so, and the store as it was."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "store"))

from layer_archives import archive, docker_archive, file

from pyengine.errors import KernelError, PyengineError, StoreError
from pyengine.store.store import Store
from pyengine.transports import import_rootfs, load, save

SMALL = archive(file("small", b"x"))
LARGE = archive(*(file(f"d{n % 7}/f{n}", random.Random(n).randbytes(20_000)) for n in range(100)))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB and 200 inodes."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,nr_inodes=200", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def full(disk: Path, free: int) -> Path:
    """Fill the disk until only ``free`` bytes are left."""
    filler = disk / "filler"
    status = os.statvfs(disk)
    with filler.open("wb") as out:
        out.write(bytes(max(0, status.f_bavail * status.f_bsize - free)))
    return filler


def state(store: Store) -> tuple[object, ...]:
    return (
        store.images.all(),
        sorted(os.listdir(f"{store.root}/layers")),
        sorted(map(str, store.blobs.stored())),
        Path(store.root, "index.json").read_bytes(),
        os.listdir(f"{store.root}/tmp"),
    )


@pytest.mark.parametrize("free", [4 << 20, 3 << 20, 1 << 20, 200_000, 30_000, 8192, 4096, 0])
def test_a_full_disk_during_load_is_one_error(tmp_path: Path, disk: Path, free: int) -> None:
    small, large = tmp_path / "small.tar", tmp_path / "large.tar"
    small.write_bytes(docker_archive([(["small:1"], [SMALL])]))
    large.write_bytes(docker_archive([(["small:1", "large:1"], [SMALL, LARGE])]))
    with Store(disk / "root", disk / "run") as store:
        load(store, small)
        before = state(store)
        filler = full(disk, free)
        with pytest.raises((KernelError, StoreError)) as caught:
            load(store, large)
        if isinstance(caught.value, KernelError):
            assert caught.value.errno == errno.ENOSPC
            assert "No space left on device" in str(caught.value)
        else:
            assert "full" in str(caught.value)
        assert state(store) == before
        filler.unlink()
        load(store, small)
        assert len(store.images.all()) == 1
        store.database.check()


def test_a_disk_without_inodes_is_one_error(tmp_path: Path, disk: Path) -> None:
    path = tmp_path / "large.tar"
    path.write_bytes(docker_archive([([], [archive(*(file(f"f{n}", b"") for n in range(300)))])]))
    with Store(disk / "root", disk / "run") as store:
        before = state(store)
        with pytest.raises(KernelError, match=r"unpack 'f.*No space left on device .*or out of inodes"):
            load(store, path)
        assert state(store) == before


def test_a_full_disk_during_import_and_spooling_is_one_error(tmp_path: Path, disk: Path) -> None:
    import gzip

    (tmp_path / "rootfs.tar").write_bytes(LARGE)
    (tmp_path / "image.tar.gz").write_bytes(gzip.compress(docker_archive([([], [LARGE])]), 1))
    with Store(disk / "root", disk / "run") as store:
        before = state(store)
        full(disk, 1 << 20)
        for attempt in (
            lambda: import_rootfs(store, tmp_path / "rootfs.tar", "x"),
            lambda: load(store, tmp_path / "image.tar.gz"),
        ):
            with pytest.raises(PyengineError, match=r"(write|unpack) .*No space left on device"):
                attempt()
            assert state(store) == before


def test_a_full_disk_during_save_leaves_no_part_of_an_archive(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "large.tar").write_bytes(docker_archive([(["large:1"], [LARGE])]))
    with Store(tmp_path / "root", tmp_path / "run") as store:
        load(store, tmp_path / "large.tar")
        full(disk, 1 << 20)
        before = sorted(os.listdir(disk))
        (disk / "out.tar").write_bytes(b"the old one")
        with pytest.raises(KernelError, match=r"write .*out\.tar: No space left on device"):
            save(store, [(store.images.all()[0], [])], disk / "out.tar")
        assert (disk / "out.tar").read_bytes() == b"the old one"
        assert sorted(os.listdir(disk)) == sorted([*before, "out.tar"])
