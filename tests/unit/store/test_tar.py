from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_archives import archive, chunks, directory, extended, file, member, pax, raw_header, record

from pyengine.errors import ArchiveError, ArchiveTooLarge
from pyengine.store import tar
from pyengine.store.limits import DEFAULT_LIMITS, Limits
from pyengine.store.tar_write import END, header, new_entry, padding

SMALL = Limits(entries=5, bytes=10_000, header=600, sparse_map=1024, name=300)


def read(data: bytes, limits: Limits = DEFAULT_LIMITS, size: int = 700) -> list[tuple[tar.Entry, bytes]]:
    stream = tar.Stream(chunks(data, size))
    return [
        (entry, b"".join(bytes(piece) for piece in stream.pieces(entry.stored)))
        for entry in tar.entries(stream, limits)
    ]


def one(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tar.Entry:
    ((entry, _),) = read(data, limits)
    return entry


parts = st.binary(min_size=1, max_size=60).map(lambda part: part.translate(None, b"\0/\n") or b"a")
names = st.lists(parts, min_size=1, max_size=6).map(b"/".join)


@given(
    names,
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    st.integers(0, 2**32 - 2),
    st.integers(-(2**60), 2**62),
    st.binary(max_size=1500),
    st.dictionaries(st.sampled_from([b"user.a", b"user.b=c", b"security.capability"][::2]), st.binary(max_size=40)),
)
def test_what_is_written_is_read(
    name: bytes, mode: int, uid: int, gid: int, mtime: int, content: bytes, xattrs: dict[bytes, bytes]
) -> None:
    entry = new_entry(name, tar.REGULAR, mode=mode, uid=uid, gid=gid, size=len(content), mtime_ns=mtime)
    entry.xattrs = xattrs or None
    ((got, data),) = read(header(entry) + content + padding(len(content)) + END)
    assert (got.name, got.mode, got.uid, got.gid, got.mtime_ns) == (name, mode, uid, gid, mtime)
    assert (got.xattrs or {}, data) == (xattrs, content)


@given(names, st.integers(0, 2**40), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_another_writer_writes_is_read_alike(name: bytes, uid: int, form: int) -> None:
    text = name.decode("utf-8", "surrogateescape")
    info = tarfile.TarInfo(text)
    info.uid, info.size, info.mtime = uid % (2**32 - 1), 3, 5
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as tarball:
        tarball.addfile(info, io.BytesIO(b"abc"))
    ((got, data),) = read(out.getvalue())
    assert (got.name, got.uid, got.mtime_ns, data) == (name, info.uid, 5 * 10**9, b"abc")


@given(st.integers(0, 511 + 1024), st.integers(1, 255), st.integers(1, 900))
def test_a_changed_byte_is_read_or_refused_never_something_else(position: int, change: int, size: int) -> None:
    data = bytearray(archive(pax(path="some/name", mtime="1.5"), file("name", b"content")))
    data[position] ^= change
    try:
        read(bytes(data), SMALL, size)
    except ArchiveError:
        pass


@given(st.binary(max_size=2048))
def test_any_bytes_are_an_archive_or_an_archive_error(data: bytes) -> None:
    try:
        read(data, SMALL)
    except ArchiveError:
        pass


def test_every_truncation_is_seen() -> None:
    whole = archive(extended(b"L", b"n" * 120 + b"\0"), file("short", b"y" * 700))
    for length in range(1, len(whole) - 1024):
        if length % 97 == 0 or length % 512 in (0, 1, 511):
            if length == len(whole) - 1024:
                continue
            with pytest.raises(ArchiveError, match="truncated"):
                read(whole[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (raw_header(b"x", b"0", f100=b"0000999\0"), "not an octal number"),
        (raw_header(b"x", b"0", f100=b"00 0644\0"), "is not a number"),
        (raw_header(b"x", b"0", f100=b"0x00644\0"), "is not a number"),
        (raw_header(b"x", b"0", f100=b"0_00644\0"), "is not a number"),
        (raw_header(b"x", b"0", f124=b"\xff" * 12), "negative size"),
        (raw_header(b"x", b"0", f108=b"\xff" * 8), "cannot be"),
        (raw_header(b"x", b"0", f108=b"\x80\0\0\0\xff\xff\xff\xff"), "cannot be"),
        (raw_header(b"x", b"Z"), "unknown type"),
        (raw_header(b"x/", b"0", 5), "a directory with data"),
        (raw_header(b"x", b"0")[:-1] + b"!", "checksum"),
        (raw_header(b"x", b"0") + bytes(512) + raw_header(b"y", b"0"), "zeros, but no end"),
        (extended(b"x", b"12 path=abc"), "malformed PAX"),
        (extended(b"x", b"11 path=abc\n"), "PAX record"),
        (extended(b"x", b"-1 path=abc\n"), "without its length"),
        (extended(b"x", b"5 =a\n"), "malformed PAX"),
        (extended(b"x", b"99999999999999999999999 a=b\n"), "without its length"),
        (extended(b"x", record("path", b"a\0b")) + file("x"), "zero byte"),
        (extended(b"x", record("size", b"-1")) + file("x"), "is not a number"),
        (extended(b"x", record("size", b"0x10")) + file("x"), "is not a number"),
        (extended(b"x", record("mtime", b"1e5")) + file("x"), "not a time"),
        (extended(b"x", record("uid", b"4294967295")) + file("x"), "cannot be"),
        (extended(b"g", record("path", b"etc/shadow")) + file("x"), "global header gives one path"),
        (extended(b"g", record("size", b"1")) + file("x"), "global header gives one size"),
        (extended(b"x", record("path", b"a")), "no member behind"),
        (extended(b"L", b"name\0"), "no member behind"),
    ],
)
def test_a_malformed_archive_says_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        read(data + END)


# Two readers that disagree on where a member ends see different members (CVE-2025-62518 is such a pair).
def test_the_size_of_a_pax_record_counts_and_not_the_headers() -> None:
    inner = file("hidden", b"")
    outer = pax(size=str(len(inner))) + raw_header(b"outer", b"0", 0) + inner
    ((entry, data),) = read(outer + END)
    assert (entry.name, data) == (b"outer", inner)


def test_a_link_has_no_data_whatever_its_size_says() -> None:
    data = raw_header(b"link", b"1", 512, f157=b"target") + file("next")
    assert [entry.name for entry, _ in read(data + END)] == [b"link", b"next"]


def test_the_members_own_records_come_before_the_global_ones_and_last_for_one_member() -> None:
    data = extended(b"g", record("uid", b"7") + record("mtime", b"3")) + pax(uid="8") + file("a") + file("b")
    assert [(entry.uid, entry.mtime_ns) for entry, _ in read(data + END)] == [(8, 3 * 10**9), (7, 3 * 10**9)]


def test_an_old_name_with_a_slash_is_a_directory_and_a_prefix_is_posix_only() -> None:
    assert one(raw_header(b"old/", b"\0") + END).type == tar.DIRECTORY
    assert one(raw_header(b"name", b"0", f345=b"prefix") + END).name == b"prefix/name"
    assert one(raw_header(b"name", b"0", f345=b"1234", f257=b"ustar  \0") + END).name == b"name"


def test_a_signed_checksum_is_one() -> None:
    block = bytearray(raw_header(b"n\xffme", b"0"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) - 256)
    assert one(bytes(block) + END).name == b"n\xffme"


@pytest.mark.parametrize(
    ("data", "limits", "message"),
    [
        (b"".join(file(f"f{n}") for n in range(6)), SMALL, "more than 5 members"),
        (pax(a="b") * 6, SMALL, "more than 5 members"),
        (extended(b"x", record("comment", b"c" * 700)), SMALL, "extended header of"),
        (raw_header(b"x", b"L", 1 << 40), SMALL, "extended header of"),
        (raw_header(b"x", b"0", 10_001), SMALL, "more than 10000 bytes"),
        (extended(b"L", b"n" * 301) + file("x"), SMALL, "longer than 300"),
        (extended(b"L", b"n" * 5000) + file("x"), Limits(), "longer than 4095"),
    ],
)
def test_more_than_the_bounds_is_refused(data: bytes, limits: Limits, message: str) -> None:
    with pytest.raises(ArchiveTooLarge, match=message):
        read(data + END, limits)


def test_a_bomb_by_ratio_or_by_size_is_refused() -> None:
    limits = replace(SMALL, free_bytes=1000, ratio=10)
    limits.check_stream(1, 1000)
    limits.check_stream(200, 2000)
    with pytest.raises(ArchiveTooLarge, match="more than 10 to one"):
        limits.check_stream(199, 2000)
    with pytest.raises(ArchiveTooLarge, match="more than 10000 bytes"):
        limits.check_stream(10_000, 10_001)


@pytest.mark.parametrize("form", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_of_gnu_tar_are_read(tmp_path: Path, form: str) -> None:
    with (tmp_path / "sparse").open("wb") as out:
        for part in range(30):  # more than a header has room for
            out.seek(part * 65536)
            out.write(b"%4096d" % part)
        out.truncate(30 * 65536 + 5)
    options = ["--format=gnu"] if form == "gnu" else ["--format=pax", f"--sparse-version={form}"]
    data = subprocess.run(
        ["tar", "-C", tmp_path, *options, "--sparse", "--hole-detection=raw", "-cf", "-", "sparse"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    ((entry, stored),) = read(data)
    assert (entry.name, entry.size) == (b"sparse", 30 * 65536 + 5)
    assert entry.sparse is not None
    content, position = bytearray(entry.size), 0
    for offset, length in entry.sparse:
        content[offset : offset + length] = stored[position : position + length]
        position += length
    assert bytes(content) == (tmp_path / "sparse").read_bytes()
    assert len(stored) < entry.size / 2


@pytest.mark.parametrize(
    "records",
    [
        {"GNU__sparse__size": "10", "GNU__sparse__map": "5,3,4,1"},
        {"GNU__sparse__size": "10", "GNU__sparse__map": "0,99"},
        {"GNU__sparse__size": "10", "GNU__sparse__map": "0,2"},
        {"GNU__sparse__size": "10", "GNU__sparse__map": "0"},
        {"GNU__sparse__size": "10", "GNU__sparse__map": "-1,4"},
        {"GNU__sparse__size": "10", "GNU__sparse__numbytes": "4"},
        {"GNU__sparse__realsize": "10", "GNU__sparse__major": "1", "GNU__sparse__minor": "0"},
    ],
)
def test_a_sparse_map_that_does_not_fit_is_refused(records: dict[str, str]) -> None:
    with pytest.raises(ArchiveError, match=r"sparse|truncated"):
        read(pax(**records) + file("x", b"four") + END)


def test_a_sparse_map_without_end_is_refused() -> None:
    lines = b"99999999\n" + b"1\n" * 4000
    data = pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="10") + file("x", lines)
    with pytest.raises(ArchiveTooLarge, match="sparse map of more than"):
        read(data + END, SMALL)


def test_what_the_reader_is_not_asked_for_is_skipped() -> None:
    stream = tar.Stream(chunks(archive(file("a", b"1" * 3000), directory("d"), member("s", tar.FIFO)), 100))
    assert [entry.name for entry in tar.entries(stream)] == [b"a", b"d", b"s"]
