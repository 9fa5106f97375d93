"""The pause program: holds namespaces as their first process, reaps, and ends when asked to."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from plan_box import build_helper, new_box, until

from pyengine.runtime import monitor


@pytest.fixture
def box():
    with new_box(build_helper()) as box:
        shutil.copy(Path(monitor.PROGRAM).parent / "pause", box.root / "bin" / "pause")
        yield box


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_sleeps_until_it_is_asked_to_end(box, number: int) -> None:
    session, _ = box.launch(box.plan("pause"))
    session.await_started()
    stat = Path(f"/proc/{session.pid}/stat")
    until(lambda: stat.read_text().split()[2] == "S" and "pause" in stat.read_text(), "its sleep")
    for ignored in (signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
        os.kill(session.pid, ignored)
    assert session.wait_exit(0.1) is None
    os.kill(session.pid, number)
    assert session.wait_exit(10).exit_code == 0


def test_it_reaps_what_others_orphan(box) -> None:
    from pyengine.runtime.plan import Exec, JoinNamespace, Plan, Settings

    session, _ = box.launch(box.plan("pause"))
    session.await_started()
    pidfd = os.pidfd_open(session.pid)
    plan = Plan(
        Settings("x", session=True),
        (
            JoinNamespace(0x20000000 | 0x20000, "pod", "the pod"),
            Exec(("helper", "background", "0.1", "--", "true"), ("PATH=/bin",), 0),
        ),
        ("pod",),
    )
    for _ in range(3):
        other, _ = box.launch(plan, {"pod": pidfd})
        assert other.wait_exit(10).exit_code == 0
    os.close(pidfd)
    children = Path(f"/proc/{session.pid}/task/{session.pid}/children")
    until(lambda: children.read_text() == "", "the reaping")
    os.kill(session.pid, signal.SIGTERM)
    assert session.wait_exit(10).exit_code == 0
