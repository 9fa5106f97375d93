"""The monitor supervises: streams, log, attach, control, state, restarts, cleanup, the end."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from plan_box import (
    NAMESPACES,
    NEWNET,
    NEWPID,
    Box,
    build_helper,
    cgroup,
    log_content,
    new_box,
    read_streams,
    receive,
    spam,
    until,
    until_gone,
)

from pyengine.errors import KernelError, PyengineError, StartFailed
from pyengine.linux import calls
from pyengine.runtime import monitor
from pyengine.runtime.plan import (
    AwaitStart,
    Device,
    Exec,
    JoinNamespace,
    Mount,
    NewSession,
    Plan,
    Settings,
    Symlink,
    Terminal,
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


# --- state and messages


def test_the_state_follows_the_life_of_a_container(box: Box) -> None:
    session, run = box.launch(box.plan("helper", "sleep", "100", after=(AwaitStart(),)))
    session.await_created()
    state = read_state(run)
    assert state.phase == "created"
    assert state.pid is not None
    assert state.pid.pid == session.pid
    assert state.pid.start_time == session.start_time
    assert state.started_ns == 0 < state.created_ns
    assert state.monitor_alive
    assert state.process_alive
    session.start()
    session.await_started()
    assert (running := read_state(run)).phase == "running"
    assert running.started_ns >= running.created_ns == state.created_ns
    assert session.wait_exit(0.05) is None
    os.kill(session.pid, signal.SIGTERM)  # pid 1 without a handler: ignored by the kernel
    assert session.wait_exit(0.1) is None
    os.kill(session.pid, signal.SIGKILL)
    ended = session.wait_exit(10)
    assert ended is not None
    assert (ended.exit_code, ended.oom_killed) == (137, False)
    last = until_gone(run)
    assert (last.phase, last.exit_code, last.pid, last.finished_ns) == ("exited", 137, None, ended.time_ns)
    assert last.finished_ns >= running.started_ns


def test_a_container_waits_for_its_start_until_some_engine_says_so(box: Box) -> None:
    session, run = box.launch(box.plan("helper", "echo", "x", after=(AwaitStart(),), log_path=f"{box.base}/log"))
    session.await_created()
    session.close()
    with monitor.connect(run) as later:
        later.await_created()
        assert later.pid == read_state(run).pid.pid
        later.start()
        later.await_started()
        assert later.wait_exit(10).exit_code == 0
    assert log_content(box.base / "log")["stdout"] == b"x\n"


def test_a_later_engine_learns_why_the_start_failed(box: Box) -> None:
    session, run = box.launch(box.plan("missing", after=(AwaitStart(),)))
    session.await_created()
    with monitor.connect(run) as later:
        later.start()
        with pytest.raises(StartFailed) as caught:
            later.await_started()
    assert str(caught.value) == "execute missing: No such file or directory (step 6 of 6)"
    assert caught.value.exit_code == 127


def test_there_is_nobody_to_connect_to_after_the_end(box: Box) -> None:
    with pytest.raises(FileNotFoundError):
        monitor.connect(str(box.base))
    session, run = box.launch(box.plan("helper"))
    session.wait_exit(10)
    until_gone(run)
    with pytest.raises(ConnectionRefusedError):
        monitor.connect(run)


def test_a_first_process_that_is_killed_before_its_command_is_a_failed_start(box: Box) -> None:
    session, run = box.launch(box.plan("helper", after=(AwaitStart(),)))
    session.await_created()
    os.kill(session.pid, signal.SIGKILL)
    with pytest.raises(KernelError) as caught:
        session.await_started()
    assert str(caught.value) == (
        "set the container up: No child processes (the first process was killed before it could start)"
    )
    assert until_gone(run).phase == "failed"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data[:-8], "the length is wrong"),
        (lambda data: data + b"\0" * 8, "the length is wrong"),
        (lambda data: b"PYPLAN2\0" + data[8:], "not a plan"),
        (lambda data: data[:16] + struct.pack("<q", 99) + data[24:], "the settings do not parse"),
        (lambda data: data[:24] + struct.pack("<q", 1 << 62) + data[32:], "the settings do not parse"),
        (lambda data: b"", "the plan is not sealed, or not of a possible size"),
    ],
)
def test_a_plan_that_is_none_is_refused_whole(box: Box, change, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = box.plan("helper")
    encode = Plan.encode
    monkeypatch.setattr(Plan, "encode", lambda self: change(encode(self)))
    session, run = box.launch(plan)
    with pytest.raises(KernelError) as caught:
        session.await_started()
    assert str(caught.value) == f"set the container up: Invalid argument ({text})"
    assert until_gone(run).phase == "failed"


def test_a_plan_that_could_still_change_is_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsealed(name: str, data: bytes) -> calls.Fd:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(fd, data)
        return calls.Fd(fd)

    monkeypatch.setattr(calls, "sealed_memfd", unsealed)
    session, _ = box.launch(box.plan("helper"))
    with pytest.raises(KernelError, match="the plan is not sealed"):
        session.await_started()


# --- streams


def test_a_lossless_client_gets_every_byte_of_both_streams(box: Box) -> None:
    size = 3 << 20
    output = box.run("helper", "spam", str(size), "100", "--", "spam", "70000", "7", "stderr")
    assert output.stdout.encode() == spam(size, 100)
    assert output.stderr.encode() == spam(70000, 7)


def test_a_slow_lossless_client_holds_the_container_up_and_loses_nothing(box: Box) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    plan = box.plan("helper", "spam", str(2 << 20), "64", descriptors=("client",))
    with ours, theirs:
        session, run = box.launch(plan, {"client": theirs.fileno()})
        theirs.close()
        session.await_started()
        time.sleep(0.3)
        assert read_state(run).phase == "running"  # it waits for us
        assert read_streams(ours)[0] == spam(2 << 20, 64)
        assert session.wait_exit(10).exit_code == 0


def test_stdin_goes_in_and_its_end_is_seen(box: Box) -> None:
    data = os.urandom(300_000).hex().encode()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    plan = box.plan("helper", "cat", descriptors=("client",), stdin=True)
    with ours:
        with theirs:
            session, _ = box.launch(plan, {"client": theirs.fileno()})
        source, sink = os.pipe(), os.pipe()
        writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=source[1])
        reader = subprocess.Popen(["cat"], stdin=sink[0], stdout=subprocess.PIPE)
        os.close(source[1])
        os.close(sink[0])
        import threading

        feeder = threading.Thread(target=lambda: (writer.stdin.write(data), writer.stdin.close()))
        collected: list[bytes] = []
        collector = threading.Thread(target=lambda: collected.append(reader.stdout.read()))
        feeder.start()
        collector.start()
        from pyengine.runtime.attach import pump

        assert pump(ours, source[0], sink[1], sink[1]) is True
        os.close(sink[1])
        os.close(source[0])
        feeder.join()
        collector.join()
        reader.stdout.close()
        assert (writer.wait(), reader.wait()) == (0, 0)
        assert collected == [data]
        assert session.wait_exit(10).exit_code == 0


def processor_time(pid: int) -> int:
    """Clock ticks (10 ms) that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().split()
    return int(fields[13]) + int(fields[14])


