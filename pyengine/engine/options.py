"""Options of a new container as people write them, under the names of podman's flags.

`make_request` is the one way from text to `ContainerRequest`, for the command line, for Python and for io.podman. Every
option that it does not know, or knows and cannot do, is an `InvalidValue`: nothing is taken and ignored.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from pyengine.engine.request import (
    DEFAULT_SHM_SIZE,
    DEFAULT_STOP_TIMEOUT,
    ContainerRequest,
    LogRequest,
    NamespaceRequest,
    RestartPolicy,
)
from pyengine.engine.request_mounts import MountRequest, parse_mode, parse_mount, parse_tmpfs, parse_volume
from pyengine.engine.request_resources import DeviceLimit, DeviceRequest, DeviceRule, ResourceRequest, Ulimit
from pyengine.engine.values import (
    IdRange,
    parse_cpu_list,
    parse_env,
    parse_integer,
    parse_labels,
    parse_pairs,
    parse_size,
)
from pyengine.errors import InvalidValue
from pyengine.linux.capabilities import parse_capability
from pyengine.linux.signals import parse_signal

Items = Sequence[str]
Pairs = Mapping[str, str] | Sequence[str]


class Options(TypedDict, total=False):
    """All options. Sizes are numbers of bytes or text (``64m``); pairs are mappings or ``K=V`` items."""

    annotation: Pairs
    blkio_weight: int | str
    blkio_weight_device: Items
    cap_add: Items
    cap_drop: Items
    cgroup_conf: Pairs
    cgroup_parent: str
    cgroupns: str
    cpu_period: int
    cpu_quota: int
    cpu_shares: int
    cpus: float | str
    cpuset_cpus: str
    cpuset_mems: str
    device: Items
    device_cgroup_rule: Items
    device_read_bps: Items
    device_read_iops: Items
    device_write_bps: Items
    device_write_iops: Items
    die_with_parent: bool
    entrypoint: str | Sequence[str]
    env: Pairs
    environment: Mapping[str, str]
    gidmap: Items
    group_add: Items
    hostname: str
    hugetlb: Mapping[str, int | str]
    interactive: bool
    ipc: str
    label: Pairs
    log_driver: str
    log_opt: Pairs
    memory: int | str
    memory_reservation: int | str
    memory_swap: int | str
    mount: Sequence[str | MountRequest]
    name: str
    network: str
    oom_score_adj: int
    pid: str
    pids_limit: int
    privileged: bool
    read_only: bool
    read_only_tmpfs: bool
    restart: str
    rm: bool
    rootfs: bool | str
    security_opt: Items
    shm_size: int | str
    stop_signal: int | str
    stop_timeout: int
    sysctl: Pairs
    tmpfs: Items
    tty: bool
    uidmap: Items
    ulimit: Items
    umask: int | str
    user: str
    userns: str
    uts: str
    volume: Items
    workdir: str


_NETWORKS = "networks with addresses, names and ports are not there yet"
_REFUSED = {
    "add_host": _NETWORKS,
    "cpu_rt_period": "cgroup v2 has no limit for real-time processes",
    "cpu_rt_runtime": "cgroup v2 has no limit for real-time processes",
    "dns": _NETWORKS,
    "dns_option": _NETWORKS,
    "dns_search": _NETWORKS,
    "expose": _NETWORKS,
    "health_cmd": "health checks are not there yet",
    "init": "there is no init program to put in front of the command yet",
    "ip": _NETWORKS,
    "kernel_memory": "the kernel has no limit of its own memory any more",
    "mac_address": _NETWORKS,
    "memory_swappiness": "cgroup v2 has none for a group",
    "oom_kill_disable": "cgroup v2 cannot switch the OOM killer off for a group: give a lower oom_score_adj",
    "pod": "pods are not there yet",
    "publish": _NETWORKS,
    "publish_all": _NETWORKS,
    "systemd": "containers with systemd are not there yet",
    "volumes_from": "volumes are not there yet",
}
_NOTHING: tuple[object, ...] = (None, False, "", (), [], {}, -1)


def make_request(image: str = "", command: Sequence[str] = (), **options: Unpack[Options]) -> ContainerRequest:
    """The request for a container from ``image`` with the arguments ``command``.

    ``rootfs`` is the directory that is the root file system, or True if ``image`` names it. ``environment``: where
    variables in ``env`` that have no value get it from; without it they have none.

    :raises InvalidValue: says which option, what it was and what was expected
    """
    given: dict[str, Any] = dict(options)
    _refuse(given)
    if isinstance(command, str):
        raise InvalidValue("command: expected a sequence of words, not one text: no shell splits it")
    rootfs = given.get("rootfs") or ""
    if rootfs is True:
        image, rootfs = "", image
    user_namespace, uid_map, gid_map = _user_namespace(given)
    no_new_privileges, seccomp = _security(_items(given, "security_opt"))
    ulimits = _items(given, "ulimit")
    shm_size = _size(given, "shm_size", decimal=True)
    values: dict[str, Any] = {name: given[name] for name in _AS_IT_IS if given.get(name) is not None}
    return ContainerRequest(
        image=image,
        rootfs=rootfs,
        command=tuple(command),
        entrypoint=parse_entrypoint(given.get("entrypoint")),
        env=_env(given),
        group_add=_items(given, "group_add"),
        labels=_pairs(given, "label", labels=True),
        annotations=_pairs(given, "annotation"),
        cap_add=_capabilities(given, "cap_add"),
        cap_drop=_capabilities(given, "cap_drop"),
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        mounts=_mounts(given),
        devices=tuple(map(DeviceRequest.parse, _items(given, "device"))),
        device_rules=tuple(map(DeviceRule.parse, _items(given, "device_cgroup_rule"))),
        ulimits=tuple(Ulimit.parse(text) for text in ulimits if text != "host"),
        host_ulimits="host" in ulimits,
        sysctls=_pairs(given, "sysctl"),
        shm_size=DEFAULT_SHM_SIZE if shm_size is None else shm_size,
        pid=_namespace(given, "pid", "pid", "private"),
        ipc=_namespace(given, "ipc", "ipc", "private"),
        uts=_namespace(given, "uts", "uts", "private"),
        net=_namespace(given, "network", "net", "none"),
        cgroup=_namespace(given, "cgroupns", "cgroup", "private"),
        user_namespace=user_namespace,
        uid_map=uid_map,
        gid_map=gid_map,
        resources=_resources(given),
        stop_signal=parse_signal(given["stop_signal"]) if given.get("stop_signal") else None,
        stop_timeout=DEFAULT_STOP_TIMEOUT if given.get("stop_timeout") is None else given["stop_timeout"],
        restart=RestartPolicy.parse(given.get("restart") or ""),
        auto_remove=bool(given.get("rm")),
        log=_log(given),
        umask=parse_mode(given["umask"]) if isinstance(given.get("umask"), str) else given.get("umask"),
        **values,
    )


_AS_IT_IS = (
    "cgroup_parent",
    "die_with_parent",
    "hostname",
    "interactive",
    "name",
    "oom_score_adj",
    "privileged",
    "read_only",
    "read_only_tmpfs",
    "tty",
    "user",
    "workdir",
)


def _refuse(given: dict[str, Any]) -> None:
    for name, value in given.items():
        if name in _REFUSED:
            if value not in _NOTHING:
                raise InvalidValue(f"{name} is not supported: {_REFUSED[name]}")
        elif name not in Options.__annotations__:
            near = difflib.get_close_matches(name, Options.__annotations__, 1)
            raise InvalidValue(f"there is no option {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))


def _items(given: dict[str, Any], name: str) -> tuple[str, ...]:
    items = given.get(name)
    if isinstance(items, str):
        raise InvalidValue(f"{name}: expected a list of texts, not the text {items[:60]!r}")
    return tuple(items or ())


def _pairs(given: dict[str, Any], name: str, *, labels: bool = False) -> dict[str, str]:
    value = given.get(name)
    items: Iterable[str]
    items = (f"{key}={text}" for key, text in value.items()) if isinstance(value, Mapping) else _items(given, name)
    return parse_labels(items) if labels else parse_pairs(items, name)


def _env(given: dict[str, Any]) -> dict[str, str]:
    value = given.get("env")
    if isinstance(value, Mapping):
        return parse_env((f"{key}={text}" for key, text in value.items()), {})
    return parse_env(_items(given, "env"), given.get("environment") or {})


def parse_entrypoint(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """A list of words; or text: a JSON list, else one word, and nothing for no entrypoint at all."""
    if value is None:
        return None
    if not isinstance(value, str):
        return tuple(value)
    if value.startswith("["):
        try:
            words = json.loads(value)
        except (ValueError, RecursionError):
            return (value,)
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return tuple(words)
    return (value,) if value else ()


def _capabilities(given: dict[str, Any], name: str) -> tuple[str, ...]:
    return tuple(
        "ALL" if text.upper() in ("ALL", "CAP_ALL") else parse_capability(text) for text in _items(given, name)
    )


def _security(items: Iterable[str]) -> tuple[bool, str]:
    """Whether new privileges are given up, and the seccomp profile."""
    no_new_privileges, seccomp = False, ""
    for item in items:
        key, separator, value = item.partition("=")
        if not separator:
            key, separator, value = item.partition(":")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privileges = value != "false"
        elif key == "seccomp" and (value == "unconfined" or value.startswith("/")):
            seccomp = value
        elif key == "seccomp":
            raise InvalidValue(
                f"security option {item[:100]!r}: expected unconfined, or the absolute path of a profile"
            )
        elif (key, value) in (("label", "disable"), ("apparmor", "unconfined")):
            continue  # as it is anyway
        elif key in ("label", "apparmor"):
            name = "SELinux" if key == "label" else "AppArmor"
            raise InvalidValue(f"security option {item[:100]!r}: pyengine does not do {name}")
        else:
            raise InvalidValue(
                f"security option {item[:100]!r}: expected no-new-privileges, seccomp=FILE or seccomp=unconfined"
            )
    return no_new_privileges, seccomp


def _mounts(given: dict[str, Any]) -> tuple[MountRequest, ...]:
    items: tuple[str | MountRequest, ...] = _items(given, "mount")
    mounts = [parse_mount(item) if isinstance(item, str) else item for item in items]
    mounts += map(parse_volume, _items(given, "volume"))
    mounts += map(parse_tmpfs, _items(given, "tmpfs"))
    return tuple(mounts)


def _namespace(given: dict[str, Any], option: str, kind: str, default: str) -> NamespaceRequest:
    return NamespaceRequest.parse(kind, given.get(option) or default)


def _user_namespace(
    given: dict[str, Any],
) -> tuple[NamespaceRequest | None, tuple[IdRange, ...], tuple[IdRange, ...]]:
    uids = tuple(map(IdRange.parse, _items(given, "uidmap")))
    gids = tuple(map(IdRange.parse, _items(given, "gidmap")))
    text = given.get("userns") or ""
    asked = NamespaceRequest.parse("user", text) if text else None
    if uids or gids:
        # One of them alone stands for both.
        return asked or NamespaceRequest("private"), uids or gids, gids or uids
    return (None if asked is not None and asked.mode == "host" else asked), (), ()


def _size(given: dict[str, Any], name: str, *, decimal: bool = False) -> int | None:
    value = given.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidValue(f"{name}: expected a size, got {value!r}")
    if isinstance(value, int):
        return value
    try:
        return -1 if value == "-1" else parse_size(value, decimal=decimal)
    except InvalidValue as error:
        raise InvalidValue(f"{name}: {error}") from error


def _resources(given: dict[str, Any]) -> ResourceRequest:
    weight = given.get("blkio_weight") or None
    lists = {name: parse_cpu_list(given[name], name) for name in ("cpuset_cpus", "cpuset_mems") if given.get(name)}
    hugetlb = given.get("hugetlb") or {}
    return ResourceRequest(
        memory=_size(given, "memory"),
        memory_reservation=_size(given, "memory_reservation"),
        memory_swap=_size(given, "memory_swap"),
        cpus=_cpus(given.get("cpus")),
        cpu_period=given.get("cpu_period"),
        cpu_quota=given.get("cpu_quota"),
        cpu_shares=given.get("cpu_shares"),
        pids_limit=given.get("pids_limit"),
        blkio_weight=parse_integer(weight, "blkio_weight", 10, 1000) if isinstance(weight, str) else weight,
        blkio_weight_device=_limits(given, "blkio_weight_device"),
        device_read_bps=_limits(given, "device_read_bps", size=True),
        device_write_bps=_limits(given, "device_write_bps", size=True),
        device_read_iops=_limits(given, "device_read_iops"),
        device_write_iops=_limits(given, "device_write_iops"),
        hugetlb={page: size if isinstance(size, int) else parse_size(size) for page, size in hugetlb.items()},
        unified=_pairs(given, "cgroup_conf"),
        **lists,
    )


def _cpus(value: float | str | None) -> float | None:
    if value is None or value in ("", 0):
        return None
    try:
        return float(value)
    except ValueError:
        raise InvalidValue(f"cpus {str(value)[:40]!r}: expected a number such as 1.5") from None


def _limits(given: dict[str, Any], name: str, *, size: bool = False) -> tuple[DeviceLimit, ...]:
    return tuple(DeviceLimit.parse(text, size=size) for text in _items(given, name))


def _log(given: dict[str, Any]) -> LogRequest:
    options = _pairs(given, "log_opt")
    request: dict[str, Any] = {}
    for key, value in options.items():
        if key == "path":
            request["path"] = value
        elif key == "max-size":
            request["max_size"] = parse_size(value)
        elif key == "max-file":
            request["max_files"] = parse_integer(value, "log option max-file", 1, 1000)
        else:
            raise InvalidValue(f"log option {key[:40]!r}: expected path, max-size or max-file")
    return LogRequest(driver=given.get("log_driver") or "k8s-file", **request)
