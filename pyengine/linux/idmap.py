"""User and group id maps of user namespaces, and the ranges that a user may map (/etc/subuid, /etc/subgid)."""

from __future__ import annotations

import errno
import itertools
import os
import pwd
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pyengine.errors import CannotEnforce, InvalidValue, KernelError
from pyengine.linux import calls
from pyengine.linux.spawn import find_program, run
from pyengine.typing import override

ID_LIMIT: Final = (1 << 32) - 1  # the last number, 2³² - 1, means "no id"
MAX_ENTRIES: Final = 340  # of one uid_map: UID_GID_MAP_MAX_EXTENTS of the kernel
_SUBID_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, order=True)
class IdMap:
    """``size`` ids from ``container`` on are those from ``host`` on, outside."""

    container: int
    host: int
    size: int

    def __post_init__(self) -> None:
        for name in ("container", "host"):
            if not 0 <= getattr(self, name) < ID_LIMIT:
                raise InvalidValue(f"id map {self}: {name} must be from 0 to {ID_LIMIT - 1}")
        if self.size < 1 or max(self.container, self.host) + self.size > ID_LIMIT:
            raise InvalidValue(f"id map {self}: the size must be at least 1 and the last id at most {ID_LIMIT - 1}")

    @override
    def __str__(self) -> str:
        return f"{self.container}:{self.host}:{self.size}"

    @classmethod
    def parse(cls, text: str) -> IdMap:
        """``CONTAINER:HOST[:SIZE]``, one id where no size is given."""
        fields = text.split(":")
        if len(fields) not in (2, 3) or not all(field.isascii() and field.isdigit() for field in fields):
            raise InvalidValue(f"not an id map: {text[:80]!r}: expected CONTAINER:HOST:SIZE")
        if any(len(field) > 10 for field in fields):
            raise InvalidValue(f"not an id map: {text[:80]!r}: a number is too large")
        container, host, *size = map(int, fields)
        return cls(container, host, size[0] if size else 1)


def check_maps(maps: Sequence[IdMap]) -> tuple[IdMap, ...]:
    """The maps in the order of their container ids. ``InvalidValue`` if there are none or too many, or if two share an
    id inside or outside: the kernel would refuse them with a bare EINVAL."""
    if not 1 <= len(maps) <= MAX_ENTRIES:
        raise InvalidValue(f"a user namespace takes 1 to {MAX_ENTRIES} id maps, not {len(maps)}")
    for side in ("container", "host"):
        ordered = sorted(maps, key=lambda item: int(getattr(item, side)))
        for first, second in itertools.pairwise(ordered):
            if getattr(first, side) + first.size > getattr(second, side):
                raise InvalidValue(f"id maps {first} and {second} overlap: they share a {side} id")
    return tuple(sorted(maps))


def to_host(maps: Iterable[IdMap], container: int) -> int | None:
    """The id outside for one inside, or None if it is not mapped."""
    for item in maps:
        if item.container <= container < item.container + item.size:
            return item.host + container - item.container
    return None


def to_container(maps: Iterable[IdMap], host: int) -> int | None:
    """The id inside for one outside, or None if it is not mapped."""
    for item in maps:
        if item.host <= host < item.host + item.size:
            return item.container + host - item.host
    return None


def parse_proc_map(content: str) -> tuple[IdMap, ...]:
    """The content of /proc/PID/uid_map or gid_map. That of the first user namespace covers all of 2³² - 1 ids."""
    maps = []
    for line in content.splitlines():
        fields = line.split()
        if len(fields) != 3 or not all(field.isascii() and field.isdigit() for field in fields):
            raise InvalidValue(f"not a line of an id map: {line[:80]!r}")
        maps.append(IdMap(*map(int, fields)))
    return tuple(maps)


@dataclass(frozen=True, slots=True)
class SubordinateRange:
    """Ids that a user may map into user namespaces."""

    start: int
    size: int


def parse_subids(content: bytes, name: str, uid: int) -> list[SubordinateRange]:
    """The ranges of the user ``name`` or ``uid`` in the content of /etc/subuid or /etc/subgid (subuid(5)). Lines that
    are no ``owner:start:size`` or lie outside of the ids there are belong to nobody, as newuidmap sees it too."""
    ranges = []
    owners = {os.fsencode(name), str(uid).encode()} - {b""}
    for line in content.split(b"\n"):
        fields = line.strip().split(b":")
        if len(fields) != 3 or fields[0] not in owners:
            continue
        start, size = fields[1], fields[2]
        if not (start.isdigit() and size.isdigit() and len(start) <= 10 and len(size) <= 10):
            continue
        if int(size) > 0 and int(start) > 0 and int(start) + int(size) <= ID_LIMIT:
            ranges.append(SubordinateRange(int(start), int(size)))
    return ranges