def test_stdin_that_nobody_reads_costs_nothing_and_is_kept(box: Box) -> None:
    """A client that had sent more than the container reads, and had gone, kept the monitor busy for ever."""
    plan = box.plan(
        "helper", "await-signal", "10", "--", "cat", stdin=True, stdin_once=True, log_path=f"{box.base}/log"
    )
    session, run = box.launch(plan)
    session.await_started()
    sent = b"x" * 8191 + b"\n"
    with monitor.connect_streams(run) as client:
        client.settimeout(0.3)
        count = 0
        with suppress(TimeoutError):
            while True:
                count += client.send(sent) // len(sent)
    assert count > 10
    pid = read_state(run).monitor.pid
    begin = processor_time(pid)
    time.sleep(0.5)
    assert processor_time(pid) - begin <= 3
    os.kill(session.pid, signal.SIGUSR1)
    assert session.wait_exit(10).exit_code == 0
    assert log_content(box.base / "log")["stdout"].endswith(b"signal 10\n" + sent * count)


def test_without_stdin_the_container_reads_nothing(box: Box) -> None:
    assert box.run("helper", "cat", "--", "echo", "end", input=b"ignored").stdout == "end\n"


@pytest.mark.parametrize("once", [True, False])
def test_stdin_ends_with_its_first_client_only_when_asked_for(box: Box, once: bool) -> None:
    session, run = box.launch(box.plan("helper", "cat", stdin=True, stdin_once=once, log_path=f"{box.base}/log"))
    session.await_started()
    with monitor.connect_streams(run) as first:
        first.send(b"one\n")
        assert receive(first) == b"\x02one\n"
    if once:
        assert session.wait_exit(10).exit_code == 0
        return
    assert session.wait_exit(0.1) is None
    with monitor.connect_streams(run) as second:
        second.send(b"two\n")
        assert receive(second) == b"\x02two\n"
        second.shutdown(socket.SHUT_WR)
        assert receive(second) == b""
    assert session.wait_exit(10).exit_code == 0


