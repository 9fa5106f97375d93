from __future__ import annotations

import errno
import logging
import os

import pytest

from pyengine.errors import KernelError
from pyengine.linux import calls
from pyengine.linux.fd import Fd, number


def test_a_descriptor_is_closed_once() -> None:
    plain = os.open("/dev/null", os.O_RDONLY)
    with Fd(plain) as fd:
        assert number(fd) == number(plain) == plain
    fd.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(plain)
    with pytest.raises(ValueError, match="closed or has another owner"):
        fd.fileno()


def test_a_descriptor_that_was_taken_stays_open() -> None:
    with calls.open("/dev/null", os.O_RDONLY) as fd:
        plain = fd.take()
    assert os.get_inheritable(plain) is False
    os.close(plain)


def test_a_forgotten_descriptor_warns_and_is_closed() -> None:
    fd = calls.open("/dev/null", os.O_RDONLY)
    plain = fd.fileno()
    with pytest.warns(ResourceWarning, match=f"descriptor {plain} was never closed"):
        del fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(plain)


def test_what_is_no_descriptor_is_refused() -> None:
    with pytest.raises(ValueError, match="not a descriptor: -1"):
        Fd(-1)


def test_errors_name_verb_object_and_reason() -> None:
    with pytest.raises(KernelError) as caught:
        calls.open("/nonexistent", os.O_RDONLY)
    assert caught.value.errno == errno.ENOENT
    assert str(caught.value) == "open /nonexistent: No such file or directory"
    with pytest.raises(KernelError) as caught:
        calls.renameat2(calls.AT_FDCWD, "/nonexistent/a", calls.AT_FDCWD, b"/nonexistent/b")
    assert str(caught.value) == "rename /nonexistent/a to /nonexistent/b: No such file or directory"
    with pytest.raises(KernelError, match="a path cannot hold a NUL byte"):
        calls.openat2(calls.AT_FDCWD, "a\0b", os.O_RDONLY)
    with pytest.raises(KernelError, match="send signal 0 to a process: Bad file descriptor"):
        calls.pidfd_send_signal(-1, 0)


def test_calls_are_logged_at_debug_level_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pyengine.linux.calls"):
        calls.pidfd_open(os.getpid()).close()
    assert not caplog.records
    with caplog.at_level(logging.DEBUG, "pyengine.linux.calls"), pytest.raises(KernelError):
        calls.openat2(calls.AT_FDCWD, "/nonexistent", os.O_RDONLY)
    assert [record.getMessage() for record in caplog.records] == ["openat2 /nonexistent: ENOENT"]


def test_a_sealed_memory_file_cannot_change() -> None:
    with calls.sealed_memfd("plan", b"content") as fd:
        assert os.read(fd.fileno(), 100) == b"content"
        for change in (lambda: os.pwrite(fd.fileno(), b"x", 0), lambda: os.ftruncate(fd.fileno(), 0)):
            with pytest.raises(PermissionError):
                change()


def test_renames_can_refuse_and_exchange(tmp_path: object) -> None:
    first, second = (os.path.join(str(tmp_path), name) for name in "ab")
    for path in (first, second):
        with open(path, "w") as file:
            file.write(path)
    with pytest.raises(KernelError) as caught:
        calls.renameat2(calls.AT_FDCWD, first, calls.AT_FDCWD, second, calls.RENAME_NOREPLACE)
    assert caught.value.errno == errno.EEXIST
    calls.renameat2(calls.AT_FDCWD, first, calls.AT_FDCWD, second, calls.RENAME_EXCHANGE)
    with open(first) as file:
        assert file.read() == second
