"""The process of a container: request and image merged, its rights and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from pyengine.engine.request import ContainerRequest
from pyengine.engine.request_mounts import normal
from pyengine.engine.spec_facts import EnvironmentFacts
from pyengine.errors import CannotEnforce, InvalidValue
from pyengine.linux.signals import parse_signal
from pyengine.oci import runtime as oci
from pyengine.oci.image import ContainerConfig as ImageDefaults
from pyengine.oci.seccomp import default_profile, resolve

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""What a container gets unless asked otherwise, in podman's order."""

DEFAULT_LIMIT = 1048576
"""Open files and processes."""

OCI_UNLIMITED = (1 << 64) - 1
_SIGTERM = 15


@dataclass(frozen=True)
class Merged:
    """What request and image together say.

    argv: the whole command line; entrypoint and command: its two parts, for commit and inspect.
    user: ``name|uid[:group|gid]``, empty for root; it is looked up in the container at each start.
    """

    argv: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: dict[str, str]
    user: str
    workdir: str
    labels: dict[str, str]
    stop_signal: int


def merge(request: ContainerRequest, image: ImageDefaults | None, facts: EnvironmentFacts) -> Merged:
    """The request over the defaults of its image (containers.md §5.3).

    :raises InvalidValue: if there is no command at all, or the image's environment or stop signal is malformed
    """
    image = image or ImageDefaults()
    entrypoint = tuple(image.entrypoint or ()) if request.entrypoint is None else request.entrypoint
    command = request.command
    if not command and request.entrypoint is None:
        command = tuple(image.cmd or ())
    argv = entrypoint + command
    if not argv:
        raise InvalidValue("no command: neither the request nor the image says what to run")
    if not argv[0]:
        raise InvalidValue("the command is an empty word")
    return Merged(
        argv=argv,
        entrypoint=entrypoint,
        command=command,
        env={"PATH": DEFAULT_PATH, "TERM": "xterm"} | _image_env(image) | dict(request.env),
        user=request.user or _default_user(request, image, facts),
        workdir=normal(request.workdir or image.working_dir),
        labels=(image.labels or {}) | dict(request.labels),
        stop_signal=request.stop_signal or (parse_signal(image.stop_signal) if image.stop_signal else _SIGTERM),
    )


def _default_user(request: ContainerRequest, image: ImageDefaults, facts: EnvironmentFacts) -> str:
    if request.user_namespace and request.user_namespace.mode == "keep-id":
        return f"{facts.uid}:{facts.gid}"
    return "0" if request.rootfs else image.user


def _image_env(image: ImageDefaults) -> dict[str, str]:
    pairs = {}
    for item in image.env or ():
        name, equals, value = item.partition("=")
        if not name or "\0" in item:
            raise InvalidValue(f"the image's environment has {item[:100]!r}: expected NAME=VALUE")
        if equals:
            pairs[name] = value
    return pairs


def make_process(request: ContainerRequest, merged: Merged, facts: EnvironmentFacts, hostname: str) -> oci.Process:
    """The ``process`` of the spec. HOME, and the ids of a user that is a name, are found in the container."""
    env = {"HOSTNAME": hostname, "container": "podman"} | merged.env
    env = merged.env | env  # in the order of the request; the two come last
    return oci.Process(
        terminal=request.tty,
        user=_numeric_user(merged.user, request.umask),
        args=merged.argv,
        env=tuple(f"{name}={value}" for name, value in env.items()),
        cwd=merged.workdir,
        capabilities=make_capabilities(request, merged.user, facts),
        rlimits=_rlimits(request, facts),
        no_new_privileges=request.no_new_privileges,
        oom_score_adj=_oom_score(request, facts),
    )


def _numeric_user(user: str, umask: int | None) -> oci.User:
    uid, _, gid = user.partition(":")
    return oci.User(uid=int(uid) if uid.isdecimal() else 0, gid=int(gid) if gid.isdecimal() else 0, umask=umask)