def test_a_client_that_does_not_read_is_cut_off(box: Box) -> None:
    """CVE-2025-64329 and CVE-2022-31030: neither clients that stall nor endless output hold anything up for ever."""
    session, run = box.launch(box.plan("helper", "cat", "--", "spam", str(8 << 20), "64", stdin=True))
    session.await_started()
    with monitor.connect_streams(run) as stalled, monitor.connect_streams(run) as reading:
        reading.shutdown(socket.SHUT_WR)
        begin = time.monotonic()
        out, _ = read_streams(reading)
        assert out == spam(8 << 20, 64)
        assert 4 < time.monotonic() - begin < 20  # CLIENT_PATIENCE_MS
        assert len(read_streams(stalled)[0]) < 8 << 20
    assert session.wait_exit(10).exit_code == 0


def test_more_clients_than_there_is_room_for_are_turned_away(box: Box) -> None:
    session, run = box.launch(box.plan("helper", "await-signal", "10", "--", "echo", "x"))
    session.await_started()
    clients = [monitor.connect_streams(run) for _ in range(70)]
    until(lambda: all(client.recv(1, socket.MSG_PEEK) == b"" for client in clients[64:]), "the refusal")
    os.kill(session.pid, signal.SIGUSR1)
    for client in clients[:64]:
        assert read_streams(client)[0].endswith(b"x\n")
    for client in clients:
        client.close()
    assert session.wait_exit(10).exit_code == 0


def test_output_that_others_hold_open_does_not_hold_up_the_end(box: Box) -> None:
    output = box.run("helper", "echo", "x", "--", "background", "100", namespaces=NAMESPACES & ~NEWPID, proc=False)
    assert output.stdout == "x\n"
    subprocess.run(["pkill", "-KILL", "-f", f"^{'helper'} echo x -- background 100$"], check=False)


# --- terminal


def terminal_plan(box: Box, *argv: str, **settings: object) -> Plan:
    return box.plan(*argv, before=(PTS,), after=(NewSession(), Terminal(24, 80, False)), **settings)


def test_a_terminal_is_resized_through_the_fifo(box: Box) -> None:
    session, run = box.launch(terminal_plan(box, "helper", "await-resize"))
    session.await_started()
    with monitor.connect_streams(run) as client:
        time.sleep(0.1)
        for garbage in ("nonsense\n", "1 2\n", "9 9 9\n", "1 -1 5\n", "1 70000 1\n", "x" * 200 + "\n", "\n"):
            monitor._write_ctl(run, garbage)
        monitor.resize(run, 33, 44)
        assert b"33 44\r\n" in read_streams(client)[0]
    assert session.wait_exit(10).exit_code == 0


def test_what_is_typed_reaches_the_terminal(box: Box) -> None:
    session, run = box.launch(terminal_plan(box, "helper", "cat"))
    session.await_started()
    with monitor.connect_streams(run) as client:
        client.send(b"hello\n\x04")  # ctrl-d: the end, for a terminal
        out = read_streams(client)[0]
    assert out == b"hello\r\nhello\r\n"
    assert session.wait_exit(10).exit_code == 0


def test_a_container_that_closes_its_terminal_costs_nothing(box: Box) -> None:
    session, run = box.launch(terminal_plan(box, "helper", "close-all"))
    session.await_started()
    time.sleep(0.2)
    state = read_state(run)
    begin = processor_time(state.monitor.pid)
    time.sleep(0.5)
    assert processor_time(state.monitor.pid) - begin <= 3
    os.kill(session.pid, signal.SIGKILL)
    assert session.wait_exit(10).exit_code == 137


# --- the monitor itself


def test_a_monitor_needs_little_memory_of_its_own(box: Box) -> None:
    session, run = box.launch(box.plan("helper", "cat", "--", "sleep", "100", stdin=True, log_path=f"{box.base}/log"))
    session.await_started()
    with monitor.connect_streams(run) as client:
        client.send(b"x\n")
        receive(client)
    pid = read_state(run).monitor.pid
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
    assert private <= 160, rollup


