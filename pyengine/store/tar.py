"""A reader of tar streams: ustar, GNU, PAX and their sparse files.

Sources: POSIX pax (IEEE 1003.1, "pax Interchange Format" and "ustar Interchange Format"), the GNU tar manual
("Basic Tar Format", "Storing Sparse Files"). Where two readers could take different archives from the same bytes,
this one is strict: a header whose checksum, numbers or records are malformed is an error, never a guess.

Names and link targets are bytes, as the file system has them, and are not checked here for where they lead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from zlib import adler32

from pyengine.errors import ArchiveError, ArchiveTooLarge
from pyengine.store.limits import DEFAULT_LIMITS, Limits
from pyengine.store.pax import (
    PaxRecords,
    apply_pax,
    number,
    parse_records,
    sparse_map_v1,
    sparse_of_gnu_header,
)

BLOCK = 512
_ZERO = bytes(BLOCK)

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

_PLAIN_TYPES = frozenset({REGULAR, HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO})
_WITHOUT_DATA = frozenset({HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO})
_MAX_ID = (1 << 32) - 2  # the highest number means "do not change" to chown(2)


class Stream:
    """Chunks of any size, read as exact numbers of bytes without copying more than needed.

    ``consumed`` counts the bytes that were taken.
    """

    __slots__ = ("_chunk", "_chunks", "_position", "consumed")

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk: bytes = b""
        self._position = 0
        self.consumed = 0

    def take(self, count: int) -> bytes:
        """``count`` bytes; fewer only where the stream ends."""
        position = self._position
        end = position + count
        if end <= len(self._chunk):
            self._position = end
            self.consumed += count
            return self._chunk[position:end]
        return b"".join(self.pieces(count, whole=False))

    def pieces(self, count: int, *, whole: bool = True) -> Iterator[bytes | memoryview]:
        """The next ``count`` bytes in pieces; :class:`ArchiveError` if the stream ends before, unless ``whole``
        is false."""
        while count:
            available = len(self._chunk) - self._position
            if not available:
                chunk = next(self._chunks, None)
                if chunk is None:
                    if whole:
                        raise ArchiveError("tar archive is truncated: it ends inside of a file")
                    return
                self._chunk, self._position = chunk, 0
                continue
            size = min(available, count)
            start = self._position
            self._position = start + size
            self.consumed += size
            count -= size
            yield self._chunk if size == len(self._chunk) else memoryview(self._chunk)[start : start + size]

    def window(self) -> tuple[bytes, int]:
        """What can be had without waiting: a chunk, and the position in it that the stream stands at."""
        return self._chunk, self._position

    def move_to(self, position: int) -> None:
        """Pass over the part of the window before ``position``."""
        self.consumed += position - self._position
        self._position = position

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        for _ in self.pieces(count):
            pass

    def drain(self) -> None:
        """Take everything up to the end of the stream."""
        self.consumed += len(self._chunk) - self._position
        self._chunk, self._position = b"", 0
        for chunk in self._chunks:
            self.consumed += len(chunk)


class Entry:
    """One member. ``type`` is one of the type constants above; times are nanoseconds since 1970, in UTC; ``size`` is
    the length of the file, ``stored`` the bytes that it has in the archive; ``sparse`` lists (offset, length) of
    the stored parts, in order, or is None; ``xattrs`` maps names to values."""

    __slots__ = (
        "gid",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "size",
        "sparse",
        "stored",
        "type",
        "uid",
        "xattrs",
    )

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    stored: int
    mtime_ns: int
    link: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes] | None
    sparse: list[tuple[int, int]] | None


def checksum_holds(block: bytes) -> bool:
    """Whether a header's checksum is that of its bytes, counted unsigned or, as some old programs did, signed."""
    stored = number(block[148:156])
    # adler32's lower half is one more than the sum of the bytes modulo 65521: a hundred times faster than sum().
    if (adler32(block[156:], adler32(block[:148])) & 0xFFFF) == (stored - 256 + 1) % 65521:
        return True
    fields = block[:148] + block[156:]
    return sum(fields) + 256 - 256 * sum(byte >> 7 for byte in fields) == stored


