"""Which containers a command is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pyengine.cli.failures import exit_code, for_each
from pyengine.errors import ContainerNotFound, InvalidValue

if TYPE_CHECKING:
    from pyengine.engine.container import Container
    from pyengine.engine.engine import Engine


def latest(engine: Engine) -> Container:
    """The container that was created last. Raises `ContainerNotFound` when there is none."""
    containers = engine.containers.list(all=True)
    if not containers:
        raise ContainerNotFound("", "there is no container")
    return max(containers, key=lambda container: container.created_ns)


def _status(container: Container) -> str:
    try:
        return container.status
    except ContainerNotFound:
        return ""  # removed since it was listed


def parse_filters(filters: Sequence[str]) -> dict[str, list[str]]:
    """``KEY=VALUE`` words, several values a key."""
    result: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidValue(f"filter {text[:100]!r}: expected KEY=VALUE")
        result.setdefault(key, []).append(value)
    return result


def act(
    engine: Engine,
    names: Sequence[str],
    operation: Callable[[Container], str | None],
    *,
    use_all: bool = False,
    use_latest: bool = False,
    statuses: Sequence[str] = (),
    code: Callable[[BaseException], int] = exit_code,
) -> int:
    """Do something to containers by name, to the newest one, or to all that are in one of ``statuses`` (empty: any).

    Prints what ``operation`` returns for each. Returns the exit code.
    """
    if (use_all or use_latest) and names:
        raise InvalidValue(f"--{'all' if use_all else 'latest'} and names contradict each other")
    if use_all and use_latest:
        raise InvalidValue("--all and --latest contradict each other")
    if use_all:
        chosen = [c for c in engine.containers.list(all=True) if not statuses or _status(c) in statuses]
        return for_each(chosen, operation, code)
    if use_latest:
        return operation_on(latest(engine), operation, code)
    if not names:
        raise InvalidValue("a container has to be named")
    return for_each(names, lambda name: operation(engine.containers.get(name)), code)


def operation_on(
    container: Container, operation: Callable[[Container], str | None], code: Callable[[BaseException], int] = exit_code
) -> int:
    """`act` on one container."""
    return for_each([container], operation, code)
