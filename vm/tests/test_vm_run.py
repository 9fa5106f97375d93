"""vm/run on the host, with real machines: what it promises of status, streams, files and its own end.

A boot takes two seconds, so these run with the VM suites (vm/suites), not with the unit tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RUN = str(Path(__file__).parents[2] / "vm" / "run")
ENGINES = pytest.mark.parametrize("engine", ["uml", "tcg"])


def run(*words: str, cwd: str | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [RUN, "--timeout", "60", *words], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


def until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def processes(mark: str) -> list[str]:
    """The pids whose command line has the mark."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # gone meanwhile
            continue
        if mark.encode() in words:
            found.append(pid)
    return found


@ENGINES
def test_status_and_streams_are_the_commands(engine: str) -> None:
    done = run("--engine", engine, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


@ENGINES
def test_much_output_of_any_bytes_arrives_whole(engine: str) -> None:
    every = bytes(range(256)) * 4000
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4000)"
    done = run("--engine", engine, "--", "python3", "-c", code)
    assert done.returncode == 0
    assert done.stdout == every


def test_files_come_out_directory_and_variables_go_in(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    script = 'mkdir "$VM_OUT/d"; cp file "$VM_OUT/d"; echo "$A" >"$VM_OUT/a"; pwd; id -u; echo x >file'
    words = ["--engine", "uml", "--user", "--out", "results", "--env", "A=b c", "--", "sh", "-c", script]
    tmp_path.chmod(0o755)
    done = run(*words, cwd=str(tmp_path))
    assert done.stdout == f"{tmp_path}\n4242\n".encode()
    assert done.returncode != 0  # the directory is root's
    assert (tmp_path / "results/d/file").read_text() == "of the host"
    assert (tmp_path / "results/a").read_text() == "b c\n"


def test_what_root_writes_stays_in_the_machine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    assert run("--engine", "uml", "--", "sh", "-c", "echo x >file && rm -r /usr/bin", cwd=str(tmp_path)).returncode == 0
    assert (tmp_path / "file").read_text() == "of the host"
    assert os.path.exists("/usr/bin/env")


@ENGINES
def test_a_command_that_takes_too_long_is_124_and_nothing_stays(engine: str) -> None:
    done = run("--engine", engine, "--timeout", "1", "--env", f"MARK={engine}", "--", "sleep", "1000")
    assert (done.returncode, done.stderr) == (124, b"vm/run: timed out after 1 s\n")


def test_background_processes_do_not_hold_the_machine() -> None:
    start = time.monotonic()
    assert run("--engine", "uml", "--", "sh", "-c", "setsid sleep 1000 & exit 3").returncode == 3
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("engine", "words", "said"),
    [
        ("tcg", ["sh", "-c", "echo c >/proc/sysrq-trigger"], b"Kernel panic"),
        ("uml", ["/run/vm/busybox", "poweroff", "-f"], b"System halted"),
    ],
)
def test_a_machine_that_fails_is_125_with_its_console(engine: str, words: list[str], said: bytes) -> None:
    done = run("--engine", engine, "--", *words)
    assert done.returncode == 125
    assert b"vm/run: the machine ended without a result; the console said:\n" in done.stderr
    assert said in done.stderr


@ENGINES
def test_killed_it_leaves_no_process(engine: str, tmp_path: Path) -> None:
    words = [RUN, "--engine", engine, "--", "sh", "-c", "echo up; sleep 1000"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == b"up\n"
        assert processes(str(tmp_path))
        machine.send_signal(signal.SIGKILL)
    until(lambda: not processes(str(tmp_path)), 5)


def test_ended_it_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    words = [RUN, "--engine", "uml", "--", "sh", "-c", "echo up; sleep 1000"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == b"up\n"
        machine.terminate()
        assert machine.wait() == 128 + signal.SIGTERM
    assert not processes(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_directory_of_the_guests_own_is_refused() -> None:
    done = run("--engine", "uml", "--", "true", cwd="/dev")
    assert done.returncode == 125
    assert done.stderr == b"vm/run: the guest has /dev of its own, so it cannot start in /dev: go elsewhere\n"
