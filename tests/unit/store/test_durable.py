from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyengine import _syscalls
from pyengine.errors import ArchiveError, KernelError
from pyengine.store.durable import EarlySync


class Kernel:
    """Stands in for the native module: notes what is synced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, result: int = 0) -> None:
        self.synced: list[int] = []
        self.result = result
        self.called = threading.Event()
        monkeypatch.setattr(_syscalls, "lib", SimpleNamespace(pe_syncfs=self.sync))

    def sync(self, fd: int) -> int:
        self.synced.append(fd)
        self.called.set()
        return self.result


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_it_syncs_whenever_a_step_was_taken_and_ends_its_thread(
    monkeypatch: pytest.MonkeyPatch, directory: int
) -> None:
    kernel = Kernel(monkeypatch)
    before = threading.active_count()
    with EarlySync(directory, 10) as early:
        chunks = early.watch([b"12345"] * 5)
        assert [next(chunks), next(chunks)] == [b"12345"] * 2
        assert kernel.synced == []  # what is made of the second chunk is not written yet
        next(chunks)
        assert kernel.called.wait(10)
        assert list(chunks) == [b"12345"] * 2
    assert set(kernel.synced) == {directory}
    assert threading.active_count() == before


def test_what_is_small_needs_no_thread(monkeypatch: pytest.MonkeyPatch, directory: int) -> None:
    kernel = Kernel(monkeypatch)
    before = threading.active_count()
    with EarlySync(directory, 10) as early:
        assert list(early.watch([b"1234"] * 2)) == [b"1234"] * 2
        assert threading.active_count() == before
    assert kernel.synced == []


def test_a_failed_sync_is_not_lost(monkeypatch: pytest.MonkeyPatch, directory: int) -> None:
    kernel = Kernel(monkeypatch, -errno.EIO)

    def unpack(problem: Exception | None) -> None:
        with EarlySync(directory, 1) as early:
            list(early.watch([b"1"] * 3))
            assert kernel.called.wait(10)
            if problem is not None:
                raise problem

    with pytest.raises(KernelError, match="sync a layer while it is unpacked: Input/output error") as caught:
        unpack(None)
    assert caught.value.errno == errno.EIO
    with pytest.raises(ArchiveError, match="hostile"):  # what went wrong first is what is told
        unpack(ArchiveError("hostile"))
