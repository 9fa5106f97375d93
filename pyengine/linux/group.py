"""One group of cgroup v2: limits, freezing, killing, events, counters."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyengine.errors import CannotEnforce, InvalidValue, KernelError, RequiresCgroupsV2
from pyengine.linux import calls
from pyengine.linux.fd import Fd
from pyengine.linux.resources import Resources, controllers, plan_writes

_READ_LIMIT: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Events:
    """``populated``: a process is in the group or below. ``oom``: times that memory could not be had within the limit,
    ``oom_kill``: processes that the OOM killer took; None without the memory controller."""

    populated: bool
    frozen: bool
    oom: int | None
    oom_kill: int | None


@dataclass(frozen=True, slots=True)
class IoCounters:
    """Bytes and operations of one block device."""

    device: str
    read_bytes: int
    write_bytes: int
    reads: int
    writes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of a group; None where its controller is absent. Memory and swap in bytes, CPU time in µs;
    ``memory_limit`` None also where there is none."""

    memory: int | None
    memory_peak: int | None
    memory_limit: int | None
    swap: int | None
    inactive_file: int | None
    cpu_usage: int | None
    cpu_user: int | None
    cpu_system: int | None
    throttled: int | None
    pids: int | None
    pids_limit: int | None
    io: tuple[IoCounters, ...] | None


def parse_keyed(content: str) -> dict[str, int]:
    """A flat keyed file (``KEY VALUE`` lines). Lines of another form are left out: kernels add some."""
    result = {}
    for line in content.splitlines():
        key, _, value = line.partition(" ")
        if key and value.isascii() and value.isdigit():
            result[key] = int(value)
    return result


