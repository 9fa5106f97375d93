"""What crashed processes left in the run directory and in cgroups: found when an engine is opened, and removed.

Running containers are left alone, whether or not somebody still watches them.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from pyengine.linux.fd import Fd
from pyengine.runtime.state import read_state

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


def _settle(engine: Engine, id: str) -> None:
    """A container whose monitor is gone: unless its process runs on, or somebody is just starting it, its cgroup goes;
    without a row, its run directory as well."""
    try:
        directory = Fd(os.open(engine.layout.container(id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError:
        engine.cgroups.kill(id)
        engine.cgroups.remove(id)
        engine.remove_tree(engine.layout.run(id))
        return
    with directory:
        try:
            fcntl.flock(directory.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # it is being started or removed right now
        facts = read_state(engine.layout.run(id))
        if facts.monitor_alive or facts.process_alive:
            return
        engine.cgroups.kill(id)
        engine.cgroups.remove(id)
        if facts.phase != "exited":
            engine.remove_tree(engine.layout.run(id))


def _sweep_sessions(engine: Engine, id: str) -> None:
    """Exec sessions that ended while no engine looked."""
    try:
        sessions = os.listdir(f"{engine.layout.run(id)}/exec")
    except FileNotFoundError:
        return
    for session in sessions:
        path = engine.layout.session(id, session)
        facts = read_state(path)
        if facts.phase in ("exited", "failed") and not facts.monitor_alive:
            engine.remove_tree(path)
