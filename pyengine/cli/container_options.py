"""What can be asked of a new container: one table, for ``run``, ``create`` and ``explain``.

The names are podman's flags, the values go as text to `pyengine.engine.options.make_request`, which says what they
mean. What that does not know is no flag here either.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from pyengine.cli.arguments import COMMAS, switch, value


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. ``kind`` is ``switch``, ``text``, ``integer``, ``number``, ``list`` (every value is one) or ``commas``
    (a value is as many as there are commas, and one). ``field`` is the option of the engine, where its name differs."""

    names: str
    kind: str
    metavar: str
    help: str
    field: str = ""
    default: bool = False

    @property
    def name(self) -> str:
        """The name of the parameter, which is the option of the engine."""
        return self.field or max(self.names.split(), key=len).removeprefix("--").replace("-", "_")

    def option(self) -> click.Option:
        """For click; absent is None, or nothing for those that can be many."""
        names = [*self.names.split(), self.name]
        if self.kind == "switch":
            return switch(*names, default=self.default, help=self.help)
        types: dict[str, Any] = {"integer": click.INT, "number": click.FLOAT, "commas": COMMAS}
        return value(
            *names,
            type=types.get(self.kind, click.STRING),
            multiple=self.kind in ("list", "commas"),
            metavar=self.metavar,
            help=self.help,
        )


FLAGS = (
    # what runs, and as whom
    Flag("--entrypoint", "text", "TEXT", "In place of the image's: a word, a JSON list, or nothing to have none"),
    Flag("--env -e", "list", "K=V", "A variable; without =V, the value that it has here; K* is all that begin so"),
    Flag("--env-file", "commas", "FILE", "A file with a variable a line"),
    Flag("--user -u", "text", "USER[:GROUP]", "Who the command runs as: names or numbers"),
    Flag("--group-add", "commas", "GROUP", "Supplementary groups"),
    Flag("--workdir -w", "text", "DIR", "Where the command runs"),
    Flag("--umask", "text", "OCTAL", "The file mode mask of the command"),
    Flag("--tty -t", "switch", "", "Give it a terminal"),
    Flag("--interactive -i", "switch", "", "Keep its stdin open"),
    # what it is called
    Flag("--name", "text", "NAME", "The container's name (default: made up)"),
    Flag("--hostname -h", "text", "NAME", "Its host name (default: the short ID)"),
    Flag("--label -l", "list", "K=V", "A label"),
    Flag("--label-file", "commas", "FILE", "A file with a label a line"),
    Flag("--annotation", "commas", "K=V", "An annotation of the OCI spec"),
    # files
    Flag("--volume -v", "list", "SRC:DST[:OPT]", "A directory or file of the host inside: rw, ro, rshared, noexec …"),
    Flag("--mount", "list", "type=TYPE,K=V…", "A bind or tmpfs mount: src, dst, ro, tmpfs-size …"),
    Flag("--tmpfs", "list", "DST[:OPT]", "A file system in memory: size, mode, noexec …"),
    Flag("--read-only", "switch", "", "The root file system cannot be written"),
    Flag("--read-only-tmpfs", "switch", "", "With --read-only, /run, /tmp and /var/tmp can be", default=True),
    Flag("--rootfs", "switch", "", "IMAGE is a directory that is the root file system"),
    Flag("--shm-size", "text", "SIZE", "Size of /dev/shm (default: 65536k)"),
    Flag("--device", "commas", "SRC[:DST][:rwm]", "A device of the host"),
    Flag("--device-cgroup-rule", "commas", "RULE", "Devices that may be used, such as 'c 1:3 rwm'"),
    # what it may do
    Flag("--cap-add", "commas", "CAP", "A capability more, or ALL"),
    Flag("--cap-drop", "commas", "CAP", "A capability less, or ALL"),
    Flag("--privileged", "switch", "", "All capabilities and devices, nothing masked, no filter of system calls"),
    Flag("--security-opt", "list", "OPT", "no-new-privileges, seccomp=FILE or seccomp=unconfined"),
    Flag("--sysctl", "commas", "K=V", "A kernel parameter of its namespaces"),
    Flag("--ulimit", "commas", "NAME=SOFT[:HARD]", "A limit of a process, or host"),
    # namespaces
    Flag("--network --net", "text", "MODE", "none (default), private, host, container:NAME or ns:PATH", "network"),
    Flag("--pid", "text", "MODE", "private (default), host, container:NAME or ns:PATH"),
    Flag("--ipc", "text", "MODE", "private (default), host, none, container:NAME or ns:PATH"),
    Flag("--uts", "text", "MODE", "private (default), host, container:NAME or ns:PATH"),
    Flag("--cgroupns", "text", "MODE", "private (default), host, container:NAME or ns:PATH"),
    Flag("--userns", "text", "MODE", "host, keep-id, container:NAME or ns:PATH"),
    Flag("--uidmap", "commas", "CTR:HOST:SIZE", "Users of a user namespace of its own"),
    Flag("--gidmap", "commas", "CTR:HOST:SIZE", "Groups of a user namespace of its own"),
    # limits
    Flag("--memory -m", "text", "SIZE", "Memory"),
    Flag("--memory-reservation", "text", "SIZE", "Memory that is left to it when memory is scarce"),
    Flag("--memory-swap", "text", "SIZE", "Memory and swap together, -1 for no limit"),
    Flag("--cpus", "number", "N", "Processors' worth of time"),
    Flag("--cpu-period", "integer", "USEC", "Period of the processor quota"),
    Flag("--cpu-quota", "integer", "USEC", "Processor time a period"),
    Flag("--cpu-shares -c", "integer", "N", "Share of processor time where it is scarce"),
    Flag("--cpuset-cpus", "text", "LIST", "Processors to run on, such as 0-3,7"),
    Flag("--cpuset-mems", "text", "LIST", "Memory nodes to use"),
    Flag("--pids-limit", "integer", "N", "Processes and threads"),
    Flag("--blkio-weight", "text", "N", "Share of block i/o, 10 to 1000"),
    Flag("--blkio-weight-device", "commas", "DEV:N", "The same for one device"),
    Flag("--device-read-bps", "commas", "DEV:SIZE", "Bytes read a second"),
    Flag("--device-write-bps", "commas", "DEV:SIZE", "Bytes written a second"),
    Flag("--device-read-iops", "commas", "DEV:N", "Reads a second"),
    Flag("--device-write-iops", "commas", "DEV:N", "Writes a second"),
    Flag("--oom-score-adj", "integer", "N", "-1000 to 1000: who is killed first when memory runs out"),
    Flag("--cgroup-parent", "text", "PATH", "The cgroup below which its own is made"),
    Flag("--cgroup-conf", "commas", "FILE=VALUE", "A file of cgroup v2, such as memory.high=1g"),
    # its life
    Flag("--restart", "text", "POLICY", "no (default), on-failure[:N] or always"),
    Flag("--rm", "switch", "", "Remove it when it ends"),
    Flag("--stop-signal", "text", "SIGNAL", "What asks it to end (default: the image's, or SIGTERM)"),
    Flag("--stop-timeout", "integer", "SECONDS", "How long it may take before SIGKILL (default: 10)"),
    Flag("--log-driver", "text", "DRIVER", "k8s-file (default), json-file (the same) or none"),
    Flag("--log-opt", "commas", "K=V", "path=FILE, max-size=SIZE, max-file=N"),
)
"""Every flag that describes a container."""

