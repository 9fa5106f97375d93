"""What is asked of a new container, as values that are known to make sense.

`ContainerRequest` is what `pyengine.engine.options.make_request` makes of the textual forms that people, the command
line and io.podman's ``Create`` use. It says nothing about the machine or the image; `pyengine.engine.spec` puts the
three together. Sizes are in bytes, times in the unit that their name says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyengine.engine.names import check_name
from pyengine.engine.request_mounts import MountRequest, check_destinations
from pyengine.engine.request_resources import DeviceRequest, DeviceRule, ResourceRequest, Ulimit
from pyengine.engine.values import LARGEST_ID, IdRange
from pyengine.errors import InvalidValue
from pyengine.linux.idmap import check_maps
from pyengine.linux.namespaces import Namespace
from pyengine.linux.sysctls import check_sysctl
from pyengine.typing import override

DEFAULT_SHM_SIZE = 65_536_000
"""Bytes of /dev/shm: 65536k in decimal units, as podman has it."""

DEFAULT_STOP_TIMEOUT = 10
"""Seconds between the stop signal and SIGKILL."""

LOG_DRIVERS = ("k8s-file", "json-file", "none")

_USER = re.compile(r"[^:\0\n]*(?::[^:\0\n]+)?")
# kind: modes that need nothing else; `container:` and `ns:` are for all
_MODES = {
    "pid": ("private", "host"),
    "ipc": ("private", "shareable", "host", "none"),
    "uts": ("private", "host"),
    "net": ("none", "private", "host"),
    "user": ("host", "keep-id", "private"),
    "cgroup": ("private", "host"),
}


@dataclass(frozen=True, slots=True)
class NamespaceRequest:
    """Which namespace of one kind a container gets. ``mode`` is ``private`` (a new one), ``host``, ``container``
    (that of ``target``, a container's name or ID), ``path`` (the one at ``target``), or a word that only this kind
    has: ``none`` (net, ipc), ``shareable`` (ipc), ``keep-id`` (user)."""

    mode: str
    target: str = ""

    @classmethod
    def parse(cls, kind: str, text: str) -> NamespaceRequest:
        """``kind`` is pid, ipc, uts, net, user or cgroup; ``text`` is as in podman: ``host``, ``container:X`` …"""
        word, colon, target = text.partition(":")
        if colon and word in ("container", "ns"):
            if not target or "\0" in target:
                raise InvalidValue(f"{kind} namespace {text[:100]!r}: a container or a path has to follow the colon")
            if word == "ns" and not target.startswith("/"):
                raise InvalidValue(f"{kind} namespace {text[:100]!r}: the path has to be absolute")
            return cls("container" if word == "container" else "path", target)
        if text in _MODES[kind]:
            return cls(text)
        if kind == "net" and (text in ("bridge", "slirp4netns", "default") or re.fullmatch(r"[\w.,-]+", text)):
            raise InvalidValue(
                f"network {text[:100]!r}: networks need a bridge, which this version cannot make yet: "
                "use none, host, container:NAME or ns:PATH"
            )
        if text == "pod":
            raise InvalidValue(f"{kind} namespace 'pod': this container is in no pod")
        expected = ", ".join((*_MODES[kind], "container:NAME", "ns:PATH"))
        raise InvalidValue(f"{kind} namespace {text[:100]!r}: expected {expected}")

    @override
    def __str__(self) -> str:
        return f"{'ns' if self.mode == 'path' else self.mode}:{self.target}" if self.target else self.mode


PRIVATE = NamespaceRequest("private")
HOST = NamespaceRequest("host")


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """``name`` is ``no``, ``on-failure`` or ``always``. ``retries`` 0: no limit."""

    name: str = "no"
    retries: int = 0

    def __post_init__(self) -> None:
        if self.name not in ("no", "on-failure", "always") or self.retries < 0:
            raise InvalidValue(f"restart policy {self.name[:40]!r}: expected no, on-failure[:RETRIES] or always")

    @classmethod
    def parse(cls, text: str) -> RestartPolicy:
        """``no``, ``on-failure``, ``on-failure:3``, ``always``, or nothing for ``no``."""
        name, colon, retries = text.partition(":")
        if not text:
            return cls()
        if colon and (name not in ("on-failure", "always") or not (retries.isascii() and retries.isdecimal())):
            raise InvalidValue(f"restart policy {text[:40]!r}: expected no, on-failure[:RETRIES] or always")
        if len(retries) > 9:
            raise InvalidValue(f"restart policy {text[:40]!r}: too many retries")
        return cls(name, int(retries) if colon else 0)


@dataclass(frozen=True, slots=True)
class LogRequest:
    """``driver`` as it is stored; ``json-file`` is written as ``k8s-file``. ``path`` empty: beside the container's
    configuration. ``max_size`` in bytes, after which the file is rotated; 0: never. ``max_files``: old ones kept."""

    driver: str = "k8s-file"
    path: str = ""
    max_size: int = 0
    max_files: int = 1

    def __post_init__(self) -> None:
        if self.driver not in LOG_DRIVERS:
            raise InvalidValue(f"log driver {self.driver[:40]!r}: expected one of {', '.join(LOG_DRIVERS)}")
        if self.path and not self.path.startswith("/"):
            raise InvalidValue(f"log path {self.path[:100]!r} has to be absolute")
        if self.max_size < 0 or self.max_files < 1:
            raise InvalidValue("log options: expected a positive size and at least one old file")


@dataclass(frozen=True, kw_only=True)
class ContainerRequest:
    """A new container.

    image, rootfs: one of them; an image's name or ID, or a directory that is the root file system.
    command: arguments; empty means the image's. entrypoint: None means the image's, empty clears it.
    env: in order, the later ones win. user: ``name|uid[:group|gid]``, empty means the image's.
    workdir, hostname: empty means the default. cap_add, cap_drop: ``CAP_CHOWN`` or ``ALL``.
    seccomp: empty means the default profile, ``unconfined`` none, else the path of a profile.
    user_namespace None: host's (rootless: the user's own), or a new one with ``uid_map`` and ``gid_map``.
    cgroup_parent: the cgroup below which the container's is made, empty means the engine's.
    stop_signal None: the image's, or SIGTERM. stop_timeout: seconds. umask None: 0022.
    die_with_parent: the container ends with the process that started it.
    """

    image: str = ""
    rootfs: str = ""
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    group_add: tuple[str, ...] = ()
    workdir: str = ""
    hostname: str = ""
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    tty: bool = False
    interactive: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: str = ""
    read_only: bool = False
    read_only_tmpfs: bool = True
    mounts: tuple[MountRequest, ...] = ()
    devices: tuple[DeviceRequest, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    host_ulimits: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    shm_size: int = DEFAULT_SHM_SIZE
    pid: NamespaceRequest = PRIVATE
    ipc: NamespaceRequest = PRIVATE
    uts: NamespaceRequest = PRIVATE
    net: NamespaceRequest = NamespaceRequest("none")
    cgroup: NamespaceRequest = PRIVATE
    user_namespace: NamespaceRequest | None = None
    uid_map: tuple[IdRange, ...] = ()
    gid_map: tuple[IdRange, ...] = ()
    resources: ResourceRequest = field(default_factory=ResourceRequest)
    cgroup_parent: str = ""
    oom_score_adj: int | None = None
    stop_signal: int | None = None
    stop_timeout: int = DEFAULT_STOP_TIMEOUT
    restart: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    log: LogRequest = LogRequest()
    umask: int | None = None
    die_with_parent: bool = False

    def __post_init__(self) -> None:
        if bool(self.image) == bool(self.rootfs):
            raise InvalidValue("a container needs an image or a root file system, and not both")
        if self.name:
            check_name(self.name)
        self._check_text()
        self._check_process()
        self._check_namespaces()
        check_destinations(self.mounts)
        if self.shm_size <= 0:
            raise InvalidValue(f"shm size {self.shm_size}: expected a positive number of bytes")
        if self.auto_remove and self.restart.name != "no":
            raise InvalidValue(f"restart policy {self.restart.name} and automatic removal contradict each other")

    def _check_text(self) -> None:
        for what, texts in (
            ("command", self.command),
            ("entrypoint", self.entrypoint or ()),
            ("host name", (self.hostname,)),
            ("working directory", (self.workdir,)),
            ("root file system", (self.rootfs,)),
            ("env", (*self.env, *self.env.values())),
            ("sysctl", (*self.sysctls, *self.sysctls.values())),
        ):
            for text in texts:
                if "\0" in text:
                    raise InvalidValue(f"{what} {text[:100]!r} contains a NUL byte")
        if self.rootfs and not self.rootfs.startswith("/"):
            raise InvalidValue(f"root file system {self.rootfs[:100]!r} has to be an absolute path")
        if self.workdir and not self.workdir.startswith("/"):
            raise InvalidValue(f"working directory {self.workdir[:100]!r} has to be an absolute path")
        if len(self.hostname) > 64 or "/" in self.hostname:
            raise InvalidValue(f"host name {self.hostname[:100]!r}: expected at most 64 characters, without a slash")
        for name in self.env:
            if not name or "=" in name:
                raise InvalidValue(f"env {name[:100]!r}: expected a name that is not empty and has no =")

    def _check_process(self) -> None:
        check_user(self.user)
        for group in self.group_add:
            if not group or ":" in group or "\0" in group:
                raise InvalidValue(f"group {group[:100]!r}: expected a name or a number")
            if group.isdecimal() and int(group) > LARGEST_ID:
                raise InvalidValue(f"group {group[:100]!r} is above {LARGEST_ID}")
        if both := set(self.cap_add) & set(self.cap_drop):
            raise InvalidValue(f"capabilities are both added and dropped: {', '.join(sorted(both))}")
        if self.oom_score_adj is not None and not -1000 <= self.oom_score_adj <= 1000:
            raise InvalidValue(f"oom score adjustment {self.oom_score_adj}: expected -1000 to 1000")
        if self.stop_signal is not None and not 1 <= self.stop_signal <= 64:
            raise InvalidValue(f"stop signal {self.stop_signal}: expected 1 to 64")
        if not 0 <= self.stop_timeout < 1 << 31:
            raise InvalidValue(f"stop timeout {self.stop_timeout}: expected seconds, 0 or more")
        if self.umask is not None and not 0 <= self.umask <= 0o777:
            raise InvalidValue(f"umask {self.umask:o}: expected 0 to 777")
        if self.host_ulimits and self.ulimits:
            raise InvalidValue("ulimit host and other ulimits contradict each other")
        seen = set()
        for limit in self.ulimits:
            if limit.name in seen:
                raise InvalidValue(f"ulimit {limit.name} is given twice")
            seen.add(limit.name)

    def _check_namespaces(self) -> None:
        kinds = ((Namespace.NETWORK, self.net), (Namespace.IPC, self.ipc), (Namespace.UTS, self.uts))
        private = {kind for kind, asked in kinds if asked.mode != "host"}
        for name, value in self.sysctls.items():
            check_sysctl(name, value, private)
        mode = self.user_namespace.mode if self.user_namespace else ""
        if (self.uid_map or self.gid_map) and mode not in ("", "private"):
            raise InvalidValue(f"id mappings and user namespace {self.user_namespace} contradict each other")
        if bool(self.uid_map) != bool(self.gid_map):
            raise InvalidValue("id mappings are needed for both users and groups")
        if mode == "private" and not self.uid_map:
            raise InvalidValue("a private user namespace needs id mappings")
        if self.uid_map:
            check_maps(self.uid_map)
            check_maps(self.gid_map)
        if self.hostname and self.uts.mode in ("host", "container", "path"):
            raise InvalidValue(f"the host name cannot be set: the uts namespace is {self.uts}")


def check_user(user: str) -> None:
    """Raise `InvalidValue` unless ``user`` is empty or ``name|uid[:group|gid]`` with ids below 2**31."""
    if _USER.fullmatch(user) is None or len(user) > 1024:
        raise InvalidValue(f"user {user[:100]!r}: expected NAME|UID[:GROUP|GID]")
    for part in user.split(":"):
        if part.lstrip("-").isdecimal() and not 0 <= int(part) <= LARGEST_ID:
            raise InvalidValue(f"user {user[:100]!r}: ids go from 0 to {LARGEST_ID}")
