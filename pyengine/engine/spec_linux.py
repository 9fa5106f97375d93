"""The ``linux`` part of a spec: namespaces, id maps, limits, devices."""

from __future__ import annotations

from pyengine.engine.request import ContainerRequest, NamespaceRequest
from pyengine.engine.request_resources import DeviceLimit
from pyengine.engine.spec_facts import EnvironmentFacts, HostDevice
from pyengine.engine.values import IdRange, maps
from pyengine.errors import CannotEnforce, InvalidValue
from pyengine.oci import runtime as oci

CPU_PERIOD = 100_000
"""Microseconds over which ``cpus`` is counted."""

# The host's would lead to the host's terminals.
_OF_EACH_CONTAINER = ("/dev/console", "/dev/ptmx")

_DENY_ALL = oci.DeviceRule(allow=False, access="rwm")
_ALLOW_ALL = oci.DeviceRule(allow=True, access="rwm")


def user_namespace(
    request: ContainerRequest, facts: EnvironmentFacts
) -> tuple[tuple[IdRange, ...], tuple[IdRange, ...]]:
    """The uid and gid map of the user namespace to make; empty for none.

    :raises InvalidValue: for ``keep-id`` of root, and for maps without an id 0
    :raises CannotEnforce: for a limit of one process in a container of root, which is entered by a second one
    """
    asked = request.user_namespace
    if asked is not None and asked.mode == "keep-id" and not facts.rootless:
        raise InvalidValue("user namespace keep-id: root has no id to keep")
    for name, ranges in (("uid", request.uid_map), ("gid", request.gid_map)):
        if ranges and not maps(ranges, 0):
            raise InvalidValue(f"{name} map: id 0 has to be mapped: it is root of the container who sets it up")
    entered = bool(request.uid_map) or (asked is not None and asked.mode != "host")
    if entered and not facts.rootless and request.resources.pids_limit == 1:
        raise CannotEnforce(
            "pids limit 1: with a user namespace, a container of root is made by a process that counts for a moment "
            "beside the first one: the limit has to be 2 at least"
        )
    if asked is not None and asked.mode == "keep-id":
        return keep_id(facts.uid, facts.uid_map), keep_id(facts.gid, facts.gid_map)
    return request.uid_map, request.gid_map


def keep_id(id: int, outer: tuple[IdRange, ...]) -> tuple[IdRange, ...]:
    """A map in which the caller, who is 0 in ``outer``, is ``id`` again; all others have a place."""
    size = 1
    for item in sorted(outer):  # without a hole from 0 on
        if item.container > size:
            break
        size = max(size, item.container + item.size)
    below = min(id, size - 1)
    ranges = [IdRange(0, 1, below)] if below else []
    ranges.append(IdRange(id, 0, 1))
    if size - 1 - below > 0:
        ranges.append(IdRange(id + 1, below + 1, size - 1 - below))
    return tuple(ranges)


def make_namespaces(request: ContainerRequest, *, new_user: bool) -> tuple[oci.Namespace, ...]:
    """The namespaces that are not the host's. Those of other containers get their paths at each start."""
    kinds = [("pid", request.pid), ("network", request.net), ("ipc", request.ipc), ("uts", request.uts)]
    namespaces = [_namespace(kind, asked) for kind, asked in kinds if asked.mode != "host"]
    namespaces.append(oci.Namespace(type="mount"))
    user = request.user_namespace
    if new_user or (user is not None and user.target):
        namespaces.append(oci.Namespace(type="user") if user is None else _namespace("user", user))
    if request.cgroup.mode != "host":
        namespaces.append(_namespace("cgroup", request.cgroup))
    return tuple(namespaces)


def _namespace(kind: str, asked: NamespaceRequest) -> oci.Namespace:
    return oci.Namespace(type=kind, path=asked.target if asked.mode == "path" else "")


def make_mappings(ranges: tuple[IdRange, ...]) -> tuple[oci.IdMapping, ...]:
    return tuple(oci.IdMapping(container_id=r.container, host_id=r.host, size=r.size) for r in ranges)


def find_devices(request: ContainerRequest, facts: EnvironmentFacts) -> dict[str, HostDevice]:
    """Path in the container → node of the host: what was asked for, with ``privileged`` all there are."""
    nodes: dict[str, HostDevice] = {}
    if request.privileged:
        nodes |= {device.path: device for device in facts.host_devices if device.path not in _OF_EACH_CONTAINER}
    for asked in request.devices:
        for device in _found(asked.source, facts):
            nodes[asked.target + device.path[len(asked.source) :]] = device
    return nodes


