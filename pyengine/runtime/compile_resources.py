"""Limits of an OCI spec as values of cgroup v2, and what version 2 does not have."""

from __future__ import annotations

from pyengine.errors import UnsupportedField
from pyengine.linux.resources import DeviceRate, RdmaLimit, Resources
from pyengine.oci import runtime as oci

_UNLIMITED = -1


def resources_of(spec: oci.RuntimeSpec) -> Resources:
    """The limits that the engine sets on the container's cgroup; device rules are not among them.

    :raises UnsupportedField: a limit that only cgroup v1 has
    :raises InvalidValue: a limit out of its range
    """
    asked = spec.linux.resources if spec.linux else None
    if asked is None:
        return Resources()
    memory, cpu = asked.memory or oci.Memory(), asked.cpu or oci.Cpu()
    block = asked.block_io or oci.BlockIo()
    _refuse(asked, memory, cpu, block)
    return Resources(
        memory_limit=memory.limit,
        memory_swap=memory.swap,
        memory_reservation=memory.reservation,
        cpu_shares=cpu.shares,
        cpu_quota=cpu.quota,
        cpu_period=cpu.period,
        cpu_burst=cpu.burst,
        cpu_idle=None if cpu.idle is None else bool(cpu.idle),
        cpuset_cpus=cpu.cpus or None,
        cpuset_mems=cpu.mems or None,
        pids_limit=None if asked.pids is None else max(asked.pids.limit, _UNLIMITED),
        blkio_weight=block.weight,
        blkio_weight_device=tuple(
            DeviceRate(item.major, item.minor, item.weight) for item in block.weight_device if item.weight is not None
        ),
        read_bps=_rates(block.throttle_read_bps_device),
        write_bps=_rates(block.throttle_write_bps_device),
        read_iops=_rates(block.throttle_read_iops_device),
        write_iops=_rates(block.throttle_write_iops_device),
        hugepages={item.page_size: item.limit for item in asked.hugepage_limits},
        rdma=tuple(RdmaLimit(name, item.hca_handles, item.hca_objects) for name, item in asked.rdma.items()),
        unified=asked.unified,
    )


def _rates(devices: tuple[oci.ThrottleDevice, ...]) -> tuple[DeviceRate, ...]:
    return tuple(DeviceRate(item.major, item.minor, item.rate) for item in devices)


def _refuse(asked: oci.Resources, memory: oci.Memory, cpu: oci.Cpu, block: oci.BlockIo) -> None:
    for value, field, reason in (
        (memory.kernel, "memory.kernel", "the kernel has no limit of its own memory any more"),
        (memory.kernel_tcp, "memory.kernelTCP", "cgroup v2 counts it as memory"),
        (memory.swappiness, "memory.swappiness", "cgroup v2 has none for a group"),
        (memory.disable_oom_killer, "memory.disableOOMKiller", "cgroup v2 cannot switch it off for a group"),
        (memory.use_hierarchy is False, "memory.useHierarchy", "cgroup v2 is always hierarchical"),
        (memory.check_before_update, "memory.checkBeforeUpdate", "the kernel reclaims instead"),
        (cpu.realtime_runtime, "cpu.realtimeRuntime", "cgroup v2 has no limit for real-time processes"),
        (cpu.realtime_period, "cpu.realtimePeriod", "cgroup v2 has no limit for real-time processes"),
        (block.leaf_weight, "blockIO.leafWeight", "cgroup v2 has no leaf weights"),
        (
            any(item.leaf_weight is not None for item in block.weight_device),
            "blockIO.weightDevice",
            "cgroup v2 has no leaf weights",
        ),
        (asked.network, "network", "cgroup v2 has neither network classes nor priorities"),
    ):
        # 0 and false are what the kernel does anyway, but for swappiness and kernel memory they mean something.
        if value or (value is not None and value is not False and field in ("memory.swappiness", "memory.kernel")):
            raise UnsupportedField(f"linux.resources.{field}", reason)
