"""A container is made: from a request to a row, a spec and an empty writable layer."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pyengine.engine import facts as machine
from pyengine.engine.config import ContainerConfig
from pyengine.engine.names import new_id, random_name
from pyengine.engine.request import ContainerRequest, NamespaceRequest
from pyengine.engine.spec import make_spec
from pyengine.engine.spec_process import merge
from pyengine.errors import InvalidValue, NameInUse
from pyengine.linux.faults import declare, fault
from pyengine.oci import runtime as oci

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine
    from pyengine.store.images import Image

FAULTS = declare("container-create-written", "container-create-placed", "container-create-added")


def create(engine: Engine, request: ContainerRequest, *, ephemeral: bool = False) -> ContainerConfig:
    """Make a container; it is ``configured`` then. ``ephemeral``: it is removed as soon as it ends.

    Raises `ImageNotFound`, `NameInUse`, `InvalidValue` for what does not fit the image or the machine. Nothing is left
    behind when it fails.
    """
    id = new_id()
    image = engine.store.images.find(request.image) if request.image else None
    config, spec = prepare(engine, request, id, image, ephemeral=ephemeral)
    if request.rootfs and not os.path.isdir(request.rootfs):
        raise InvalidValue(f"root file system {request.rootfs}: no such directory on this host")
    staged = engine.work.new_path("container")
    try:
        os.mkdir(staged, 0o700)
        if not request.rootfs:
            # The root of the writable layer is the container's "/": users of the container have to get through it.
            os.mkdir(f"{staged}/upper", 0o755)
            os.mkdir(f"{staged}/work", 0o700)
        with open(f"{staged}/config.json", "xb") as file:
            file.write(oci.encode(spec))
        fault("container-create-written")
        config = _add(engine, request, config, staged)
    except BaseException:
        engine.remove_tree(staged)
        raise
    fault("container-create-added")
    engine.remember_spec(id, spec)
    return config


def _add(engine: Engine, request: ContainerRequest, config: ContainerConfig, staged: str) -> ContainerConfig:
    """Claim the name; one that was made up is made up again where another container has it."""
    import msgspec

    def place() -> None:
        # In the transaction: a directory that no row names while it is held was left by a crash.
        os.rename(staged, engine.layout.container(config.id))
        fault("container-create-placed")

    while True:
        try:
            engine.store.containers.add(
                config.id,
                config.name,
                config.encode(),
                config.created_ns,
                image=config.image_id or None,
                layer=config.layers[0] if config.layers else None,
                place=place,
            )
        except NameInUse:
            if request.name:
                raise
            config = msgspec.structs.replace(config, name=random_name())
        else:
            return config


def prepare(
    engine: Engine, request: ContainerRequest, id: str, image: Image | None, *, ephemeral: bool = False
) -> tuple[ContainerConfig, oci.RuntimeSpec]:
    """The documents of a container that would be created; touches nothing."""
    defaults = image.decode_config().config if image is not None else None
    facts = machine.for_request(engine.facts, request)
    spec = make_spec(request, defaults, facts, id=id, root="root", cgroup=engine.cgroups.path_of(request, id))
    assert spec.process is not None
    merged = merge(request, defaults, facts)
    security = [*(["no-new-privileges"] if request.no_new_privileges else [])]
    if request.seccomp:
        security.append(f"seccomp={request.seccomp}")
    log_path = request.log.path or f"{engine.layout.container(id)}/ctr.log"
    config = ContainerConfig(
        id=id,
        name=request.name or random_name(),
        created_ns=time.time_ns(),
        image_id=image.id if image is not None else "",
        image_name=(image.names[0] if image.names else image.id) if image is not None else "",
        layers=tuple(layer.n for layer in reversed(image.layers)) if image is not None else (),
        rootfs=request.rootfs,
        command=merged.command,
        entrypoint=merged.entrypoint,
        user=merged.user,
        groups=request.group_add,
        workdir=spec.process.cwd,
        hostname=spec.hostname,
        labels=merged.labels,
        tty=request.tty,
        stdin=request.interactive,
        privileged=request.privileged,
        read_only=request.read_only,
        network=str(request.net),
        joined=_joined(engine, request),
        user_volumes=tuple(mount.target for mount in request.mounts),
        cap_add=request.cap_add,
        cap_drop=request.cap_drop,
        security_options=tuple(security),
        log_driver=request.log.driver,
        log_path="" if request.log.driver == "none" else log_path,
        log_max_size=request.log.max_size,
        log_max_files=request.log.max_files,
        stop_signal=merged.stop_signal,
        stop_timeout=request.stop_timeout,
        restart=request.restart.name,
        restart_retries=request.restart.retries,
        auto_remove=request.auto_remove,
        die_with_parent=request.die_with_parent,
        volatile=request.restart.name == "no" and (request.auto_remove or ephemeral),
        cgroup_parent=request.cgroup_parent,
    )
    return config, spec


def _joined(engine: Engine, request: ContainerRequest) -> dict[str, str]:
    """Kind of namespace → full ID of the container whose it is."""
    asked: dict[str, NamespaceRequest | None] = {
        "pid": request.pid,
        "ipc": request.ipc,
        "uts": request.uts,
        "network": request.net,
        "cgroup": request.cgroup,
        "user": request.user_namespace,
    }
    return {
        kind: engine.store.containers.find(namespace.target).id
        for kind, namespace in asked.items()
        if namespace is not None and namespace.mode == "container"
    }