def entries(
    stream: Stream, limits: Limits = DEFAULT_LIMITS, shortcut: Callable[[Stream, int], int] | None = None
) -> Iterator[Entry]:
    """The members of the archive, one after the other.

    The consumer takes the ``stored`` bytes of a member with ``stream.pieces`` before it asks for the next; what it
    leaves is skipped. After the last member the stream stands behind the end mark.

    ``shortcut`` is called where a member begins that no extended header alters; it may take whole members off the
    stream, not more than the number that it gets, and says how many they were.

    :raises ArchiveError: while iterating, if the archive is corrupt or truncated
    :raises ArchiveTooLarge: if it goes beyond ``limits``
    """
    defaults: PaxRecords | None = None
    records: PaxRecords | None = None
    long_name = long_link = None
    count = 0
    while True:
        if shortcut is not None and all(before is None for before in (records, defaults, long_name, long_link)):
            count += shortcut(stream, limits.entries - count)
        block = stream.take(BLOCK)
        if len(block) < BLOCK or block == _ZERO:
            if records is not None or long_name is not None or long_link is not None:
                raise ArchiveError("tar archive is truncated: an extended header has no member behind it")
            if block and len(block) < BLOCK:
                raise ArchiveError("tar archive is truncated: it ends inside of a header")
            if block and stream.take(BLOCK).strip(b"\0"):
                raise ArchiveError("tar archive is corrupt: a block of zeros, but no end")
            return
        if not checksum_holds(block):
            raise ArchiveError(f"tar archive is corrupt: wrong header checksum at byte {stream.consumed - BLOCK}")
        type = block[156:157]
        if type in b"xgLKX":
            data = _extension(stream, block, limits)
            if type == b"L":
                long_name = data.partition(b"\0")[0]
            elif type == b"K":
                long_link = data.partition(b"\0")[0]
            elif type == b"g":
                defaults = parse_records(data, defaults, is_global=True)
            else:
                records = parse_records(data, records)
            count = _counted(count, limits)
            continue
        if type == b"V":  # GNU's volume label: no file
            continue
        entry = _entry(block, type)
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.link = long_link
        if records is not None or defaults is not None:
            apply_pax(entry, defaults, records)
        if entry.type in _WITHOUT_DATA:
            # Some writers repeat the target's size in a hard link; no data follows. All readers agree on that.
            entry.size = entry.stored = 0
        elif type == b"S":
            sparse_of_gnu_header(entry, block, stream, limits)
        elif entry.sparse is None and records is not None and records.sparse_major == 1:
            sparse_map_v1(entry, stream, limits)
        records = long_name = long_link = None
        _check(entry, limits)
        count = _counted(count, limits)
        end = stream.consumed + entry.stored
        padded = end + (-entry.stored % BLOCK)
        yield entry
        if stream.consumed != padded:
            stream.skip(padded - stream.consumed)


def _counted(count: int, limits: Limits) -> int:
    if count >= limits.entries:
        raise ArchiveTooLarge(f"tar archive has more than {limits.entries} members")
    return count + 1


def _extension(stream: Stream, block: bytes, limits: Limits) -> bytes:
    size = number(block[124:136])
    if size < 0:
        raise ArchiveError("tar header is corrupt: negative size")
    if size > limits.header:
        raise ArchiveTooLarge(f"tar archive has an extended header of {size} bytes: {limits.header} are accepted")
    data = stream.take(size)
    padding = -size % BLOCK
    if len(data) < size or len(stream.take(padding)) < padding:
        raise ArchiveError("tar archive is truncated: it ends inside of an extended header")
    return data


def _entry(block: bytes, type: bytes) -> Entry:
    entry = Entry()
    name = block[:100].partition(b"\0")[0]
    # Only POSIX's magic has a prefix there; GNU keeps times and its sparse map in that place.
    if block[345] and block[257:263] == b"ustar\0":
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    entry.name = name
    entry.mode = number(block[100:108])
    entry.uid = number(block[108:116])
    entry.gid = number(block[116:124])
    entry.size = entry.stored = number(block[124:136])
    entry.mtime_ns = number(block[136:148]) * 1_000_000_000
    entry.link = block[157:257].partition(b"\0")[0]
    entry.xattrs = entry.sparse = None
    entry.major = entry.minor = 0
    if type in (CHARACTER_DEVICE, BLOCK_DEVICE):
        entry.major = number(block[329:337])
        entry.minor = number(block[337:345])
    elif type in (b"0", b"\0"):
        # Before ustar a directory was a file whose name ends in a slash.
        type = DIRECTORY if name.endswith(b"/") else REGULAR
        if type == DIRECTORY and entry.stored:
            raise ArchiveError(f"tar member {name[:200]!r} is a directory with data: readers differ on where it ends")
    elif type in (b"7", b"S"):
        type = REGULAR
    if type not in _PLAIN_TYPES:
        raise ArchiveError(f"tar member {name[:200]!r} is of the unknown type {type!r}")
    entry.type = type
    return entry


def _check(entry: Entry, limits: Limits) -> None:
    if entry.size < 0 or entry.stored < 0:
        raise ArchiveError(f"tar member {entry.name[:200]!r} has a negative size")
    if entry.size > limits.bytes or entry.stored > limits.bytes:
        raise ArchiveTooLarge(f"tar member {entry.name[:200]!r} has more than {limits.bytes} bytes")
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        raise ArchiveError(f"tar member {entry.name[:200]!r} has the owner {entry.uid}:{entry.gid}, which cannot be")
    if len(entry.name) > limits.name or len(entry.link) > limits.name:
        raise ArchiveTooLarge(f"tar member {entry.name[:80]!r}… has a name or a target longer than {limits.name} bytes")
    if entry.mode < 0:
        raise ArchiveError(f"tar member {entry.name[:200]!r} has a negative mode")