def parse_io_stat(content: str) -> tuple[IoCounters, ...]:
    """io.stat: ``MAJOR:MINOR rbytes=… wbytes=… rios=… wios=…`` lines; devices without counters are left out."""
    result = []
    for line in content.splitlines():
        device, *words = line.split()
        pairs = (word.partition("=") for word in words)
        values = {key: int(value) for key, _, value in pairs if value.isascii() and value.isdigit()}
        if "rbytes" in values:
            counters = (values.get(key, 0) for key in ("rbytes", "wbytes", "rios", "wios"))
            result.append(IoCounters(device, *counters))
    return tuple(result)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The group whose directory is ``path``, in the hierarchy mounted on ``top``. A value: the group itself may be
    gone, or not made yet."""

    path: str
    top: str
    rootless: bool = False

    def exists(self) -> bool:
        return os.path.isdir(self.path)

    def open(self) -> Fd:
        """A descriptor of the directory, for ``CLONE_INTO_CGROUP`` and for attaching programs."""
        return calls.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

    def child(self, name: str) -> Cgroup:
        """The group ``name`` directly below, not made."""
        return Cgroup(os.path.join(self.path, name), self.top, self.rootless)

    # Making, limits

    def create(self, base: str, needed: Iterable[str] = ()) -> None:
        """Makes the group, and what is missing between the directory ``base`` and it; enables the controllers
        ``needed`` down to it. A group that exists is taken as it is."""
        if not self.path.startswith(base + "/"):
            raise InvalidValue(f"the cgroup {self.path} is not below {base}")
        missing = []
        path = self.path
        while path != base and not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for directory in reversed(missing):
            try:
                calls.run("mkdir", directory, os.mkdir, directory, 0o755)
            except KernelError as error:
                if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise self._refusal(f"the group {directory} cannot be made: {error.strerror}") from error
                if error.errno != errno.EEXIST:
                    raise
        self.enable(needed)

    def enable(self, needed: Iterable[str]) -> None:
        """Makes the files of the controllers ``needed`` appear in this group, by enabling each in all groups above.
        ``CannotEnforce`` says which, where, and why it cannot be."""
        for controller in needed:
            if controller in self._words("cgroup.controllers"):
                continue
            if controller not in (Cgroup(self.top, self.top).read("cgroup.controllers") or "").split():
                raise self._refusal(
                    f"the cgroup controller {controller} is not in {self.top}/cgroup.controllers: the kernel "
                    "lacks it, or cgroup v1 holds it (boot with systemd.unified_cgroup_hierarchy=1; see /proc/cgroups)"
                )
            above = []
            path = os.path.dirname(self.path)
            while path.startswith(self.top):
                above.append(path)
                if path == self.top:
                    break
                path = os.path.dirname(path)
            for directory in reversed(above):
                self._enable_in(directory, controller)

    def _enable_in(self, directory: str, controller: str) -> None:
        group = Cgroup(directory, self.top, self.rootless)
        if controller in group._words("cgroup.subtree_control"):
            return
        try:
            group.write("cgroup.subtree_control", f"+{controller}")
        except KernelError as error:
            reasons = {
                errno.ENOENT: "a group above does not pass it on",
                errno.EINVAL: "a group above does not pass it on",
                errno.EBUSY: "the group has processes of its own: run them in a group below it",
                errno.EACCES: f"it is not delegated: let the administrator enable it, e.g. Delegate={controller} in a "
                "drop-in for user@.service",
                errno.EPERM: f"it is not delegated: let the administrator enable it, e.g. Delegate={controller} in a "
                "drop-in for user@.service",
                errno.EROFS: "cgroups are mounted read-only here",
                errno.EOPNOTSUPP: "the group is threaded",
            }
            if error.errno not in reasons:
                raise
            raise self._refusal(
                f"the cgroup controller {controller} cannot be enabled in {directory}/cgroup.subtree_control: "
                f"{reasons[error.errno]}"
            ) from error

    def _refusal(self, reason: str) -> CannotEnforce:
        return (RequiresCgroupsV2 if self.rootless else CannotEnforce)(reason)

    def apply(self, resources: Resources) -> None:
        """Writes the limits, all or an error: controllers are enabled first; a file that is not there is
        ``CannotEnforce`` or ``RequiresCgroupsV2``, a value that the kernel refuses ``KernelError`` with the text."""
        self.enable(controllers(plan_writes(resources)))
        bfq = not self._has("io.weight") and self._has("io.bfq.weight")
        for file, text in plan_writes(resources, bfq=bfq):
            try:
                self.write(file, text)
            except KernelError as error:
                if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
                    error.remedy = error.remedy or _value_remedy(file)
                    raise
                raise self._refusal(
                    f"the limit {text!r} cannot be written to {self.path}/{file}: {error.strerror}: "
                    f"{_file_remedy(file)}"
                ) from error

    # Processes

    def add(self, pid: int) -> None:
        """Moves process ``pid`` (0: the caller's own) into the group."""
        self.write("cgroup.procs", str(pid))

    def processes(self, *, nested: bool = True) -> list[int]:
        """The pids in the group, and in those below it; none when it is gone."""
        return sorted(
            int(word)
            for group in ([*self._below(), self] if nested else [self])
            for word in (group.read("cgroup.procs") or "").split()
        )

    def kill(self) -> None:
        """Sends SIGKILL to all in the group and below, at once: also to what is being forked meanwhile. Nothing when
        the group is gone. ``CannotEnforce`` on kernels before 5.14: to kill one by one would race with forks."""
        if not self._has("cgroup.kill"):
            if self.exists():
                raise self._refusal(f"the kernel has no {self.path}/cgroup.kill: it must be 5.14 or later")
            return
        try:
            self.write("cgroup.kill", "1")
        except KernelError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def freeze(self, timeout: float = 10.0) -> None:
        """Stops all in the group and below; returns when they stand still. ``KernelError`` with ``ETIMEDOUT`` after
        ``timeout`` seconds (a process in uninterruptible sleep): they are thawed again then."""
        self.write("cgroup.freeze", "1")
        if not self._await("frozen", 1, timeout):
            self.write("cgroup.freeze", "0")
            calls.fail(errno.ETIMEDOUT, "freeze", self.path, remedy="a process is in uninterruptible sleep")

    def thaw(self, timeout: float = 10.0) -> None:
        """Lets all in the group and below go on; returns when the group is no longer frozen."""
        self.write("cgroup.freeze", "0")
        if not self._await("frozen", 0, timeout):
            calls.fail(errno.ETIMEDOUT, "thaw", self.path, remedy="a group above it may be frozen")

    def wait_empty(self, timeout: float) -> bool:
        """Waits until no process is left in the group and below; False when ``timeout`` seconds were not enough."""
        return self._await("populated", 0, timeout)

    def _await(self, key: str, value: int, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        path = os.path.join(self.path, "cgroup.events")
        try:
            events = calls.open(path, os.O_RDONLY)
        except KernelError as error:
            if error.errno == errno.ENOENT and value == 0:
                return True  # the group is gone
            raise
        with events:
            poll = select.poll()
            poll.register(events.fileno(), select.POLLPRI)
            while True:
                # Reading arms the next notification, so nothing is missed between the look and the poll.
                try:
                    content = os.pread(events.fileno(), 4096, 0).decode()
                except OSError as error:
                    if error.errno == errno.ENODEV and value == 0:
                        return True  # removed meanwhile
                    calls.fail(error.errno or errno.EIO, "read", path)
                if parse_keyed(content).get(key) == value:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poll.poll(left * 1000)

    def remove(self, timeout: float = 2.0) -> None:
        """Removes the group and those below it; nothing when it is gone. Processes that are just ending are waited for:
        ``KernelError`` with ``EBUSY`` if there are some after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        for group in [*self._below(), self]:
            pause = 0.001
            while True:
                try:
                    calls.run("rmdir", group.path, os.rmdir, group.path)
                except KernelError as error:
                    if error.errno == errno.ENOENT:
                        break
                    if error.errno != errno.EBUSY:
                        raise
                    if time.monotonic() >= deadline:
                        calls.fail(errno.EBUSY, "rmdir", group.path, remedy="processes or groups are left in it")
                    if not group.wait_empty(max(0.0, deadline - time.monotonic())):
                        continue
                    time.sleep(pause)  # empty, but the last process is not quite released
                    pause = min(pause * 2, 0.05)
                else:
                    break

    def _below(self) -> list[Cgroup]:
        """All groups below, the deepest first."""
        found = []
        for directory, names, _ in os.walk(self.path, topdown=False):
            found += [Cgroup(os.path.join(directory, name), self.top, self.rootless) for name in names]
        return found

    # Events, counters

    def events(self) -> Events | None:
        """What happened so far, or None when the group is gone."""
        content = self.read("cgroup.events")
        if content is None:
            return None
        state = parse_keyed(content)
        memory = parse_keyed(self.read("memory.events") or "")
        return Events(
            bool(state.get("populated")), bool(state.get("frozen")), memory.get("oom"), memory.get("oom_kill")
        )

    def stats(self) -> Stats | None:
        """The counters now, or None when the group is gone."""
        if not self.exists():
            return None
        cpu = parse_keyed(self.read("cpu.stat") or "")
        memory = parse_keyed(self.read("memory.stat") or "")
        io = self.read("io.stat")
        return Stats(
            memory=self._number("memory.current"),
            memory_peak=self._number("memory.peak"),
            memory_limit=self._number("memory.max"),
            swap=self._number("memory.swap.current"),
            inactive_file=memory.get("inactive_file"),
            cpu_usage=cpu.get("usage_usec"),
            cpu_user=cpu.get("user_usec"),
            cpu_system=cpu.get("system_usec"),
            throttled=cpu.get("throttled_usec"),
            pids=self._number("pids.current"),
            pids_limit=self._number("pids.max"),
            io=None if io is None else parse_io_stat(io),
        )

    def _number(self, file: str) -> int | None:
        text = (self.read(file) or "").strip()
        return int(text) if text.isascii() and text.isdigit() else None

    # Files

    def read(self, file: str) -> str | None:
        """The content of a file of the group, or None when it, or the group, is not there."""
        path = os.path.join(self.path, file)
        parts = []
        try:
            with calls.open(path, os.O_RDONLY) as fd:
                while part := calls.run("read", path, os.read, fd.fileno(), 65536):
                    parts.append(part)
                    if len(parts) * 65536 > _READ_LIMIT:
                        raise InvalidValue(f"{path} is larger than {_READ_LIMIT} bytes")
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return None
            raise
        return b"".join(parts).decode(errors="replace")

    def write(self, file: str, text: str) -> None:
        """Writes ``text`` to a file of the group, in one call as the kernel wants it."""
        path = os.path.join(self.path, file)
        with calls.open(path, os.O_WRONLY) as fd:
            calls.run("write", f"{text!r} to {path}", os.write, fd.fileno(), text.encode())

    def _has(self, file: str) -> bool:
        return os.path.exists(os.path.join(self.path, file))

    def _words(self, file: str) -> list[str]:
        return (self.read(file) or "").split()


def _value_remedy(file: str) -> str:
    """Why the kernel may refuse a value: its errno seldom says."""
    if file.startswith("cpuset."):
        return f"the group can have what is in {file}.effective of the group above"
    if file.startswith("io."):
        return "the device must be a whole disk that the kernel knows, see /proc/partitions"
    return ""


def _file_remedy(file: str) -> str:
    if file == "memory.swap.max":
        return "the kernel does not account for swap: boot with swapaccount=1"
    if file.startswith("hugetlb."):
        return "the kernel has no huge pages of this size: see /sys/kernel/mm/hugepages"
    return f"the kernel lacks this file of the controller {file.split('.', 1)[0]}, or it is not delegated"
