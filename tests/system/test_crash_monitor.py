"""kill -9 of a monitor at every fault point of its own, and while its container runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashes import HERE, SLEEPER, Site, open_engine, places
from engines import IMAGE, eventually

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import InvalidState, PyengineError
from pyengine.linux import faults
from pyengine.runtime.state import MONITOR_KILLED, monitored

pytestmark = pytest.mark.rootless

LIST = (HERE.parent.parent / "native/monitor/faults.h").read_text()
POINTS = re.findall(r"\bX\((\w+)\)", LIST.replace("FAULT_POINTS(X)", ""))
LATE = ("reaped", "exit_published", "before_cleanup", "cgroup_removed")
WITHOUT_A_WORD = "the monitor of the container ended without a word: it was killed"
ENDING = ["sh", "-c", "echo begun; exit 4"]
WRITER = ["sh", "-c", "while :; do echo a line of some length that fills the log; done"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    with open_engine(site.directory) as engine:
        engine.reset()


@pytest.fixture
def engine(site: Site) -> Iterator[Engine]:
    with open_engine(site.directory) as engine:
        yield engine
        for box in engine.containers.list(all=True):
            if box.id not in site.ids:
                box.remove(force=True)
        with open_engine(site.directory) as last:
            assert site.left(last, engine) == []
            site.check(last)


def test_there_are_points() -> None:
    assert len(POINTS) >= 13


def start(box: Container, way: str) -> str:
    """Start it one way or the other; the error."""
    try:
        if way == "start":
            box.start()
        elif way == "initialised":
            box.init()
            box.start()
        else:
            with box.start_attached() as attachment:
                attachment.wait(20)
    except PyengineError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("way", ["start", "initialised", "attached"])
@pytest.mark.parametrize("point", POINTS)
def test_a_monitor_killed_during_a_start(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch, point: str, way: str
) -> None:
    if point == "log_rotated":
        box = engine.containers.create(IMAGE, WRITER, log_opt=["max-size=4k"])
    else:
        box = engine.containers.create(IMAGE, ENDING if point in LATE or way == "attached" else SLEEPER)
    monkeypatch.setattr(faults, "monitor_fault", point)
    error = start(box, way)
    assert error in ("", WITHOUT_A_WORD, f"container {box.name} did not end within 20 seconds") or (
        way == "initialised" and MONITOR_KILLED in error
    )
    monkeypatch.setattr(faults, "monitor_fault", "")
    passed = point != "start_requested" or way == "initialised"
    run = engine.layout.run(box.id)
    if passed:
        assert eventually(lambda: not monitored(run))
    with open_engine(site.directory) as later:
        site.check(later, light=True)
        again = later.containers.get(box.id)
        assert eventually(lambda: again.status in ("configured", "running", "exited"))  # what was held ends
        state = again.state()
        if state.status == "exited" and point not in ("exit_published", "before_cleanup", "cgroup_removed") and passed:
            assert (state.exit_code, state.error) == (-1, MONITOR_KILLED)
        if state.status == "running":
            again.stop(0)
            assert again.status == "exited"
        again.start()
        if again.config.command[2] == ENDING[2]:
            assert again.wait(20) == 4
        else:
            assert again.exec(["echo", "hi"]).stdout == b"hi\n"
            again.stop(0)
        assert next(iter(again.logs())).text.startswith(b"a line" if point == "log_rotated" else b"begun")


@pytest.mark.parametrize("point", [name for name in POINTS if name not in ("start_requested", "log_rotated")])
def test_a_monitor_killed_during_an_exec(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    witness = engine.containers.get("witness")
    monkeypatch.setattr(faults, "monitor_fault", point)
    result, error = None, ""
    try:
        result = witness.exec(["echo", "out"], timeout=20)
    except PyengineError as caught:
        error = str(caught)
    if result is None:
        assert error == WITHOUT_A_WORD
    else:
        assert (result.exit_code, result.stdout) == (0, b"out\n")
    monkeypatch.setattr(faults, "monitor_fault", "")
    site.check(engine)
    with open_engine(site.directory) as later:
        site.check(later)
        assert site.left(later, engine) == []


def kill_monitor(box: Container) -> int:
    """The pid of the container, which runs on."""
    state = box.state()
    os.kill(state.monitor_pid, signal.SIGKILL)
    assert eventually(lambda: not monitored(box.engine.layout.run(box.id)))
    assert (box.status, box.state().pid) == ("running", state.pid)
    return state.pid


def test_a_container_whose_monitor_was_killed_runs_until_it_ends(engine: Engine, site: Site) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"])
    box.start()
    kill_monitor(box)
    with open_engine(site.directory) as later:
        again = later.containers.get(box.id)
        assert again.status == "running"
        assert again.exec(["echo", "hi"]).stdout == b"hi\n"
        again.kill("TERM")
        assert again.wait(20) == -1
        state = again.state()
        assert (state.status, state.exit_code, state.error) == ("exited", -1, MONITOR_KILLED)
    with open_engine(site.directory) as later:
        assert site.left(later, engine) == []
        assert later.containers.get(box.id).state().error == MONITOR_KILLED


def test_without_a_monitor_it_can_be_stopped_started_and_removed(engine: Engine, site: Site) -> None:
    box = engine.containers.create(IMAGE, SLEEPER)
    box.start()
    kill_monitor(box)
    box.stop()
    assert (box.status, box.state().exit_code) == ("exited", -1)
    assert site.left(engine) == []
    box.start()
    assert box.exec(["echo", "hi"]).stdout == b"hi\n"
    kill_monitor(box)
    with pytest.raises(PyengineError, match=f"cannot remove container {box.name}: it is running; stop it first"):
        box.remove()
    box.remove(force=True)
    assert not engine.containers.exists(box.id)


def test_a_paused_container_without_a_monitor_can_be_removed(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, SLEEPER)
    box.start()
    box.pause()
    os.kill(box.state().monitor_pid, signal.SIGKILL)
    assert eventually(lambda: not monitored(engine.layout.run(box.id)))
    assert box.status == "paused"
    box.remove(force=True)


def test_a_monitor_killed_while_it_is_stopped(engine: Engine, site: Site) -> None:
    """What waits for the end hears of it, and stop goes on without."""
    box = engine.containers.create(IMAGE, ["sh", "-c", "trap '' TERM; echo begun; while :; do sleep 0.05; done"])
    box.start()
    script = f"import os, time; time.sleep(0.5); os.kill({box.state().monitor_pid}, 9)"
    with subprocess.Popen([sys.executable, "-c", script]):
        box.stop(30)
    assert (box.status, box.state().error) == ("exited", MONITOR_KILLED)
    assert site.left(engine) == []


def test_a_container_to_be_removed_is_removed_though_its_monitor_was_killed(engine: Engine, site: Site) -> None:
    box = engine.containers.create(IMAGE, SLEEPER, rm=True)
    box.start()
    pid = kill_monitor(box)
    with open_engine(site.directory) as later:
        assert later.containers.get(box.id).status == "running"
    os.kill(pid, signal.SIGKILL)
    assert box.wait(20) == -1
    with open_engine(site.directory) as later:
        assert not later.containers.exists(box.id)


@pytest.mark.parametrize("dies", [True, False])
def test_die_with_parent(engine: Engine, site: Site, dies: bool) -> None:
    name = f"child-{dies}".lower()
    script = (
        f"import sys, os; sys.path[:0] = [{str(HERE.parent.parent)!r}]\n"
        f"from pyengine import Engine\n"
        f"engine = Engine(*{places(site.directory)!r})\n"
        f"engine.containers.create({IMAGE!r}, {SLEEPER!r}, name={name!r}, die_with_parent={dies}).start()\n"
        f"os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == -signal.SIGKILL
    box = engine.containers.get(name)
    if dies:
        assert box.wait(20) == 137
        assert eventually(lambda: not monitored(engine.layout.run(box.id)))
        with open_engine(site.directory) as later:
            assert site.left(later, engine) == []
    else:
        assert box.status == "running"


def test_a_log_that_cannot_be_written_is_no_crash(engine: Engine, tmp_path: Path) -> None:
    """The directory of the log is not there: that is an error of the start, and nothing stays."""
    box = engine.containers.create(IMAGE, SLEEPER, log_opt=[f"path={tmp_path}/absent/log"])
    with pytest.raises(PyengineError, match=r"^set the container up: No such file or directory \(open the log\)$"):
        box.start()
    assert box.status == "configured"


def test_what_was_held_by_a_monitor_that_was_killed_can_be_started(engine: Engine, site: Site) -> None:
    for attached in (False, True):
        box = engine.containers.create(IMAGE, SLEEPER)
        box.init()
        os.kill(box.state().monitor_pid, signal.SIGKILL)
        assert eventually(lambda: not monitored(engine.layout.run(box.id)))  # noqa: B023
        if attached:
            with box.start_attached() as attachment:
                assert attachment.read() == ("stdout", b"begun\n")
        else:
            box.start()
        assert box.status == "running"


def test_attaching_without_a_monitor_is_an_error_that_says_so(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, SLEEPER)
    box.start()
    kill_monitor(box)
    with pytest.raises(
        InvalidState, match=f"^cannot attach to container {box.name}: it has just ended, or its monitor was killed$"
    ):
        box.attach()
