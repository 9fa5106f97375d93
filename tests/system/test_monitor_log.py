"""The log: every byte of the container, in well-formed lines, whatever the disk does."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from plan_box import (
    Box,
    build_helper,
    log_content,
    new_box,
    receive,
    spam,
    until,
    until_gone,
)

from pyengine.errors import KernelError
from pyengine.runtime import monitor
from pyengine.runtime.plan import (
    Mount,
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


# --- log


def test_the_log_has_every_byte_in_well_formed_lines(box: Box) -> None:
    for size, line in ((0, 1), (200_000, 3), (500_001, 100), (300_000, 0), (100_000, 1)):
        log = box.base / f"log{size}"
        session, _ = box.launch(box.plan("helper", "spam", str(size), str(line), log_path=str(log)))
        assert session.wait_exit(20).exit_code == 0
        assert log_content(log)["stdout"] == spam(size, line)


def test_the_log_is_rotated_between_lines_and_loses_nothing(box: Box) -> None:
    log = box.base / "ctr.log"
    settings = {"log_path": str(log), "log_max_size": 20_000, "log_max_files": 100}
    session, _ = box.launch(box.plan("helper", "spam", "200000", "50", **settings))
    assert session.wait_exit(20).exit_code == 0
    numbers = sorted((int(path.name.split(".")[2]) for path in box.base.glob("ctr.log.*")), reverse=True)
    paths = [box.base / f"ctr.log.{number}" for number in numbers] + [log]
    assert numbers == list(range(len(numbers), 0, -1))
    assert len(numbers) > 10
    assert log_content(*paths)["stdout"] == spam(200_000, 50)
    assert max(path.stat().st_size for path in paths) <= 20_000 + 100


def test_only_so_many_rotated_logs_are_kept(box: Box) -> None:
    log = box.base / "ctr.log"
    settings = {"log_path": str(log), "log_max_size": 10_000, "log_max_files": 2}
    session, _ = box.launch(box.plan("helper", "spam", "200000", "50", **settings))
    assert session.wait_exit(20).exit_code == 0
    assert sorted(path.name for path in box.base.glob("ctr.log*")) == ["ctr.log", "ctr.log.1", "ctr.log.2"]
    tail = log_content(box.base / "ctr.log.2", box.base / "ctr.log.1", log)["stdout"]
    assert spam(200_000, 50).endswith(tail)
    assert len(tail) > 10_000


def test_a_full_disk_holds_the_container_up_and_loses_nothing(box: Box) -> None:
    small = box.base / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True)
    try:
        log = small / "log"
        session, run = box.launch(box.plan("helper", "spam", "1000000", "100", log_path=str(log)))
        session.await_started()
        assert session.wait_exit(0.5) is None
        with monitor.connect(run) as other:  # control is served meanwhile
            other.await_started()
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        assert session.wait_exit(20).exit_code == 0
        assert log_content(log)["stdout"] == spam(1_000_000, 100)
    finally:
        session.close()
        subprocess.run(["umount", "-l", small], check=True)


def test_an_exit_is_told_even_when_the_disk_is_full(box: Box) -> None:
    small = box.base / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        session, run = box.launch(
            box.plan("helper", "spam", "100000", "100", "--", "exit", "3", log_path=f"{small}/log")
        )
        assert session.wait_exit(10).exit_code == 3
        assert read_state(run).monitor_alive  # the rest of the log is still to be written
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        until_gone(run)
        assert log_content(small / "log")["stdout"] == spam(100_000, 100)
    finally:
        session.close()
        subprocess.run(["umount", "-l", small], check=True)


def test_a_log_that_was_moved_away_is_opened_anew(box: Box) -> None:
    log = box.base / "log"
    session, run = box.launch(box.plan("helper", "cat", stdin=True, log_path=str(log)))
    session.await_started()
    with monitor.connect_streams(run) as client:
        client.send(b"old\n")
        receive(client)
        log.rename(box.base / "moved")
        monitor.reopen_log(run)
        until(log.exists, "the new log")
        client.send(b"new\n")
        receive(client)
        client.shutdown(socket.SHUT_WR)
        session.wait_exit(10)
    assert log_content(box.base / "moved")["stdout"] == b"old\n"
    assert log_content(log)["stdout"] == b"new\n"


def test_a_log_that_cannot_be_opened_is_an_error(box: Box) -> None:
    session, _ = box.launch(box.plan("helper", log_path="/missing/log"))
    with pytest.raises(KernelError) as caught:
        session.await_started()
    assert str(caught.value) == "set the container up: No such file or directory (open the log)"
