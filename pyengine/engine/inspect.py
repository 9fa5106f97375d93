"""The documents that ``podman inspect`` prints for a container and for an image (containers.md §6.3, images.md §6.1).

Clients decode them strictly by type, so every key is there with its type, also where pyengine has nothing to say.
What is read from the machine comes as `Surroundings`; the documents themselves are pure functions of values.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyengine.engine.inspect_host import host_config, namespace_mode, user_mounts
from pyengine.errors import KernelError
from pyengine.oci.time import rfc3339

if TYPE_CHECKING:
    from pyengine.engine.config import ContainerConfig
    from pyengine.engine.engine import Engine
    from pyengine.engine.states import ContainerState
    from pyengine.oci import runtime as oci
    from pyengine.oci.image import ContainerConfig as ImageDefaults
    from pyengine.oci.image import History, ImageConfig
    from pyengine.store.images import Image

JSON = dict[str, Any]

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which its clients take for "not yet"."""

_FILES = {
    "ResolvConfPath": "/etc/resolv.conf",
    "HostnamePath": "/etc/hostname",
    "HostsPath": "/etc/hosts",
}


def _device_number(kind: str, major: int, minor: int) -> str:
    return f"/dev/{'block' if kind == 'b' else 'char'}/{major}:{minor}"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a container's document says beyond its config, spec and state.

    directory: the container's own on the host. files: path in the container → file of the host that is bound there
    now. lower: directories of the layers, topmost first. sessions: IDs of the exec sessions that run. exit_command:
    what its monitor runs at the end. size_rw, size_rootfs: bytes that it wrote and that its layers have, 0 if not
    asked for. device_path: path on the host of a device, by type (``c``, ``b``) and numbers.
    """

    directory: str
    files: dict[str, str] = field(default_factory=dict)
    lower: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    exit_command: tuple[str, ...] = ()
    size_rw: int = 0
    size_rootfs: int = 0
    device_path: Callable[[str, int, int], str] = _device_number


def inspect_container(engine: Engine, config: ContainerConfig, size: bool) -> JSON:
    """The document of a container. With ``size``, what it wrote is counted, which reads its whole upper directory."""
    from pyengine.engine import launch, states

    spec = launch.read_spec(engine, config.id)
    directory = engine.layout.container(config.id)
    size_rw = size_rootfs = 0
    if size and config.layers:
        size_rw = _written_bytes(engine, f"{directory}/upper")
        size_rootfs = size_rw + sum(layer.size for layer in engine.store.layers.chain(config.layers[0]))
    return container_document(
        config,
        spec,
        states.read(engine, config),
        Surroundings(
            directory=directory,
            files=_bound_files(engine.layout.run(config.id)),
            lower=tuple(f"{engine.layout.layers}/{number}/diff" for number in config.layers),
            sessions=_sessions(engine, config.id),
            exit_command=launch.cleanup_command(engine, config),
            size_rw=size_rw,
            size_rootfs=size_rootfs,
            device_path=_device_path,
        ),
    )


def _written_bytes(engine: Engine, upper: str) -> int:
    from pyengine.engine import usage

    try:
        return usage.allocated_bytes(upper)
    except KernelError as error:
        if error.errno != errno.EACCES or not engine.rootless:
            raise
        with engine.open_user_namespace() as namespace:  # another user of the container has closed a directory
            return usage.allocated_bytes_inside(upper, namespace)


def _bound_files(run: str) -> dict[str, str]:
    """The files that a start left in the run directory: there are none before the first."""
    files = {target: f"{run}/{os.path.basename(target)}" for target in _FILES.values()}
    return {target: path for target, path in files.items() if os.path.exists(path)}


def _sessions(engine: Engine, id: str) -> tuple[str, ...]:
    from pyengine.runtime.state import read_state

    try:
        names = os.listdir(f"{engine.layout.run(id)}/exec")
    except FileNotFoundError:
        return ()
    return tuple(name for name in sorted(names) if read_state(engine.layout.session(id, name)).process_alive)


def _device_path(kind: str, major: int, minor: int) -> str:
    """The node that udev made for the numbers, or its link by number where there is none."""
    path = _device_number(kind, major, minor)
    return os.path.realpath(path)


def container_document(
    config: ContainerConfig, spec: oci.RuntimeSpec, state: ContainerState, around: Surroundings
) -> JSON:
    """The document, keys in the order of the reference."""
    assert spec.process is not None
    capabilities = spec.process.capabilities
    argv = list(spec.process.args)
    sizes = {"SizeRw": around.size_rw, "SizeRootFs": around.size_rootfs}
    return {
        "Id": config.id,
        "Created": rfc3339(config.created_ns),
        "Path": argv[0],
        "Args": argv[1:] or argv,  # podman's own way: a lone word is there twice
        "State": _state(spec, state),
        "Image": config.image_id,
        "ImageName": config.image_name,
        "Rootfs": config.rootfs,
        "Pod": "",
        **{key: around.files.get(target, "") for key, target in _FILES.items()},
        "StaticDir": around.directory,
        "OCIConfigPath": f"{around.directory}/config.json",
        "OCIRuntime": "pyengine",
        "LogPath": config.log_path,
        "ConmonPidFile": "",
        "Name": config.name,
        "RestartCount": state.restarts,
        "Driver": "overlay",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "EffectiveCaps": list(capabilities.effective) if capabilities else [],
        "BoundingCaps": list(capabilities.bounding) if capabilities else [],
        "ExecIDs": list(around.sessions),
        "GraphDriver": {"Name": "overlay", "Data": _overlay(config, state, around)},
        **{key: size for key, size in sizes.items() if size},
        "Mounts": _mounts(config, spec),
        "Dependencies": sorted(set(config.joined.values())),
        "NetworkSettings": _network(config, spec, state),
        "ExitCommand": list(around.exit_command),
        "Namespace": "",
        "IsInfra": False,
        "Config": _config(config, spec),
        "HostConfig": host_config(config, spec, around.device_path),
    }


def _time(ns: int) -> str:
    return rfc3339(ns) if ns else NEVER


def _state(spec: oci.RuntimeSpec, state: ContainerState) -> JSON:
    monitor = {"ConmonPid": state.monitor_pid} if state.monitor_pid else {}
    return {
        "OciVersion": spec.oci_version,
        "Status": state.status,
        "Running": state.status == "running",
        "Paused": state.status == "paused",
        "Restarting": False,
        "OOMKilled": state.oom_killed,
        "Dead": False,
        "Pid": state.pid,
        **monitor,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": _time(state.started_ns),
        "FinishedAt": _time(state.finished_ns),
        "Healthcheck": {"Status": "", "FailingStreak": 0, "Log": None},
    }


def _overlay(config: ContainerConfig, state: ContainerState, around: Surroundings) -> dict[str, str] | None:
    """The overlay's directories. It is mounted for the container only, so the whole can be seen through its process."""
    if config.rootfs:
        return None
    merged = {"MergedDir": f"/proc/{state.pid}/root"} if state.pid else {}
    return {
        "LowerDir": ":".join(around.lower),
        "UpperDir": f"{around.directory}/upper",
        "WorkDir": f"{around.directory}/work",
        **merged,
    }


