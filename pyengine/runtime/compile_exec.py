"""The plan of a command that is executed in a running container."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux.namespaces import Namespace
from pyengine.oci import runtime as oci
from pyengine.runtime.compile import Facts
from pyengine.runtime.compile_namespaces import read_namespaces
from pyengine.runtime.compile_process import (
    UserRequest,
    exec_step,
    identity_steps,
    limit_steps,
    lookup_step,
    refuse_unsupported,
    seccomp_step,
)
from pyengine.runtime.plan import JoinNamespace, NewSession, Plan, Settings, Step, Terminal

CONTAINER = "container"
"""The name of the descriptor, a pidfd of the container's first process, by which its namespaces are joined."""


@dataclass(frozen=True, kw_only=True)
class ExecCommand:
    """What to execute. Everything else is as the container's own process has it.

    env: ``NAME=VALUE``, over the container's. workdir: empty means the container's. privileged: the capabilities to
    have in all sets, whoever the user is; empty for those of the container. cap_add: those that were explicitly added
    to the container, which a user other than root gets too. rows, columns: first size of the terminal.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    workdir: str = ""
    terminal: bool = False
    rows: int = 0
    columns: int = 0
    privileged: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()


def compile_exec(
    spec: oci.RuntimeSpec,
    command: ExecCommand,
    facts: Facts,
    settings: Settings,
    *,
    origin: str,
    user: UserRequest | None = None,
    seccomp_filter: bytes = b"",
    joins: Sequence[JoinNamespace] = (),
    descriptors: Sequence[str] = (),
) -> Plan:
    """The plan of ``command`` in the container that was started from ``spec``, named ``origin`` in messages.

    ``user``, looked up in the container, else the spec's numbers. ``seccomp_filter``, ``joins`` and ``descriptors`` as
    in `compile_container`; the descriptor `CONTAINER` comes on top.

    :raises UnsupportedField: a field that cannot be done
    :raises InvalidValue: a value that cannot mean anything
    """
    if spec.process is None or spec.linux is None:
        raise UnsupportedField("process" if spec.process is None else "linux", "there is no container without it")
    refuse_unsupported(spec.process)
    process = _process(spec.process, command, user)
    seccomp = seccomp_step(spec.linux.seccomp, seccomp_filter) if spec.linux.seccomp is not None else None
    # All at once: the kernel takes the user namespace first, and either all are joined or none is.
    steps: list[Step] = [*joins, JoinNamespace(_namespaces(spec.linux), CONTAINER, origin)]
    if user is not None:
        # No passwd file is made: that which the container got at its start is there.
        steps += lookup_step(dataclasses.replace(user, passwd=""))
    steps += limit_steps(process)
    steps.append(NewSession())
    if command.terminal:
        if not (0 <= command.rows <= 0xFFFF and 0 <= command.columns <= 0xFFFF):
            raise InvalidValue(f"terminal: {command.rows} by {command.columns} is not a size")
        # /dev/console stays that of the container.
        steps.append(Terminal(command.rows, command.columns, False))
    steps += identity_steps(process, seccomp, looked_up=user is not None, last_capability=facts.last_capability)
    steps.append(exec_step(process, keep=0))
    settings = dataclasses.replace(
        settings,
        namespaces=0,
        uid_map=(),
        gid_map=(),
        deny_setgroups=not facts.set_groups,
        terminal=command.terminal,
        session=True,
    )
    names = (*descriptors, *(join.descriptor for join in joins), CONTAINER)
    return Plan(settings, tuple(steps), tuple(dict.fromkeys(names)))


def _namespaces(linux: oci.Linux) -> int:
    namespaces = read_namespaces(linux)
    flags = 0
    for kind in Namespace:
        if namespaces.own(kind.oci):
            flags |= kind.flag
    return flags


def _process(process: oci.Process, command: ExecCommand, user: UserRequest | None) -> oci.Process:
    env = {item.partition("=")[0]: item for item in (*process.env, *command.env)}
    numbers = process.user
    return msgspec.structs.replace(
        process,
        terminal=command.terminal,
        args=command.args,
        env=tuple(env.values()),
        cwd=command.workdir or process.cwd,
        capabilities=_capabilities(process.capabilities or oci.Capabilities(), command, user, numbers.uid),
    )


def _capabilities(
    container: oci.Capabilities, command: ExecCommand, user: UserRequest | None, uid: int
) -> oci.Capabilities:
    """Root gets what the container has, another user what was explicitly added to it.

    Inheritable and ambient stay empty for root: see CVE-2022-24769, which was about exec as well.
    """
    root = (uid == 0) if user is None else user.user.partition(":")[0] in ("", "root", "0")
    granted = command.privileged or container.bounding
    if root:
        return oci.Capabilities(bounding=granted, effective=granted, permitted=granted)
    added = set(granted) if command.privileged or "ALL" in command.cap_add else {*command.cap_add, *container.ambient}
    explicit = tuple(name for name in granted if name in added)
    return oci.Capabilities(
        bounding=granted, effective=explicit, inheritable=explicit, permitted=explicit, ambient=explicit
    )
