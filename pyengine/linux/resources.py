"""Limits of a group of processes, typed, and the exact text that each file of cgroup v2 takes.

The values are those of the OCI runtime spec (``linux.resources``), which thinks in cgroup v1; the conversions are those
that all runtimes use. No file is read or written here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pyengine.errors import InvalidValue

UNLIMITED: Final = -1

_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_PAGE_SIZE = re.compile(r"[1-9]\d*[KMGT]?B")
_UNIFIED = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+")


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """A throttle or weight of one block device. ``rate``: bytes or operations a second, 0 for none; or the weight."""

    major: int
    minor: int
    rate: int


@dataclass(frozen=True, slots=True)
class RdmaLimit:
    """Limits of an RDMA device; None leaves a value as it is."""

    device: str
    handles: int | None = None
    objects: int | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container may use. None (and 0, where OCI says so) leaves the kernel's default, ``UNLIMITED`` (-1) lifts.

    memory_limit: bytes. memory_swap: bytes of memory and swap together. memory_reservation: bytes that are protected.
    memory_high: bytes from which on the group is slowed down. cpu_shares: 2 to 262144. cpu_quota: µs per cpu_period
    (µs, 100000 unless given). cpuset_cpus, cpuset_mems: lists such as ``0-3,7``. pids_limit: 0 is unlimited.
    blkio_weight: 10 to 1000. hugepages: page size (``2MB``) to bytes. oom_group: the OOM killer takes the whole group.
    unified: files of cgroup v2 and their text, written last.
    """

    memory_limit: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    memory_high: int | None = None
    oom_group: bool | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_burst: int | None = None
    cpu_idle: bool | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    blkio_weight: int | None = None
    blkio_weight_device: tuple[DeviceRate, ...] = ()
    read_bps: tuple[DeviceRate, ...] = ()
    write_bps: tuple[DeviceRate, ...] = ()
    read_iops: tuple[DeviceRate, ...] = ()
    write_iops: tuple[DeviceRate, ...] = ()
    hugepages: Mapping[str, int] = field(default_factory=dict)
    rdma: tuple[RdmaLimit, ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("memory_limit", "memory_swap", "memory_reservation", "memory_high"):
            value = getattr(self, name)
            _check(value is None or value >= UNLIMITED, name, value, "bytes, or -1 for unlimited")
        _check_swap(self)
        if self.memory_limit and self.memory_limit > 0 and self.memory_reservation:
            reservation = self.memory_reservation
            what = f"at most memory_limit ({self.memory_limit})"
            _check(UNLIMITED < reservation <= self.memory_limit, "memory_reservation", reservation, what)
        _check(self.cpu_shares is None or self.cpu_shares >= 0, "cpu_shares", self.cpu_shares, "2 to 262144")
        quota, period = self.cpu_quota, self.cpu_period
        _check(quota is None or quota in (UNLIMITED, 0) or quota >= 1000, "cpu_quota", quota, "at least 1000 µs, or -1")
        _check(not period or 1000 <= period <= 1_000_000, "cpu_period", period, "1000 to 1000000 µs")
        _check(self.cpu_burst is None or self.cpu_burst >= 0, "cpu_burst", self.cpu_burst, "µs")
        for name in ("cpuset_cpus", "cpuset_mems"):
            value = getattr(self, name)
            _check(not value or bool(_LIST.fullmatch(value)), name, value, "a list such as 0-3,7")
        _check(
            self.pids_limit is None or self.pids_limit >= UNLIMITED, "pids_limit", self.pids_limit, "a number, or -1"
        )
        _check(
            not self.blkio_weight or 10 <= self.blkio_weight <= 1000, "blkio_weight", self.blkio_weight, "10 to 1000"
        )
        for rate in self.blkio_weight_device:
            _check(10 <= rate.rate <= 1000, "blkio_weight_device", rate, "10 to 1000")
        for name in ("read_bps", "write_bps", "read_iops", "write_iops"):
            for rate in getattr(self, name):
                _check(rate.rate >= 0 and rate.major >= 0 and rate.minor >= 0, name, rate, "not negative")
        for size, limit in self.hugepages.items():
            _check(bool(_PAGE_SIZE.fullmatch(size)), "hugepages", size, "a page size such as 2MB or 1GB")
            _check(limit >= UNLIMITED, "hugepages", limit, "bytes")
        for limits in self.rdma:
            _check(bool(limits.device) and not re.search(r"\s", limits.device), "rdma", limits.device, "a device name")
        for file, text in self.unified.items():
            _check(bool(_UNIFIED.fullmatch(file)), "unified", file, "the name of a file of cgroup v2")
            # What moves processes or changes the structure of the group is not a limit.
            _check(not file.startswith("cgroup.") or file.startswith("cgroup.max."), "unified", file, "a limit")
            _check("\0" not in text, "unified", text, "text without NUL")


def _check(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise InvalidValue(f"{name}: expected {expected}, got {value!r}")


def _check_swap(resources: Resources) -> None:
    memory, swap = resources.memory_limit, resources.memory_swap
    if not swap or swap == UNLIMITED:
        return
    _check(bool(memory), "memory_swap", swap, "a memory_limit beside it: it is the sum of memory and swap")
    _check(memory != UNLIMITED, "memory_swap", swap, "-1 since memory_limit is unlimited")
    _check(memory is not None and swap >= memory, "memory_swap", swap, f"at least memory_limit ({memory})")


def cpu_weight(shares: int) -> int:
    """cpu.weight (1 to 10000) for cgroup v1's cpu.shares, which the kernel clamped to 2 … 262144."""
    return 1 + ((min(max(shares, 2), 262144) - 2) * 9999) // 262142


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) for a blkio weight of 10 to 1000."""
    return 1 + (weight - 10) * 9999 // 990


def _amount(value: int) -> str:
    return "max" if value == UNLIMITED else str(value)


def plan_writes(resources: Resources, *, bfq: bool = False) -> list[tuple[str, str]]:
    """The files of the group and the text for each, in the order of writing. ``bfq``: the kernel has io.bfq.weight
    and no io.weight; its range is that of OCI."""
    writes: list[tuple[str, str]] = []
    _plan_memory(resources, writes)
    _plan_cpu(resources, writes)
    if resources.pids_limit is not None:
        writes.append(("pids.max", "max" if resources.pids_limit <= 0 else str(resources.pids_limit)))
    _plan_io(resources, writes, bfq)
    for size, limit in resources.hugepages.items():
        writes.append((f"hugetlb.{size}.max", _amount(limit)))
    for rdma in resources.rdma:
        handles = "" if rdma.handles is None else f" hca_handle={_amount(rdma.handles)}"
        objects = "" if rdma.objects is None else f" hca_object={_amount(rdma.objects)}"
        if handles or objects:
            writes.append(("rdma.max", f"{rdma.device}{handles}{objects}"))
    writes.extend(resources.unified.items())
    return writes


def _plan_memory(resources: Resources, writes: list[tuple[str, str]]) -> None:
    limit, swap = resources.memory_limit, resources.memory_swap
    if resources.memory_reservation:
        writes.append(("memory.low", _amount(resources.memory_reservation)))
    if resources.memory_high:
        writes.append(("memory.high", _amount(resources.memory_high)))
    if limit:
        writes.append(("memory.max", _amount(limit)))
    if swap == UNLIMITED or (limit == UNLIMITED and not swap):
        writes.append(("memory.swap.max", "max"))
    elif swap and limit:
        writes.append(("memory.swap.max", str(swap - limit)))
    if resources.oom_group is not None:
        writes.append(("memory.oom.group", "1" if resources.oom_group else "0"))


def _plan_cpu(resources: Resources, writes: list[tuple[str, str]]) -> None:
    if resources.cpu_shares:
        writes.append(("cpu.weight", str(cpu_weight(resources.cpu_shares))))
    if resources.cpu_idle is not None:
        writes.append(("cpu.idle", "1" if resources.cpu_idle else "0"))
    if resources.cpu_quota or resources.cpu_period:
        quota = _amount(resources.cpu_quota or UNLIMITED)
        writes.append(("cpu.max", f"{quota} {resources.cpu_period or 100000}"))
    if resources.cpu_burst is not None:
        writes.append(("cpu.max.burst", str(resources.cpu_burst)))
    if resources.cpuset_cpus:
        writes.append(("cpuset.cpus", resources.cpuset_cpus))
    if resources.cpuset_mems:
        writes.append(("cpuset.mems", resources.cpuset_mems))


def _plan_io(resources: Resources, writes: list[tuple[str, str]], bfq: bool) -> None:
    file = "io.bfq.weight" if bfq else "io.weight"
    if resources.blkio_weight:
        weight = resources.blkio_weight if bfq else io_weight(resources.blkio_weight)
        writes.append((file, f"default {weight}"))
    for device in resources.blkio_weight_device:
        weight = device.rate if bfq else io_weight(device.rate)
        writes.append((file, f"{device.major}:{device.minor} {weight}"))
    throttles: dict[tuple[int, int], list[str]] = {}
    for key, rates in (
        ("rbps", resources.read_bps),
        ("wbps", resources.write_bps),
        ("riops", resources.read_iops),
        ("wiops", resources.write_iops),
    ):
        for rate in rates:
            throttles.setdefault((rate.major, rate.minor), []).append(f"{key}={rate.rate or 'max'}")
    for (major, minor), words in throttles.items():
        writes.append(("io.max", f"{major}:{minor} {' '.join(words)}"))


def controllers(writes: list[tuple[str, str]]) -> list[str]:
    """The controllers that these files belong to, each once, in order."""
    found = dict.fromkeys(file.split(".", 1)[0] for file, _ in writes)
    found.pop("cgroup", None)
    return list(found)
