"""What every command gets: where the store is, and the engine once it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine


def _open_engine(root: str | None, run_root: str | None) -> Engine:
    from pyengine.engine.engine import Engine

    return Engine(root=root, run_root=run_root)


class Session:
    """The global options of one command line. ``opener`` makes the engine."""

    def __init__(self, opener: Callable[[str | None, str | None], Any] = _open_engine) -> None:
        self.root: str | None = None
        self.run_root: str | None = None
        self.debug = False
        self._opener = opener

    def engine(self) -> Engine:
        """An engine over the store that was named. The caller closes it (``with``)."""
        engine: Engine = self._opener(self.root, self.run_root)
        return engine