def make_capabilities(request: ContainerRequest, user: str, facts: EnvironmentFacts) -> oci.Capabilities:
    """The five sets.

    podman 1.6 put the granted set into all five. Inheritable and ambient are left empty here for root: a program
    with file capabilities of its own would otherwise get more than its file says (CVE-2022-24769), and root does
    not need them. Another user gets in its effective set only what was explicitly added; it keeps that over
    execve() by the ambient set, which the kernel wants to be inheritable as well.
    """
    added, dropped = _names(request.cap_add, facts), _names(request.cap_drop, facts)
    if request.privileged:
        granted = facts.capabilities
    else:
        base = [name for name in DEFAULT_CAPABILITIES if name in facts.capabilities]
        if "ALL" in dropped:
            base = []
        granted = facts.capabilities if "ALL" in added else tuple(dict.fromkeys([*base, *added]))
    granted = tuple(name for name in granted if name not in dropped)
    if user.partition(":")[0] in ("", "root", "0"):
        return oci.Capabilities(bounding=granted, effective=granted, permitted=granted)
    # `--privileged` asks for all of them, whoever the user is; nobody can be surprised by that.
    explicit = granted if request.privileged or "ALL" in added else tuple(n for n in granted if n in added)
    return oci.Capabilities(
        bounding=granted, effective=explicit, inheritable=explicit, permitted=explicit, ambient=explicit
    )


def _names(names: tuple[str, ...], facts: EnvironmentFacts) -> tuple[str, ...]:
    for name in names:
        if name != "ALL" and name not in facts.capabilities:
            raise InvalidValue(f"capability {name}: the kernel does not have it, or this process cannot pass it on")
    return names


def _rlimits(request: ContainerRequest, facts: EnvironmentFacts) -> tuple[oci.ResourceLimit, ...]:
    limits = {limit.name: (limit.soft, limit.hard) for limit in request.ulimits}
    for name, (_, wanted) in limits.items():
        _, ceiling = facts.rlimits.get(name, (-1, -1))
        if not facts.raise_limits and ceiling != -1 and not 0 <= wanted <= ceiling:
            raise CannotEnforce(
                f"ulimit {name}: {wanted} is above the hard limit {ceiling} of this process, and raising it needs "
                "CAP_SYS_RESOURCE"
            )
    if not facts.rootless:
        for name in ("nofile", "nproc"):
            limits.setdefault(name, _default_limit(name, facts))
    return tuple(
        oci.ResourceLimit(type=f"RLIMIT_{name.upper()}", hard=hard % (1 << 64), soft=soft % (1 << 64))
        for name, (soft, hard) in sorted(limits.items())
    )


def _default_limit(name: str, facts: EnvironmentFacts) -> tuple[int, int]:
    limit = min(DEFAULT_LIMIT, facts.max_files) if name == "nofile" else DEFAULT_LIMIT
    _, ceiling = facts.rlimits.get(name, (-1, -1))
    if not facts.raise_limits and ceiling != -1:
        limit = min(limit, ceiling)
    return limit, limit


def _oom_score(request: ContainerRequest, facts: EnvironmentFacts) -> int | None:
    wanted = request.oom_score_adj
    if wanted is None:
        # A service that the OOM killer spares must not hand that down to its containers.
        return 0 if facts.oom_score_adj < 0 else None
    if wanted < facts.oom_score_adj and not facts.raise_limits:
        raise CannotEnforce(
            f"oom score adjustment {wanted} is below that of this process ({facts.oom_score_adj}): lowering it needs "
            "CAP_SYS_RESOURCE"
        )
    return wanted


def make_seccomp(
    request: ContainerRequest, capabilities: oci.Capabilities, facts: EnvironmentFacts
) -> oci.Seccomp | None:
    """The filter for what was asked, or None for none."""
    if request.privileged or request.seccomp == "unconfined":
        return None
    profile = default_profile() if not request.seccomp else facts.seccomp_profile
    if profile is None:
        raise InvalidValue(f"seccomp profile {request.seccomp}: its content is missing from the facts")
    return resolve(profile, capabilities=capabilities.bounding, machine=facts.machine)
