"""Crash points for tests: the process kills itself, as ``kill -9`` would, at a step that a test names.

``PYENGINE_FAULT=name`` does it at the first time that ``fault("name")`` is reached, ``name:n`` at the n-th time. The
variable is read once, at import; without it ``fault`` is a call of an empty function. ``PYENGINE_MONITOR_FAULT`` does
the same to the monitors that this process starts (native/monitor/faults.h has their points).

There is no handler to run and nothing to flush: what is on the disk and in the kernel at this moment is all that the
next process finds. Every point is declared with :func:`declare` where it is used, so that a test can go through all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_declared: set[str] = set()


def declare(*names: str) -> tuple[str, ...]:
    """Make known that ``fault(name)`` is called for each of ``names``; returns them for the module to export."""
    _declared.update(names)
    return names


def declared() -> frozenset[str]:
    """The fault points of all modules that are imported by now."""
    return frozenset(_declared)


def killer(setting: str) -> Callable[[str], None]:
    """The function that ``fault`` is for a value of the variable."""
    wanted, _, count = setting.partition(":")
    remaining = int(count or "1")

    def reached(name: str) -> None:
        nonlocal remaining
        if name == wanted:
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reached


def _nothing(name: str) -> None:
    """No fault is wanted in this process."""


#: the fault point of monitors; empty: none
monitor_fault: str = os.environ.get("PYENGINE_MONITOR_FAULT", "")

fault: Callable[[str], None] = killer(os.environ["PYENGINE_FAULT"]) if "PYENGINE_FAULT" in os.environ else _nothing
