"""``HostConfig``: the part of a container's document that says what was asked of the host (containers.md §6.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pyengine.engine.request_mounts import normal
from pyengine.engine.spec_linux import CPU_PERIOD
from pyengine.engine.spec_process import DEFAULT_CAPABILITIES
from pyengine.oci import runtime as oci

if TYPE_CHECKING:
    from pyengine.engine.config import ContainerConfig

JSON = dict[str, Any]
DevicePath = Callable[[str, int, int], str]

# Binds that are no mounts of the user and no devices: what a user namespace borrows from the host.
_BORROWED = ("/proc", "/dev/mqueue", "/dev/shm", "/sys", "/sys/fs/cgroup")


def user_mounts(config: ContainerConfig, spec: oci.RuntimeSpec) -> Iterator[oci.Mount]:
    """The mounts that were asked for, in the order in which they are done."""
    wanted = {normal(destination) for destination in config.user_volumes}
    return (mount for mount in spec.mounts if mount.destination in wanted)


def namespace_mode(kind: str, config: ContainerConfig, spec: oci.RuntimeSpec, *, private: str = "") -> str:
    """Whose namespace it is: ``private`` for one of its own, ``host``, ``container:ID`` or ``ns:PATH``."""
    if kind in config.joined:
        return f"container:{config.joined[kind]}"
    for namespace in spec.linux.namespaces if spec.linux else ():
        if namespace.type == kind:
            return f"ns:{namespace.path}" if namespace.path else private
    return "host"


def host_config(config: ContainerConfig, spec: oci.RuntimeSpec, device_path: DevicePath) -> JSON:
    """The whole object, keys in the order of the reference."""
    assert spec.process is not None
    linux = spec.linux or oci.Linux()
    memory = (linux.resources.memory if linux.resources else None) or oci.Memory()
    return {
        "Binds": [_bind(mount) for mount in user_mounts(config, spec) if mount.type == "bind"],
        "ContainerIDFile": config.cid_file,
        "LogConfig": {"Type": config.log_driver, "Config": None},
        "NetworkMode": _network_mode(config, spec),
        "PortBindings": {},
        "RestartPolicy": {"Name": config.restart, "MaximumRetryCount": config.restart_retries},
        "AutoRemove": config.auto_remove,
        "Privileged": config.privileged,
        "ReadonlyRootfs": spec.root is not None and spec.root.readonly,
        "OomKillDisable": bool(memory.disable_oom_killer),
        "PublishAllPorts": False,
        "VolumesFrom": None,
        "VolumeDriver": "",
        "Cgroup": "",
        "Isolation": "",
        "Links": None,
        **_capability_changes(spec.process),
        "Dns": list(config.dns),
        "DnsOptions": list(config.dns_options),
        "DnsSearch": list(config.dns_search),
        "ExtraHosts": list(config.hosts),
        "GroupAdd": list(config.groups),
        "IpcMode": namespace_mode("ipc", config, spec),
        "PidMode": namespace_mode("pid", config, spec),
        "UTSMode": namespace_mode("uts", config, spec),
        "UsernsMode": namespace_mode("user", config, spec, private="private").removeprefix("host"),
        "Cgroups": "default" if linux.cgroups_path else "disabled",
        "OomScoreAdj": spec.process.oom_score_adj or 0,
        "SecurityOpt": list(config.security_options),
        "Tmpfs": {
            mount.destination: ",".join(mount.options) for mount in user_mounts(config, spec) if mount.type == "tmpfs"
        },
        "ShmSize": _shm_size(spec),
        "Runtime": "oci",
        "ConsoleSize": [0, 0],
        **_limits(linux.resources or oci.Resources(), config, device_path),
        "Devices": list(_devices(config, spec, device_path)),
        "PidsLimit": linux.resources.pids.limit if linux.resources and linux.resources.pids else 0,
        "Ulimits": [{"Name": limit.type, "Soft": limit.soft, "Hard": limit.hard} for limit in spec.process.rlimits],
        "DiskQuota": 0,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _bind(mount: oci.Mount) -> str:
    return f"{mount.source}:{mount.destination}:{','.join(mount.options)}"


def _network_mode(config: ContainerConfig, spec: oci.RuntimeSpec) -> str:
    if config.network == "none":
        return "none"
    return namespace_mode("network", config, spec, private="default")


def _capability_changes(process: oci.Process) -> JSON:
    bounding = process.capabilities.bounding if process.capabilities else ()
    return {
        "CapAdd": [name for name in bounding if name not in DEFAULT_CAPABILITIES],
        "CapDrop": [name for name in DEFAULT_CAPABILITIES if name not in bounding],
    }


def _shm_size(spec: oci.RuntimeSpec) -> int:
    """Bytes of the container's own /dev/shm; 0 where it has another's."""
    for mount in spec.mounts:
        if mount.destination == "/dev/shm" and mount.type == "tmpfs":
            for option in mount.options:
                size = option.removeprefix("size=")
                if size != option and size.isdecimal():
                    return int(size)
    return 0


def _limits(resources: oci.Resources, config: ContainerConfig, device_path: DevicePath) -> JSON:
    cpu, memory = resources.cpu or oci.Cpu(), resources.memory or oci.Memory()
    block = resources.block_io or oci.BlockIo()
    quota = cpu.quota or 0
    return {
        "CpuShares": cpu.shares or 0,
        "CpuPeriod": cpu.period or 0,
        "CpuRealtimePeriod": cpu.realtime_period or 0,
        "CpuQuota": quota,
        "CpuRealtimeRuntime": cpu.realtime_runtime or 0,
        "NanoCpus": quota * 10_000 if quota > 0 and cpu.period == CPU_PERIOD else 0,
        "CpusetCpus": cpu.cpus,
        "CpusetMems": cpu.mems,
        "Memory": memory.limit or 0,
        "KernelMemory": memory.kernel or 0,
        "MemoryReservation": memory.reservation or 0,
        "MemorySwap": memory.swap or 0,
        "MemorySwappiness": -1 if memory.swappiness is None else memory.swappiness,
        "CgroupParent": config.cgroup_parent,
        "BlkioWeight": block.weight or 0,
        "BlkioWeightDevice": [
            {"Path": device_path("b", item.major, item.minor), "Weight": item.weight or 0}
            for item in block.weight_device
        ]
        or None,
        "BlkioDeviceReadBps": _throttles(block.throttle_read_bps_device, device_path),
        "BlkioDeviceWriteBps": _throttles(block.throttle_write_bps_device, device_path),
        "BlkioDeviceReadIOps": _throttles(block.throttle_read_iops_device, device_path),
        "BlkioDeviceWriteIOps": _throttles(block.throttle_write_iops_device, device_path),
    }


def _throttles(items: tuple[oci.ThrottleDevice, ...], device_path: DevicePath) -> list[JSON] | None:
    return [{"Path": device_path("b", item.major, item.minor), "Rate": item.rate} for item in items] or None


def _devices(config: ContainerConfig, spec: oci.RuntimeSpec, device_path: DevicePath) -> Iterator[JSON]:
    """Nodes that are made, or in a user namespace bound. Those of a privileged container are all there are: no list."""
    if config.privileged:
        return
    for device in spec.linux.devices if spec.linux else ():
        yield _device(device_path(device.type, device.major, device.minor), device.path)
    asked = {normal(destination) for destination in config.user_volumes}
    for mount in spec.mounts:
        if mount.type == "bind" and mount.destination not in asked and mount.destination not in _BORROWED:
            yield _device(mount.source, mount.destination)


def _device(host: str, container: str) -> JSON:
    return {"PathOnHost": host, "PathInContainer": container, "CgroupPermissions": ""}
