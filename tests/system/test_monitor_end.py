"""The end of a container: what is left of it, restarts, cleanup, the engine that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from plan_box import (
    NAMESPACES,
    NEWPID,
    Box,
    build_helper,
    cgroup,
    new_box,
    receive,
    until,
    until_gone,
)

from pyengine.errors import StartFailed
from pyengine.runtime import monitor
from pyengine.runtime.plan import (
    Mount,
    Plan,
)
from pyengine.runtime.state import read_state

PTS = Mount("devpts", "devpts", "/dev/pts", 0, ("newinstance", "ptmxmode=0666"), 0, False)


@pytest.fixture(scope="module")
def helper() -> Path:
    return build_helper()


@pytest.fixture
def box(helper: Path):
    with new_box(helper) as box:
        yield box


# --- the end


def test_what_is_left_in_the_cgroup_is_killed_and_the_cgroup_removed(box: Box) -> None:
    with cgroup("left") as path:
        (path / "inner" / "deeper").mkdir(parents=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        plan = box.plan(
            "helper",
            "background",
            "1000",
            namespaces=NAMESPACES & ~NEWPID,
            proc=False,
            cgroup=str(path),
            descriptors=("cgroup",),
        )
        session, run = box.launch(plan, {"cgroup": fd})
        os.close(fd)
        assert session.wait_exit(10).exit_code == 0
        until_gone(run)
        assert not path.exists()


def test_a_session_leaves_the_cgroup_alone(box: Box) -> None:
    with cgroup("session") as path:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        keeper, _ = box.launch(box.plan("helper", "sleep", "100", descriptors=("cgroup",)), {"cgroup": fd})
        keeper.await_started()
        session, run = box.launch(box.plan("helper", session=True, descriptors=("cgroup",)), {"cgroup": fd})
        os.close(fd)
        assert session.wait_exit(10).exit_code == 0
        until_gone(run)
        assert keeper.wait_exit(0.1) is None
        assert str(keeper.pid) in (path / "cgroup.procs").read_text().split()
        os.kill(keeper.pid, signal.SIGKILL)
        keeper.wait_exit(10)


def counting_plan(box: Box, code: int, **settings: object) -> Plan:
    return box.plan("helper", "append", "/count", "x", "--", "exit", str(code), **settings)


@pytest.mark.parametrize(
    ("code", "settings", "runs"),
    [(0, {"restart": 1}, 1), (3, {"restart": 1, "restart_retries": 2}, 3), (3, {}, 1)],
)
def test_restarts_follow_the_policy(box: Box, code: int, settings: dict[str, int], runs: int) -> None:
    session, run = box.launch(counting_plan(box, code, **settings))
    begin = time.monotonic()
    assert session.wait_exit(20).exit_code == code
    assert (box.root / "count").read_text() == "x" * runs
    assert until_gone(run).restarts == session.restarts == runs - 1
    if runs == 3:
        assert time.monotonic() - begin > 0.3  # 100 ms, then 200


def test_a_container_that_is_always_restarted_ends_when_it_is_stopped(box: Box) -> None:
    session, run = box.launch(counting_plan(box, 0, restart=2))
    until(lambda: read_state(run).restarts >= 2, "two restarts")
    with monitor.connect(run) as other:
        other.stopping()
        assert other.wait_exit(10).exit_code == 0
    assert until_gone(run).phase == "exited"
    assert session.wait_exit(10).exit_code == 0


def test_a_restarted_container_has_its_streams_again(box: Box) -> None:
    plan = box.plan("helper", "cat", restart=2, stdin=True)
    session, run = box.launch(plan)
    session.await_started()
    with monitor.connect_streams(run) as client:
        client.send(b"one\n")
        assert receive(client) == b"\x02one\n"
        os.kill(session.pid, signal.SIGKILL)
        until(lambda: read_state(run).restarts == 1 and read_state(run).phase == "running", "the restart")
        client.send(b"two\n")
        assert receive(client) == b"\x02two\n"
    session.stopping()
    os.kill(read_state(run).pid.pid, signal.SIGKILL)
    assert session.wait_exit(10).exit_code == 137


def test_a_failed_restart_is_the_end(box: Box) -> None:
    session, run = box.launch(box.plan("helper", "rm", "/bin/helper", "--", "exit", "1", restart=2))
    session.await_started()
    with pytest.raises(StartFailed, match="execute helper: No such file or directory"):
        session.wait_exit(20)
    assert until_gone(run).phase == "failed"


def cleanup_settings(box: Box) -> dict[str, tuple[str, ...]]:
    new = f"{box.base}/cleaned.new"
    script = f"env > {new}; ls -l /proc/self/fd | wc -l >> {new}; mv {new} {box.base}/cleaned"
    return {"cleanup": ("/bin/sh", "-c", script), "cleanup_env": ("PATH=/usr/bin:/bin", "WHO=cleanup")}


def test_the_cleanup_runs_when_no_engine_is_there(box: Box) -> None:
    session, run = box.launch(box.plan("helper", "sleep", "0.2", **cleanup_settings(box)))
    session.await_started()
    session.close()
    until_gone(run)
    assert "WHO=cleanup" in (box.base / "cleaned").read_text()


def test_the_cleanup_does_not_run_for_an_engine_that_does_it_itself(box: Box) -> None:
    session, run = box.launch(box.plan("helper", **cleanup_settings(box)))
    assert session.wait_exit(10).exit_code == 0
    time.sleep(0.1)
    assert read_state(run).monitor_alive  # it waits for our word
    session.release()
    until_gone(run)
    assert not (box.base / "cleaned").exists()


def test_the_cleanup_runs_when_the_engine_leaves_without_a_word(box: Box) -> None:
    session, run = box.launch(box.plan("helper", **cleanup_settings(box)))
    assert session.wait_exit(10).exit_code == 0
    session.close()
    until_gone(run)
    assert (box.base / "cleaned").exists()


def test_a_container_dies_with_its_engine(box: Box) -> None:
    engine = subprocess.Popen(["sleep", "1000"])
    pidfd = os.pidfd_open(engine.pid)
    plan = box.plan(
        "helper", "stubborn", die_with_parent=True, descriptors=("engine",), restart=2, **cleanup_settings(box)
    )
    session, run = box.launch(plan, {"engine": pidfd})
    os.close(pidfd)
    session.await_started()
    session.close()
    assert read_state(run).phase == "running"
    engine.kill()
    engine.wait()
    assert until_gone(run).exit_code == 137
    assert (box.base / "cleaned").exists()


def test_without_die_with_parent_it_lives_on(box: Box) -> None:
    session, run = box.launch(box.plan("helper", "sleep", "0.3", "--", "exit", "5"))
    session.await_started()
    session.close()
    assert until_gone(run).exit_code == 5
