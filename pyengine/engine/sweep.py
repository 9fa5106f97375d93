"""What crashed processes left in the run directory and in cgroups: found when an engine is opened, and removed.

Running containers are left alone, whether or not somebody still watches them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyengine.engine.config import ContainerConfig
from pyengine.errors import ContainerNotFound
from pyengine.linux.fd import Fd
from pyengine.runtime.state import monitored, read_state

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine


def sweep(engine: Engine) -> None:
    """Look at every container that has a run directory."""
    ids = os.listdir(f"{engine.layout.run_root}/containers")
    for id in ids:
        facts = read_state(engine.layout.run(id))
        if facts.monitor_alive:
            _sweep_sessions(engine, id)
            continue
        known = os.path.isdir(engine.layout.container(id))
        if known and facts.phase == "exited" and not facts.error:
            continue  # it ended as it should: the facts stay, its monitor left nothing
        _settle(engine, id)


@contextmanager
def _idle(engine: Engine, id: str) -> Iterator[bool]:
    """Whether nobody starts, removes or executes in the container right now; nobody does then until this is left.

    Raises `FileNotFoundError` when its directory is gone."""
    path = engine.layout.container(id)
    with Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
        try:
            fcntl.flock(directory.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield os.path.isdir(path)


def _settle(engine: Engine, id: str) -> None:
    """A container whose monitor is gone: unless its process runs on, or somebody is just starting it, its cgroup goes;
    without a row, its run directory as well."""
    run = engine.layout.run(id)
    try:
        config = ContainerConfig.decode(engine.store.containers.get(id).config)
        with _idle(engine, id) as idle:
            if idle and not monitored(run):
                _clear(engine, config)
    except (ContainerNotFound, FileNotFoundError):
        engine.cgroups.kill(id)
        engine.cgroups.remove(id)
        engine.remove_tree(run)


def _clear(engine: Engine, config: ContainerConfig) -> None:
    from pyengine.engine.lifecycle import delete

    run = engine.layout.run(config.id)
    facts = read_state(run)
    if facts.process_alive:
        return
    engine.cgroups.kill(config.cgroup)
    engine.cgroups.remove(config.cgroup)
    if facts.phase != "exited":
        engine.remove_tree(run)
    elif config.auto_remove:
        delete(engine, config)  # its monitor could not see to that


def _sweep_sessions(engine: Engine, id: str) -> None:
    """Exec sessions that ended, or never came to be, while no engine looked."""
    try:
        sessions = os.listdir(f"{engine.layout.run(id)}/exec")
        config = ContainerConfig.decode(engine.store.containers.get(id).config)
        if not sessions and not engine.cgroups.session_groups(config.cgroup):
            return
        with _idle(engine, id) as idle:
            if not idle:
                return
            alive = set()
            for session in sessions:
                path = engine.layout.session(id, session)
                if monitored(path) or read_state(path).process_alive:
                    alive.add(session)
                else:
                    engine.remove_tree(path)
            engine.cgroups.sweep_sessions(config.cgroup, alive)
    except (ContainerNotFound, FileNotFoundError):
        return  # it is being removed
