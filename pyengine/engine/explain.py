"""What a container is made of, for people who want to see it: spec, layers, namespaces, cgroup, plan.

Everything here is decided by the code that starts containers; nothing is decided, made or started here.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyengine.engine.explain_reasons import reason_of
from pyengine.linux.resources import controllers, plan_writes
from pyengine.oci import runtime as oci
from pyengine.runtime.compile_resources import resources_of
from pyengine.runtime.plan import Step, namespace_names

if TYPE_CHECKING:
    from pyengine.engine.config import ContainerConfig
    from pyengine.engine.engine import Engine
    from pyengine.engine.request import ContainerRequest
    from pyengine.linux.device_filter import DeviceRule
    from pyengine.runtime.plan import Plan
    from pyengine.store.layers import Layer

NEW = "new"
HOST = "the host's"

# type in the spec: what it separates, and the page that says how
_NAMESPACES = {
    "user": ("user and group ids, and the rights that go with them", "user_namespaces(7)"),
    "mount": ("the table of mounts", "mount_namespaces(7)"),
    "pid": ("process ids: it starts with 1, others have no number", "pid_namespaces(7)"),
    "network": ("interfaces, addresses, ports, routes", "network_namespaces(7)"),
    "ipc": ("shared memory, semaphores, message queues", "ipc_namespaces(7)"),
    "uts": ("host name and domain name", "uts_namespaces(7)"),
    "cgroup": ("which cgroup looks like the top", "cgroup_namespaces(7)"),
    "time": ("the offsets of the boot and monotonic clocks", "time_namespaces(7)"),
}
_WIDTH = 100


@dataclass(frozen=True)
class Explanation:
    """A container, taken apart.

    spec: the OCI runtime spec of a start, as JSON. plan: a numbered line for each step. layers: number, diff_id,
    chain_id, path and size (bytes of its tar) of each, topmost first. namespaces: kind → ``"new"``, ``"the host's"``,
    ``"of container ID"``, ``"of the user's containers"`` or a path. cgroup: ``path`` (empty where there is none, then
    ``refusal`` says why), ``writes`` (file and text, in order), ``controllers`` that they need, ``devices`` (rules of
    the device filter). steps: the plan's values. title, root, upper: what and where it is.
    """

    title: str
    spec: dict[str, Any]
    plan: list[str]
    layers: list[dict[str, Any]]
    namespaces: dict[str, str]
    cgroup: dict[str, Any]
    steps: tuple[Step, ...]
    new_namespaces: int
    root: str
    upper: str

    def text(self) -> str:
        """All of it for people, section by section, each line of the plan with the reason for it."""
        sections = (
            ("LAYERS", self._layers()),
            ("NAMESPACES", self._namespaces()),
            ("CGROUP", self._cgroup()),
            ("SPEC", _spec_lines(self.spec)),
            ("PLAN", self._plan()),
        )
        parts = [self.title, *("\n".join((name, *_indented(lines))) for name, lines in sections)]
        return "\n\n".join(parts) + "\n"

    def _layers(self) -> Iterator[str]:
        if not self.upper:
            yield f"none: the root file system is the directory {self.root}, which the container changes in place"
            return
        yield "Directories that overlayfs shows as one tree: of files with the same name, the topmost counts."
        yield ""
        yield f"upper  {self.upper}"
        yield "       what this container writes; whiteouts in it hide what it removed"
        for layer in self.layers:
            yield f"{layer['number']:<5}  {layer['path']}"
            yield f"       {_size(layer['size'])}, diff id {layer['diff_id'][:19]}…, chain id {layer['chain_id'][:19]}…"

    def _namespaces(self) -> Iterator[str]:
        yield "What the container sees of the machine. All else is the kernel's, which it shares. See namespaces(7)."
        yield ""
        width = max(map(len, self.namespaces.values()))
        for kind, whose in self.namespaces.items():
            what, manual = _NAMESPACES[kind]
            yield f"{kind:<8} {whose:<{width}}  {what}; {manual}"

    def _cgroup(self) -> Iterator[str]:
        if not self.cgroup["path"]:
            yield f"none: {self.cgroup['refusal']}"
            return
        yield f"{self.cgroup['path']}"
        yield "One group for all processes of the container, the first is born in it. See cgroups(7)."
        if self.cgroup["writes"]:
            yield f"Limits, by the controllers {', '.join(self.cgroup['controllers'])}:"
            for file, text in self.cgroup["writes"]:
                yield f"  {file:<16} {text}"
        else:
            yield "No limits: the group serves to count, to freeze and to kill."
        if self.cgroup["devices"]:
            yield "Device filter (a BPF program on the group): type, numbers; read, write, make. The last match counts:"
            yield from textwrap.wrap(
                "; ".join(self.cgroup["devices"]), _WIDTH - 4, initial_indent="  ", subsequent_indent="  "
            )

    def _plan(self) -> Iterator[str]:
        made = namespace_names(self.new_namespaces) or "no"
        yield from textwrap.wrap(
            f"The monitor clones the first process into {made} namespaces of its own (clone3(2)), and straight into "
            "its cgroup. That process then does the following, step by step; an error names the step. (A container "
            "that is only initialised waits before the last one.)",
            _WIDTH - 4,
        )
        yield ""
        said = set()
        for line, step in zip(self.plan, self.steps, strict=True):
            yield line
            reason = reason_of(step)
            if reason not in said:
                said.add(reason)
                yield from textwrap.wrap(
                    f"{reason.text} [{reason.manual}]", _WIDTH - 4, initial_indent="      ", subsequent_indent="      "
                )


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}".rstrip() for line in lines)


def _size(size: int) -> str:
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def _spec_lines(spec: dict[str, Any]) -> Iterator[str]:
    """The spec in short: the document itself has a hundred lines and more."""
    process, linux = spec["process"], spec.get("linux", {})
    capabilities = process.get("capabilities", {}).get("effective", [])
    seccomp = linux.get("seccomp")
    yield f"The document that this was made from (OCI runtime-spec {spec['ociVersion']}, config.json), in short:"
    yield ""
    yield f"args          {json.dumps(process.get('args', []), ensure_ascii=False)}"
    yield f"cwd           {process['cwd']}"
    yield f"env           {' '.join(sorted(item.partition('=')[0] for item in process.get('env', [])))}"
    yield f"terminal      {'yes' if process.get('terminal') else 'no'}"
    yield f"root          {'read-only' if spec.get('root', {}).get('readonly') else 'writable'}"
    names = " ".join(name.removeprefix("CAP_").lower() for name in capabilities) or "none"
    yield from textwrap.wrap(f"capabilities  {names}", _WIDTH - 4, subsequent_indent=" " * 14, break_on_hyphens=False)
    yield f"privileges    {'no new ones' if process.get('noNewPrivileges') else 'as files give them'}"
    if seccomp:
        calls = sum(len(rule["names"]) for rule in seccomp.get("syscalls", []))
        yield f"seccomp       {seccomp['defaultAction']}, with rules for {calls} system calls"
    else:
        yield "seccomp       no filter"
    for limit in process.get("rlimits", []):
        yield f"rlimit        {limit['type'].removeprefix('RLIMIT_').lower()} {limit['soft']}:{limit['hard']}"
    for mount in spec.get("mounts", []):
        options = ",".join(mount.get("options", []))
        yield f"mount         {mount['destination']}  {mount.get('type', 'bind')}  {options}"
    for name, value in linux.get("sysctl", {}).items():
        yield f"sysctl        {name} = {value}"


def namespaces_of(spec: oci.RuntimeSpec, joined: dict[str, str], *, rootless: bool = False) -> dict[str, str]:
    """Kind → whose namespace the container has. ``joined``: kind → ID of the container whose it is."""
    found = dict.fromkeys(_NAMESPACES, HOST)
    if rootless:
        found["user"] = "of the user's containers"
    for namespace in spec.linux.namespaces if spec.linux else ():
        if namespace.type in joined:
            found[namespace.type] = f"of container {joined[namespace.type][:12]}"
        else:
            found[namespace.type] = namespace.path or NEW
    return found


def device_rules(spec: oci.RuntimeSpec) -> list[str]:
    """The rules of the device filter, in order; none where there is no filter."""
    from pyengine.linux.device_filter import DEFAULT_RULES

    asked = spec.linux.resources.devices if spec.linux and spec.linux.resources else ()
    return [*map(describe_rule, asked), *map(describe_rule, DEFAULT_RULES)] if asked else []


def describe_rule(rule: oci.DeviceRule | DeviceRule) -> str:
    """``allow c 1:3 rw``, the form of ``--device-cgroup-rule`` behind a verb."""
    numbers = ":".join("*" if number is None else str(number) for number in (rule.major, rule.minor))
    return f"{'allow' if rule.allow else 'deny'} {rule.type or 'a'} {numbers} {rule.access or 'rwm'}"


def explanation(
    *,
    title: str,
    config: ContainerConfig,
    spec: oci.RuntimeSpec,
    plan: Plan,
    layers: Sequence[Layer],
    upper: str,
    cgroup: str,
    refusal: str = "",
    rootless: bool = False,
) -> Explanation:
    """The parts, put together. ``layers`` are bottom first, as the store has them."""
    writes = plan_writes(resources_of(spec))
    return Explanation(
        title=title,
        spec=json.loads(oci.encode(spec)),
        plan=list(plan.describe()),
        layers=[
            {
                "number": layer.n,
                "diff_id": str(layer.diff_id),
                "chain_id": str(layer.chain_id),
                "path": layer.diff,
                "size": layer.size,
            }
            for layer in reversed(layers)
        ],
        namespaces=namespaces_of(spec, config.joined, rootless=rootless),
        cgroup={
            "path": cgroup,
            "writes": writes,
            "controllers": controllers(writes),
            "devices": device_rules(spec),
            "refusal": refusal,
        },
        steps=plan.steps,
        new_namespaces=plan.settings.namespaces,
        root=config.rootfs,
        upper="" if config.rootfs else upper,
    )


def explain(engine: Engine, config: ContainerConfig) -> Explanation:
    """An existing container, as its next start would make it.

    :raises InvalidState: a container whose namespace it shares does not run
    """
    from pyengine.engine import launch

    return _explain(engine, config, launch.read_spec(engine, config.id), f"Container {config.name} ({config.id[:12]})")


def explain_request(engine: Engine, request: ContainerRequest) -> Explanation:
    """A container that would be created. Nothing is made."""
    from pyengine.engine import creation
    from pyengine.engine.names import new_id

    image = engine.store.images.find(request.image) if request.image else None
    config, spec = creation.prepare(engine, request, new_id(), image)
    return _explain(engine, config, spec, "A container that does not exist yet")


def _explain(engine: Engine, config: ContainerConfig, spec: oci.RuntimeSpec, what: str) -> Explanation:
    from pyengine.engine import launch

    group = engine.cgroups.group(config.cgroup)
    cgroup = group.path if group else ""
    prepared = launch.prepare(engine, config, spec, cgroup=cgroup, attached=False, hold=False)
    origin = f"from the directory {config.rootfs}" if config.rootfs else f"from image {config.image_name}"
    return explanation(
        title=f"{what}, {origin}",
        config=config,
        spec=prepared.spec,
        plan=prepared.plan,
        layers=engine.store.layers.chain(config.layers[0]) if config.layers else (),
        upper=f"{engine.layout.container(config.id)}/upper",
        cgroup=cgroup,
        refusal="" if group else str(engine.cgroups.refuse("make a cgroup")),
        rootless=engine.rootless,
    )
