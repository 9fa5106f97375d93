"""User namespaces of containers of root: made or found, and what of the host is shown with their ids.

The files of the store belong to the ids that they have in an image, so that all containers can share them. Whoever is
root in a user namespace of the container is somebody else on the host: the store is mounted for him with the ids of the
namespace (id-mapped mounts), and the files that are made for each start are his.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pyengine.errors import CannotEnforce, InvalidValue, KernelError
from pyengine.linux import calls, mounts
from pyengine.linux.fd import Fd
from pyengine.linux.idmap import IdMap, RootlessMaps, to_host
from pyengine.oci import runtime as oci
from pyengine.runtime.compile import idmap_of
from pyengine.runtime.compile_namespaces import namespace_descriptor

if TYPE_CHECKING:
    from pyengine.engine.config import ContainerConfig
    from pyengine.engine.engine import Engine

USER_NAMESPACE = namespace_descriptor("user")
"""The name of the descriptor of a container's user namespace."""

_OVERLAYS_OF_MAPPED_LAYERS = (5, 19)


def make_namespace(engine: Engine, spec: oci.RuntimeSpec, name: str) -> Fd:
    """A user namespace with the id maps of a container or a mount. Its holder is not needed once there is a
    descriptor. Raises `CannotEnforce` in a rootless engine."""
    import tempfile

    from pyengine.linux import userns

    if engine.rootless:
        raise CannotEnforce(
            "id-mapped mounts need CAP_SYS_ADMIN over the file system that is mapped: they are for root"
        )
    uids, gids = (_ranges(flat) for flat in idmap_of(spec, name))
    with tempfile.TemporaryDirectory(dir=engine.run_root) as directory:
        try:
            return userns.ensure(directory, maps=RootlessMaps(uids, gids)).user_fd()
        finally:
            userns.stop(directory)


def _ranges(flat: tuple[int, ...]) -> tuple[IdMap, ...]:
    return tuple(IdMap(*flat[start : start + 3]) for start in range(0, len(flat), 3))


def enter(engine: Engine, config: ContainerConfig, spec: oci.RuntimeSpec, namespace: int) -> None:
    """Get ready for a container in the user namespace behind the descriptor: its files of this start are its root's.

    Raises `InvalidValue` when that namespace is the host's, `CannotEnforce` where its ids cannot be given to layers."""
    if os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/user")):
        raise InvalidValue(
            f"cannot start container {config.name}: the user namespace that it is to join is the host's, and no other"
        )
    if config.rootfs:
        uids, gids = (_ranges(flat) for flat in idmap_of(spec, USER_NAMESPACE))
        uid, gid = to_host(uids, 0), to_host(gids, 0)
        if uid is None or gid is None:
            return  # of one that is joined nobody knows the maps; such files are seen, not written to
    else:
        uid, gid = _mapped_root(engine, namespace)
    run = engine.layout.run(config.id)
    for name in os.listdir(run):  # nothing but those files, as long as there is no monitor
        calls.run("chown", f"{run}/{name}", os.chown, f"{run}/{name}", uid, gid, follow_symlinks=False)


def _mapped_root(engine: Engine, namespace: int) -> tuple[int, int]:
    """Who on the host is root of the namespace: as whose a directory of id 0 is seen with its ids."""
    directory = engine.layout.mount_point
    release = os.uname().release
    if kernel_version(release) < _OVERLAYS_OF_MAPPED_LAYERS:
        raise CannotEnforce(
            f"a user namespace of a container of root needs overlays of id-mapped layers, which Linux has since 5.19; "
            f"this is {release}: run the container as an ordinary user, whose containers always have one"
        )
    with mounts.clone_tree(directory, recursive=False) as tree:
        try:
            calls.mount_setattr(tree, set=mounts.MOUNT_ATTR_IDMAP, user_namespace=namespace)
        except KernelError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):
                raise CannotEnforce(
                    f"the file system of the store {engine.root} cannot be mounted with the ids of a user namespace "
                    f"({error}): put the store on another one (ext4, xfs, btrfs; tmpfs since Linux 6.3), or run the "
                    f"container as an ordinary user"
                ) from error
            raise
        status = os.fstat(tree.fileno())
    return status.st_uid, status.st_gid


def kernel_version(release: str) -> tuple[int, int]:
    """``6.1.0-18-amd64`` → (6, 1)."""
    major, _, rest = release.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return int(major), int(minor or 0)
