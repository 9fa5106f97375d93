from __future__ import annotations

import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine.channels import ControlLines, Conversation, Outcome
from machine.host import VMError
from machine.options import Options

NAMES = ("control", "out", "err", "files")


@given(st.lists(st.integers(0, 40)))
def test_control_lines_are_read_however_they_are_cut(cuts: list[int]) -> None:
    data = b"start\nfail no reason\r\nexit 42\n"
    outcome = Outcome()
    lines = ControlLines(outcome)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in pairwise(places):
        lines.feed(data[start:end])
    assert outcome == Outcome(status=42, started=True, failure="in the guest: no reason")


@pytest.mark.parametrize("line", [b"\n", b"exit\n", b"exit -1\n", b"exit x\n", b"start now\n", b"\xff\n"])
def test_other_control_lines_are_refused(line: bytes) -> None:
    with pytest.raises(VMError, match=r"^the guest said b'"):
        ControlLines(Outcome()).feed(line)


class Guest:
    """Plays the machine: a process that runs until told, and the guest's ends of the channels."""

    def __init__(self) -> None:
        pairs = {name: socket.socketpair() for name in NAMES}
        self.host = {name: pair[0] for name, pair in pairs.items()}
        self.ends = {name: pair[1] for name, pair in pairs.items()}
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        for end in self.ends.values():
            end.close()

    def talk(self, options: Options) -> Outcome:
        return Conversation(options, self.host, self.process).carry()


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.process.kill()
    made.end()
    for end in made.host.values():
        end.close()


OPTIONS = Options(("true",), boot_timeout=5)


def test_output_and_status_arrive_after_the_machine_ended(guest: Guest, capfd: pytest.CaptureFixture[str]) -> None:
    guest.ends["out"].sendall(b"to stdout")
    guest.ends["err"].sendall(b"to stderr")
    guest.ends["control"].sendall(b"start\nexit 3\n")
    guest.end()
    assert guest.talk(OPTIONS) == Outcome(status=3, started=True)
    assert capfd.readouterr() == ("to stdout", "to stderr")


def test_a_machine_that_ends_without_result_has_none(guest: Guest) -> None:
    guest.ends["control"].sendall(b"fail no cgroup2\n")
    guest.end()
    assert guest.talk(OPTIONS) == Outcome(None, False, "in the guest: no cgroup2")


def test_a_boot_that_takes_too_long_is_given_up(guest: Guest) -> None:
    outcome = guest.talk(Options(("true",), boot_timeout=0.1))
    assert outcome == Outcome(None, False, "the command was not reached in 0.1 s")


def test_a_command_that_takes_too_long_is_124(guest: Guest, capfd: pytest.CaptureFixture[str]) -> None:
    guest.ends["control"].sendall(b"start\n")
    assert guest.talk(Options(("true",), timeout=0.1)).status == 124
    assert capfd.readouterr().err == "vm/run: timed out after 0.1 s\n"


def test_the_boots_time_is_not_the_commands(guest: Guest) -> None:
    guest.ends["control"].sendall(b"start\nexit 0\n")
    guest.end()
    assert guest.talk(Options(("true",), boot_timeout=5, timeout=1)).status == 0


def archive(**files: bytes) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return buffer.getvalue()


def test_files_that_the_command_left_are_unpacked(guest: Guest, tmp_path: Path) -> None:
    guest.ends["files"].sendall(archive(report=b"all good"))
    guest.ends["control"].sendall(b"start\nexit 0\n")
    guest.end()
    assert guest.talk(Options(("true",), out=str(tmp_path / "out"))).status == 0
    assert (tmp_path / "out/report").read_bytes() == b"all good"


def test_files_that_end_early_are_an_error(guest: Guest, tmp_path: Path) -> None:
    guest.ends["files"].sendall(archive(report=b"x" * 3000)[:1500])
    guest.ends["control"].sendall(b"start\nexit 0\n")
    guest.end()
    with pytest.raises(VMError, match=r"could not be unpacked to .*/out$"):
        guest.talk(Options(("true",), out=str(tmp_path / "out")))
