"""A container is started: its documents become a plan, and a monitor executes it.

Everything here can fail half-way; what was made until then is taken back, and the monitor does the same for what
happens inside the container.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from signal import SIGKILL
from typing import TYPE_CHECKING

import msgspec

from pyengine.engine.config import ContainerConfig
from pyengine.engine.spec import complete_spec
from pyengine.engine.user_namespaces import USER_NAMESPACE, enter, make_namespace
from pyengine.errors import InvalidState
from pyengine.linux import calls, process
from pyengine.linux.faults import declare, fault
from pyengine.linux.fd import Fd
from pyengine.oci import runtime as oci
from pyengine.runtime import monitor
from pyengine.runtime.compile import DirectoryRoot, Facts, OverlayRoot, RootFilesystem, compile_container
from pyengine.runtime.compile_process import UserRequest
from pyengine.runtime.plan import JoinNamespace, Plan, Settings
from pyengine.runtime.state import await_unmonitored, read_state

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine
    from pyengine.linux.group import Cgroup

FAULTS = declare("container-start-directory", "container-start-cgroup", "container-start-launched")

_CLONE_NEWUSER = 0x10000000
_RESTART = {"no": 0, "on-failure": 1, "always": 2}
_PATIENCE = 5.0
_SPEC_LIMIT = 16 << 20


@dataclass(frozen=True)
class Prepared:
    """What a start needs, decided: the spec of this start, its plan, and what the plan's descriptors refer to."""

    spec: oci.RuntimeSpec
    plan: Plan
    paths: dict[str, str]


def read_spec(engine: Engine, id: str) -> oci.RuntimeSpec:
    """The spec that was stored when the container was created. It never changes."""
    spec = engine.remembered_spec(id)
    if spec is None:
        with open(f"{engine.layout.container(id)}/config.json", "rb") as file:
            spec = oci.decode_own(file.read(_SPEC_LIMIT))
        engine.remember_spec(id, spec)
    return spec


def prepare(
    engine: Engine, config: ContainerConfig, spec: oci.RuntimeSpec, *, cgroup: str, attached: bool, hold: bool = True
) -> Prepared:
    """The plan of a start. Reads the state of containers whose namespaces are joined, and makes nothing."""
    from pyengine.runtime.compile import descriptors_to_open

    run = engine.layout.run(config.id)
    spec = complete_spec(spec, namespaces=_joined(engine, config), files=_files(config, run))
    joins = []
    if engine.rootless:
        joins.append(join_user_namespace())
    settings = Settings(
        id=config.id,
        stdin=config.stdin,
        die_with_parent=config.die_with_parent,
        cgroup=cgroup,
        log_path=config.log_path,
        log_max_size=config.log_max_size,
        log_max_files=config.log_max_files,
        restart=_RESTART[config.restart],
        restart_retries=config.restart_retries,
        cleanup=cleanup_command(engine, config),
        cleanup_env=_cleanup_environment() if config.auto_remove else (),
    )
    names = ["cgroup"] * bool(cgroup) + ["engine"] * config.die_with_parent + ["client"] * attached
    plan = compile_container(
        spec,
        _root(engine, config),
        compiler_facts(engine),
        settings,
        user=UserRequest(config.user, config.groups, f"{run}/passwd", config.workdir),
        seccomp_filter=seccomp_filter(engine, spec),
        make_workdir=True,
        joins=joins,
        descriptors=names,
        hold=hold,
    )
    return Prepared(spec, plan, descriptors_to_open(spec, host_rights=not engine.rootless))


def join_user_namespace() -> JoinNamespace:
    """The first step of every rootless plan; its descriptor is ``user``."""
    return JoinNamespace(_CLONE_NEWUSER, "user", "the user's containers")


def compiler_facts(engine: Engine) -> Facts:
    """What the compiler has to know of this machine."""
    return Facts(
        make_devices=not engine.rootless and "CAP_MKNOD" in engine.facts.capabilities,
        set_groups=not engine.rootless or not engine.user_namespace().single_id,
        last_capability=engine.last_capability,
        host_rights=not engine.rootless,
    )


def _root(engine: Engine, config: ContainerConfig) -> RootFilesystem:
    own = engine.layout.container(config.id)
    if config.rootfs:
        return DirectoryRoot(config.rootfs, engine.layout.mount_point)
    return OverlayRoot(
        base=engine.layout.layers,
        lower=(*(f"{number}/diff" for number in config.layers), "../targets"),
        upper=f"{own}/upper",
        work=f"{own}/work",
        target=engine.layout.mount_point,
        # Without volatile the kernel writes out the whole file system of the store whenever a container ends.
        store="" if engine.rootless else engine.layout.root,
        options=",".join(["userxattr"] * engine.rootless + ["volatile"] * config.volatile),
    )


def seccomp_filter(engine: Engine, spec: oci.RuntimeSpec) -> bytes:
    """The compiled system call filter of a spec; empty without one."""
    if spec.linux is None or spec.linux.seccomp is None:
        return b""
    return engine.filters.get(msgspec.json.encode(spec.linux.seccomp)).program


