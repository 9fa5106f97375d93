"""The cgroups of containers: one each, below the engine's own, named by the container's ID.

Where no cgroup can be had (an ordinary user to whom none is delegated), containers run without one; then whatever
needs it (limits, pause) is refused with the reason that was found when it was looked for.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from pyengine.engine.config import ContainerConfig
from pyengine.errors import CannotEnforce, KernelError, RequiresCgroupsV2
from pyengine.linux import cgroups
from pyengine.linux.fd import Fd
from pyengine.linux.group import Cgroup
from pyengine.linux.resources import Resources
from pyengine.oci import runtime as oci
from pyengine.runtime.compile_resources import resources_of

if TYPE_CHECKING:
    from pyengine.engine.request import ContainerRequest


_PROGRAMS = 8


_SESSION = "exec-"


def _session_group(id: str) -> str:
    return f"{_SESSION}{id[:12]}"


class Cgroups:
    """Makes, finds and removes the groups of containers."""

    def __init__(self, rootless: bool) -> None:
        self._rootless = rootless
        self._lock = threading.Lock()
        self._programs: dict[tuple[oci.DeviceRule, ...], Fd] = {}
        try:
            self._hierarchy: cgroups.Hierarchy | None = cgroups.find(rootless=rootless)
            self._refusal = ""
        except CannotEnforce as error:
            self._hierarchy = None
            self._refusal = str(error)

    def refuse(self, what: str) -> CannotEnforce:
        """The error for something that needs a cgroup where there is none."""
        kind = RequiresCgroupsV2 if self._rootless else CannotEnforce
        return kind(f"cannot {what}: {self._refusal}")

    @property
    def available(self) -> bool:
        return self._hierarchy is not None

    def controllers(self) -> list[str]:
        """The controllers that containers can be limited by."""
        return sorted(self._hierarchy.available_controllers()) if self._hierarchy else []

    def path_of(self, request: ContainerRequest, id: str) -> str:
        """What the spec of a container that is created says in ``linux.cgroupsPath``; empty where it gets none."""
        if self._hierarchy is None:
            return ""
        name = f"{request.cgroup_parent.rstrip('/')}/{id}" if request.cgroup_parent else id
        return self._hierarchy.locate(name).path.removeprefix(self._hierarchy.top)

    def create(self, config: ContainerConfig, spec: oci.RuntimeSpec) -> Cgroup | None:
        """The container's group with its limits set, or None where there is none to be had.

        Raises `CannotEnforce` or `RequiresCgroupsV2` for a limit that cannot be set; nothing is left then.
        """
        resources = resources_of(spec)
        if self._hierarchy is None:
            if resources != Resources():
                raise self.refuse(f"limit container {config.name}")
            return None
        stale = self._hierarchy.locate(config.cgroup)
        if os.path.isdir(stale.path):
            # Of a run whose monitor was killed. Its filter is still there, and a group that was killed as a whole
            # takes in no new process (see native/monitor/finish.c).
            stale.kill()
            stale.remove()
        group = self._hierarchy.create(config.cgroup)
        try:
            group.apply(resources)
            self._filter_devices(group, spec)
        except BaseException:
            group.remove()
            raise
        return group

    def _filter_devices(self, group: Cgroup, spec: oci.RuntimeSpec) -> None:
        from pyengine.linux import device_filter

        assert spec.linux is not None
        rules = spec.linux.resources.devices if spec.linux.resources is not None else ()
        if rules:
            with group.open() as directory, self._program(rules) as program:
                device_filter.attach_loaded(directory, program)

    def _program(self, rules: tuple[oci.DeviceRule, ...]) -> Fd:
        """The loaded filter of these rules. Most containers have the same ones, and the kernel takes longer to verify a
        program than to make the group."""
        from pyengine.linux import device_filter

        with self._lock:
            program = self._programs.get(rules)
            if program is None:
                program = device_filter.load(
                    device_filter.assemble(
                        [
                            device_filter.DeviceRule(
                                rule.allow, rule.type or "a", rule.major, rule.minor, rule.access or "rwm"
                            )
                            for rule in rules
                        ]
                        + list(device_filter.DEFAULT_RULES)
                    )
                )
                if len(self._programs) >= _PROGRAMS:
                    self._programs.pop(next(iter(self._programs))).close()
                self._programs[rules] = program
            # A copy, which another thread cannot close by filling the table.
            return Fd(os.dup(program.fileno()))

    def close(self) -> None:
        """Let go of loaded programs. Groups that they are attached to keep them."""
        with self._lock:
            while self._programs:
                self._programs.popitem()[1].close()

    def group(self, name: str) -> Cgroup | None:
        """The group of a container that runs."""
        if self._hierarchy is None:
            return None
        return self._hierarchy.locate(name)

    def session(self, name: str, id: str) -> Cgroup | None:
        """A new group for an exec session, below the container's; None where the container has none."""
        parent = self.group(name)
        if parent is None or not os.path.isdir(parent.path):
            return None
        group = parent.child(_session_group(id))
        group.create(parent.path)
        return group

    def session_groups(self, name: str) -> list[str]:
        """The paths of the groups of exec sessions below the container's."""
        parent = self.group(name)
        if parent is None or not os.path.isdir(parent.path):
            return []
        return [f"{parent.path}/{group}" for group in os.listdir(parent.path) if group.startswith(_SESSION)]

    def sweep_sessions(self, name: str, alive: set[str]) -> None:
        """Remove the empty groups of exec sessions below the container's, but those of the sessions `alive`."""
        keep = {_session_group(id) for id in alive}
        for path in self.session_groups(name):
            if os.path.basename(path) not in keep:
                try:
                    os.rmdir(path)
                except OSError:
                    pass  # what the session started runs on, or another engine was faster

    def is_frozen(self, name: str) -> bool:
        """Whether the container is paused. A group that is gone is not frozen."""
        group = self.group(name)
        if group is None:
            return False
        try:
            with open(f"{group.path}/cgroup.freeze", "rb", buffering=0) as file:
                return file.read(1) == b"1"
        except OSError:
            return False

    def freeze(self, name: str) -> None:
        self._require(name, "pause").freeze()

    def thaw(self, name: str) -> None:
        self._require(name, "unpause").thaw()

    def kill(self, name: str) -> None:
        """Kill everything in the container's group, if it has one."""
        group = self.group(name)
        if group is not None:
            group.kill()

    def remove(self, name: str) -> None:
        """Remove the container's group; nothing if there is none."""
        group = self.group(name)
        if group is not None:
            group.remove()

    def _require(self, name: str, what: str) -> Cgroup:
        group = self.group(name)
        if group is None:
            raise self.refuse(what)
        if not os.path.isdir(group.path):
            raise KernelError(2, f"{what} the cgroup {group.path}", remedy="the container has just ended")
        return group
