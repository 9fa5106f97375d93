"""Progress of long work, on a terminal: a line a layer. Nothing at all where stderr is none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyengine.cli.human import describe_size
from pyengine.cli.output import is_terminal, visible

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Callback = Callable[[Any], None]


@contextmanager
def shown(title: str, *, quiet: bool) -> Iterator[Callback | None]:
    """A callback for the events of a transfer, to be shown during the block; None when nobody would see them."""
    if quiet or not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[state]}", justify="right"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr, highlight=False),
        transient=True,
    )
    with bars:
        yield Display(bars, title)


class Display:
    """Turns the events of a transfer (``pyengine.transports.progress``) into bars."""

    def __init__(self, bars: RichProgress, title: str) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._whole = bars.add_task(visible(title), total=None, state="")

    def __call__(self, event: Any) -> None:
        kind = type(event).__name__
        if kind == "ImageFound":
            name = event.names[0] if event.names else event.id[:12]
            self._bars.update(self._whole, description=visible(name), state=f"{event.layers} layers")
        elif kind == "LayerPresent":
            self._finish(event.diff_id, "present")
        elif kind == "LayerProgress":
            self._bars.update(self._task(event.diff_id), state=describe_size(event.done))
        elif kind == "LayerDone":
            self._finish(event.diff_id, describe_size(event.size))
        elif kind == "Saving":
            self._finish(event.digest, describe_size(event.size))
        elif kind == "Committing":
            self._bars.update(self._whole, state="writing to disk")

    def _task(self, digest: str) -> TaskID:
        if digest not in self._tasks:
            name = visible(digest.partition(":")[2][:12])
            self._tasks[digest] = self._bars.add_task(f"  layer {name}", total=None, state="")
        return self._tasks[digest]

    def _finish(self, digest: str, state: str) -> None:
        self._bars.update(self._task(digest), total=1, completed=1, state=state)
