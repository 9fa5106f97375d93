"""Namespaces of an OCI spec: which the monitor makes, which it joins, and what may be changed in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux.namespaces import Namespace
from pyengine.linux.sysctls import check_sysctl, path
from pyengine.oci import runtime as oci
from pyengine.runtime.plan import JoinNamespace, Loopback, SetDomainname, SetHostname, Step, Sysctl, UnshareCgroup

CLONE_NEWNS = Namespace.MOUNT.flag
CLONE_NEWCGROUP = Namespace.CGROUP.flag
CLONE_NEWUSER = Namespace.USER.flag
CLONE_NEWNET = Namespace.NETWORK.flag

_FLAGS = {kind.oci: kind.flag for kind in Namespace}


@dataclass(frozen=True)
class Namespaces:
    """``new`` are CLONE_NEW* flags for clone, without the cgroup namespace, which needs its cgroup first.
    ``joined``: type → path. A type in neither is the host's."""

    new: int
    cgroup: bool
    joined: dict[str, str]

    def own(self, kind: str) -> bool:
        """Whether the container does not share this namespace with the host."""
        return bool(self.new & _FLAGS[kind]) or kind in self.joined or (kind == "cgroup" and self.cgroup)


def namespace_descriptor(kind: str) -> str:
    """The name of the descriptor of a namespace that is joined; ``kind`` as in the spec."""
    return f"namespace-{kind}"


def read_namespaces(linux: oci.Linux) -> Namespaces:
    """The namespaces of a spec, once it is known that they can be made."""
    new, joined = 0, {}
    for number, namespace in enumerate(linux.namespaces):
        field = f"linux.namespaces[{number}]"
        kind = namespace.type
        if kind not in _FLAGS:
            raise UnsupportedField(f"{field}.type", f"{kind[:40]!r} is not a namespace of this kernel")
        if new & _FLAGS[kind] or kind in joined:
            raise InvalidValue(f"{field}: {kind} is there twice")
        if namespace.path:
            if kind == "mount":
                raise UnsupportedField(f"{field}.path", "a container has a mount namespace of its own")
            if not namespace.path.startswith("/"):
                raise InvalidValue(f"{field}.path: {namespace.path[:100]!r} is not absolute")
            joined[kind] = namespace.path
        elif kind == "time":
            raise UnsupportedField(field, "time namespaces can be joined, not made")
        else:
            new |= _FLAGS[kind]
    if not new & CLONE_NEWNS:
        raise UnsupportedField("linux.namespaces", "without a mount namespace the host's mounts would be changed")
    return Namespaces(new & ~CLONE_NEWCGROUP, bool(new & CLONE_NEWCGROUP), joined)


def check_maps(linux: oci.Linux, namespaces: Namespaces) -> None:
    """Raise `InvalidValue` unless a new user namespace, and only that, has maps that the kernel takes."""
    user = bool(namespaces.new & CLONE_NEWUSER)
    for maps, field in ((linux.uid_mappings, "uidMappings"), (linux.gid_mappings, "gidMappings")):
        if bool(maps) != user:
            what = "a new user namespace needs one" if user else "there is no new user namespace to map ids in"
            raise InvalidValue(f"linux.{field}: {what}")
        if len(maps) > 340:  # user_namespaces(7)
            raise InvalidValue(f"linux.{field}: more than 340 ranges")
        check_mappings(maps, f"linux.{field}")


def check_mappings(maps: Sequence[oci.IdMapping], field: str) -> None:
    """Raise `InvalidValue` for ranges that are out of range or overlap."""
    for item in maps:
        for start in (item.container_id, item.host_id):
            if start < 0 or item.size < 1 or start + item.size > (1 << 32) - 1:
                raise InvalidValue(f"{field}: {item.container_id}:{item.host_id}:{item.size} is out of range")
    for name in ("container_id", "host_id"):
        end = 0
        for start, size in sorted((getattr(item, name), item.size) for item in maps):
            if start < end:
                raise InvalidValue(f"{field}: ranges overlap at {start}")
            end = start + size


def flat_map(maps: Sequence[oci.IdMapping]) -> tuple[int, ...]:
    """A map as the monitor reads it."""
    return tuple(number for item in maps for number in (item.container_id, item.host_id, item.size))


def join_steps(namespaces: Namespaces) -> Iterator[JoinNamespace]:
    """Joins, the user namespace first: it gives the rights for the others, which belong to it."""
    for kind in sorted(namespaces.joined, key=lambda kind: (kind != "user", list(_FLAGS).index(kind))):
        yield JoinNamespace(_FLAGS[kind], namespace_descriptor(kind), namespaces.joined[kind])


def inside_steps(spec: oci.RuntimeSpec, namespaces: Namespaces) -> Iterator[Step]:
    """What is set in new namespaces before mounts are made."""
    if namespaces.cgroup:
        yield UnshareCgroup()
    if namespaces.new & CLONE_NEWNET:
        yield Loopback()
    if spec.hostname or spec.domainname:
        if not namespaces.own("uts"):
            raise InvalidValue("hostname: it would be the host's, since there is no uts namespace")
        if spec.hostname:
            yield SetHostname(_name(spec.hostname, "hostname"))
        if spec.domainname:
            yield SetDomainname(_name(spec.domainname, "domainname"))


def _name(name: str, field: str) -> str:
    if len(name.encode()) > 64:
        raise InvalidValue(f"{field}: {name[:100]!r} has more than 64 bytes")
    return name


def sysctl_steps(linux: oci.Linux, namespaces: Namespaces) -> Iterator[Sysctl]:
    """Only what belongs to a namespace of the container."""
    private = {kind for kind in Namespace if namespaces.own(kind.oci)}
    for name, value in sorted(linux.sysctl.items()):
        try:
            yield Sysctl(path(check_sysctl(name, value, private)), value)
        except InvalidValue as error:
            raise UnsupportedField(f"linux.sysctl.{name[:100]}", str(error)) from error
