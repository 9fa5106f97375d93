from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import host, initramfs
from machine.host import VMError, cached, parse_size, program
from machine.initramfs import Entry, cpio
from machine.kernel import Kernel

MODES = st.sampled_from([stat.S_IFREG | 0o755, stat.S_IFDIR | 0o755, stat.S_IFCHR | 0o600])
ENTRIES = st.builds(
    Entry,
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
        lambda name: name != "TRAILER!!!"
    ),
    MODES,
    st.binary(max_size=50),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
)


def unpack(archive: bytes) -> list[Entry]:
    """Read archives that follow one another, as the kernel does."""
    found, at = [], 0
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_end = at + 110 + fields[11]
        data = name_end + (-name_end % 4)
        name = archive[at + 110 : name_end - 1].decode()
        if name != "TRAILER!!!":
            found.append(Entry(name, fields[1], archive[data : data + fields[6]], (fields[9], fields[10])))
        at = data + fields[6]
        at += -at % 4
    return found


@given(st.lists(ENTRIES))
def test_an_archive_holds_its_entries_and_ends_aligned(entries: list[Entry]) -> None:
    archive = cpio(entries)
    assert unpack(archive) == entries
    assert len(archive) % 4 == 0


def test_an_initramfs_has_busybox_the_scripts_and_modules_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYENGINE_VM_CACHE", str(tmp_path / "cache"))
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"static")
    monkeypatch.setattr(initramfs, "program", lambda name, package: str(busybox))
    modules = tmp_path / "6.1"
    modules.mkdir()
    (modules / "modules.dep").write_text("a.ko: b.ko\nb.ko:\n")
    (modules / "modules.builtin").write_text("")
    (modules / "a.ko").write_bytes(b"A")
    (modules / "b.ko").write_bytes(b"B")
    base = initramfs.base(Kernel("/boot/vmlinuz", str(modules)), ("a",))
    initramfs.complete(base, b"VM_X=1\n", b"exec true\n", str(tmp_path / "initramfs"))
    entries = {entry.name: entry for entry in unpack((tmp_path / "initramfs").read_bytes())}
    assert entries["modules/order"].data == b"b.ko\na.ko\n"
    assert entries["modules/a.ko"].data == b"A"
    assert entries["bin/busybox"].data == b"static"
    assert entries["init"].data.startswith(b"#!/bin/busybox sh\n")
    assert entries["init"].mode == stat.S_IFREG | 0o755
    assert entries["dev/console"].device == (5, 1)
    assert entries["vm/configuration"].data == b"VM_X=1\n"
    assert entries["vm/command"].data == b"exec true\n"


def test_a_dynamic_busybox_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF\0/lib64/ld-linux-x86-64.so.2\0")
    monkeypatch.setattr(initramfs, "program", lambda name, package: str(busybox))
    with pytest.raises(VMError, match="is not static: apt-get install busybox-static"):
        initramfs.busybox()


def test_what_is_cached_is_made_once_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENGINE_VM_CACHE", str(tmp_path))
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return b"content"

    first = cached("kind", 0, make)
    assert cached("kind", 0, make) == first
    assert made == [1]
    os.utime(first, (0, 0))
    for key in range(1, host.KEPT + 1):
        cached("kind", key, make)
    assert not Path(first).exists()
    assert len(list(tmp_path.iterdir())) == host.KEPT


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("4k", 4096), ("512M", 512 << 20), ("2G", 2 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1.5G", "1T", "²", "1 G"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a size: "):
        parse_size(text)


def test_the_package_of_a_missing_program_is_named() -> None:
    with pytest.raises(VMError, match=r"^no-such-program is not installed: apt-get install some-package$"):
        program("no-such-program", "some-package")
