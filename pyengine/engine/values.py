"""The textual forms of scalar values: sizes, durations, variables, id ranges, lists of numbers.

Pure functions from text to typed values. Every one raises `InvalidValue` that says what was expected. The rules are
those of podman 1.6 (reference: containers.md §5.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

from pyengine.errors import InvalidValue
from pyengine.linux.idmap import IdMap, to_host

LARGEST = (1 << 63) - 1
"""What the kernel's and the interface's signed 64 bits hold."""

LARGEST_ID = (1 << 31) - 1
"""Ids from 2**31 on have wrapped to other users in engines and in tools (CVE-2024-40635); nobody needs them."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.ASCII | re.IGNORECASE)
_UNITS = " kmgtp"
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NANOSECONDS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_CPU_LIST = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*", re.ASCII)


def parse_size(text: str, *, decimal: bool = False) -> int:
    """Bytes. ``512m``, ``1.5 GiB``, ``100``; the units are powers of 1024, or of 1000 with ``decimal``.

    Whether there is an ``i`` in the unit changes nothing, as in podman.
    """
    match = _SIZE.fullmatch(text)
    if match is None or len(text) > 64:
        raise InvalidValue(f"size {text[:40]!r}: expected a number and a unit of b, k, m, g, t or p")
    base = 1000 if decimal else 1024
    size = int(Decimal(match[1]) * base ** (_UNITS.index(match[2].lower()) if match[2] else 0))
    if size > LARGEST:
        raise InvalidValue(f"size {text[:40]!r} does not fit into 63 bits")
    return size


def parse_duration(text: str) -> int:
    """Nanoseconds. Go's form: ``1h30m``, ``1.5s``, ``-300ms``, ``0``."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("+", "-") and text else text
    if rest == "0":
        return 0
    total, position = Decimal(0), 0
    for match in _DURATION.finditer(rest[:100]):
        if match.start() != position:
            break
        total += Decimal(match[1]) * _NANOSECONDS[match[2]]
        position = match.end()
    if not rest or position != len(rest):
        raise InvalidValue(
            f"duration {text[:40]!r}: expected numbers with units of ns, us, ms, s, m or h, such as 1m30s"
        )
    if total > LARGEST:
        raise InvalidValue(f"duration {text[:40]!r} is longer than 292 years")
    return sign * int(total)


def parse_integer(text: str, what: str, least: int = -LARGEST - 1, most: int = LARGEST) -> int:
    """A decimal number from ``least`` to ``most``; ``what`` names it in the error."""
    value = int(text) if len(text) <= 20 and _INTEGER.fullmatch(text) else None
    if value is None or not least <= value <= most:
        raise InvalidValue(f"{what} {text[:40]!r}: expected an integer from {least} to {most}")
    return value


def parse_cpu_list(text: str, what: str) -> str:
    """A list of processors or memory nodes such as ``0-3,7``, as it is, once it is known to be one."""
    if _CPU_LIST.fullmatch(text) is None:
        raise InvalidValue(f"{what} {text[:40]!r}: expected a list such as 0-3,7")
    for part in text.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise InvalidValue(f"{what} {text[:40]!r}: the range {part} ends before it begins")
    return text


def parse_pairs(items: Iterable[str], what: str) -> dict[str, str]:
    """``KEY=VALUE`` items; the last of equal keys counts."""
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise InvalidValue(f"{what} {item[:100]!r}: expected KEY=VALUE")
        _no_nul(item, what)
        pairs[key] = value
    return pairs


def parse_labels(items: Iterable[str]) -> dict[str, str]:
    """``KEY=VALUE`` items, or ``KEY`` for an empty value."""
    return parse_pairs((item if "=" in item else f"{item}=" for item in items), "label")


def parse_env(items: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Variables. ``K=V``; ``K`` takes the value from ``environment`` if it has one; ``K*`` all that begin so."""
    result = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name or any(c.isspace() for c in name):
            raise InvalidValue(f"env {item[:100]!r}: expected NAME=VALUE or NAME, without blanks in the name")
        _no_nul(item, "env")
        if equals:
            result[name] = value
        elif name.endswith("*"):
            result |= {k: v for k, v in environment.items() if k.startswith(name[:-1])}
        elif name in environment:
            result[name] = environment[name]
    return result


def parse_env_file(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The lines of an environment file: as `parse_env` has them, and empty lines and comments (``#``)."""
    lines = (line.lstrip() for line in text.splitlines())
    return parse_env((line for line in lines if line and not line.startswith("#")), environment)


def _no_nul(text: str, what: str) -> None:
    if "\0" in text:
        raise InvalidValue(f"{what} {text[:100]!r} contains a NUL byte")


IdRange = IdMap
"""A range of ids: ``size`` from ``container`` on inside are those from ``host`` on outside."""


def maps(ranges: Iterable[IdRange], id: int) -> bool:
    """Whether ``id`` means something inside of a user namespace with these ranges."""
    return to_host(ranges, id) is not None
