"""Times and sizes as people read them, and points in time as people write them.

Pure functions. The words are podman's (reference: containers.md §4 Ps, images.md §8).
"""

from __future__ import annotations

import re

from pyengine.errors import InvalidValue

SECOND = 10**9
"""Nanoseconds, the unit of every time here."""

_MINUTE, _HOUR = 60 * SECOND, 3600 * SECOND
_DAY, _WEEK, _MONTH, _YEAR = 24, 7 * 24, 30 * 24, 365 * 24  # in hours

_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_UNIX = re.compile(r"(\d{1,11})(?:\.(\d{1,9}))?", re.ASCII)
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?))?(Z|[+-]\d\d:\d\d)?", re.ASCII)


def describe_duration(duration: int) -> str:
    """About how long: ``5 seconds``, ``About an hour``, ``3 weeks``. Below a second (and below 0, when a clock was set
    back) it is ``Less than a second``."""
    if duration < SECOND:
        return "Less than a second"
    if duration < _MINUTE:
        return _count(duration // SECOND, "second")
    if duration < _HOUR:
        minutes = duration // _MINUTE
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = (duration + _HOUR // 2) // _HOUR
    if hours == 1:
        return "About an hour"
    # from a unit to the next there is room for two of the larger one, so that no unit but the second is ever singular
    for limit, size, word in (
        (2 * _DAY, 1, "hours"),
        (2 * _WEEK, _DAY, "days"),
        (2 * _MONTH, _WEEK, "weeks"),
        (2 * _YEAR, _MONTH, "months"),
    ):
        if hours < limit:
            return f"{hours // size} {word}"
    return f"{hours // _YEAR} years"


def _count(number: int, unit: str) -> str:
    return f"1 {unit}" if number == 1 else f"{number} {unit}s"


def describe_age(since: int, now: int) -> str:
    """``3 minutes ago``, from two times in nanoseconds since 1970."""
    return f"{describe_duration(now - since)} ago"


def describe_size(size: int) -> str:
    """Bytes in decimal units with three significant digits: ``5.86 MB``, ``0 B``."""
    if size < 0:
        return f"-{describe_size(-size)}"
    value, unit = float(size), 0
    # 999.5 and more would be written with four digits, or as 1e+03
    while value >= 999.5 and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_SIZE_UNITS[unit]}" if value < 999.5 else f"{value:.0f} {_SIZE_UNITS[unit]}"


def describe_moment(moment: int) -> str:
    """Nanoseconds since 1970 as podman's long form, in UTC: ``2026-01-31 12:00:00.5 +0000 UTC``."""
    date, fraction = _utc(moment)
    return f"{date.replace('T', ' ')}{f'.{fraction}' if fraction else ''} +0000 UTC"


def format_rfc3339(moment: int) -> str:
    """Nanoseconds since 1970 in RFC 3339, in UTC, without needless zeros: ``2026-01-31T12:00:00.5Z``."""
    date, fraction = _utc(moment)
    return f"{date}{f'.{fraction}' if fraction else ''}Z"


def _utc(moment: int) -> tuple[str, str]:
    import time

    seconds, rest = divmod(moment, SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)), f"{rest:09}".rstrip("0")


def parse_moment(text: str, now: int) -> int:
    """Nanoseconds since 1970 from what ``--since`` and ``--until`` take.

    That is RFC 3339 (``2026-01-31T12:00:00Z``) or the beginning of it (a date, a time without seconds or zone: local
    time), seconds since 1970 (``1769860800.5``), or a duration before ``now`` (``10m``, ``1h30m``). Anything else
    raises `InvalidValue`.
    """
    if match := _UNIX.fullmatch(text):
        return int(match[1]) * SECOND + int((match[2] or "").ljust(9, "0"))
    if match := _DATE.fullmatch(text):
        return _parse_date(text, match[1], match[2] or "00:00:00", match[3])
    from pyengine.engine.values import parse_duration

    try:
        return now - parse_duration(text)
    except InvalidValue:
        raise InvalidValue(
            f"time {text[:60]!r}: expected a time such as 2026-01-31T12:00:00Z, seconds since 1970, or a duration "
            "before now such as 10m"
        ) from None


def _parse_date(text: str, day: str, clock: str, zone: str | None) -> int:
    import datetime

    whole, _, fraction = clock.partition(".")
    try:
        moment = datetime.datetime.fromisoformat(f"{day}T{whole}{(zone or '').replace('Z', '+00:00')}")
        return int(moment.timestamp()) * SECOND + int(fraction.ljust(9, "0"))
    except (ValueError, OverflowError) as error:
        raise InvalidValue(f"time {text[:60]!r}: {error}") from None
