"""Times as the documents write them: RFC 3339, with any number of digits behind the second."""

from __future__ import annotations

import calendar
import re

from pyengine.errors import ArchiveError

_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,20}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


def nanoseconds(text: str | None) -> int:
    """Nanoseconds since 1970 of a time of a document. None and Go's zero time (year 1) are 0.

    :raises ArchiveError: it is not a time
    """
    if text is None:
        return 0
    match = _FORM.fullmatch(text)
    if match is None:
        raise ArchiveError(f"{text[:60]!r} is not a time in the form of RFC 3339")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 60):
        raise ArchiveError(f"{text[:60]!r} is not a time in the form of RFC 3339")
    seconds = calendar.timegm((year, month, day, hour, minute, second)) if year >= 1678 else 0
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds += -offset if match[8] == "+" else offset
    if not 1678 <= year <= 2261:  # what fits in 64 bits; Go writes year 1 for "never"
        return 0
    return seconds * 1_000_000_000 + int(((match[7] or "") + "000000000")[:9])


def rfc3339(ns: int) -> str:
    """The time in UTC with nanoseconds, without zeros at the end of the fraction."""
    import time

    seconds, fraction = divmod(ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z" if fraction else text + "Z"
