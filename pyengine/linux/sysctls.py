"""Sysctls that belong to a namespace, so that setting one changes nothing outside of the container."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

from pyengine.errors import InvalidValue
from pyengine.linux.namespaces import Namespace

_NAME: Final = re.compile(r"[A-Za-z0-9_*-]+([./][A-Za-z0-9_*@:-]+)+")
_IPC: Final = frozenset(
    f"kernel.{name}"
    for name in (
        "auto_msgmni", "msgmax", "msgmnb", "msgmni", "msg_next_id", "sem", "sem_next_id", "shmall", "shmmax",
        "shmmni", "shm_next_id", "shm_rmid_forced",
    )
)  # fmt: skip
_UTS: Final = frozenset({"kernel.domainname"})
_HOSTNAME: Final = "kernel.hostname"


def canonical(name: str) -> str:
    """The name with dots. With slashes a component may hold dots, as names of interfaces do (sysctl(8)): those then
    become slashes."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise InvalidValue(f"not the name of a sysctl: {name!r}")
    first = min((index for index in (name.find("."), name.find("/")) if index >= 0), default=-1)
    if name[first] == "/":
        return name.translate(str.maketrans("./", "/."))
    return name


def path(name: str) -> str:
    """The path below /proc/sys of a sysctl."""
    return canonical(name).translate(str.maketrans("./", "/."))


def namespace_of(name: str) -> Namespace | None:
    """The kind of namespace that a sysctl belongs to, or None if it is the whole host's."""
    name = canonical(name)
    if name.startswith("net."):
        return Namespace.NETWORK
    if name in _IPC or name.startswith("fs.mqueue."):
        return Namespace.IPC
    if name in _UTS or name == _HOSTNAME:
        return Namespace.UTS
    return None


def check_sysctl(name: str, value: str, private: Container[Namespace]) -> str:
    """The canonical name of a sysctl that a container may set, given the kinds of namespace that are its own.
    ``InvalidValue`` if it would change the host, or is set by other means."""
    name = canonical(name)
    if "\0" in value or len(value) > 4096:
        raise InvalidValue(f"sysctl {name}: not a value: {value[:80]!r}")
    if name == _HOSTNAME:
        raise InvalidValue(f"sysctl {name}: set the hostname of the container instead")
    kind = namespace_of(name)
    if kind is None:
        raise InvalidValue(f"sysctl {name} belongs to the whole host, not to a namespace: it cannot be set")
    if kind not in private:
        raise InvalidValue(f"sysctl {name} would change the host: the container has no {kind.oci} namespace of its own")
    return name
