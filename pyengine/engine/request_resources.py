"""Limits and devices as people ask for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyengine.engine.values import LARGEST, parse_integer, parse_size
from pyengine.errors import InvalidValue
from pyengine.typing import override

UNLIMITED = -1
LEAST_MEMORY = 4 << 20
"""Bytes: less memory than this does not hold a process and what the kernel needs for it."""

ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip

_RULE = re.compile(r"([abc]) (\d+|\*):(\d+|\*) ([rwm]{1,3})", re.ASCII)
_UNIFIED_FILE = re.compile(r"[a-z0-9_]+(?:\.[A-Za-z0-9_]+)+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A limit of setrlimit(2), its name without ``RLIMIT_`` and in lower case; -1 is unlimited."""

    name: str
    soft: int
    hard: int

    def __post_init__(self) -> None:
        if self.name not in ULIMITS:
            raise InvalidValue(f"ulimit {self.name[:40]!r}: expected one of {', '.join(ULIMITS)}")
        if min(self.soft, self.hard) < UNLIMITED:
            raise InvalidValue(f"ulimit {self}: expected numbers from 0 on, or -1 for unlimited")
        if self.hard != UNLIMITED and (self.soft == UNLIMITED or self.soft > self.hard):
            raise InvalidValue(f"ulimit {self}: the soft limit is above the hard limit")

    @classmethod
    def parse(cls, text: str) -> Ulimit:
        """``nofile=1024`` or ``nofile=1024:2048``; a limit may be ``unlimited``."""
        name, equals, limits = text.partition("=")
        soft, colon, hard = limits.partition(":")
        if not equals:
            raise InvalidValue(f"ulimit {text[:60]!r}: expected NAME=SOFT[:HARD]")
        first = _limit(soft, text)
        return cls(name.removeprefix("RLIMIT_").lower(), first, _limit(hard, text) if colon else first)

    @override
    def __str__(self) -> str:
        return f"{self.name}={self.soft}:{self.hard}"


def _limit(text: str, whole: str) -> int:
    return UNLIMITED if text == "unlimited" else parse_integer(text, f"ulimit {whole[:60]!r}:", UNLIMITED)


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A device of the host, or all below a directory, at ``target``; ``access`` is of r, w and m (mknod)."""

    source: str
    target: str
    access: str = "rwm"

    def __post_init__(self) -> None:
        for path in (self.source, self.target):
            if not path.startswith("/") or "\0" in path:
                raise InvalidValue(f"device path {path[:100]!r} has to be absolute")
        if not is_access(self.access):
            raise InvalidValue(f"device access {self.access[:40]!r}: expected letters of r, w and m, each at most once")

    @classmethod
    def parse(cls, text: str) -> DeviceRequest:
        """``SOURCE[:TARGET][:ACCESS]``; a second part without a slash is the access."""
        parts = text.split(":")
        if len(parts) == 1:
            return cls(text, text)
        if len(parts) == 2:
            return cls(parts[0], parts[1]) if "/" in parts[1] else cls(parts[0], parts[0], parts[1])
        if len(parts) == 3:
            return cls(*parts)
        raise InvalidValue(f"device {text[:100]!r}: expected SOURCE[:TARGET][:ACCESS]")


def is_access(text: str) -> bool:
    """Whether ``text`` is of the letters r, w and m, at least one, each at most once."""
    return bool(text) and not set(text) - set("rwm") and len(set(text)) == len(text)


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Devices that the container may use although no node for them is made. None: any number."""

    type: str
    major: int | None
    minor: int | None
    access: str

    @classmethod
    def parse(cls, text: str) -> DeviceRule:
        """``c 1:3 rwm``; the type is a (all), b or c, and a number may be ``*``."""
        match = _RULE.fullmatch(text)
        if match is None or not is_access(match[4]):
            raise InvalidValue(f"device rule {text[:60]!r}: expected TYPE MAJOR:MINOR ACCESS, such as 'c 1:3 rwm'")
        major, minor = (
            None if part == "*" else parse_integer(part, "device number", 0, (1 << 32) - 1)
            for part in (match[2], match[3])
        )
        if match[1] == "a" and (major is not None or minor is not None):
            raise InvalidValue(f"device rule {text[:60]!r}: type a means all devices, numbers do not narrow it")
        return cls(match[1], major, minor, match[4])