def _mounts(config: ContainerConfig, spec: oci.RuntimeSpec) -> list[JSON]:
    result = []
    for mount in user_mounts(config, spec):
        if mount.type != "bind":
            continue
        propagation = [option for option in mount.options if option.removeprefix("r") in ("private", "shared", "slave")]
        result.append(
            {
                "Type": "bind",
                "Name": "",
                "Source": mount.source,
                "Destination": mount.destination,
                "Driver": "",
                "Mode": "",
                "Options": [option for option in mount.options if option not in ("ro", "rw", *propagation)],
                "RW": "ro" not in mount.options,
                "Propagation": propagation[-1] if propagation else "",
            }
        )
    return result


def _network(config: ContainerConfig, spec: oci.RuntimeSpec, state: ContainerState) -> JSON:
    mode = namespace_mode("network", config, spec, private="own")
    path = f"/proc/{state.pid}/ns/net" if mode == "own" and state.pid else mode.removeprefix("ns:")
    return {
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": [],
        "SandboxKey": path if path.startswith("/") else "",
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
    }


def _config(config: ContainerConfig, spec: oci.RuntimeSpec) -> JSON:
    assert spec.process is not None
    inherited = next((item[9:] for item in spec.process.env if item.startswith("HOSTNAME=")), "")
    return {
        "Hostname": config.hostname or inherited,
        "Domainname": spec.domainname,
        "Image": config.image_name,
        "User": config.user,
        "WorkingDir": spec.process.cwd,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "StdinOnce": False,
        "Tty": config.tty,
        "OpenStdin": config.stdin,
        "Env": list(spec.process.env),
        "Cmd": list(config.command) or None,
        "Volumes": None,
        "OnBuild": None,
        "Entrypoint": " ".join(config.entrypoint),
        "Labels": dict(config.labels) or None,
        "Annotations": dict(spec.annotations) or None,
        "StopSignal": config.stop_signal,
    }


