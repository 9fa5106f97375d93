"""Streams of containers in the caller's hands: attach, terminals, many clients."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import threading

import pytest
from engines import IMAGE, ROOTLESS, eventually

from pyengine import Engine
from pyengine.engine.attachment import Attachment
from pyengine.engine.container import Container
from pyengine.errors import InvalidValue, WaitTimeout

pytestmark = pytest.mark.rootless


def read_all(attachment: Attachment) -> tuple[bytes, bytes]:
    """Everything that is still to come, by stream."""
    output = {"stdout": b"", "stderr": b""}
    while packet := attachment.read():
        output[packet[0]] += packet[1]
    return output["stdout"], output["stderr"]


def read_until(attachment: Attachment, text: bytes) -> bytes:
    found = b""
    while text not in found:
        packet = attachment.read()
        assert packet is not None, found
        found += packet[1]
    return found


def cat(engine: Engine, **options: object) -> Container:
    return engine.containers.create(IMAGE, ["cat"], interactive=True, **options)


def test_nothing_is_missed_of_what_is_started_attached(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "echo first; echo second >&2; exit 3"])
    with box.start_attached() as attachment:
        assert read_all(attachment) == (b"first\n", b"second\n")
        assert attachment.wait(10) == 3
        assert attachment.read() is None


def test_what_is_written_is_read(engine: Engine) -> None:
    with cat(engine).start_attached() as attachment:
        attachment.write(b"one")
        assert attachment.read() == ("stdout", b"one")
        with pytest.raises(WaitTimeout, match="did not end within"):
            attachment.wait(0.05)
        attachment.close_stdin()
        assert attachment.read() is None
        assert attachment.wait(10) == 0
        attachment.close_stdin()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            attachment.write(b"x" * 100000)


def test_without_interactive_stdin_is_empty(engine: Engine) -> None:
    with engine.containers.create(IMAGE, ["cat"]).start_attached() as attachment:
        assert read_all(attachment) == (b"", b"")
        assert attachment.wait(10) == 0


def test_a_held_container_is_attached_before_it_starts(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "echo first"])
    box.init()
    with box.start_attached() as attachment:
        assert read_all(attachment)[0] == b"first\n"


def test_detaching_leaves_it_running_and_others_join(engine: Engine) -> None:
    box = cat(engine)
    with box.start_attached() as attachment:
        attachment.write(b"one\n")
        read_until(attachment, b"one\n")
    assert box.status == "running"
    with box.attach() as attachment:
        attachment.write(b"two\n")
        assert read_until(attachment, b"two\n") == b"two\n"  # what was before is in the log
    assert eventually(lambda: [line.text for line in box.logs()] == [b"one", b"two"])


def test_every_client_sees_all_of_what_comes(engine: Engine) -> None:
    box = cat(engine)
    with box.start_attached() as first, box.attach(stdin=True) as second, box.attach() as third:
        second.write(b"x" * 20000 + b"\n")
        for attachment in (first, second, third):
            assert read_until(attachment, b"\n") == b"x" * 20000 + b"\n"
        third.close()
        first.write(b"y\n")
        assert read_until(second, b"y\n") == b"y\n"


def test_a_client_that_joined_and_never_reads_holds_up_nobody(engine: Engine) -> None:
    # CVE-2025-64329 is about clients that come and go, this about those that stay
    box = engine.containers.create(
        IMAGE, ["sh", "-c", "read x; yes | head -c 5000000; echo done >&2"], interactive=True
    )
    with box.start_attached() as reader, box.attach():
        reader.write(b"\n")
        stdout, stderr = read_all(reader)
        assert (len(stdout), stderr) == (5000000, b"done\n")
        assert box.wait(20) == 0


def test_clients_that_come_and_go_leave_nothing(engine: Engine) -> None:
    box = cat(engine)
    box.start()
    for _ in range(50):
        box.attach().close()
    monitor = box.state().monitor_pid
    if ROOTLESS:
        with pytest.raises(PermissionError):  # nobody but root looks into a monitor
            os.listdir(f"/proc/{monitor}/fd")
    else:
        assert eventually(lambda: len(os.listdir(f"/proc/{monitor}/fd")) < 20)
    with box.attach() as attachment:
        attachment.write(b"x\n")
        assert read_until(attachment, b"\n") == b"x\n"


def test_a_terminal_has_the_size_that_it_is_given(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "tty; read x; stty size; exit 4"], tty=True, interactive=True)
    with box.start_attached() as attachment:
        assert b"/dev/pts/0\r\n" in read_until(attachment, b"\n")
        attachment.resize(40, 132)
        attachment.write(b"\n")
        assert read_until(attachment, b"40 132\r\n").endswith(b"40 132\r\n")
        assert attachment.wait(10) == 4


def test_a_terminal_signals(engine: Engine) -> None:
    box = engine.containers.create(
        IMAGE, ["sh", "-c", "trap 'echo caught' INT; echo ready; read x; exit 5"], tty=True, interactive=True
    )
    with box.start_attached() as attachment:
        read_until(attachment, b"ready")
        attachment.write(b"\x03")
        read_until(attachment, b"caught")
        attachment.write(b"\n")
        assert attachment.wait(10) == 5


# --- pump


def pumped(attachment: Attachment, typed: bytes, keys: str = "ctrl-p,ctrl-q") -> tuple[bool, bytes, bytes]:
    """What pump() returned and wrote."""
    source, sink = os.pipe()
    os.write(sink, typed)
    os.close(sink)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, source)
        stdout, stderr = (tuple(map(stack.enter_context, socket.socketpair())) for _ in range(2))
        ended = attachment.pump(source, stdout[1].fileno(), stderr[1].fileno(), keys)
        stdout[1].close()
        stderr[1].close()
        return ended, stdout[0].recv(65536), stderr[0].recv(65536)


def test_pump_copies_until_the_end(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "cat; echo err >&2"], interactive=True)
    with box.start_attached() as attachment:
        assert pumped(attachment, b"hello") == (True, b"hello", b"err\n")
        assert attachment.wait(10) == 0


def test_the_detach_keys_detach(engine: Engine) -> None:
    box = cat(engine)
    with box.start_attached() as attachment:
        assert pumped(attachment, b"\x10\x11")[0] is False
    assert box.status == "running"
    with box.attach() as attachment:
        assert pumped(attachment, b"ab", "a,b")[0] is False
    assert box.status == "running"
    with box.attach() as attachment:
        assert pumped(attachment, b"\x10\x11x", "") == (True, b"\x10\x11x", b"")
    with pytest.raises(InvalidValue, match="is not a key to detach with"), cat(engine).start_attached() as attachment:
        pumped(attachment, b"", "ctrl-1")


def test_pump_between_terminals(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "echo hi; read x; echo got $x"], tty=True, interactive=True)
    ours, theirs = pty.openpty()
    ended: list[bool] = []
    try:
        with box.start_attached() as attachment:
            pump = threading.Thread(target=lambda: ended.append(attachment.pump(theirs, theirs, theirs)))
            pump.start()
            text = b""
            while b"hi" not in text:
                text += os.read(ours, 1000)
            os.write(ours, b"word\n")
            while b"got word" not in text:
                text += os.read(ours, 1000)
            pump.join(10)
        assert ended == [True]
    finally:
        os.close(ours)
        os.close(theirs)
