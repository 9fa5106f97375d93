"""What a container is doing, read where it lives: the monitor's facts, the process, the cgroup."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyengine.engine.config import ContainerConfig
from pyengine.errors import ContainerNotFound
from pyengine.runtime.state import State, read_state

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class ContainerState:
    """`status` is a word of io.podman: configured, created, running, paused, stopped or exited.

    `pid` is that of the first process as the host counts, 0 when there is none. Times are nanoseconds since 1970, 0
    for never. `exit_code` is that of the last run, 0 before the first, -1 when
    nobody could learn it (`error` says why).
    """

    status: str = "configured"
    pid: int = 0
    monitor_pid: int = 0
    exit_code: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    oom_killed: bool = False
    restarts: int = 0
    error: str = ""

    @property
    def running(self) -> bool:
        """It has a first process: it runs, is paused, or is held before its command."""
        return self.pid != 0


_STATUS = {"": "configured", "created": "created", "running": "running", "restarting": "running", "exited": "exited"}


def read(engine: Engine, config: ContainerConfig) -> ContainerState:
    """The state of one container. Raises `ContainerNotFound` when it was removed."""
    facts = read_state(engine.layout.run(config.id))
    if not facts.phase and not os.path.isdir(engine.layout.container(config.id)):
        raise ContainerNotFound(config.id, f"no container with ID {config.id} found: no such container")
    return from_facts(engine, config, facts)


def from_facts(engine: Engine, config: ContainerConfig, facts: State) -> ContainerState:
    """The state that the monitor's facts mean; asks the cgroup whether a running container is frozen."""
    if facts.phase == "failed":
        return ContainerState(status="configured", finished_ns=facts.finished_ns, error=facts.error)
    status = _STATUS[facts.phase]
    if status == "running" and facts.phase == "running" and engine.cgroups.is_frozen(config.cgroup):
        status = "paused"
    alive = status in ("created", "running", "paused")
    return ContainerState(
        status=status,
        pid=facts.pid.pid if alive and facts.pid else 0,
        monitor_pid=facts.monitor.pid if alive and facts.monitor else 0,
        exit_code=facts.exit_code,
        started_ns=facts.started_ns,
        finished_ns=facts.finished_ns,
        oom_killed=facts.oom_killed,
        restarts=facts.restarts,
        error=facts.error,
    )