def _joined(engine: Engine, config: ContainerConfig) -> dict[str, str]:
    """Type of namespace → path, for those of other containers, which have to run."""
    paths = {}
    kinds = {"network": "net", "pid": "pid", "ipc": "ipc", "uts": "uts", "user": "user", "cgroup": "cgroup"}
    for kind, id in config.joined.items():
        facts = read_state(engine.layout.run(id))
        if not facts.process_alive or facts.pid is None:
            raise InvalidState(
                config.id,
                "configured",
                f"cannot start container {config.name}: it shares the {kind} namespace of container {id[:12]}, which "
                "does not run: start that first",
            )
        paths[kind] = f"/proc/{facts.pid.pid}/ns/{kinds[kind]}"
    return paths


def _files(config: ContainerConfig, run: str) -> dict[str, str]:
    """Path in the container → file of the run directory that is bound there."""
    files = {"/etc/hostname": f"{run}/hostname", "/run/.containerenv": f"{run}/containerenv"}
    if config.network != "none" and not config.network.startswith("container:"):
        files |= {"/etc/hosts": f"{run}/hosts", "/etc/resolv.conf": f"{run}/resolv.conf"}
    return files


def cleanup_command(engine: Engine, config: ContainerConfig) -> tuple[str, ...]:
    """What the monitor runs at the end of a container that removes itself; nothing for others."""
    if not config.auto_remove:
        return ()
    code = "import sys; sys.path[:] = sys.argv[4:]; from pyengine.engine.cleanup import main; main(*sys.argv[1:4])"
    return (sys.executable, "-c", code, engine.root, engine.run_root, config.id, *sys.path)


def _cleanup_environment() -> tuple[str, ...]:
    return tuple(f"{name}={os.environ[name]}" for name in ("PATH", "HOME", "LANG") if name in os.environ)


def launch(
    engine: Engine, config: ContainerConfig, *, client: socket.socket | None = None, hold: bool = False
) -> monitor.Session:
    """Start the container; with `hold`, up to the point where only its command is missing.

    `client` is one end of a socket pair that gets all output from the first byte on. The caller holds the lock.
    """
    spec = read_spec(engine, config.id)
    with ExitStack() as undo, ExitStack() as held:
        run = engine.layout.run(config.id)
        _make_run_directory(engine, config, run)
        if config.volatile:
            # Overlayfs refuses what it mounted as volatile before; here it is only the same container again.
            engine.remove_tree(f"{engine.layout.container(config.id)}/work/work")
        undo.callback(engine.remove_tree, run)
        fault("container-start-directory")
        group = engine.cgroups.create(config, spec)
        undo.callback(_abandon, engine, config)
        fault("container-start-cgroup")
        prepared = prepare(
            engine, config, spec, cgroup=group.path if group else "", attached=client is not None, hold=hold
        )
        descriptors = _open_descriptors(engine, prepared, group, client, held)
        if USER_NAMESPACE in descriptors:
            enter(engine, config, prepared.spec, descriptors[USER_NAMESPACE])
        session = monitor.launch(prepared.plan, run, descriptors, program=engine.monitor_program)
        try:
            fault("container-start-launched")
            if hold:
                session.await_created()
            else:
                session.await_started()
        except BaseException:
            session.close()
            raise
        undo.pop_all()
        return session


def _abandon(engine: Engine, config: ContainerConfig) -> None:
    """What has been started ends, and with it the monitor, or what it left if it was killed."""
    run = engine.layout.run(config.id)
    engine.cgroups.kill(config.cgroup)
    facts = read_state(run)
    pidfd = facts.pid.open() if facts.pid else None
    if pidfd is not None:
        with pidfd:
            process.send_signal(pidfd, SIGKILL)
            process.wait_ended(pidfd, _PATIENCE)
    engine.cgroups.remove(config.cgroup)
    await_unmonitored(run, _PATIENCE)


def _make_run_directory(engine: Engine, config: ContainerConfig, run: str) -> None:
    """The files that are made for each start, in a directory that is new."""
    try:
        os.mkdir(run, 0o700)
    except FileExistsError:
        engine.remove_tree(run)
        os.mkdir(run, 0o700)
    _write(f"{run}/hostname", f"{config.hostname or os.uname().nodename}\n")
    _write(f"{run}/containerenv", "")
    _write(f"{run}/passwd", "")
    if config.network == "none":
        return
    for name in ("hosts", "resolv.conf"):
        try:
            with open(f"/etc/{name}", encoding="utf-8", errors="surrogateescape") as file:
                _write(f"{run}/{name}", file.read(1 << 20))
        except FileNotFoundError:
            _write(f"{run}/{name}", "")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(file.fileno(), 0o644)  # read by users of the container
        file.write(text)


def _open_descriptors(
    engine: Engine,
    prepared: Prepared,
    group: Cgroup | None,
    client: socket.socket | None,
    held: ExitStack,
) -> dict[str, int]:
    """What the plan's names refer to; closed with `held`."""

    def keep(fd: Fd) -> int:
        return held.enter_context(fd).fileno()

    opened: dict[str, int] = {}
    for name in prepared.plan.descriptors:
        if name == "cgroup":
            assert group is not None
            opened[name] = keep(group.open())
        elif name == "engine":
            opened[name] = keep(calls.pidfd_open(os.getpid()))
        elif name == "client":
            assert client is not None
            opened[name] = client.fileno()
        elif name == "user":
            opened[name] = keep(engine.open_user_namespace())
        elif prepared.paths[name]:
            opened[name] = keep(calls.open(prepared.paths[name], os.O_RDONLY))
        else:
            opened[name] = keep(make_namespace(engine, prepared.spec, name))
    return opened
