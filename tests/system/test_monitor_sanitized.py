"""The monitor built with address and undefined-behaviour sanitizers runs a life of every sort, and they find nothing.

What they find kills the process that did it, so the plan fails; and it is written to files beside the program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from plan_box import NAMESPACES, NEWUSER, ROOT, Box, build_helper, cgroup, new_box, read_streams, receive, until_gone

from pyengine.errors import StartFailed, StepError
from pyengine.runtime import monitor
from pyengine.runtime.plan import (
    AS_LOOKED_UP,
    AwaitStart,
    Capabilities,
    Chdir,
    Exec,
    JoinNamespace,
    LookupUser,
    MaskPath,
    Mount,
    NewSession,
    OomScore,
    Plan,
    ReadonlyPath,
    Settings,
    Symlink,
    Sysctl,
    Terminal,
    User,
)

PTS = Mount("devpts", "devpts", "/dev/pts", 0, ("newinstance", "ptmxmode=0666"), 0, False)


@pytest.fixture(scope="module")
def sanitized() -> Path:
    build = ROOT / "build" / "tests"
    subprocess.run(["make", "-s", "-C", ROOT / "native", f"BUILD={build}", "sanitized"], check=True)
    for path in (build / "sanitized").glob("found*"):
        path.unlink()
    return build / "sanitized"


@pytest.fixture
def box(sanitized: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(monitor, "PROGRAM", str(sanitized / "monitor"))
    with new_box(build_helper()) as box:
        yield box
    assert [path.read_text() for path in sanitized.glob("found*")] == []


def test_a_life_with_log_attach_and_rotation(box: Box) -> None:
    with cgroup("sanitized") as path:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        plan = box.plan(
            *("helper", "cat", "--", "spam", "300000", "50", "--", "spam", "5000", "0", "stderr", "--", "exit", "3"),
            before=(Symlink("a/b", "/x/y"), MaskPath("/proc/kcore"), ReadonlyPath("/proc/sys")),
            after=(AwaitStart(),),
            descriptors=("cgroup",),
            **{"log_path": f"{box.base}/log", "log_max_size": 5000, "log_max_files": 3, "cgroup": str(path)},
            **{"stdin": True, "cleanup": ("/bin/true",), "cleanup_env": ("A=b",)},
        )
        session, run = box.launch(plan, {"cgroup": fd})
        os.close(fd)
        session.await_created()
        with monitor.connect(run) as other, monitor.connect_streams(run) as client:
            monitor.resize(run, 3, 4)
            other.start()
            client.send(b"x" * 8000)
            assert receive(client) == b"\x02" + b"x" * 8000
            client.shutdown(socket.SHUT_WR)
            out, err = read_streams(client)
            assert (len(out), len(err)) == (300_000, 5000)
            assert other.wait_exit(30).exit_code == 3
        session.close()
        until_gone(run)


def test_a_terminal_and_a_restart(box: Box) -> None:
    plan = box.plan("helper", "cat", before=(PTS,), after=(NewSession(), Terminal(4, 5, True)), restart=2)
    session, run = box.launch(plan)
    session.await_started()
    with monitor.connect_streams(run) as client:
        client.send(b"hello\n")
        assert receive(client).startswith(b"\x02hello\r\n")
        os.kill(session.pid, signal.SIGKILL)
        while session.restarts == 0:
            session.receive(10)
        session.await_started()
        session.stopping()
        client.send(b"\x04")
    assert session.wait_exit(20).exit_code == 0


def test_users_and_failures(box: Box) -> None:
    (box.root / "etc" / "passwd").write_text("web:x:33:34::/w:/bin/sh\n" * 300 + "x" * 9000)
    (box.root / "etc" / "group").write_text("mail:x:8:web,a,b\nbad:x:y:web\n")
    steps = (
        *(Sysctl("net/ipv4/ip_forward", "1"), LookupUser("web", ("mail", "77"), "", "")),
        *(User(AS_LOOKED_UP, AS_LOOKED_UP, (), 0o22), Capabilities(0, 0, 0, 0, 0), Chdir("/")),
    )
    assert box.run("helper", "ids", after=steps).stdout == "33 34 8 77\n"
    with pytest.raises(StartFailed):
        box.run("missing")
    with pytest.raises(StepError):
        box.run("helper", before=(Mount("tmpfs", "t", "/tmp", 0, ("bad=1",), 0, False),))


def test_user_namespaces_and_sessions(box: Box) -> None:
    maps = {"uid_map": (0, 0, 4294967295), "gid_map": (0, 0, 4294967295)}
    session, _ = box.launch(box.plan("helper", "sleep", "100", namespaces=NAMESPACES | NEWUSER, **maps))
    session.await_started()
    pidfd = os.pidfd_open(session.pid)
    inside = (
        JoinNamespace(NEWUSER | NAMESPACES, "target", "x"),
        OomScore(5),
        Exec(("helper", "exit", "9"), ("PATH=/bin",), 0),
    )
    child, _ = box.launch(Plan(Settings("x", session=True), inside, ("target",)), {"target": pidfd})
    os.close(pidfd)
    assert child.wait_exit(20).exit_code == 9
    os.kill(session.pid, signal.SIGKILL)
    assert session.wait_exit(20).exit_code == 137
