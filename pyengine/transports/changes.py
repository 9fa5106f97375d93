"""``--change`` of an import: instructions that alter an image's configuration.

Two grammars exist. The one here is that of podman 1.9 and later, Dockerfile-like: ``KEY VALUE`` or ``KEY=VALUE``, the
key in any case. ``legacy=True`` is podman 1.6.1's (reference, images.md §4.17), with its oddities, for its clients.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Sequence

import msgspec

from pyengine.errors import InvalidValue
from pyengine.oci.image import ContainerConfig

_PORT = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?", re.ASCII)


def apply_changes(config: ContainerConfig, changes: Sequence[str], *, legacy: bool = False) -> ContainerConfig:
    """The configuration after all ``changes``, in their order.

    :raises InvalidValue: an instruction is malformed
    """
    for change in changes:
        config = _apply_legacy(config, change) if legacy else _apply(config, change)
    return config


def _apply(config: ContainerConfig, change: str) -> ContainerConfig:
    match = re.match(r"\s*([A-Za-z]+)(?:\s+|=)(.*)", change, re.DOTALL)
    key, value = (match[1].upper(), match[2].strip()) if match else ("", "")
    if not value:
        raise InvalidValue(f"change {change!r} is malformed: KEY VALUE or KEY=VALUE is needed")
    replace = msgspec.structs.replace
    if key == "USER":
        return replace(config, user=value)
    if key == "WORKDIR":
        return replace(config, working_dir=posixpath.normpath(posixpath.join(config.working_dir or "/", value)))
    if key == "STOPSIGNAL":
        return replace(config, stop_signal=value)
    if key == "EXPOSE":
        ports = dict(config.exposed_ports or {})
        for port in value.split():
            if _PORT.fullmatch(port) is None:
                raise InvalidValue(f"change {change!r}: {port!r} is not a port")
            ports[port if "/" in port else f"{port}/tcp"] = {}
        return replace(config, exposed_ports=ports)
    if key == "VOLUME":
        listed = _list(value)
        paths = listed if listed is not None else value.split()
        return replace(config, volumes={**(config.volumes or {}), **{path: {} for path in paths}})
    if key == "ENV":
        name, text = _pair(change, value)
        kept = [one for one in config.env or [] if one.partition("=")[0] != name]
        return replace(config, env=[*kept, f"{name}={text}"])
    if key == "LABEL":
        name, text = _pair(change, value)
        return replace(config, labels={**(config.labels or {}), name: text})
    if key == "ONBUILD":
        return replace(config, on_build=[*(config.on_build or []), value])
    if key in ("CMD", "ENTRYPOINT"):
        listed = _list(value)
        command = listed if listed is not None else ["/bin/sh", "-c", value]
        return replace(config, cmd=command) if key == "CMD" else replace(config, entrypoint=command)
    raise InvalidValue(f"change {change!r}: the instruction {key} is not one of those that can be changed")


def _list(value: str) -> list[str] | None:
    """A JSON array of texts, or None for what is none."""
    if not value.startswith("["):
        return None
    try:
        parsed = json.loads(value)
    except ValueError:
        return None
    return parsed if isinstance(parsed, list) and all(isinstance(one, str) for one in parsed) else None


def _pair(change: str, value: str) -> tuple[str, str]:
    name, equals, text = value.partition("=")
    if not equals:
        name, _, text = value.partition(" ")
    if not name or (not equals and not text):
        raise InvalidValue(f"change {change!r} is malformed: NAME=VALUE is needed")
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return name, text


def _apply_legacy(config: ContainerConfig, change: str) -> ContainerConfig:
    if " " in change:
        key, _, rest = change.partition(" ")
        if "[" in rest and "]" in rest:
            rest = rest.removeprefix("[").removesuffix("]")
        values = rest.split(",")
    elif "=" in change:
        key, *values = change.split("=")
    else:
        raise InvalidValue(f"invalid format {change}")
    for value in values:
        if not value or any(character.isspace() or character in "[]" for character in value):
            raise InvalidValue(f"invalid value {value}")
    replace = msgspec.structs.replace
    if key == "USER":
        return replace(config, user=values[0])
    if key == "WORKDIR":
        return replace(config, working_dir=values[0])
    if key == "STOPSIGNAL":
        return replace(config, stop_signal=values[0])
    if key == "EXPOSE":
        return replace(config, exposed_ports={**(config.exposed_ports or {}), values[0]: {}})
    if key == "VOLUME":
        return replace(config, volumes={**(config.volumes or {}), values[0]: {}})
    if key == "ENV":
        if len(values) < 2:
            raise InvalidValue(f'no value given for environment variable "{values[0]}"')
        return replace(config, env=[*(config.env or []), "=".join(values)])
    if key == "LABEL":
        name, text = values if len(values) == 2 else (values[0], "")
        return replace(config, labels={**(config.labels or {}), name: text})
    if key == "CMD":
        return replace(config, cmd=[*(config.cmd or []), *values])
    if key == "ENTRYPOINT":
        return replace(config, entrypoint=[*(config.entrypoint or []), *values])
    return config  # 1.6.1 passes over instructions that it does not know
