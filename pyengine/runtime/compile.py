"""The plan compiler: from an OCI runtime spec to what the monitor executes.

`compile_container` turns the config of *any* bundle into a plan, or names the field that it cannot do. It is a pure
function: what it has to know about the machine comes in as `Facts`, the compiled system call filter as bytes,
and the descriptors that a plan names are opened by the engine (`descriptors_to_open`).

The order of the steps is the safety of the container; each place has its reason beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux.mounts import MS_SLAVE, parse_options
from pyengine.oci import runtime as oci
from pyengine.runtime.compile_devices import device_steps
from pyengine.runtime.compile_mounts import idmap_descriptor, is_idmapped, mount_steps, normal
from pyengine.runtime.compile_namespaces import (
    CLONE_NEWUSER,
    Namespaces,
    check_mappings,
    check_maps,
    flat_map,
    inside_steps,
    join_steps,
    namespace_descriptor,
    read_namespaces,
    sysctl_steps,
)
from pyengine.runtime.compile_process import (
    UserRequest,
    exec_step,
    identity_steps,
    limit_steps,
    lookup_step,
    refuse_unsupported,
    seccomp_step,
)
from pyengine.runtime.plan import (
    AwaitStart,
    BindRoot,
    JoinNamespace,
    MakeDirectory,
    MaskPath,
    NewSession,
    OpenSources,
    Overlay,
    PivotRoot,
    Plan,
    Propagation,
    ReadonlyPath,
    ReadonlyRoot,
    Settings,
    Step,
    Terminal,
)


@dataclass(frozen=True)
class OverlayRoot:
    """A root of layers. ``lower`` (topmost first) lie in ``base``; without ``upper`` and ``work`` nothing can be
    written. ``target``: the empty directory of the host on which it is mounted, for the container only. ``store``: the
    directory that all of them lie in, which is shown with the ids of a user namespace of the container."""

    base: str
    lower: tuple[str, ...]
    upper: str
    work: str
    target: str
    options: str = ""
    store: str = ""


@dataclass(frozen=True)
class DirectoryRoot:
    """A directory of the host, with what is mounted below it. ``target``: where it is bound; it may be itself."""

    source: str
    target: str


RootFilesystem = OverlayRoot | DirectoryRoot


@dataclass(frozen=True)
class Facts:
    """What the compiler has to know about the machine.

    make_devices: nodes can be made, which takes CAP_MKNOD in the host's user namespace; else they are bound.
    set_groups: setgroups(2) is allowed where the plan begins; it is not in a user namespace of a single id.
    last_capability: the highest that the kernel knows.
    host_rights: the plan begins with the rights of the host's root. What a container with a user namespace is made of
    is opened with them.
    """

    make_devices: bool = True
    set_groups: bool = True
    last_capability: int = 40
    host_rights: bool = False


def compile_container(
    spec: oci.RuntimeSpec,
    root: RootFilesystem,
    facts: Facts,
    settings: Settings,
    *,
    user: UserRequest | None = None,
    seccomp_filter: bytes = b"",
    make_workdir: bool = False,
    bundle: str = "",
    joins: Sequence[JoinNamespace] = (),
    descriptors: Sequence[str] = (),
    hold: bool = True,
) -> Plan:
    """The plan of a container.

    ``settings`` is taken as it is but for what the spec decides: namespaces, id maps, terminal. ``user`` is looked up
    in the container instead of taking the spec's numbers. ``seccomp_filter``: the compiled ``linux.seccomp``.
    ``make_workdir``: a missing working directory is made, as engines do and bundles do not expect. ``bundle``: the
    directory where relative sources of binds begin. ``joins``: namespaces to go into before the spec's own (the user
    namespace of a rootless engine). ``hold``: the container waits before its command until it is told to start.
    ``descriptors``: further names that the engine passes (``cgroup``, ``engine``).

    :raises UnsupportedField: the first field that cannot be done
    :raises InvalidValue: a field that cannot mean anything
    """
    process, linux = _parts(spec)
    namespaces = read_namespaces(linux)
    check_maps(linux, namespaces)
    own_user = namespaces.own("user")
    outside = own_user and facts.host_rights
    if outside:
        namespaces = _known_user_namespace(linux, namespaces)
    mounts = tuple(mount_steps(spec.mounts, bundle))
    seccomp = seccomp_step(linux.seccomp, seccomp_filter) if linux.seccomp is not None else None
    steps: list[Step] = [*joins, *join_steps(namespaces), *inside_steps(spec, namespaces)]
    if outside:
        store = root.store if isinstance(root, OverlayRoot) else ""
        steps.insert(0, OpenSources(namespace_descriptor("user") if store else "", store))
    # Slave and not private: what the host mounts later below a bound directory arrives where that was asked for.
    steps.append(Propagation(MS_SLAVE, "slave"))
    steps.append(_root_step(root, linux, user_namespace=own_user, outside=outside))
    steps += mounts
    steps += device_steps(spec, make=facts.make_devices and not own_user)
    if make_workdir and normal(process.cwd) != "/":
        steps.append(MakeDirectory(normal(process.cwd), 0o755))
    # Before anything is masked: in a user namespace a new procfs can only be had while a whole one is visible.
    steps += sysctl_steps(linux, namespaces)
    steps += map(MaskPath, map(normal, linux.masked_paths))
    steps += map(ReadonlyPath, map(normal, linux.readonly_paths))
    # While the host's files are in reach: a generated passwd file lies there.
    steps += lookup_step(user)
    # After all targets of mounts are made in it.
    if spec.root is not None and spec.root.readonly:
        steps.append(ReadonlyRoot())
    steps.append(PivotRoot(_root_propagation(linux)))
    steps += limit_steps(process)
    steps += _terminal_steps(process, console=True)
    steps += identity_steps(process, seccomp, looked_up=user is not None, last_capability=facts.last_capability)
    if hold:
        # Last: whatever can fail has failed before a container is said to be created.
        steps.append(AwaitStart())
    steps.append(exec_step(process, keep=0))
    settings = dataclasses.replace(
        settings,
        namespaces=namespaces.new,
        uid_map=() if outside else flat_map(linux.uid_mappings),
        gid_map=() if outside else flat_map(linux.gid_mappings),
        deny_setgroups=not facts.set_groups,
        terminal=process.terminal,
    )
    names = (
        *descriptors,
        *(join.descriptor for join in joins),
        *descriptors_to_open(spec, host_rights=facts.host_rights),
    )
    return Plan(settings, tuple(steps), tuple(dict.fromkeys(names)))


def _known_user_namespace(linux: oci.Linux, namespaces: Namespaces) -> Namespaces:
    """A new user namespace is made by the engine, and joined: mounts with its ids are there before the container is."""
    for maps, field in ((linux.uid_mappings, "uidMappings"), (linux.gid_mappings, "gidMappings")):
        if maps and not any(item.container_id == 0 for item in maps):
            raise UnsupportedField(f"linux.{field}", "id 0 has to be mapped: it is root of it who sets a container up")
    if not namespaces.new & CLONE_NEWUSER:
        return namespaces
    return dataclasses.replace(
        namespaces, new=namespaces.new & ~CLONE_NEWUSER, joined={"user": "the container"} | namespaces.joined
    )


def descriptors_to_open(spec: oci.RuntimeSpec, *, host_rights: bool = False) -> dict[str, str]:
    """Descriptors that the plan of ``spec`` names, and the path of the namespace each is to refer to; an empty path
    is a user namespace with the map of the container or the mount (`idmap_of`), which the engine has to make.
    ``host_rights`` as in `Facts`."""
    names = {}
    for namespace in spec.linux.namespaces if spec.linux else ():
        if namespace.path or (namespace.type == "user" and host_rights):
            names[namespace_descriptor(namespace.type)] = namespace.path
    for number, mount in enumerate(spec.mounts):
        if is_idmapped(mount):
            names[idmap_descriptor(number)] = ""
    return names


def idmap_of(spec: oci.RuntimeSpec, descriptor: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The uid and gid map (container, host, size, …) of the user namespace behind ``descriptor``: the mount's own,
    or the container's where it has none."""
    linux = spec.linux or oci.Linux()
    if descriptor == namespace_descriptor("user"):
        return flat_map(linux.uid_mappings), flat_map(linux.gid_mappings)
    mount = spec.mounts[int(descriptor.rpartition("-")[2])]
    return flat_map(mount.uid_mappings or linux.uid_mappings), flat_map(mount.gid_mappings or linux.gid_mappings)