# --- images -------------------------------------------------------------------------------------------------


def inspect_image(engine: Engine, image: Image) -> JSON:
    """The document of an image. It depends on nothing but the image as it is stored."""
    del engine
    return image_document(image)


def image_document(image: Image) -> JSON:
    """The document, keys in the order of the reference."""
    document = image.decode_config()
    defaults = document.config
    history = document.history or []
    health = _health(defaults)
    return {
        "Id": image.id,
        "Digest": str(image.digest),
        "RepoTags": list(image.names) or None,
        "RepoDigests": _digests(image) or None,
        "Parent": "",
        "Comment": _comment(image, document, history),
        "Created": _time(image.created_ns),
        "Config": _image_config(defaults),
        "Version": document.docker_version,
        "Author": document.author,
        "Architecture": document.architecture,
        "Os": document.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "overlay", "Data": _image_layers(image)},
        "RootFS": {"Type": document.rootfs.type, "Layers": list(document.rootfs.diff_ids)},
        "Labels": (dict(defaults.labels) if defaults and defaults.labels else None),
        "Annotations": _annotations(image),
        "ManifestType": image.media_type,
        "User": defaults.user if defaults else "",
        "History": [_history(entry) for entry in history],
        **({"Healthcheck": health} if health else {}),
    }


def _digests(image: Image) -> list[str]:
    from pyengine.oci.reference import Reference

    repositories = dict.fromkeys(Reference.parse(name).name for name in image.names)
    return [f"{repository}@{image.digest}" for repository in repositories]


def _comment(image: Image, document: ImageConfig, history: list[History]) -> str:
    if _is_docker(image):
        return document.comment
    return history[0].comment if history else ""


def _is_docker(image: Image) -> bool:
    from pyengine.oci.image import DOCKER_MANIFEST

    return image.media_type == DOCKER_MANIFEST


def _annotations(image: Image) -> dict[str, str]:
    return {} if _is_docker(image) else dict(image.decode_manifest().annotations or {})


def _image_config(defaults: ImageDefaults | None) -> JSON:
    if defaults is None:
        return {}
    members: JSON = {
        "User": defaults.user,
        "ExposedPorts": {port: {} for port in defaults.exposed_ports or ()},
        "Env": defaults.env,
        "Entrypoint": defaults.entrypoint,
        "Cmd": defaults.cmd,
        "Volumes": {path: {} for path in defaults.volumes or ()},
        "WorkingDir": defaults.working_dir,
        "Labels": defaults.labels,
        "StopSignal": defaults.stop_signal,
    }
    return {key: value for key, value in members.items() if value}


def _health(defaults: ImageDefaults | None) -> JSON | None:
    import msgspec

    if defaults is None or defaults.healthcheck is None:
        return None
    document: JSON = msgspec.to_builtins(defaults.healthcheck)
    return document


def _image_layers(image: Image) -> dict[str, str]:
    directories = [layer.diff for layer in reversed(image.layers)]
    data = {}
    if directories[1:]:
        data["LowerDir"] = ":".join(directories[1:])
    if directories:
        data["UpperDir"] = directories[0]
    return data


def _history(entry: History) -> JSON:
    """One entry. A time that a client could not parse would make it refuse the whole document, so it is left out."""
    from pyengine.errors import ArchiveError
    from pyengine.oci.time import nanoseconds

    try:
        created = nanoseconds(entry.created)
    except ArchiveError:
        created = 0
    members: JSON = {
        "created": rfc3339(created) if created else "",
        "created_by": entry.created_by,
        "author": entry.author,
        "comment": entry.comment,
        "empty_layer": entry.empty_layer,
    }
    return {key: value for key, value in members.items() if value}
