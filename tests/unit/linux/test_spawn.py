"""Programs start without the host program noticing: each test here is something that it could notice."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pyengine.errors import KernelError, MissingProgram
from pyengine.linux import calls, process
from pyengine.linux.fd import Fd
from pyengine.linux.spawn import find_program, run, spawn


def shell(script: str, **arguments: object) -> bytes:
    ended = run(["sh", "-c", script], executable="/bin/sh", timeout=20, **arguments)  # type: ignore[arg-type]
    assert (ended.exit_code, ended.stderr) == (0, b"")
    return ended.stdout


def test_input_output_and_status() -> None:
    ended = run(["sh", "-c", "cat; echo error >&2; exit 3"], executable="/bin/sh", stdin=b"input", timeout=20)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (3, b"input", b"error\n")
    assert run(["sh", "-c", "kill -9 $$"], executable="/bin/sh", timeout=20).exit_code == -9


def test_no_descriptor_leaks() -> None:
    """Inheritable ones neither: a host program may have made them so for its own children."""
    extra = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(extra, True)
    try:
        with calls.open("/etc/passwd", os.O_RDONLY) as given, calls.open("/etc/group", os.O_RDONLY) as other:
            arguments = ["ls", "-l", "/proc/self/fd"]
            listed = run(arguments, executable="/bin/ls", timeout=20, descriptors={9: given, 5: other}).stdout.decode()
            assert shell("head -c 4 <&9", descriptors={9: given}) == b"root"
    finally:
        os.close(extra)
    links = dict(line.split(" -> ") for line in (line.partition(":")[2][3:] for line in listed.splitlines()[1:]))
    own = [name for name, target in links.items() if target.startswith("/proc/")]  # the directory that ls reads
    assert len(own) == 1
    assert sorted(links.keys() - own) == ["0", "1", "2", "5", "9"]
    assert (links["5"], links["9"]) == ("/etc/group", "/etc/passwd")


def test_sources_and_targets_may_cross() -> None:
    with calls.open("/etc/passwd", os.O_RDONLY) as first, calls.open("/etc/group", os.O_RDONLY) as second:
        a, b = first.fileno(), second.fileno()
        listed = shell(f"readlink /proc/$$/fd/{a}; readlink /proc/$$/fd/{b}", descriptors={a: second, b: first})
    assert listed == b"/etc/group\n/etc/passwd\n"


def test_stdio_is_null_unless_mapped() -> None:
    started = spawn(["sleep", "60"], executable="/bin/sleep")
    with started.pidfd:
        assert [os.readlink(f"/proc/{started.pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
        assert process.send_signal(started.pidfd, signal.SIGKILL)
        assert process.wait_ended(started.pidfd, 20)


def test_the_host_gets_no_sigchld_and_wait_sees_nothing() -> None:
    script = """
import os, signal
from pyengine.linux import process
from pyengine.linux.spawn import run, spawn
seen = []
signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
started = spawn(["true"], executable="/bin/true")
assert process.wait_ended(started.pidfd, 20)
started.pidfd.close()
assert run(["false"], executable="/bin/false", timeout=20).exit_code == 1
try:
    os.waitpid(-1, os.WNOHANG)
    seen.append(2)
except ChildProcessError:
    pass
assert not os.listdir("/proc/self/task") == []
print("seen", seen, open(f"/proc/self/task/{os.getpid()}/children").read())
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("seen [] \n", "")


def test_a_host_that_ignores_sigchld_still_gets_the_status() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run(["sh", "-c", "exit 7"], executable="/bin/sh", timeout=20).exit_code == 7
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_child_of_the_host_is_left_to_the_host() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "exit 5"]) as own:
        os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
        assert run(["true"], executable="/bin/true", timeout=20).exit_code == 0
        assert own.wait() == 5


