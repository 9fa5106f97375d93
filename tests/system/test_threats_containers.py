"""Hostile containers against the engine: what they can reach, and what they can exhaust."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import ROOTLESS, eventually, new_engine
from threats import hostile_image

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import PyengineError
from pyengine.runtime.state import monitored

IMAGE = "localhost/good:1"

#: system calls of x86-64: number, arguments, what the default profile answers
REFUSED = {
    "fsconfig": (431, "0", "Operation not permitted"),
    "fsopen": (430, "0", "Operation not permitted"),
    "mount": (165, "0", "Operation not permitted"),
    "umount2": (166, "0", "Operation not permitted"),
    "open_tree": (428, "0", "Operation not permitted"),
    "unshare": (272, "268435456", "Operation not permitted"),
    "setns": (308, "0", "Operation not permitted"),
    "clone3": (435, "0", "Function not implemented"),
    "add_key": (248, "0", "Operation not permitted"),
    "request_key": (249, "0", "Operation not permitted"),
    "keyctl": (250, "0", "Operation not permitted"),
    "io_uring_setup": (425, "1", "Operation not permitted"),
    "bpf": (321, "0", "Operation not permitted"),
    "userfaultfd": (323, "0", "Operation not permitted"),
    "perf_event_open": (298, "0", "Operation not permitted"),
    "init_module": (175, "0", "Operation not permitted"),
    "kexec_load": (246, "0", "Operation not permitted"),
    "open_by_handle_at": (304, "0", "Operation not permitted"),
    "reboot": (169, "0", "Operation not permitted"),
    "swapon": (167, "0", "Operation not permitted"),
    "settimeofday": (164, "0", "Operation not permitted"),
    "pivot_root": (155, "0", "Operation not permitted"),
}
#: … and some that programs need
ALLOWED = {"getpid": 39, "sched_yield": 24, "getrandom": 318, "gettid": 186, "sync": 162, "getppid": 110}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with new_engine(tmp_path_factory.mktemp("hostile")) as engine:
        hostile_image(engine, IMAGE, {})
        assert engine.containers.run(IMAGE, ["true"]).exit_code == 0
        yield engine


@pytest.fixture
def box(engine: Engine) -> Iterator[Container]:
    with engine.containers.create(IMAGE, ["sh", "-c", "while :; do sleep 1000; done"]) as box:
        box.start()
        yield box


def both(engine: Engine, box: Container, script: str) -> list[str]:
    """What a shell says in a container that starts with it, and in a session."""
    started = engine.containers.run(IMAGE, ["sh", "-c", script], timeout=20)
    session = box.exec(["sh", "-c", script], timeout=20)
    return [(result.stdout + result.stderr).decode() for result in (started, session)]


@pytest.mark.rootless
def test_the_default_filter_refuses_what_reaches_into_the_kernel(engine: Engine, box: Container) -> None:
    """CVE-2022-0185, CVE-2022-0492."""
    script = "".join(
        f"echo {name}; /helper syscall {number} {argument} 2>&1\n" for name, (number, argument, _) in REFUSED.items()
    ) + "".join(
        f"/helper syscall {number} > /dev/null 2>&1 || echo cannot {name}\n" for name, number in ALLOWED.items()
    )
    for said in both(engine, box, script):
        assert "cannot" not in said
        answers = dict(zip(said.splitlines()[::2], said.splitlines()[1::2], strict=True))
        assert set(answers) == set(REFUSED)
        for name, (_, _, reason) in REFUSED.items():
            assert answers[name].endswith(reason), (name, answers[name])


@pytest.mark.rootless
def test_cgroups_and_sysctls_cannot_be_changed(engine: Engine, box: Container) -> None:
    """CVE-2022-0492, CVE-2023-25809."""
    script = (
        "mkdir /sys/fs/cgroup/own; echo 0 > /sys/fs/cgroup/cgroup.procs; echo max > /sys/fs/cgroup/pids.max;"
        "echo x > /proc/sys/kernel/core_pattern; echo x > /proc/sys/kernel/modprobe; echo b > /proc/sysrq-trigger;"
        "mount -t cgroup2 none /tmp; mount -o remount,rw /sys/fs/cgroup; umount /proc/sys; mknod /tmp/disk b 8 0"
        " && cat /tmp/disk; ls /sys/firmware /proc/scsi /proc/acpi"
    )
    patterns = Path("/proc/sys/kernel/core_pattern").read_text()
    for said in both(engine, box, script):
        complaints = [line for line in said.splitlines() if line]
        for what in ("mkdir: ", "core_pattern", "modprobe", "mount: ", "umount: "):
            assert any(what in line for line in complaints), (what, complaints)
        assert not any(os.path.isdir(f"{place}/own") for place, _, _ in os.walk("/sys/fs/cgroup"))
    assert Path("/proc/sys/kernel/core_pattern").read_text() == patterns


@pytest.mark.rootless
def test_processes_of_the_host_can_neither_be_seen_nor_signalled(engine: Engine, box: Container) -> None:
    monitor_pid, first = box.state().monitor_pid, box.state().pid
    script = (
        f"for pid in {monitor_pid} {first} {os.getpid()}; do kill -0 $pid; ls /proc/$pid; done;"
        "ls /proc | grep -c '^[0-9]'; cat /proc/1/environ | tr '\\0' '\\n' | grep -c PYENGINE; kill -9 -1"
    )
    started, session = both(engine, box, script)
    for said in (started, session):
        assert len(re.findall(r"kill pid \d+: No such process", said)) == 3, said
        assert said.count("No such file or directory") == 3, said
    assert int(re.findall(r"^(\d+)$", session, re.M)[0]) <= 8
    os.kill(monitor_pid, 0)
    assert Path(f"/proc/{monitor_pid}/comm").read_text() == "pyengine-mon\n"


@pytest.mark.rootless
def test_the_monitor_keeps_nothing_that_could_be_read(engine: Engine) -> None:
    """What the caller has in its environment is not in the monitor's, nor are descriptors that it does not need."""
    with engine.containers.create(IMAGE, ["sleep", "1000"], env=["SECRET=of the container"]) as box:
        box.start()
        pid = box.state().monitor_pid
        opened = set()
        if not ROOTLESS:  # not dumpable: nobody but root looks
            assert Path(f"/proc/{pid}/environ").read_bytes() == b""
            opened = {os.readlink(f"/proc/{pid}/fd/{name}").split(":")[0] for name in os.listdir(f"/proc/{pid}/fd")}
            assert not any("memfd" in name for name in opened)
        else:
            with pytest.raises(PermissionError):
                os.listdir(f"/proc/{pid}/fd")
        assert Path(f"/proc/{pid}/cmdline").read_bytes() == f"pyengine-monitor\0{box.short_id}\0".encode()


