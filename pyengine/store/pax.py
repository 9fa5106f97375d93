"""The extended headers of tar members: PAX records, and the maps of sparse files in their four forms."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from pyengine.errors import ArchiveError, ArchiveTooLarge

if TYPE_CHECKING:
    from pyengine.store.limits import Limits
    from pyengine.store.tar import Entry, Stream

_XATTR = b"SCHILY.xattr."
_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_MAX_NS = (1 << 63) - 1
_BLOCK = 512


def number(field: bytes) -> int:
    """A numeric field: octal digits, or GNU's base-256 where the first bit is set."""
    digits = field[:-1]
    if field[-1] in b"\0 " and digits.isdigit():  # as nearly all are written
        text = digits
    elif field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        return value
    else:
        text = field.partition(b"\0")[0].strip(b" ")
        if not text:
            return 0
        if not text.isdigit():
            raise ArchiveError(f"tar header is corrupt: {field!r} is not a number")
    try:
        return int(text, 8)
    except ValueError:
        raise ArchiveError(f"tar header is corrupt: {field!r} is not an octal number") from None


class PaxRecords:
    """Records in effect: ``values`` by keyword, extended attributes, and the map of sparse format 0.0, whose
    keywords repeat."""

    __slots__ = ("sparse", "sparse_major", "values", "xattrs")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.xattrs: dict[bytes, bytes] = {}
        self.sparse: list[tuple[int, int]] = []
        self.sparse_major = 0


def parse_records(data: bytes, previous: PaxRecords | None = None, *, is_global: bool = False) -> PaxRecords:
    """The records of a header of type x or g, added to those of an earlier header for the same member."""
    records = previous or PaxRecords()
    position = 0
    offset: int | None = None
    while position < len(data):
        space = data.find(b" ", position, position + 21)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise ArchiveError("tar archive is corrupt: a PAX record without its length")
        end = position + int(digits)
        equals = data.find(b"=", space + 1, end)
        if end > len(data) or end <= space + 1 or equals <= space + 1 or data[end - 1] != 0x0A:
            raise ArchiveError("tar archive is corrupt: a malformed PAX record")
        keyword, value = data[space + 1 : equals], data[equals + 1 : end - 1]
        position = end
        if keyword.startswith(_XATTR):
            records.xattrs[keyword[len(_XATTR) :]] = value
        elif keyword == b"GNU.sparse.offset":
            offset = decimal(value, "sparse offset")
        elif keyword == b"GNU.sparse.numbytes":
            if offset is None:
                raise ArchiveError("tar archive is corrupt: a sparse part without an offset")
            records.sparse.append((offset, decimal(value, "sparse length")))
            offset = None
        elif is_global and keyword in (b"path", b"linkpath", b"size"):
            raise ArchiveError(f"tar archive is corrupt: a global header gives one {keyword.decode()} to all members")
        else:
            records.values[keyword] = value
    if records.values.get(b"GNU.sparse.major") == b"1":
        records.sparse_major = 1
    return records


def decimal(text: bytes, what: str) -> int:
    """A number as PAX writes it: decimal digits only."""
    if not text.isdigit() or len(text) > 20:
        raise ArchiveError(f"tar archive is corrupt: {what} {text[:40]!r} is not a number")
    return int(text)