_FIELDS = {flag.name: flag for flag in FLAGS}


def container_options() -> list[click.Option]:
    """The flags for click, in alphabetical order as in every help text."""
    return [flag.option() for flag in sorted(FLAGS, key=lambda flag: max(flag.names.split(), key=len))]


def engine_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the engine that were given: what is absent stays the engine's to decide.

    Takes what click made of the flags. Relative paths of the host are made absolute: the engine does not know about
    working directories.
    """
    options: dict[str, Any] = {}
    for name, value_given in values.items():
        flag, given = _FIELDS[name], value_given
        if given is None or given == () or (flag.kind == "switch" and given == flag.default):
            continue
        if flag.kind == "commas":
            given = [each for several in given for each in several]
        elif flag.kind == "list":
            given = list(given)
        options[name] = _ABSOLUTE[name](given) if name in _ABSOLUTE else given
    _read_files(options)
    return options


def _read_files(options: dict[str, Any]) -> None:
    """Variables and labels of files come before those of flags, which win."""
    from pyengine.cli.files import read_lines_of
    from pyengine.engine.values import parse_env_file

    variables: dict[str, str] = {}
    for path in options.pop("env_file", ()):
        variables |= parse_env_file(read_lines_of(path, "environment file"), os.environ)
    labels: list[str] = []
    for path in options.pop("label_file", ()):
        lines = (line.strip() for line in read_lines_of(path, "label file").splitlines())
        labels += (line for line in lines if line and not line.startswith("#"))
    if variables or "env" in options:
        options["env"] = [*(f"{name}={text}" for name, text in variables.items()), *options.get("env", ())]
        options["environment"] = dict(os.environ)
    if labels:
        options["label"] = [*labels, *options.get("label", ())]


def _absolute_volumes(texts: Sequence[str]) -> list[str]:
    return [
        os.path.abspath(source) + colon + rest if source.startswith(".") else text
        for text in texts
        for source, colon, rest in [text.partition(":")]
    ]


def _absolute_mounts(texts: Sequence[str]) -> list[str]:
    return [",".join(_absolute_word(word) for word in text.split(",")) for text in texts]


def _absolute_word(word: str) -> str:
    key, equals, path = word.partition("=")
    return f"{key}={os.path.abspath(path)}" if equals and key in ("src", "source") and path.startswith(".") else word


def _absolute_profiles(texts: Sequence[str]) -> list[str]:
    result = []
    for text in texts:
        key, equals, path = text.partition("=")
        relative = equals and key == "seccomp" and path != "unconfined" and not path.startswith("/")
        result.append(f"seccomp={os.path.abspath(path)}" if relative else text)
    return result


def _absolute_log(texts: Sequence[str]) -> list[str]:
    return [f"path={os.path.abspath(text[5:])}" if text.startswith("path=") else text for text in texts]


_ABSOLUTE = {
    "volume": _absolute_volumes,
    "mount": _absolute_mounts,
    "security_opt": _absolute_profiles,
    "log_opt": _absolute_log,
}
