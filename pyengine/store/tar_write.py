"""Writes tar headers: ustar where it suffices, PAX records in front where it does not. Equal input, equal bytes."""

from __future__ import annotations

from pyengine.store.tar import BLOCK, Entry

_OCTAL_SIZE = 1 << 33
_OCTAL_ID = 1 << 21
END = bytes(2 * BLOCK)


def new_entry(
    name: bytes, type: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0, size: int = 0, mtime_ns: int = 0
) -> Entry:
    """A member to be written; the fields not named here can be set afterwards."""
    entry = Entry()
    entry.name, entry.type, entry.mode, entry.uid, entry.gid = name, type, mode, uid, gid
    entry.size = entry.stored = size
    entry.mtime_ns = mtime_ns
    entry.link = b""
    entry.major = entry.minor = 0
    entry.xattrs = entry.sparse = None
    return entry


def header(entry: Entry) -> bytes:
    """All blocks in front of a member's data."""
    records: list[tuple[bytes, bytes]] = []
    prefix, name = _split(entry.name)
    if prefix is None:
        records.append((b"path", entry.name))
        prefix, name = b"", entry.name[:100]
    link = entry.link
    if len(link) > 100:
        records.append((b"linkpath", link))
        link = link[:100]
    numbers = {}
    for keyword, value, limit in (
        (b"size", entry.stored, _OCTAL_SIZE),
        (b"uid", entry.uid, _OCTAL_ID),
        (b"gid", entry.gid, _OCTAL_ID),
    ):
        if value >= limit:
            records.append((keyword, b"%d" % value))
        numbers[keyword] = value if value < limit else 0
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds < _OCTAL_SIZE:
        records.append((b"mtime", _time(entry.mtime_ns)))
    seconds = seconds if 0 <= seconds < _OCTAL_SIZE else 0
    records += [(b"SCHILY.xattr." + key, value) for key, value in sorted((entry.xattrs or {}).items())]
    block = _block(entry, name, prefix, link, (numbers[b"uid"], numbers[b"gid"], numbers[b"size"], seconds))
    if not records:
        return block
    data = b"".join(_record(keyword, value) for keyword, value in records)
    extended = _block(new_entry(b"", b"x"), b"PaxHeaders/" + name[-80:], b"", b"", (0, 0, len(data), 0))
    return extended + data + padding(len(data)) + block


def padding(size: int) -> bytes:
    """The zeros behind ``size`` bytes of data."""
    return bytes(-size % BLOCK)


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    """A name as ustar's prefix and name; the prefix is None if it does not fit."""
    if len(name) <= 100:
        return b"", name
    cut = name.find(b"/", max(0, len(name) - 101))
    if 0 < cut <= 155 and cut < len(name) - 1:
        return name[:cut], name[cut + 1 :]
    return None, name


def _time(ns: int) -> bytes:
    sign = b"-" if ns < 0 else b""
    seconds, fraction = divmod(abs(ns), 1_000_000_000)
    return sign + (b"%d.%09d" % (seconds, fraction)).rstrip(b"0").rstrip(b".")


def _record(keyword: bytes, value: bytes) -> bytes:
    body = b" " + keyword + b"=" + value + b"\n"
    length = len(body)
    while True:
        text = b"%d" % length
        if len(text) + len(body) == length:
            return text + body
        length = len(text) + len(body)


def _block(entry: Entry, name: bytes, prefix: bytes, link: bytes, numbers: tuple[int, int, int, int]) -> bytes:
    """``numbers`` are uid, gid, size and mtime in seconds, each small enough for its field."""
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (entry.mode & 0o7777, *numbers),
            b" " * 8,
            entry.type,
            link.ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0%07o\0" % (entry.major, entry.minor),
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