def test_a_monitor_keeps_no_descriptor_that_it_does_not_need(box: Box) -> None:
    """A namespace that was joined does not live as long as the monitor because of it."""
    net = os.open("/proc/self/ns/net", os.O_RDONLY)
    settings = {"namespaces": NAMESPACES & ~NEWNET, "log_path": f"{box.base}/log", "descriptors": ("net",)}
    plan = box.plan("helper", "sleep", "100", before=(JoinNamespace(NEWNET, "net", "x"),), **settings)
    session, run = box.launch(plan, {"net": net})
    os.close(net)
    session.await_started()
    pid = read_state(run).monitor.pid
    links = sorted(re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{fd}")) for fd in os.listdir(f"/proc/{pid}/fd"))
    assert links == sorted(
        ["/dev/null"] * 3
        + ["socket:[N]"] * 3
        + ["anon_inode:[signalfd]", "pipe:[N]", "pipe:[N]"]
        + [re.sub(r"\d+", "N", run), re.sub(r"\d+", "N", f"{run}/ctl"), re.sub(r"\d+", "N", f"{box.base}/log")]
    )
    assert os.readlink(f"/proc/{pid}/cwd") == run
    assert Path(f"/proc/{pid}/comm").read_text() == "pyengine-mon\n"
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"pyengine-monitor\x000123456789ab\0"
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""


def test_a_monitor_takes_no_notice_of_signals(box: Box) -> None:
    session, run = box.launch(box.plan("helper", "sleep", "100"))
    session.await_started()
    pid = read_state(run).monitor.pid
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR1):
        os.kill(pid, number)
    assert session.wait_exit(0.2) is None
    assert read_state(run).monitor_alive
    os.kill(session.pid, signal.SIGKILL)
    assert session.wait_exit(10).exit_code == 137


def test_a_killed_monitor_is_noticed(box: Box) -> None:
    session, run = box.launch(box.plan("helper", "sleep", "100"))
    session.await_started()
    container = session.pid
    os.kill(read_state(run).monitor.pid, signal.SIGKILL)
    with pytest.raises(PyengineError, match="the monitor of the container ended without a word: it was killed"):
        session.wait_exit(10)
    until(lambda: not read_state(run).monitor_alive, "the end of the monitor")
    state = read_state(run)
    assert state.phase == "running"
    assert state.process_alive  # the container lives on
    os.kill(container, signal.SIGKILL)
    until(lambda: read_state(run).phase == "exited", "the end")
    assert (read_state(run).exit_code, read_state(run).error) == (-1, "the monitor was killed")


FAULTS = re.findall(
    r"X\((\w+)\)", (Path(__file__).parents[2] / "native/monitor/faults.h").read_text().split("X)", 1)[1]
)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_monitor_that_is_killed_at_any_point_leaves_a_clear_state(box: Box, fault: str) -> None:
    """Before the command runs, nothing runs; after it, the container goes on; the state never lies."""
    with cgroup(f"fault-{fault}") as path:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        settings = {"log_path": f"{box.base}/log", "log_max_size": 1000, "cgroup": str(path)}
        plan = box.plan(
            "helper",
            "spam",
            "5000",
            "50",
            "--",
            "await-signal",
            "10",
            after=(AwaitStart(),),
            descriptors=("cgroup",),
            **settings,
        )
        session, run = box.launch(plan, {"cgroup": fd}, fault=fault)
        os.close(fd)

        def live() -> None:
            session.start()
            session.await_started()
            until(lambda: session.receive(0) or b"ready" in (box.base / "log").read_bytes(), "its word")
            os.kill(session.pid, signal.SIGUSR1)
            assert session.wait_exit(10).exit_code == 0
            while session.receive(10):
                pass

        with pytest.raises(PyengineError, match="it was killed"):
            live()
        until(lambda: not read_state(run).monitor_alive, "the end of the monitor")
        state = read_state(run)
        if state.phase == "running":
            assert state.process_alive
            assert fault in ("started", "state_written", "log_rotated", "start_requested", "created")
        elif state.process_alive:
            until(lambda: not read_state(run).process_alive, "the end of the child")
        if fault in ("plan_read", "sockets_made", "before_clone", "after_clone"):
            assert state.phase == ""
            until(lambda: not (path / "cgroup.procs").read_text(), "the end of the child")
        if fault in ("exit_published", "before_cleanup", "cgroup_removed"):
            assert (state.phase, state.exit_code) == ("exited", 0)


def test_plans_without_a_mount_namespace_run_in_the_joined_one(box: Box) -> None:
    plan = Plan(Settings("x", namespaces=NEWPID), (Exec((str(box.root / "bin" / "helper"), "exit", "9"), (), 0),))
    session, _ = box.launch(plan)
    assert session.wait_exit(10).exit_code == 9


def test_device_and_link_steps_do_not_leave_the_root(box: Box) -> None:
    """CVE-2026-41579, CVE-2026-47766: an image in which /dev is a link to a path of the host."""
    outside = box.base / "outside"
    outside.mkdir()
    (box.root / "dev").rmdir()
    (box.root / "dev").symlink_to(outside)
    steps = (Device("/dev/null", 0o20666, 1, 3, 0, 0), Symlink("/proc/self/fd", "/dev/fd"))
    output = box.run("helper", "stat", "/dev", str(outside / "null"), before=steps)
    assert output.stdout.startswith("l ")
    assert " 1:3 " in output.stdout
    assert list(outside.iterdir()) == []
