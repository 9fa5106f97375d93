"""Signals by name and number."""

from __future__ import annotations

import signal
from typing import Final

from pyengine.errors import InvalidValue

RTMIN: Final = 34  # what glibc and musl leave of the kernel's 32 to 64
RTMAX: Final = 64

NUMBERS: Final = {
    item.name.removeprefix("SIG"): int(item) for item in signal.Signals if not item.name.startswith("SIGRT")
} | {"IOT": 6, "CLD": 17, "POLL": 29, "STKFLT": 16}
_NAMES: Final = {number: name for name, number in NUMBERS.items() if name not in ("IOT", "CLD", "POLL")}


def parse_signal(text: str | int) -> int:
    """The number for ``SIGTERM``, ``term``, ``15``, ``RTMIN+3``, ``SIGRTMAX-1``. ``InvalidValue`` for all else;
    0 is no signal here."""
    name = str(text).strip().upper()
    if name.isascii() and name.isdigit():
        number = int(name)
        if 1 <= number <= RTMAX:
            return number
        raise InvalidValue(f"not a signal: {text!r}: numbers go from 1 to {RTMAX}")
    name = name.removeprefix("SIG")
    if name in NUMBERS:
        return NUMBERS[name]
    for base, start, sign in (("RTMIN", RTMIN, "+"), ("RTMAX", RTMAX, "-")):
        if name == base:
            return start
        offset = name.removeprefix(base + sign)
        if offset != name and offset.isascii() and offset.isdigit():
            number = start + int(offset) if sign == "+" else start - int(offset)
            if RTMIN <= number <= RTMAX:
                return number
    raise InvalidValue(f"not a signal: {text!r}: a name such as TERM, RTMIN+n, or a number from 1 to {RTMAX}")


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15, ``SIGRTMIN+n`` or the number where there is no name. ``InvalidValue`` outside of 1 to 64."""
    if number in _NAMES:
        return f"SIG{_NAMES[number]}"
    if RTMIN <= number <= RTMAX:
        return f"SIGRTMIN+{number - RTMIN}" if number > RTMIN else "SIGRTMIN"
    if 1 <= number < RTMIN:
        return str(number)  # 32 and 33: glibc keeps them to itself
    raise InvalidValue(f"not a signal: {number}")
