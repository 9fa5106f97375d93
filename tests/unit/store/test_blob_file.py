from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyengine.errors import KernelError
from pyengine.store.blob_file import BlobFile

SIZES = st.sampled_from([0, 1, 4095, 4096, 4097, 255 << 10, 256 << 10, (1 << 20) - 1, 1 << 20, (1 << 20) + 4097])


@settings(max_examples=40, deadline=None)
@given(st.lists(SIZES, max_size=5))
def test_any_pieces_become_the_same_file(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    path = tmp_path_factory.mktemp("blob") / "blob"
    with BlobFile(str(path)) as file:
        for piece in pieces:
            file.write(piece)
        file.finish()
        assert file.size == sum(sizes)
    assert path.read_bytes() == b"".join(pieces)
    assert path.stat().st_mode & 0o7777 == 0o644


def test_a_file_system_without_direct_writing_gets_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some refuse the flag, some take it and refuse the write."""
    real = os.write
    refused = []

    def write(fd: int, data: bytes) -> int:
        import fcntl

        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(len(data))
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    content = os.urandom((3 << 20) + 5)
    with BlobFile(str(tmp_path / "late")) as file:
        file.write(content)
        file.finish()
    assert (tmp_path / "late").read_bytes() == content
    assert len(refused) <= 1
    monkeypatch.undo()
    monkeypatch.setattr(BlobFile, "_set_direct", lambda self, wanted: False)
    with BlobFile(str(tmp_path / "early")) as file:
        file.write(content)
        file.finish()
    assert (tmp_path / "early").read_bytes() == content


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[: max(1, len(data) // 2 & ~4095)])))
    content = os.urandom((2 << 20) + 5)
    with BlobFile(str(tmp_path / "blob")) as file:
        file.write(content)
        file.finish()
    assert (tmp_path / "blob").read_bytes() == content


def test_a_full_disk_is_the_kernels_error_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with BlobFile(str(tmp_path / "blob")) as file:
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(
            KernelError, match=r"write .*blob: No space left on device \(the disk of the store is full\)"
        ):
            file.write(b"x")
    with pytest.raises(KernelError, match="File exists"):
        BlobFile(str(tmp_path / "blob"))
