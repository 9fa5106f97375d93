"""From a request, an image and a machine to the OCI runtime spec of a container.

Two pure functions. `make_spec` makes the document that is stored when a container is created and that ``Spec``
returns. `complete_spec` adds at each start what may be another thing every time: the namespaces of other containers
and the files that the engine makes in the run directory.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pyengine.engine.names import SHORT
from pyengine.engine.request import ContainerRequest
from pyengine.engine.request_mounts import BindMount
from pyengine.engine.spec_facts import EnvironmentFacts
from pyengine.engine.spec_linux import (
    bind_devices,
    find_devices,
    make_devices,
    make_mappings,
    make_namespaces,
    make_resources,
    user_namespace,
)
from pyengine.engine.spec_mounts import MASKED_PATHS, READONLY_PATHS, make_mounts
from pyengine.engine.spec_process import make_process, make_seccomp, merge
from pyengine.engine.values import IdRange
from pyengine.errors import InvalidValue
from pyengine.oci import runtime as oci
from pyengine.oci.image import ContainerConfig as ImageDefaults

ROOT_ONLY = (IdRange(0, 0, 1),)
_SHARED = ("shared", "rshared")
_SLAVE = ("slave", "rslave")


def make_spec(
    request: ContainerRequest,
    image: ImageDefaults | None,
    facts: EnvironmentFacts,
    *,
    id: str,
    root: str,
    cgroup: str = "",
    image_annotations: Mapping[str, str] | None = None,
) -> oci.RuntimeSpec:
    """The spec of container ``id``.

    ``image`` is the ``config`` of the image's configuration, None for a root file system without one; its VOLUMEs
    are ordinary directories of the container. ``root``: where the root file system is mounted. ``cgroup``: path of
    the container's cgroup below the mount of the hierarchy, empty where it gets none.

    :raises InvalidValue: what was asked for does not fit the image or the machine
    :raises CannotEnforce: a limit that this process cannot set
    """
    merged = merge(request, image, facts)
    hostname = _hostname(request, facts, id)
    uid_map, gid_map = user_namespace(request, facts)
    joins_user = request.user_namespace is not None and bool(request.user_namespace.target)
    in_user_namespace = facts.rootless or bool(uid_map) or joins_user
    devices = find_devices(request, facts)
    process = make_process(request, merged, facts, hostname)
    assert process.capabilities is not None
    return oci.RuntimeSpec(
        oci_version=oci.VERSION,
        process=process,
        root=oci.Root(path=root, readonly=request.read_only),
        hostname=hostname if request.uts.mode == "private" else "",
        mounts=make_mounts(
            request,
            # What another one maps may change until the start: then no group but root's is counted on.
            ROOT_ONLY if joins_user else gid_map or facts.gid_map,
            user_namespace=in_user_namespace,
            mqueue=facts.mqueue,
            devices=bind_devices(devices) if in_user_namespace else (),
        ),
        annotations=_annotations(request) | dict(image_annotations or {}) | dict(request.annotations),
        linux=oci.Linux(
            uid_mappings=make_mappings(uid_map),
            gid_mappings=make_mappings(gid_map),
            sysctl=dict(request.sysctls),
            resources=make_resources(request, facts),
            cgroups_path=cgroup,
            namespaces=make_namespaces(request, new_user=bool(uid_map)),
            devices=() if in_user_namespace else make_devices(devices),
            seccomp=make_seccomp(request, process.capabilities, facts),
            rootfs_propagation=_root_propagation(request),
            masked_paths=() if request.privileged else MASKED_PATHS,
            readonly_paths=() if request.privileged else READONLY_PATHS,
        ),
    )


def _hostname(request: ContainerRequest, facts: EnvironmentFacts, id: str) -> str:
    if request.hostname:
        return request.hostname
    return facts.hostname if "host" in (request.uts.mode, request.net.mode) else id[:SHORT]


def _root_propagation(request: ContainerRequest) -> str:
    """A mount of the host reaches into the container only if the mounts above its place let it through."""
    wanted = {mount.propagation for mount in request.mounts if isinstance(mount, BindMount)}
    if wanted & set(_SHARED):
        return "rshared"
    return "rslave" if wanted & set(_SLAVE) else ""


def _annotations(request: ContainerRequest) -> dict[str, str]:
    def flag(value: bool) -> str:
        return "TRUE" if value else "FALSE"

    annotations = {
        "io.kubernetes.cri-o.ContainerType": "sandbox",
        "io.kubernetes.cri-o.TTY": "true" if request.tty else "false",
        "io.podman.annotations.autoremove": flag(request.auto_remove),
        "io.podman.annotations.init": flag(False),
        "io.podman.annotations.privileged": flag(request.privileged),
        "io.podman.annotations.publish-all": flag(False),
    }
    if request.seccomp:
        annotations["io.podman.annotations.seccomp"] = request.seccomp
    return annotations


def complete_spec(
    spec: oci.RuntimeSpec, *, namespaces: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None
) -> oci.RuntimeSpec:
    """The spec for one start.

    ``namespaces``: type (``network``, ``pid`` …, as in the spec) → path of the other container's namespace.
    ``files``: path in the container (``/etc/hosts``) → file of the host that is bound there, unless the spec mounts
    something there itself.

    :raises InvalidValue: a namespace that the spec takes from the host: joining another one would contradict it
    """
    assert spec.linux is not None
    paths = dict(namespaces or {})
    completed = []
    for namespace in spec.linux.namespaces:
        path = paths.pop(namespace.type, namespace.path)
        completed.append(oci.Namespace(type=namespace.type, path=path))
    if paths:
        raise InvalidValue(f"the spec has no namespace of its own of type {', '.join(sorted(paths))}, to be replaced")
    taken = {mount.destination for mount in spec.mounts}
    binds = tuple(
        oci.Mount(destination=target, type="bind", source=source, options=("bind", "rprivate"))
        for target, source in (files or {}).items()
        if target not in taken
    )
    return msgspec.structs.replace(
        spec,
        mounts=spec.mounts + binds,
        annotations={"io.container.manager": "libpod"} | spec.annotations,
        linux=msgspec.structs.replace(spec.linux, namespaces=tuple(completed)),
    )
