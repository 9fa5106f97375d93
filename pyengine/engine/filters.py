"""The filters of ``ps``: from names and values to one question about a container.

Source of the rules: containers.md §4, Ps. Every value of every filter has to match, as in podman. The state of a
container, which costs a few files, is read for the filters that are about it, and only when all others match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pyengine.engine.values import parse_integer
from pyengine.errors import InvalidValue

if TYPE_CHECKING:
    from pyengine.engine.container import Container
    from pyengine.engine.engine import Engine
    from pyengine.engine.states import ContainerState

    ContainerTest = Callable[[Container], bool]
    StateTest = Callable[[ContainerState], bool]

FILTERS = ("ancestor", "before", "exited", "id", "label", "name", "since", "status", "volume")
"""The names of all filters."""

# word of the filter: states of a container (containers.md §1.1)
_STATUS = {
    "created": ("configured", "created"),
    "running": ("running",),
    "paused": ("paused",),
    "stopped": ("stopped", "exited"),
    "exited": ("stopped", "exited"),
    "unknown": ("unknown",),
}


def compile_filters(engine: Engine, filters: Mapping[str, Sequence[str]]) -> Callable[[Container], bool]:
    """Whether a container matches every value of every filter, as a function.

    Raises `InvalidValue` for an unknown filter or a value that cannot be one, and `ContainerNotFound` for a container
    that ``before`` or ``since`` names.
    """
    tests: list[ContainerTest] = []
    late: list[ContainerTest] = []  # those that read a file a container
    states: list[StateTest] = []
    for name, values in filters.items():
        for value in values:
            if name in ("status", "exited"):
                states.append(_state_test(name, value))
            elif name == "volume":
                late.append(_volume_test(value))
            else:
                tests.append(_test(engine, name, value))

    def matches(container: Container) -> bool:
        if not all(test(container) for test in tests) or not all(test(container) for test in late):
            return False
        if not states:
            return True
        state = container.state()
        return all(test(state) for test in states)

    return matches


def _test(engine: Engine, name: str, value: str) -> ContainerTest:
    if name == "id":
        return lambda container: value in container.id
    if name == "name":
        pattern = _pattern(value)
        return lambda container: pattern.search(container.name) is not None
    if name == "label":
        key, equals, text = value.partition("=")
        if equals:
            return lambda container: container.config.labels.get(key) == text
        return lambda container: key in container.config.labels
    if name == "ancestor":
        return lambda container: value in container.image_id or value in container.image_name
    if name in ("before", "since"):
        moment = engine.containers.get(value).created_ns
        if name == "before":
            return lambda container: container.created_ns < moment
        return lambda container: container.created_ns > moment
    if name == "health":
        raise InvalidValue("filter 'health': this version has no health checks yet")
    raise InvalidValue(f"filter {name[:40]!r}: expected one of {', '.join(FILTERS)}")


def _pattern(value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise InvalidValue(f"filter name={value[:100]!r} is not a regular expression: {error}") from error


def _state_test(name: str, value: str) -> StateTest:
    if name == "status":
        if value not in _STATUS:
            raise InvalidValue(f"filter status={value[:40]!r}: expected one of {', '.join(_STATUS)}")
        words = _STATUS[value]
        return lambda state: state.status in words
    code = parse_integer(value, "filter exited:", -1, 255)
    return lambda state: state.status in _STATUS["exited"] and state.exit_code == code


def _volume_test(value: str) -> ContainerTest:
    source, colon, destination = value.partition(":")

    def matches(container: Container) -> bool:
        from pyengine.engine.launch import read_spec

        try:
            spec = read_spec(container.engine, container.id)
        except FileNotFoundError:
            return False  # removed since it was listed
        return any(mount.source == source and (not colon or mount.destination == destination) for mount in spec.mounts)

    return matches
