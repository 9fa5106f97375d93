"""Capabilities: names, numbers, masks, and the five sets of a process (capabilities(7))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyengine.errors import InvalidValue
from pyengine.linux import calls

NAMES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS: Final = {name: number for number, name in enumerate(NAMES)}


def last_cap() -> int:
    """The highest capability that the running kernel knows."""
    path = "/proc/sys/kernel/cap_last_cap"
    with calls.open(path, os.O_RDONLY) as fd:
        return int(calls.run("read", path, os.read, fd.fileno(), 16))


def parse_capability(text: str) -> str:
    """The full name for ``CAP_NET_ADMIN``, ``net_admin``, ``Net_Admin``. ``InvalidValue`` for an unknown one."""
    name = text.strip().upper()
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in NUMBERS:
        raise InvalidValue(f"not a capability: {text!r}: a name such as CAP_NET_ADMIN or net_admin")
    return name


def parse_capabilities(texts: Iterable[str], last: int = len(NAMES) - 1) -> tuple[str, ...]:
    """Full names in the order of their numbers, each once. ``ALL`` stands for all up to ``last``."""
    numbers: set[int] = set()
    for text in texts:
        if text.strip().upper() in ("ALL", "CAP_ALL"):
            numbers.update(range(min(last, len(NAMES) - 1) + 1))
        else:
            numbers.add(NUMBERS[parse_capability(text)])
    return tuple(NAMES[number] for number in sorted(numbers))


def change(
    default: Iterable[str], add: Iterable[str], drop: Iterable[str], last: int = len(NAMES) - 1
) -> tuple[str, ...]:
    """The default set with some added and dropped, as ``--cap-add`` and ``--cap-drop`` mean it: ``drop=["ALL"]`` leaves
    what is added, ``add=["ALL"]`` is all but what is dropped. ``InvalidValue`` if one is in both."""
    adding, dropping = set(parse_capabilities(add, last)), set(parse_capabilities(drop, last))
    add_all = any(text.strip().upper() in ("ALL", "CAP_ALL") for text in add)
    drop_all = any(text.strip().upper() in ("ALL", "CAP_ALL") for text in drop)
    if add_all and drop_all:
        raise InvalidValue("capabilities: ALL cannot be added and dropped at once")
    if not add_all and not drop_all and adding & dropping:
        raise InvalidValue(f"capabilities both added and dropped: {', '.join(sorted(adding & dropping))}")
    start = set() if drop_all else set(parse_capabilities(default, last))
    kept = (start | adding) - (set() if drop_all else dropping)
    return parse_capabilities(kept, last)


def mask(names: Iterable[str]) -> int:
    """The bits of a set of names."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[parse_capability(name)]
    return bits


def names(bits: int) -> tuple[str, ...]:
    """The names of a mask; bits of capabilities that are not known here are ``CAP_n``."""
    return tuple(
        NAMES[number] if number < len(NAMES) else f"CAP_{number}"
        for number in range(bits.bit_length())
        if bits >> number & 1
    )


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """The five sets of a process, as masks."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0

    def __post_init__(self) -> None:
        if self.effective & ~self.permitted:
            extra = ", ".join(names(self.effective & ~self.permitted))
            raise InvalidValue(f"capabilities that are effective must be permitted: {extra}")
        if self.ambient & ~(self.permitted & self.inheritable):
            extra = ", ".join(names(self.ambient & ~(self.permitted & self.inheritable)))
            raise InvalidValue(f"capabilities that are ambient must be permitted and inheritable: {extra}")

    @classmethod
    def parse_status(cls, content: str) -> CapabilitySets:
        """The sets in the content of /proc/PID/status."""
        values = {}
        for line in content.splitlines():
            key, _, value = line.partition(":")
            if key in ("CapBnd", "CapEff", "CapInh", "CapPrm", "CapAmb"):
                try:
                    values[key] = int(value, 16)
                except ValueError as error:
                    raise InvalidValue(f"not a capability mask: {line[:80]!r}") from error
        if len(values) != 5:
            raise InvalidValue("not the content of a /proc/PID/status: it lacks capability sets")
        return cls(values["CapBnd"], values["CapEff"], values["CapInh"], values["CapPrm"], values["CapAmb"])
