"""Plans on the real kernel: a root file system that is one static program, and what became of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pyengine.errors import KernelError, StartFailed
from pyengine.runtime import monitor
from pyengine.runtime.attach import STDERR, STDOUT, decode_packet
from pyengine.runtime.plan import (
    Bind,
    BindRoot,
    Exec,
    JoinNamespace,
    Mount,
    PivotRoot,
    Plan,
    Propagation,
    Settings,
    Step,
    Terminal,
)
from pyengine.runtime.state import State, read_state

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8

ROOT = Path(__file__).parent.parent.parent
HERE_PLANS = str(Path(__file__).parent)
NAMESPACES = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
PROC = Mount("proc", "proc", "/proc", NOSUID | NODEV | NOEXEC, (), 0, False)


def build_helper() -> Path:
    """The static helper, built once for all tests of this machine."""
    build = ROOT / "build" / "tests"
    subprocess.run(["make", "-s", "-C", ROOT / "native", f"BUILD={build}", "helper"], check=True)
    return build / "bin" / "helper"


@dataclass
class Output:
    exit_code: int
    stdout: str
    stderr: str
    oom_killed: bool = False


@dataclass
class Box:
    """A root file system, run directories, and the steps that every plan of a test has in common."""

    base: Path
    helper: Path
    runs: int = 0
    sessions: list[monitor.Session] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = self.base / "root"
        self.target = self.base / "target"
        self.target.mkdir()
        for name in ("bin", "proc", "dev", "etc", "tmp", "sys"):
            (self.root / name).mkdir(parents=True)
        shutil.copy(self.helper, self.root / "bin" / "helper")

    def run_directory(self) -> str:
        self.runs += 1
        path = self.base / f"run{self.runs}"
        path.mkdir(mode=0o700)
        return str(path)

    def plan(
        self,
        *argv: str,
        before: tuple[Step, ...] = (),
        after: tuple[Step, ...] = (),
        env: tuple[str, ...] = ("PATH=/bin",),
        keep: int = 0,
        root: Step | None = None,
        proc: bool = True,
        descriptors: tuple[str, ...] = (),
        **settings: Any,
    ) -> Plan:
        """`before`: steps between the root and the pivot; `after`: between the pivot and the exec."""
        settings.setdefault("namespaces", NAMESPACES)
        settings.setdefault("terminal", any(isinstance(step, Terminal) for step in after))
        joins = tuple(step for step in before if isinstance(step, JoinNamespace))
        rest = tuple(step for step in before if not isinstance(step, JoinNamespace))
        return Plan(
            Settings(id="0123456789abcdef", **settings),
            (
                *joins,
                Propagation(MS_SLAVE, "slave"),
                root or BindRoot(str(self.root), str(self.target), False),
                *((PROC,) if proc else ()),
                *rest,
                PivotRoot(0),
                *after,
                Exec(argv or ("helper",), env, keep),
            ),
            descriptors,
        )

    def launch(
        self, plan: Plan, descriptors: Mapping[str, int] | None = None, *, run: str | None = None, fault: str = ""
    ) -> tuple[monitor.Session, str]:
        run = run or self.run_directory()
        session = monitor.launch(plan, run, descriptors or {}, fault=fault)
        self.sessions.append(session)
        return session, run

    def capture(self, plan: Plan, stdin: bytes | None = None, descriptors: Mapping[str, int] | None = None) -> Output:
        """Run a plan to its end with a lossless client; all that it wrote."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plan = Plan(plan.settings, plan.steps, ("client", *plan.descriptors))
        with ours:
            with theirs:
                session, _ = self.launch(plan, {"client": theirs.fileno(), **(descriptors or {})})
            with session:
                session.start()
                session.await_started()
                if stdin is not None:
                    with suppress(BrokenPipeError):  # it has ended already
                        ours.sendall(stdin)
                        ours.shutdown(socket.SHUT_WR)
                out, err = read_streams(ours)
                ended = session.wait_exit(30)
        assert ended is not None
        return Output(ended.exit_code, out.decode(errors="replace"), err.decode(errors="replace"), ended.oom_killed)

    def run(self, *argv: str, **options: Any) -> Output:
        stdin = options.pop("input", None)
        return self.capture(self.plan(*argv, **options), stdin)

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        for index in range(1, self.runs + 1):
            state = read_state(str(self.base / f"run{index}"))
            for process in (state.pid, state.monitor):
                if process is not None and (pidfd := process.open()) is not None:
                    with pidfd, suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)


@contextmanager
def new_box(helper: Path) -> Iterator[Box]:
    """A box in a directory that other users can traverse, as pytest's own are not."""
    base = Path(tempfile.mkdtemp(prefix="pyengine-box-"))
    base.chmod(0o755)
    box = Box(base, helper)
    try:
        yield box
    finally:
        box.close()
        shutil.rmtree(base)


def read_streams(connection: socket.socket) -> tuple[bytes, bytes]:
    out, err = [], []
    connection.settimeout(60)
    while (packet := decode_packet(receive(connection))) is not None:
        (out if packet.stream == STDOUT else err).append(packet.data)
        assert packet.stream in (STDOUT, STDERR)
    return b"".join(out), b"".join(err)


def receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(8193)
    except ConnectionResetError:
        return b""


def until(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Wait for something that comes by itself."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {seconds} seconds")
        time.sleep(0.005)
    return value


def until_gone(run: str) -> State:
    """The state once the monitor has ended."""
    until(lambda: not read_state(run).monitor_alive, "the end of the monitor")
    return read_state(run)


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """A cgroup of the test's own, below that of pytest, removed at the end."""
    line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    base = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")
    path = base / line[3:].lstrip("/") / f"pyengine-test-{os.getpid()}-{name}"
    path.mkdir()
    try:
        yield path
    finally:
        if path.exists():
            (path / "cgroup.kill").write_text("1")
            for _ in range(200):
                try:
                    for inner in sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True):
                        inner.rmdir()
                    path.rmdir()
                    break
                except OSError:
                    time.sleep(0.01)
            else:
                print("left behind:", path, file=sys.stderr)


def fails(box: Box, *argv: str, **options: object) -> str:
    """The text of the error with which a plan fails; nothing was left running."""
    with pytest.raises((KernelError, StartFailed)) as caught:
        box.run(*argv, **options)
    return str(caught.value)


def bind(source: str | Path, target: str, **options: object) -> Bind:
    values = dict.fromkeys(("set", "clear", "set_recursive", "clear_recursive", "propagation"), 0)
    fields = {"recursive": True, "propagation_recursive": False, "idmap": "", **values, **options}
    return Bind(source=str(source), target=target, **fields)


def tmpfs(target: str, attributes: int = 0, *data: str, copy_up: bool = False) -> Mount:
    return Mount("tmpfs", "tmpfs", target, attributes, data, 0, copy_up)


LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\+00:00) (stdout|stderr) ([FP]) (.*)\n")


def log_content(*paths: Path) -> dict[str, bytes]:
    """What a log says that was written to each stream; every line of it must be well-formed."""
    streams = {"stdout": b"", "stderr": b""}
    for path in paths:
        content = path.read_bytes()
        assert content == b"".join(match.group(0) for match in LINE.finditer(content))
        for match in LINE.finditer(content):
            streams[match.group(2).decode()] += match.group(4) + (b"\n" if match.group(3) == b"F" else b"")
    return streams


def spam(size: int, line: int) -> bytes:
    return bytes(10 if line and at % line == line - 1 else ord("a") + at % 26 for at in range(size))