def _parts(spec: oci.RuntimeSpec) -> tuple[oci.Process, oci.Linux]:
    """The parts that a Linux container must have, once nothing in the document is beyond a plan."""
    if spec.process is None:
        raise UnsupportedField("process", "a container without a process cannot be started")
    if spec.linux is None:
        raise UnsupportedField("linux", "without it there are no namespaces, and nothing would be contained")
    if spec.hooks is not None and spec.hooks != oci.Hooks():
        name = next(name for name in spec.hooks.__struct_fields__ if getattr(spec.hooks, name))
        raise UnsupportedField(f"hooks.{name}", "pyengine runs no programs of the host at the word of a document")
    for value, field, reason in (
        (spec.linux.mount_label, "mountLabel", "pyengine does not do SELinux"),
        (spec.linux.intel_rdt, "intelRdt", "cache and bandwidth allocation is not supported"),
        (spec.linux.personality, "personality", "no step sets an execution domain"),
        (spec.linux.time_offsets, "timeOffsets", "time namespaces can be joined, not made"),
    ):
        if value:
            raise UnsupportedField(f"linux.{field}", reason)
    for number, mount in enumerate(spec.mounts):
        maps = (mount.uid_mappings, mount.gid_mappings)
        for mappings, field in zip(maps, ("uidMappings", "gidMappings"), strict=True):
            check_mappings(mappings, f"mounts[{number}].{field}")
        if is_idmapped(mount) and not (mount.uid_mappings and mount.gid_mappings) and not spec.linux.uid_mappings:
            raise InvalidValue(f"mounts[{number}]: an id-mapped mount needs uidMappings and gidMappings")
    refuse_unsupported(spec.process)
    return spec.process, spec.linux


