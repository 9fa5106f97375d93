"""Attach: packets, detach keys, and the loop that copies."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue, PyengineError
from pyengine.runtime.attach import STDERR, STDOUT, DetachFilter, Output, decode_packet, parse_detach_keys, pump


@given(st.binary())
def test_packets(data: bytes) -> None:
    assert decode_packet(b"\x02" + data) == Output(STDOUT, data)
    assert decode_packet(b"\x03" + data) == Output(STDERR, data)


def test_the_empty_packet_is_the_end() -> None:
    assert decode_packet(b"") is None


@given(st.binary(min_size=1).filter(lambda data: data[0] not in (2, 3)))
def test_other_packets_are_refused(data: bytes) -> None:
    with pytest.raises(PyengineError, match=f"the monitor sent a packet for stream {data[0]}, which there is not"):
        decode_packet(data)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("", b""),
        ("a,ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_,Z", b"a\x00\x1b\x1c\x1d\x1e\x1fZ"),
        ("ctrl-A", b"\x01"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ab", "a,", ",", "ctrl-1", "ctrl-ä", "ä", "ctrl-ab", "shift-a"])
def test_keys_that_there_are_not(text: str) -> None:
    with pytest.raises(InvalidValue, match="is not a key to detach with: one character, or ctrl- and a letter"):
        parse_detach_keys(text)


few = st.lists(st.sampled_from(b"abc"), max_size=60).map(bytes)
sequences = st.lists(st.sampled_from(b"abc"), min_size=1, max_size=5).map(bytes)


@given(few, sequences, st.data())
def test_the_filter_finds_the_first_sequence_wherever_reads_cut(typed: bytes, keys: bytes, data: st.DataObject) -> None:
    filter = DetachFilter(keys)
    out, rest, detached = b"", typed, False
    while rest and not detached:
        size = data.draw(st.integers(1, len(rest)))
        part, detached = filter.feed(rest[:size])
        out, rest = out + part, rest[size:]
    where = typed.find(keys)
    assert detached == (where >= 0)
    if detached:
        assert out == typed[:where]
    else:
        held = filter.flush()
        assert out + held == typed
        assert keys.startswith(held)
        assert filter.flush() == b""


@given(few)
def test_without_keys_everything_goes_through(typed: bytes) -> None:
    assert DetachFilter(b"").feed(typed) == (typed, False)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_pump_copies_both_streams_until_the_end() -> None:
    ours, theirs = pair()
    out, err = os.pipe(), os.pipe()
    with ours:
        with theirs:
            theirs.send(b"\x02one")
            theirs.send(b"\x03two")
        assert pump(ours, None, out[1], err[1]) is True
    assert os.read(out[0], 100) == b"one"
    assert os.read(err[0], 100) == b"two"
    for fd in (*out, *err):
        os.close(fd)


def test_pump_ends_at_the_detach_keys_and_sends_what_was_before() -> None:
    ours, theirs = pair()
    source = os.pipe()
    with ours, theirs:
        os.write(source[1], b"abc\x10x\x10\x11never")
        assert pump(ours, source[0], 1, 2) is False
        assert theirs.recv(100) == b"abc\x10x"
    for fd in source:
        os.close(fd)


def test_pump_tells_the_end_of_stdin_after_what_was_held_back() -> None:
    ours, theirs = pair()
    source = os.pipe()
    os.write(source[1], b"abc\x10")
    os.close(source[1])
    with ours, theirs:
        thread = threading.Thread(target=pump, args=(ours, source[0], 1, 2))
        thread.start()
        assert theirs.recv(100) == b"abc"
        assert theirs.recv(100) == b"\x10"
        assert theirs.recv(100) == b""
        theirs.close()
        thread.join()
    os.close(source[0])


def test_pump_reads_while_the_other_side_does_not() -> None:
    """A container that cannot write does not read: whoever waits for its input to be taken must take its output."""
    ours, theirs = pair()
    source, out = os.pipe(), os.pipe()
    with ours, theirs:
        theirs.setblocking(False)

        def feed() -> None:
            for _ in range(400):
                os.write(source[1], b"x" * 4096)
            os.close(source[1])

        def collect() -> None:
            while data := os.read(out[0], 65536):
                got.append(len(data))

        got: list[int] = []
        feeder, collector = threading.Thread(target=feed), threading.Thread(target=collect)
        pumping = threading.Thread(target=pump, args=(ours, source[0], out[1], out[1]))
        for thread in (feeder, collector, pumping):
            thread.start()
        theirs.setblocking(True)
        for _ in range(2000):
            theirs.send(b"\x02" + b"y" * 8000)  # does not read yet
        received = 0
        while data := theirs.recv(65536):
            received += len(data)
        theirs.close()
        pumping.join()
        feeder.join()
        os.close(out[1])
        collector.join()
    assert received == 400 * 4096
    assert sum(got) == 2000 * 8000
    os.close(source[0])
    os.close(out[0])
