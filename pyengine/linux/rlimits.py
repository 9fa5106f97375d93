"""Resource limits of processes by name (getrlimit(2))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyengine.errors import InvalidValue

NUMBERS: Final = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
INFINITY: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Rlimit:
    """One limit; ``INFINITY`` is none. ``name`` is the full name."""

    name: str
    soft: int
    hard: int

    def __post_init__(self) -> None:
        if self.name not in NUMBERS:
            raise InvalidValue(f"not a resource limit: {self.name!r}: {', '.join(NUMBERS)} are")
        for value in (self.soft, self.hard):
            if not 0 <= value <= INFINITY:
                raise InvalidValue(f"{self.name}: a limit is from 0 to {INFINITY}, got {value}")
        if self.soft > self.hard:
            raise InvalidValue(f"{self.name}: the soft limit {self.soft} is above the hard limit {self.hard}")

    @property
    def number(self) -> int:
        return NUMBERS[self.name]


def rlimit_name(text: str) -> str:
    """``RLIMIT_NOFILE`` for ``nofile``, ``NOFILE`` or the full name."""
    name = text.strip().upper()
    name = name if name.startswith("RLIMIT_") else f"RLIMIT_{name}"
    if name not in NUMBERS:
        known = ", ".join(key.removeprefix("RLIMIT_").lower() for key in NUMBERS)
        raise InvalidValue(f"not a resource limit: {text!r}: {known} are")
    return name


def parse_rlimit(text: str) -> Rlimit:
    """``NAME=SOFT[:HARD]``; -1 or ``unlimited`` is none; without HARD it is as SOFT."""
    name, separator, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    if not separator or not soft or (colon and not hard):
        raise InvalidValue(f"not a resource limit: {text!r}: expected NAME=SOFT[:HARD], such as nofile=1024:4096")
    return Rlimit(rlimit_name(name), _value(soft, text), _value(hard or soft, text))


def _value(value: str, text: str) -> int:
    if value in ("-1", "unlimited"):
        return INFINITY
    if not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise InvalidValue(f"not a resource limit: {text!r}: {value!r} is no number")
    return int(value)
