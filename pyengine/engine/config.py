"""What a container was asked to be: the document that the store keeps for it, beside its OCI spec."""

from __future__ import annotations

import msgspec


class ContainerConfig(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Everything about a container that is decided when it is created, and not part of its spec.

    Kept as JSON text in the store's database; a field that is missing has its default.
    """

    id: str
    name: str
    created_ns: int
    image_id: str = ""
    image_name: str = ""
    layers: tuple[int, ...] = ()  # numbers of the layers below, topmost first
    rootfs: str = ""  # a directory of the host instead of an image
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    groups: tuple[str, ...] = ()
    workdir: str = "/"
    hostname: str = ""
    labels: dict[str, str] = {}
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    read_only: bool = False
    network: str = "none"
    joined: dict[str, str] = {}  # kind of namespace -> ID of the container whose it is
    user_volumes: tuple[str, ...] = ()  # destinations of the mounts that were asked for
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_options: tuple[str, ...] = ()
    log_driver: str = "k8s-file"
    log_path: str = ""
    log_max_size: int = 0
    log_max_files: int = 1
    stop_signal: int = 15
    stop_timeout: int = 10  # seconds
    restart: str = "no"
    restart_retries: int = 0
    auto_remove: bool = False
    volatile: bool = False  # what it writes need not survive a crash of the machine, since it is to be removed anyway
    die_with_parent: bool = False
    cgroup_parent: str = ""
    cid_file: str = ""
    hosts: tuple[str, ...] = ()  # "name:ip"
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()

    @property
    def cgroup(self) -> str:
        """The name of its cgroup, as `linux.cgroups.Hierarchy.locate` takes it."""
        return f"{self.cgroup_parent.rstrip('/')}/{self.id}" if self.cgroup_parent else self.id

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()

    @staticmethod
    def decode(text: str) -> ContainerConfig:
        return _DECODER.decode(text)


_DECODER = msgspec.json.Decoder(ContainerConfig)