def timestamp(text: bytes) -> int:
    """A PAX time, seconds with an optional fraction, in nanoseconds; what is out of range becomes the limit."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ArchiveError(f"tar archive is corrupt: {text[:40]!r} is not a time")
    sign, seconds, fraction = match.groups()
    value = int(seconds) * 1_000_000_000 + int(((fraction or b"") + b"000000000")[:9])
    return max(-_MAX_NS, -value) if sign else min(_MAX_NS, value)


def apply_pax(entry: Entry, defaults: PaxRecords | None, records: PaxRecords | None) -> None:
    """Let the records overrule what the header says. The member's own records come before the global ones.

    An empty value takes a record back, except for extended attributes, which may be empty.
    """
    values = dict(defaults.values) if defaults is not None else {}
    xattrs = dict(defaults.xattrs) if defaults is not None else {}
    if records is not None:
        values.update(records.values)
        xattrs.update(records.xattrs)
    entry.xattrs = xattrs or None
    for keyword, value in values.items():
        if not value:
            continue
        if keyword == b"path":
            entry.name = _text(value)
        elif keyword == b"linkpath":
            entry.link = _text(value)
        elif keyword == b"mtime":
            entry.mtime_ns = timestamp(value)
        elif keyword == b"size":
            entry.size = entry.stored = decimal(value, "size")
        elif keyword == b"uid":
            entry.uid = decimal(value, "uid")
        elif keyword == b"gid":
            entry.gid = decimal(value, "gid")
    if records is not None:
        _apply_sparse(entry, records)


def _text(value: bytes) -> bytes:
    if b"\0" in value:
        raise ArchiveError("tar archive is corrupt: a name with a zero byte")
    return value


def _apply_sparse(entry: Entry, records: PaxRecords) -> None:
    values = records.values
    name = values.get(b"GNU.sparse.name")
    if name:
        entry.name = _text(name)
    real = values.get(b"GNU.sparse.realsize") or values.get(b"GNU.sparse.size")
    if real is None:
        return
    entry.size = decimal(real, "sparse size")
    if records.sparse_major == 1:
        return  # the map is in front of the data
    if b"GNU.sparse.map" in values:
        numbers = [decimal(text, "sparse map") for text in values[b"GNU.sparse.map"].split(b",") if text]
        if len(numbers) % 2:
            raise ArchiveError("tar archive is corrupt: a sparse map of an odd length")
        entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=True))
    else:
        entry.sparse = records.sparse
    check_sparse(entry)


def check_sparse(entry: Entry) -> None:
    """:class:`ArchiveError` unless the parts are in order, do not overlap, lie within the file and are exactly
    what is stored."""
    position = total = 0
    for offset, length in entry.sparse or ():
        if offset < position:
            raise ArchiveError(f"tar member {entry.name[:200]!r} has a sparse map that is not in order")
        position = offset + length
        total += length
    if position > entry.size or total != entry.stored:
        raise ArchiveError(f"tar member {entry.name[:200]!r} has a sparse map that does not fit its size")


def sparse_map_v1(entry: Entry, stream: Stream, limits: Limits) -> None:
    """PAX sparse format 1.0: decimal lines in front of the data, padded to a block."""
    text = b""
    numbers: list[int] = []
    wanted: int | None = None
    taken = 0
    while wanted is None or len(numbers) < wanted:
        line, newline, rest = text.partition(b"\n")
        if newline:
            value = decimal(line, "sparse map")
            if wanted is None:
                wanted = 2 * value
            else:
                numbers.append(value)
            text = rest
            continue
        if taken >= limits.sparse_map:
            raise ArchiveTooLarge(f"tar member {entry.name[:200]!r} has a sparse map of more than {taken} bytes")
        if taken + _BLOCK > entry.stored:
            raise ArchiveError(f"tar member {entry.name[:200]!r} has a truncated sparse map")
        # Many blocks at once would need to know where the map ends; the lines of one block are few.
        block = stream.take(_BLOCK)
        if len(block) < _BLOCK:
            raise ArchiveError("tar archive is truncated: it ends inside of a sparse map")
        text += block
        taken += _BLOCK
    entry.stored -= taken
    entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=True))
    check_sparse(entry)


def sparse_of_gnu_header(entry: Entry, block: bytes, stream: Stream, limits: Limits) -> None:
    """Old GNU format: four parts in the header, more in blocks behind it."""
    parts: list[tuple[int, int]] = []

    def read(table: bytes) -> None:
        for start in range(0, len(table) - 23, 24):
            offset, length = struct.unpack_from("12s12s", table, start)
            if not offset[0] and not length[0]:
                return
            parts.append((number(offset), number(length)))

    entry.size = number(block[483:495])
    read(block[386:482])
    more = block[482]
    taken = 0
    while more:
        extension = stream.take(_BLOCK)
        taken += _BLOCK
        if len(extension) < _BLOCK:
            raise ArchiveError("tar archive is truncated: it ends inside of a sparse map")
        if taken > limits.sparse_map:
            raise ArchiveTooLarge(f"tar member {entry.name[:200]!r} has a sparse map of more than {taken} bytes")
        read(extension[:504])
        more = extension[504]
    if any(offset < 0 or length < 0 for offset, length in parts):
        raise ArchiveError(f"tar member {entry.name[:200]!r} has a sparse map that is not in order")
    entry.sparse = parts
    check_sparse(entry)
