"""Descriptors with one owner."""

from __future__ import annotations

import os
import warnings
from typing import Self

from pyengine.typing import override


class Fd:
    """Owns one descriptor: closes it on ``close()``, at the end of a ``with`` block, or, with a ``ResourceWarning``,
    when it is forgotten. ``take()`` hands the number over to another owner.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd
        if fd < 0:
            raise ValueError(f"not a descriptor: {fd}")

    def fileno(self) -> int:
        """The number, still owned by this object. ``ValueError`` once closed or taken."""
        if self._fd < 0:
            raise ValueError("the descriptor is closed or has another owner")
        return self._fd

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def take(self) -> int:
        """The number, which the caller owns from here on."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def close(self) -> None:
        """Closes the descriptor; nothing if that was done before."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # forgotten first: a failed close has closed it all the same
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"descriptor {self._fd} was never closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    @override
    def __repr__(self) -> str:
        return f"Fd({self._fd})" if self._fd >= 0 else "Fd(closed)"


def number(fd: Fd | int) -> int:
    """The number of an ``Fd`` or of a plain descriptor that somebody else owns."""
    return fd if isinstance(fd, int) else fd.fileno()
