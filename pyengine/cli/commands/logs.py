"""logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from pyengine.cli.arguments import Command, switch, value, words
from pyengine.cli.human import SECOND, parse_moment
from pyengine.cli.session import Session
from pyengine.errors import InvalidValue

if TYPE_CHECKING:
    from pyengine.engine.container import Container
    from pyengine.runtime.logs import LogLine


@click.pass_obj
def logs(
    session: Session,
    /,
    *,
    names: tuple[str, ...],
    follow: bool,
    latest: bool,
    since: str,
    until: str,
    tail: int,
    timestamps: bool,
    show_names: bool,
) -> int:
    from pyengine.cli import containers

    if bool(names) == latest:
        raise InvalidValue("name containers, or use --latest" if latest else "a container has to be named")
    now = time.time_ns()
    start = parse_moment(since, now) if since else None
    end = parse_moment(until, now) if until else None
    if follow and end is not None and end <= now:
        follow = False  # whatever comes from now on is too late
    with session.engine() as engine:
        chosen = [containers.latest(engine)] if latest else [engine.containers.get(name) for name in names]

        def read(container: Container) -> Iterator[LogLine]:
            return container.logs(follow=follow, since=start, tail=tail if tail >= 0 else None)

        with _until(end if follow else None):
            for container, line in _lines(chosen, read, follow):
                if end is None or _moment(line) <= end:
                    label = container.name if show_names else container.short_id if len(chosen) > 1 else ""
                    _print(line, label, timestamps)
    return 0


class _TimeIsUp(BaseException):
    """The moment of ``--until`` has come."""


@contextmanager
def _until(end: int | None) -> Iterator[None]:
    """Leaves the block at a moment, however long the next line takes to come."""
    import signal

    def ring(*_: object) -> None:
        raise _TimeIsUp

    if end is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, (end - time.time_ns()) / SECOND))
    try:
        yield
    except _TimeIsUp:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _moment(line: LogLine) -> int:
    from pyengine.runtime.logs import nanoseconds

    return nanoseconds(line.time)


def _lines(
    containers: Sequence[Container], read: Callable[[Container], Iterator[LogLine]], follow: bool
) -> Iterator[tuple[Container, LogLine]]:
    if len(containers) == 1:
        yield from ((containers[0], line) for line in read(containers[0]))
    elif follow:
        yield from _concurrently(containers, read)
    else:
        import heapq

        streams = [_stamped(number, read(container)) for number, container in enumerate(containers)]
        yield from ((containers[number], line) for _, number, line in heapq.merge(*streams, key=lambda item: item[:2]))


def _stamped(number: int, lines: Iterator[LogLine]) -> Iterator[tuple[int, int, LogLine]]:
    return ((_moment(line), number, line) for line in lines)


def _concurrently(
    containers: Sequence[Container], read: Callable[[Container], Iterator[LogLine]]
) -> Iterator[tuple[Container, LogLine]]:
    import queue
    import threading

    # bounded, so that a container that writes faster than we print waits in its file and not in our memory
    lines: queue.Queue[tuple[Container, LogLine] | BaseException | None] = queue.Queue(1000)

    def collect(container: Container) -> None:
        try:
            for line in read(container):
                lines.put((container, line))
        except BaseException as error:  # noqa: BLE001 - raised again where the lines are printed
            lines.put(error)
        else:
            lines.put(None)

    for container in containers:
        threading.Thread(target=collect, args=[container], daemon=True).start()
    running = len(containers)
    while running:
        item = lines.get()
        if item is None:
            running -= 1
        elif isinstance(item, BaseException):
            raise item
        else:
            yield item


def _print(line: LogLine, label: str, timestamps: bool) -> None:
    stream = sys.stderr if line.stream == "stderr" else sys.stdout
    prefix = f"{label} " if label else ""
    if timestamps:
        prefix += f"{line.time} "
    # a piece of a line that is to stand for itself ends here, whatever comes after it
    end = b"" if line.partial and not prefix else b"\n"
    stream.buffer.write(prefix.encode() + line.text + end)
    stream.flush()


COMMANDS = {
    "logs": Command(
        "logs",
        callback=logs,
        help="Show what containers wrote to stdout and stderr.",
        params=[
            switch("--follow", "-f", help="Go on with what comes, until the container ends"),
            switch("--latest", "-l", help="The container that was created last"),
            value("--since", default="", metavar="TIME", help="What came after: a time, or a duration ago (10m)"),
            value("--until", default="", metavar="TIME", help="What came before: a time, or a duration ago"),
            value("--tail", type=int, default=-1, metavar="LINES", help="The last lines only (default: all)"),
            switch("--timestamps", "-t", help="The time before each line"),
            switch("--names", "-n", "show_names", help="The container's name before each line"),
            words("names", metavar="CONTAINER..."),
        ],
    )
}