def make_devices(nodes: dict[str, HostDevice]) -> tuple[oci.Device, ...]:
    """Nodes that are to be made."""
    return tuple(
        oci.Device(
            path=path,
            type=device.type,
            major=device.major,
            minor=device.minor,
            file_mode=device.mode,
            uid=device.uid,
            gid=device.gid,
        )
        for path, device in nodes.items()
    )


def bind_devices(nodes: dict[str, HostDevice]) -> tuple[oci.Mount, ...]:
    """The host's own nodes: none can be made in a user namespace, and the host's permissions guard these."""
    return tuple(
        oci.Mount(destination=path, type="bind", source=device.path, options=("bind", "rprivate", "nosuid", "noexec"))
        for path, device in nodes.items()
    )


def _found(path: str, facts: EnvironmentFacts) -> tuple[HostDevice, ...]:
    found = facts.devices.get(path, ())
    if not found:
        raise InvalidValue(f"device {path}: there is no device on the host, nor a directory with one")
    return found


def make_device_rules(request: ContainerRequest, facts: EnvironmentFacts) -> tuple[oci.DeviceRule, ...]:
    """What the device filter lets through; none at all without the right to load one.

    :raises CannotEnforce: for rules that were asked for, where no filter can be loaded
    """
    if facts.rootless:
        if request.device_rules:
            raise CannotEnforce(
                "device rules need a device filter, which only root can load: nothing is allowed by them"
            )
        return ()  # no node can be made here, and the host's permissions guard those that are bound
    if request.privileged:
        return (_ALLOW_ALL,)
    rules = [_DENY_ALL]
    for asked in request.devices:
        for device in _found(asked.source, facts):
            rules.append(
                oci.DeviceRule(
                    allow=True, type=device.type, major=device.major, minor=device.minor, access=asked.access
                )
            )
    for rule in request.device_rules:
        rules.append(oci.DeviceRule(allow=True, type=rule.type, major=rule.major, minor=rule.minor, access=rule.access))
    return tuple(rules)


def make_resources(request: ContainerRequest, facts: EnvironmentFacts) -> oci.Resources | None:
    """All limits, or None if there is none."""
    asked = request.resources
    memory = oci.Memory(
        limit=asked.memory,
        reservation=asked.memory_reservation,
        # A memory limit alone would let the container take all swap of the host.
        swap=2 * asked.memory if asked.memory is not None and asked.memory_swap is None else asked.memory_swap,
    )
    cpu = oci.Cpu(
        shares=asked.cpu_shares,
        quota=asked.cpu_quota if asked.cpus is None else round(asked.cpus * CPU_PERIOD),
        period=asked.cpu_period if asked.cpus is None else CPU_PERIOD,
        cpus=asked.cpuset_cpus,
        mems=asked.cpuset_mems,
    )
    block_io = oci.BlockIo(
        weight=asked.blkio_weight or None,
        weight_device=tuple(
            oci.WeightDevice(major=major, minor=minor, weight=limit.value)
            for limit in asked.blkio_weight_device
            for major, minor in [_block_device(limit.path, facts)]
        ),
        throttle_read_bps_device=_throttles(asked.device_read_bps, facts),
        throttle_write_bps_device=_throttles(asked.device_write_bps, facts),
        throttle_read_iops_device=_throttles(asked.device_read_iops, facts),
        throttle_write_iops_device=_throttles(asked.device_write_iops, facts),
    )
    resources = oci.Resources(
        devices=make_device_rules(request, facts),
        memory=memory if memory != oci.Memory() else None,
        cpu=cpu if cpu != oci.Cpu() else None,
        pids=oci.Pids(limit=asked.pids_limit) if asked.pids_limit is not None and asked.pids_limit > 0 else None,
        block_io=block_io if block_io != oci.BlockIo() else None,
        hugepage_limits=tuple(
            oci.HugepageLimit(page_size=size, limit=limit) for size, limit in sorted(asked.hugetlb.items())
        ),
        unified=dict(asked.unified),
    )
    return resources if resources != oci.Resources() else None


def _throttles(limits: tuple[DeviceLimit, ...], facts: EnvironmentFacts) -> tuple[oci.ThrottleDevice, ...]:
    result = []
    for limit in limits:
        major, minor = _block_device(limit.path, facts)
        result.append(oci.ThrottleDevice(major=major, minor=minor, rate=limit.value))
    return tuple(result)


def _block_device(path: str, facts: EnvironmentFacts) -> tuple[int, int]:
    if path not in facts.block_devices:
        raise InvalidValue(f"{path} is not a block device of the host")
    return facts.block_devices[path]
