"""What the client of the monitor makes of its messages, without one."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from pyengine.errors import KernelError, PyengineError, StartFailed, StepError
from pyengine.runtime.monitor import (
    CREATED,
    EXITED,
    FAILED,
    RESTARTING,
    STARTED,
    Ended,
    Message,
    Session,
    connect,
    connect_streams,
    start_error,
)
from pyengine.runtime.plan import Chdir, Exec, LookupUser, Mount, Plan, Settings
from pyengine.runtime.state import Failure

PLAN = Plan(Settings("x"), (Mount("proc", "proc", "/proc", 0, (), 0, False), Exec(("foo",), (), 0)))


def packet(
    kind: int, step: int = 0, errno: int = 0, value: int = 0, time_ns: int = 0, extra: int = 0, text: bytes = b""
):
    return struct.pack("<IIiiqq", kind, step, errno, value, time_ns, extra) + text


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Session(ours, PLAN) as session, theirs:
        yield session, theirs


def test_a_message_of_each_field() -> None:
    message = Message.decode(packet(3, 17, 1, 12, 5, 34, b"why\nwhat"))
    assert message == Message(3, 17, 1, 12, 5, 34, "why\nwhat")
    assert message.failure() == Failure(17, 34, 12, 1, "why", "what")


def test_a_packet_that_is_too_short() -> None:
    with pytest.raises(PyengineError) as caught:
        Message.decode(b"x" * 31)
    assert str(caught.value) == "the monitor sent a packet of 31 bytes, which is no message"


@pytest.mark.parametrize(
    ("failure", "plan", "kind", "text", "code"),
    [
        (
            Failure(2, 2, Exec.KIND, 2, "", "foo"),
            PLAN,
            StartFailed,
            "execute foo: No such file or directory (step 2 of 2)",
            127,
        ),
        (
            Failure(2, 2, Exec.KIND, 8, "", "foo"),
            None,
            StartFailed,
            "execute foo: Exec format error (step 2 of 2)",
            126,
        ),
        (
            Failure(1, 2, Chdir.KIND, 20, "", "/w"),
            None,
            StartFailed,
            "change into /w: Not a directory (step 1 of 2)",
            127,
        ),
        (
            Failure(1, 2, LookupUser.KIND, 2, "none", ""),
            None,
            StartFailed,
            "look up user root: No such file or directory (none) (step 1 of 2)",
            126,
        ),
        (
            Failure(1, 2, Mount.KIND, 1, "", ""),
            PLAN,
            StepError,
            "mount proc on /proc: Operation not permitted (step 1 of 2)",
            0,
        ),
        (
            Failure(1, 2, Mount.KIND, 1, "w", ""),
            None,
            StepError,
            "set the container up: Operation not permitted (w) (step 1 of 2)",
            0,
        ),
        (
            Failure(0, 2, 0, 11, "clone", ""),
            PLAN,
            KernelError,
            "set the container up: Resource temporarily unavailable (clone)",
            0,
        ),
    ],
)
def test_the_exception_is_chosen_by_the_kind_of_the_step(
    failure: Failure, plan: Plan | None, kind: type, text: str, code: int
) -> None:
    error = start_error(failure, plan)
    assert type(error) is kind
    assert str(error) == text
    assert getattr(error, "exit_code", 0) == code


def test_a_life(pair) -> None:
    session, theirs = pair
    theirs.send(packet(CREATED, value=77, extra=88))
    theirs.send(packet(STARTED))
    session.await_created()
    assert (session.pid, session.start_time) == (77, 88)
    session.await_started()
    assert session.wait_exit(0.01) is None
    theirs.send(packet(RESTARTING, value=3))
    theirs.send(packet(99))  # of a monitor that is newer
    theirs.send(packet(EXITED, value=137, time_ns=5, extra=1))
    assert session.wait_exit(1) == Ended(137, True, 5)
    assert session.restarts == 3
    assert session.wait_exit(0) == Ended(137, True, 5)


def test_a_wait_keeps_its_time_whatever_comes_meanwhile(pair) -> None:
    session, theirs = pair

    def chatter() -> None:
        for _ in range(20):
            theirs.send(packet(RESTARTING, value=1))
            time.sleep(0.02)

    thread = threading.Thread(target=chatter)
    thread.start()
    begin = time.monotonic()
    assert session.wait_exit(0.1) is None
    assert time.monotonic() - begin < 0.35
    thread.join()


def test_a_failed_start_is_raised_by_whoever_waits(pair) -> None:
    session, theirs = pair
    theirs.send(packet(FAILED, 1, 1, Mount.KIND, 0, 2, b"\n"))
    for wait in (session.await_created, session.await_started, session.wait_exit):
        with pytest.raises(StepError, match="mount proc on /proc: Operation not permitted"):
            wait()


def test_a_monitor_that_vanishes(pair) -> None:
    session, theirs = pair
    theirs.close()
    session.start()  # no error by itself
    with pytest.raises(PyengineError, match="the monitor of the container ended without a word: it was killed"):
        session.await_started()


def test_what_is_said(pair) -> None:
    session, theirs = pair
    for number, say in enumerate((session.start, session.release, session.stopping, session.allow_restart), 1):
        say()
        assert theirs.recv(100) == packet(number)


def test_there_is_no_monitor(tmp_path) -> None:
    for function in (connect, connect_streams):
        with pytest.raises(FileNotFoundError):
            function(str(tmp_path))
        with pytest.raises(FileNotFoundError):
            function(str(tmp_path / "missing"))


def test_the_path_of_a_run_directory_may_be_long(tmp_path) -> None:
    deep = tmp_path / "/".join(["d" * 60] * 4)
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        import os

        fd = os.open(deep, os.O_PATH)
        listening.bind(f"/proc/self/fd/{fd}/control")
        os.close(fd)
        listening.listen()
        with pytest.raises(ConnectionRefusedError):
            connect_streams_to_closed(deep)
        connect(str(deep)).close()


def connect_streams_to_closed(directory) -> None:
    import os

    fd = os.open(directory, os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
        gone.bind(f"/proc/self/fd/{fd}/attach")
    os.close(fd)
    connect_streams(str(directory))