def _root_step(root: RootFilesystem, linux: oci.Linux, *, user_namespace: bool, outside: bool) -> Step:
    if isinstance(root, DirectoryRoot):
        # On itself in a user namespace: there its own place is the only one that has to be in reach.
        return BindRoot(root.source, root.source if user_namespace else root.target, True)
    if outside and root.store:
        return Overlay(root.base, root.lower, root.upper, root.work, root.options, root.target)
    if user_namespace and "userxattr" not in root.options.split(","):
        # overlayfs keeps in trusted.* attributes what a layer deletes: unreadable there, so that it would be back.
        raise UnsupportedField(
            "linux.namespaces", "the layers of a store of root cannot be mounted in a user namespace"
        )
    for maps, field in ((linux.uid_mappings, "uidMappings"), (linux.gid_mappings, "gidMappings")):
        if maps and not any(item.host_id == 0 for item in maps):
            raise UnsupportedField(
                f"linux.{field}",
                "the files of an image belong to id 0 outside, who is nobody inside unless that is mapped: layers "
                "cannot be shown with other ids yet",
            )
    return Overlay(root.base, root.lower, root.upper, root.work, root.options, root.target)


def _root_propagation(linux: oci.Linux) -> int:
    if not linux.rootfs_propagation:
        return 0
    propagation = parse_options((linux.rootfs_propagation,)).propagation
    if not propagation:
        raise InvalidValue(f"linux.rootfsPropagation: {linux.rootfs_propagation[:40]!r} is none")
    return propagation


def _terminal_steps(process: oci.Process, *, console: bool) -> Iterator[Step]:
    yield NewSession()
    if process.terminal:
        size = process.console_size
        rows, columns = (size.height, size.width) if size else (0, 0)
        if not (0 <= rows <= 0xFFFF and 0 <= columns <= 0xFFFF):
            raise InvalidValue(f"process.consoleSize: {rows} by {columns} is not a size")
        yield Terminal(rows, columns, console)


__all__ = [
    "DirectoryRoot",
    "Facts",
    "Namespaces",
    "OverlayRoot",
    "RootFilesystem",
    "UserRequest",
    "compile_container",
    "descriptors_to_open",
    "idmap_of",
]
