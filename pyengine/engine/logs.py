"""The log of a container, as long as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyengine.engine.config import ContainerConfig
from pyengine.errors import InvalidValue
from pyengine.runtime import logs
from pyengine.runtime.state import read_state

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine


def lines(
    engine: Engine, config: ContainerConfig, follow: bool, since: int | None, tail: int | None
) -> Iterator[logs.LogLine]:
    """The lines of the log. Raises `InvalidValue` for a container that keeps none."""
    if not config.log_path:
        raise InvalidValue(f"container {config.name} keeps no log: it was created with the log driver none")
    if not follow:
        return logs.read(config.log_path, since=since, tail=tail)
    return _follow(engine, config, since, tail)


def _follow(engine: Engine, config: ContainerConfig, since: int | None, tail: int | None) -> Iterator[logs.LogLine]:
    run = engine.layout.run(config.id)
    facts = read_state(run)
    if not facts.monitor_alive or facts.monitor is None:
        yield from logs.read(config.log_path, since=since, tail=tail)
        return
    pidfd = facts.monitor.open()
    if pidfd is None:
        yield from logs.read(config.log_path, since=since, tail=tail)
        return
    with pidfd:
        # The monitor writes the log, so nothing comes once it is gone; it outlives restarts of the container.
        yield from logs.follow(
            config.log_path,
            lambda: read_state(run).phase not in ("created", "running", "restarting"),
            pidfd.fileno,
            since=since,
            tail=tail,
        )