def read_subids(path: str, uid: int) -> list[SubordinateRange]:
    """The ranges of ``uid`` in the file ``path``; none when the file is absent."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    try:
        with calls.open(path, os.O_RDONLY | os.O_NONBLOCK) as fd:
            content = calls.run("read", path, os.read, fd.fileno(), _SUBID_BYTES)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    return parse_subids(content, name, uid)


def default_map(own: int, ranges: Sequence[SubordinateRange]) -> tuple[IdMap, ...]:
    """The map of a rootless user namespace: 0 is the user, 1 and up are the ranges, one behind the other. Ranges that
    overlap another or hold the user's own id are cut to what is left. Without a range only 0 is mapped."""
    maps = [IdMap(0, own, 1)]
    following = 1
    taken = [(own, own + 1)]
    for item in ranges:
        for start, end in _without(item.start, item.start + item.size, taken):
            if len(maps) == MAX_ENTRIES:
                return tuple(maps)
            size = min(end - start, ID_LIMIT - following)
            if size < 1:
                return tuple(maps)
            maps.append(IdMap(following, start, size))
            following += size
        taken.append((item.start, item.start + item.size))
    return tuple(maps)


def _without(start: int, end: int, taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    pieces = [(start, end)]
    for begin, stop in taken:
        pieces = [
            piece
            for low, high in pieces
            for piece in ((low, min(high, begin)), (max(low, stop), high))
            if piece[0] < piece[1]
        ]
    return pieces


@dataclass(frozen=True, slots=True)
class RootlessMaps:
    """The maps of a rootless user namespace. ``single_id``: nothing but the user's own id is mapped, so that files of
    other owners cannot be made, and programs cannot change to another user inside."""

    uids: tuple[IdMap, ...]
    gids: tuple[IdMap, ...]

    @property
    def single_id(self) -> bool:
        return len(self.uids) == 1 and len(self.gids) == 1


def rootless_maps(uid: int, gid: int, subuid: str = "/etc/subuid", subgid: str = "/etc/subgid") -> RootlessMaps:
    """What the user may map by default. Without a range in both files it is the single-id mode: half a map would give
    files an owner but no group."""
    uids, gids = read_subids(subuid, uid), read_subids(subgid, uid)
    if not uids or not gids:
        return RootlessMaps((IdMap(0, uid, 1),), (IdMap(0, gid, 1),))
    return RootlessMaps(default_map(uid, uids), default_map(gid, gids))


def write_maps(pid: int, maps: RootlessMaps) -> None:
    """Gives the user namespace of process ``pid`` its maps: directly as root and for a single id, else by newuidmap and
    newgidmap.

    ``MissingProgram`` when those are absent (package uidmap), ``CannotEnforce`` with their own words when they refuse.
    """
    root = os.geteuid() == 0
    if root or maps.single_id:
        texts = [("uid_map", _proc_text(maps.uids)), ("gid_map", _proc_text(maps.gids))]
        if not root:
            # A user without privilege may map his group only after setgroups is denied (user_namespaces(7)).
            texts.insert(0, ("setgroups", "deny"))
        for name, text in texts:
            path = f"/proc/{pid}/{name}"
            with calls.open(path, os.O_WRONLY) as fd:
                calls.run("write", f"{text!r} to {path}", os.write, fd.fileno(), text.encode())
        return
    for program, items in (("newuidmap", maps.uids), ("newgidmap", maps.gids)):
        executable = find_program(program, "uidmap", "mapping a range of ids for rootless containers")
        numbers = [str(number) for item in items for number in (item.container, item.host, item.size)]
        ended = run([program, str(pid), *numbers], executable=executable, timeout=20)
        if ended.exit_code != 0:
            said = (ended.stderr or ended.stdout).decode(errors="replace").strip().replace("\n", "; ")
            shown = " ".join(map(str, items))
            raise CannotEnforce(
                f"{executable} refused to map {shown}: {said or f'exit status {ended.exit_code}'} "
                f"(it must be setuid root or have its file capability, and the ranges must be those of "
                f"/etc/{'subuid' if program == 'newuidmap' else 'subgid'})"
            )


def _proc_text(maps: Iterable[IdMap]) -> str:
    return "".join(f"{item.container} {item.host} {item.size}\n" for item in maps)
