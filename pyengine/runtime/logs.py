"""Log files of containers, in the k8s-file form: ``TIME STREAM TAG TEXT`` a line.

TIME is RFC 3339 with nine digits, STREAM is stdout or stderr, TAG is F for a whole line and P for a piece of one. The
monitor writes them (``native/monitor``), and rotates them to ``ctr.log.1``, ``ctr.log.2`` … where it was asked to.

`LineParser` is free of I/O; `read` and `follow` drive it over files.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pyengine.errors import InvalidValue
from pyengine.typing import override

#: a line longer than this (bytes) is handed out in pieces, so that nothing is collected without bound
MAX_LINE = 1 << 20
_CHUNK = 1 << 18
_ATTEMPTS = 50
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a container wrote. `time` as in the file (RFC 3339), `text` without its newline. `partial`: the
    line goes on in the next one of the same stream, or was never ended."""

    time: str
    stream: str
    text: bytes
    partial: bool = False

    @override
    def __str__(self) -> str:
        return self.text.decode("utf-8", "replace")


class LineParser:
    """Turns the bytes of a log file into lines; pieces of a line are joined, each stream by itself."""

    def __init__(self) -> None:
        self._rest = b""
        self._pieces: dict[str, list[bytes]] = {}
        self._sizes: dict[str, int] = {}
        self._times: dict[str, str] = {}

    def feed(self, data: bytes) -> Iterator[LogLine]:
        """The lines that `data` completes. What is not a log line (a damaged file) is passed over."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > 4 * MAX_LINE:
            self._rest = b""  # no line of ours: the monitor's pieces are far smaller
        for line in lines:
            yield from self._line(line)

    def _line(self, line: bytes) -> Iterator[LogLine]:
        fields = line.split(b" ", 3)
        if len(fields) < 4 or fields[1] not in _STREAMS or fields[2] not in (b"F", b"P"):
            return
        time, stream, text = fields[0].decode("ascii", "replace"), _STREAMS[fields[1]], fields[3]
        pieces = self._pieces.get(stream)
        if pieces is None:
            if fields[2] == b"F":
                yield LogLine(time, stream, text)
                return
            pieces = self._pieces[stream] = []
            self._sizes[stream] = 0
            self._times[stream] = time
        pieces.append(text)
        self._sizes[stream] += len(text)
        if fields[2] == b"F":
            yield self._joined(stream, partial=False)
        elif self._sizes[stream] >= MAX_LINE:
            yield self._joined(stream, partial=True)

    def _joined(self, stream: str, *, partial: bool) -> LogLine:
        self._sizes.pop(stream)
        return LogLine(self._times.pop(stream), stream, b"".join(self._pieces.pop(stream)), partial)

    def finish(self) -> Iterator[LogLine]:
        """What is left of lines that were never ended."""
        for stream in list(self._pieces):
            yield self._joined(stream, partial=True)


def nanoseconds(time: str) -> int:
    """An RFC 3339 time as nanoseconds since 1970 (negative before); raises `InvalidValue`."""
    match = _TIME.fullmatch(time)
    if not match:
        raise InvalidValue(f"{time!r} is not an RFC 3339 time such as 2026-01-31T12:00:00.5Z")
    import calendar
    import datetime

    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S")
    except ValueError as error:
        raise InvalidValue(f"{time!r} is not a time: {error}") from None
    offset = 0
    if zone != "Z":
        offset = (int(zone[1:3]) * 60 + int(zone[4:])) * (-60 if zone[0] == "-" else 60)
    return (calendar.timegm(moment.timetuple()) - offset) * 10**9 + int((fraction or "0").ljust(9, "0"))


def files(path: str) -> list[str]:
    """The log file and what was rotated away from it, oldest first; only those that exist."""
    directory, name = os.path.split(path)
    rotated = {}
    live = False
    for entry in os.listdir(directory or "."):
        head, dot, number = entry.rpartition(".")
        if entry == name:
            live = True
        elif dot and head == name and number.isdecimal():
            rotated[int(number)] = f"{path}.{number}"
    return [*(rotated[number] for number in sorted(rotated, reverse=True)), *([path] if live else [])]


def _open_all(path: str) -> list[BinaryIO]:
    """The files, open, oldest first. A rotation renames one after the other: while one is under way a file may be seen
    twice or not at all, so this looks again until nothing changes. It does not wait for a rotation that was never
    finished."""
    for attempt in range(_ATTEMPTS):
        names = files(path)
        opened: list[BinaryIO] = []
        for name in names:
            try:
                opened.append(open(name, "rb"))  # noqa: SIM115 - the caller's
            except FileNotFoundError:
                continue
        identities = [os.fstat(file.fileno()).st_ino for file in opened]
        contiguous = names == [*(f"{path}.{n}" for n in range(len(names) - 1, 0, -1)), path]
        unchanged = len(opened) == len(names) and [_inode(name) for name in names] == identities
        if not names or (contiguous and unchanged) or attempt == _ATTEMPTS - 1:
            break
        for file in opened:
            file.close()
        time.sleep(0.001)
    return opened


def _inode(name: str) -> int:
    try:
        return os.stat(name).st_ino
    except FileNotFoundError:
        return -1


def read(path: str, *, since: int | None = None, tail: int | None = None) -> Iterator[LogLine]:
    """The lines that are there now: those after `since` (nanoseconds since 1970), of these the last `tail`."""
    parser = LineParser()
    lines = _after(_parse(parser, _now(path)), since)
    if tail is None:
        yield from lines
    elif tail > 0:
        yield from deque(lines, maxlen=tail)


def follow(
    path: str, ended: Callable[[], bool], wake: Callable[[], int], *, since: int | None = None, tail: int | None = None
) -> Iterator[LogLine]:
    """Like `read`, then every line as it is written, until `ended` says that nothing more will come.

    `wake` gives a descriptor that is readable once that may have changed (a pidfd), or -1.
    """
    from pyengine.linux.watch import Watch

    parser = LineParser()
    with Watch(os.path.dirname(path)) as watch:
        source = _Source(path)
        try:
            lines = _after(_parse_open(parser, source), since)
            yield from lines if tail is None else deque(lines, maxlen=tail) if tail else deque(lines, maxlen=0)
            while True:
                over = ended()  # asked before the last look, so that nothing written until then is missed
                yield from _after(_parse_open(parser, source), since)
                if over:
                    break
                fd = wake()
                watch.wait(*([fd] if fd >= 0 else []))
            yield from _after(parser.finish(), since)
        finally:
            source.close()


def _after(lines: Iterator[LogLine], since: int | None) -> Iterator[LogLine]:
    if since is None:
        return lines
    return (line for line in lines if nanoseconds(line.time) > since)


def _now(path: str) -> Iterator[bytes]:
    opened = _open_all(path)
    try:
        for file in opened:
            while chunk := file.read(_CHUNK):
                yield chunk
    finally:
        for file in opened:
            file.close()


def _parse(parser: LineParser, chunks: Iterator[bytes]) -> Iterator[LogLine]:
    for chunk in chunks:
        yield from parser.feed(chunk)
    yield from parser.finish()


class _Source:
    """The log as one stream of bytes: rotated files first, then the live one, across further rotations."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._older = _open_all(path)

    def chunks(self) -> Iterator[bytes]:
        """All that can be read now."""
        while True:
            while self._older:
                while chunk := self._older[0].read(_CHUNK):
                    yield chunk
                if len(self._older) == 1:
                    break
                self._older.pop(0).close()
            newer = _open_all(self._path)
            if self._older:
                known = [os.path.sameopenfile(self._older[0].fileno(), file.fileno()) for file in newer]
                cut = known.index(True) + 1 if True in known else 0
                for file in newer[:cut]:
                    file.close()
                newer = newer[cut:]
            if not newer:
                return
            self._older += newer

    def close(self) -> None:
        for file in self._older:
            file.close()


def _parse_open(parser: LineParser, source: _Source) -> Iterator[LogLine]:
    for chunk in source.chunks():
        yield from parser.feed(chunk)