@pytest.mark.rootless
def test_no_socket_is_abstract(box: Container) -> None:
    """CVE-2020-15257: an abstract socket is open to every process of the network namespace."""
    names = [line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
    assert not [name for name in names if name.startswith("@")]
    run = box.engine.layout.run(box.id)
    for name in ("attach", "control", "ctl"):
        assert stat.S_IMODE(os.stat(f"{run}/{name}").st_mode) & 0o077 == 0


@pytest.mark.rootless
def test_other_users_can_enter_nothing_of_the_store(engine: Engine, box: Container) -> None:
    """CVE-2021-41091, CVE-2021-41103, CVE-2024-25621."""
    for path in (engine.root, engine.run_root, engine.layout.container(box.id), engine.layout.run(box.id)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700, path
    for name in os.listdir(engine.root):
        if os.path.isdir(f"{engine.root}/{name}") and name not in ("targets", "cache"):
            assert stat.S_IMODE(os.stat(f"{engine.root}/{name}").st_mode) == 0o700, name
    log = box.log_path
    assert stat.S_IMODE(os.stat(log).st_mode) & 0o077 == 0
    box.exec(["sh", "-c", "cp /bin/busybox /tmp/s; chmod 4755 /tmp/s"])
    if not ROOTLESS:
        command = ["setpriv", "--reuid=12345", "--clear-groups", f"{engine.layout.container(box.id)}/upper/tmp/s", "id"]
        assert subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.rootless
def test_users_and_capabilities_are_the_same_for_a_start_and_a_session(engine: Engine) -> None:
    """CVE-2022-24769, 2022-29162 (inheritable), 2022-2989, 2022-36109, 2023-25173 (groups), 2026-30892."""
    script = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status"
    for user in ("", "root", "ann", "1000", "ann:29", "1000:1000", "0:29", "4321", "4321:1234"):
        for options in ({}, {"group_add": ["44"]}, {"cap_add": ["NET_ADMIN"]}, {"cap_drop": ["ALL"]}):
            first = ["sh", "-c", f"{script}; exec sleep 1000"]
            with engine.containers.create(IMAGE, first, user=user, **options) as box:
                with box.start_attached() as attachment:
                    said = b""
                    while said.count(b"\n") < 10 and (packet := attachment.read()):
                        said += packet[1]
                session = box.exec(["sh", "-c", script]).stdout
                assert said == session, (user, options)
                found = dict(line.split(":", 1) for line in said.decode().splitlines())
                assert int(found["CapInh"], 16) == 0 or (user not in ("", "root") and "cap_add" in options)
                if user not in ("", "root", "0:29"):
                    assert int(found["CapEff"], 16) == (1 << 12 if "cap_add" in options else 0), (user, found)
                groups = {int(number) for number in found["Groups"].split()} - {int(found["Gid"].split()[0])}
                expected = {29} if user in ("ann", "1000") else set()
                assert groups == expected | ({44} if "group_add" in options else set()), (user, options, groups)


def private_memory(pid: int) -> int:
    """KiB that belong to the process alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(number) for number in re.findall(r"^Private_\w+: +(\d+)", text, re.M))


@pytest.mark.rootless
def test_endless_output_that_nobody_reads(engine: Engine, box: Container) -> None:
    """CVE-2022-31030: what an exec writes into the void does not fill the memory of anything, and it can be killed."""
    with box.open_exec(["yes", "a line that nobody will ever read"]) as session:
        time.sleep(0.5)
        run = engine.layout.session(box.id, session.id)
        pid = int(re.search(r"monitor=(\d+)", Path(f"{run}/state").read_text())[1])  # type: ignore[index]
        if not ROOTLESS:
            assert private_memory(pid) < 1024
        session.kill()
        assert session.wait(10) == 137
        session.finish()
    assert not eventually(lambda: os.path.exists(run), 0) or not os.path.exists(run)
    assert box.exec(["echo", "fine"]).stdout == b"fine\n"


@pytest.mark.rootless
def test_a_line_without_an_end(engine: Engine) -> None:
    size = 8 << 20
    script = f"head -c {size} /dev/zero | tr '\\0' x; echo; echo after"
    with engine.containers.create(IMAGE, ["sh", "-c", script]) as box:
        box.start()
        assert box.wait(30) == 0
        lines = list(box.logs())
        assert max(len(line.text) for line in lines) <= (1 << 20) + (1 << 16)  # never more of it in memory
        joined = b"".join(line.text + (b"" if line.partial else b"\n") for line in lines)
        assert joined == b"x" * size + b"\nafter\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def full(disk: Path) -> bool:
    return os.statvfs(disk).f_bavail == 0


def test_a_full_disk_below_the_log_holds_the_container_and_loses_nothing(engine: Engine, small_disk: Path) -> None:
    script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo line $i of some length to fill the disk with; done"
    with engine.containers.create(IMAGE, ["sh", "-c", script], log_opt=[f"path={small_disk}/log"]) as box:
        box.start()
        assert eventually(lambda: full(small_disk), 20)
        time.sleep(0.2)
        assert box.status == "running"
        assert box.exec(["echo", "fine"]).stdout == b"fine\n"
        subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
        assert box.wait(30) == 0
        lines = [line.text for line in box.logs()]
        assert lines == [b"line %d of some length to fill the disk with" % n for n in range(1, 30001)]


def test_a_container_that_filled_the_disk_below_its_log_can_be_stopped_and_removed(
    engine: Engine, small_disk: Path
) -> None:
    box = engine.containers.create(IMAGE, ["yes", "fill the disk"], log_opt=[f"path={small_disk}/log"])
    box.start()
    assert eventually(lambda: full(small_disk), 20)
    monitor_pid = box.state().monitor_pid
    box.stop(0)
    assert (box.status, box.state().exit_code) == ("exited", 137)
    run = engine.layout.run(box.id)
    if monitored(run):  # it keeps what it could not write
        with pytest.raises(PyengineError, match="has not ended: it has output that its log"):
            start_soon(box)
    box.remove()
    assert eventually(lambda: not os.path.exists(f"/proc/{monitor_pid}"))


def start_soon(box: Container) -> None:
    from pyengine.engine import lifecycle

    patience, lifecycle._SETTLING = lifecycle._SETTLING, 0.1
    try:
        box.start()
    finally:
        lifecycle._SETTLING = patience


@pytest.mark.rootless
def test_limits_of_the_process_hold_for_sessions_too(engine: Engine) -> None:
    limits = ["nofile=64:64", "core=0", "fsize=4096"]
    with engine.containers.create(IMAGE, ["sleep", "1000"], ulimit=limits) as box:
        box.start()
        for said in (
            engine.containers.run(IMAGE, ["sh", "-c", "ulimit -n; ulimit -c"], ulimit=limits).stdout,
            box.exec(["sh", "-c", "ulimit -n; ulimit -c"]).stdout,
        ):
            assert said == b"64\n0\n"
        assert box.exec(["sh", "-c", "head -c 9000 /dev/zero > /tmp/large"]).exit_code in (1, 128 + signal.SIGXFSZ)
        assert box.exec(["stat", "-c", "%s", "/tmp/large"]).stdout == b"4096\n"


@pytest.mark.rootless
def test_who_says_something_to_a_monitor_and_leaves_at_once_is_heard(engine: Engine) -> None:
    """A stop of the restarts was lost when the connection had been closed before the monitor looked at it."""
    from pyengine.runtime import monitor

    with engine.containers.create(IMAGE, ["sleep", "1000"], restart="always") as box:
        for _ in range(4):
            box.start()
            state = box.state()
            os.kill(state.monitor_pid, signal.SIGSTOP)  # it comes to look when we are gone
            with monitor.connect(engine.layout.run(box.id)) as session:
                session.stopping()
            os.kill(state.pid, signal.SIGKILL)
            os.kill(state.monitor_pid, signal.SIGCONT)
            assert box.wait(10) == 137
            assert box.status == "exited"