def test_signals_are_as_if_freshly_started() -> None:
    """Python ignores SIGPIPE, and the calling thread may block signals: neither may reach the program."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        status = shell("grep -E 'Sig(Blk|Ign)' /proc/self/status").split()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    assert status == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_nothing_of_the_host_is_copied() -> None:
    """A fork would copy page tables; under a limit on address space it would fail outright with this much memory. Here
    the program runs with a gigabyte of the host's memory in use, and none of it is its own."""
    with mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for offset in range(0, len(memory), 1 << 21):
            memory[offset] = 1
        faults = int(open_text("/proc/self/stat").rpartition(")")[2].split()[7])
        for _ in range(20):
            assert run(["true"], executable="/bin/true", timeout=20).exit_code == 0
        after = int(open_text("/proc/self/stat").rpartition(")")[2].split()[7])
        # Copied page tables would be write-protected: touching the memory again would fault once a page.
        for offset in range(0, len(memory), 1 << 21):
            memory[offset] = 2
        touched = int(open_text("/proc/self/stat").rpartition(")")[2].split()[7])
    assert touched - after < 100, (faults, after, touched)


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()


def test_errors_of_execve_come_back() -> None:
    for path, error in (("/nonexistent", errno.ENOENT), ("/etc/passwd", errno.EACCES), ("/", errno.EACCES)):
        with pytest.raises(KernelError) as caught:
            spawn(["x"], executable=path)
        assert caught.value.errno == error
        assert str(caught.value) == f"execute {path}: {os.strerror(error)}"
    with pytest.raises(KernelError) as caught:
        spawn(["true"], executable="/bin/true", directory="/nonexistent")
    assert str(caught.value) == "change to /nonexistent for /bin/true: No such file or directory"
    with pytest.raises(KernelError) as caught:
        spawn(["true"], executable="/bin/true", descriptors={3: 9999})
    assert str(caught.value) == "map the descriptors for /bin/true: Bad file descriptor"
    with pytest.raises(KernelError, match="cannot hold a NUL byte"):
        spawn(["a\0b"], executable="/bin/true")


def test_a_failed_start_leaves_no_descriptor_and_no_process() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(KernelError):
            spawn(["x"], executable="/nonexistent")
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert open_text(f"/proc/self/task/{os.getpid()}/children") == ""


def test_a_program_that_takes_too_long_is_killed() -> None:
    started = time.monotonic()
    with pytest.raises(KernelError) as caught:
        run(["sleep", "60"], executable="/bin/sleep", timeout=0.1)
    assert time.monotonic() - started < 30
    assert caught.value.errno == errno.ETIMEDOUT
    assert str(caught.value) == "run sleep: Connection timed out (it was killed after 0.1 seconds)"


def test_an_open_file_can_be_executed() -> None:
    with calls.open("/bin/echo", os.O_RDONLY) as program:
        assert run(["x", "it works"], executable=program, timeout=20).stdout == b"it works\n"


def test_environment_directory_and_session() -> None:
    assert shell("echo $A; pwd", environment={"A": "1"}, directory="/etc") == b"1\n/etc\n"
    reading, writing = (Fd(fd) for fd in os.pipe2(os.O_CLOEXEC))
    with reading, writing:
        started = spawn(
            ["sh", "-c", "cat /proc/self/stat >&3"], executable="/bin/sh", descriptors={3: writing}, new_session=True
        )
        with started.pidfd:
            assert process.wait_ended(started.pidfd, 20)
        assert process.parse_stat(os.read(reading.fileno(), 4096)).session == started.pid


def test_many_threads_start_programs_at_once() -> None:
    results: list[bytes] = []

    def work(name: str) -> None:
        for round in range(10):
            results.append(shell(f"echo {name} {round}"))

    threads = [threading.Thread(target=work, args=(str(index),)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"{name} {round}\n".encode() for name in range(4) for round in range(10))


def test_a_missing_program_names_its_package() -> None:
    assert find_program("sh", "dash", "this test").endswith("/sh")
    with pytest.raises(MissingProgram) as caught:
        find_program("no-such-program", "some-package", "this test")
    assert str(caught.value) == "this test needs no-such-program: install it with: apt-get install some-package"