@dataclass(frozen=True, slots=True)
class DeviceLimit:
    """A weight (10 to 1000), or bytes or operations a second, for the block device at ``path``."""

    path: str
    value: int

    @classmethod
    def parse(cls, text: str, *, size: bool = False, least: int = 0, most: int = LARGEST) -> DeviceLimit:
        """``/dev/sda:VALUE``; with ``size`` the value may have a unit."""
        path, colon, value = text.rpartition(":")
        if not colon or not path.startswith("/"):
            raise InvalidValue(f"device limit {text[:100]!r}: expected /dev/NAME:VALUE")
        if size:
            return cls(path, parse_size(value))
        return cls(path, parse_integer(value, f"device limit {text[:100]!r}:", least, most))


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceRequest:
    """Limits for all processes of the container together. None: no limit is set.

    memory, memory_reservation: bytes. memory_swap: bytes of memory and swap together, -1 for no limit of swap.
    cpus: processors' worth of time, in place of cpu_period and cpu_quota (µs). cpu_shares: 2 to 262144, 1024 usual.
    pids_limit: 0 and -1 are no limit. hugetlb: page size (``2MB``) to bytes. unified: files of cgroup v2.
    """

    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    cpus: float | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int | None = None
    blkio_weight_device: tuple[DeviceLimit, ...] = ()
    device_read_bps: tuple[DeviceLimit, ...] = ()
    device_write_bps: tuple[DeviceLimit, ...] = ()
    device_read_iops: tuple[DeviceLimit, ...] = ()
    device_write_iops: tuple[DeviceLimit, ...] = ()
    hugetlb: Mapping[str, int] = field(default_factory=dict)
    unified: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < LEAST_MEMORY:
            raise InvalidValue(f"memory limit {self.memory}: expected at least 4 MiB")
        if self.memory_reservation is not None:
            if self.memory_reservation < 0:
                raise InvalidValue(f"memory reservation {self.memory_reservation}: expected a positive number of bytes")
            if self.memory is not None and self.memory_reservation > self.memory:
                raise InvalidValue("the memory reservation is above the memory limit")
        self._check_swap()
        self._check_cpu()
        if self.pids_limit is not None and self.pids_limit < UNLIMITED:
            raise InvalidValue(f"pids limit {self.pids_limit}: expected a positive number, or 0 for no limit")
        if self.blkio_weight and not 10 <= self.blkio_weight <= 1000:
            raise InvalidValue(f"block i/o weight {self.blkio_weight}: expected 10 to 1000")
        for limit in self.blkio_weight_device:
            if not 10 <= limit.value <= 1000:
                raise InvalidValue(f"block i/o weight {limit.value} of {limit.path}: expected 10 to 1000")
        for name in self.unified:
            if _UNIFIED_FILE.fullmatch(name) is None:
                raise InvalidValue(f"cgroup file {name[:60]!r}: expected a name such as memory.high")

    def _check_swap(self) -> None:
        if self.memory_swap is None or self.memory_swap == UNLIMITED:
            return
        if self.memory is None:
            raise InvalidValue("a swap limit needs a memory limit: it is the sum of memory and swap")
        if self.memory_swap < self.memory:
            raise InvalidValue(f"swap limit {self.memory_swap} is below the memory limit: it is the sum of both")

    def _check_cpu(self) -> None:
        if self.cpus is not None:
            if self.cpu_period is not None or self.cpu_quota is not None:
                raise InvalidValue("cpus and cpu period or quota contradict each other: cpus sets both")
            if not 0.01 <= self.cpus <= 1 << 20:
                raise InvalidValue(f"cpus {self.cpus}: expected at least 0.01")
        if self.cpu_period is not None and not 1000 <= self.cpu_period <= 1_000_000:
            raise InvalidValue(f"cpu period {self.cpu_period}: expected 1000 to 1000000 µs")
        if self.cpu_quota is not None and self.cpu_quota < 1000 and self.cpu_quota != UNLIMITED:
            raise InvalidValue(f"cpu quota {self.cpu_quota}: expected at least 1000 µs, or -1 for none")
        if self.cpu_shares is not None and not 2 <= self.cpu_shares <= 262144:
            raise InvalidValue(f"cpu shares {self.cpu_shares}: expected 2 to 262144")

    def device_limits(self) -> tuple[DeviceLimit, ...]:
        """All limits of single devices, of any kind."""
        return (
            *self.blkio_weight_device,
            *self.device_read_bps,
            *self.device_write_bps,
            *self.device_read_iops,
            *self.device_write_iops,
        )
