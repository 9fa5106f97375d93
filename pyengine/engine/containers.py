"""The containers of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyengine.engine.config import ContainerConfig
from pyengine.engine.container import Container
from pyengine.engine.result import DEFAULT_OUTPUT_LIMIT, Result, seconds_left
from pyengine.errors import ContainerNotFound, OutputTooLarge, WaitTimeout

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine
    from pyengine.engine.request import ContainerRequest


class Containers:
    """Create, run, find and list containers. Options are those of `pyengine.engine.options.make_request`, with the
    names that podman's flags have: ``memory="64m"``, ``cap_drop=["ALL"]``, ``read_only=True`` …"""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, image: str = "", command: Sequence[str] = (), *, request: ContainerRequest | None = None, **options: Any
    ) -> Container:
        """Make a container without starting it.

        Raises `ImageNotFound`, `NameInUse`, `InvalidValue`, and `CannotEnforce` for a limit that cannot be set here.
        """
        from pyengine.engine import creation
        from pyengine.engine.options import make_request

        if request is None:
            request = make_request(image=image, command=command, **options)
        return Container(self._engine, creation.create(self._engine, request))

    def run(
        self,
        image: str = "",
        command: Sequence[str] = (),
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
        remove: bool = True,
        **options: Any,
    ) -> Result:
        """Create a container, run its command to the end and collect what it writes; then remove it.

        `input` is what it reads from stdin. After `timeout` seconds it is killed: `WaitTimeout`. More than
        `output_limit` bytes of output: `OutputTooLarge`, once it has ended. `remove=False` keeps the container.
        """
        from pyengine.engine import creation
        from pyengine.engine.options import make_request

        if input is not None:
            options["interactive"] = True
        request = make_request(image=image, command=command, **options)
        box = Container(self._engine, creation.create(self._engine, request, ephemeral=remove))
        try:
            return _run(box, input, timeout, output_limit)
        finally:
            if remove:
                try:
                    box.remove(force=True)
                except ContainerNotFound:
                    pass  # auto_remove, or somebody else

    def get(self, name: str) -> Container:
        """The container with this ID, name or unique beginning of an ID.

        Raises `ContainerNotFound`, and `AmbiguousName` for a beginning that several share.
        """
        return Container(self._engine, ContainerConfig.decode(self._engine.store.containers.find(name).config))

    def exists(self, name: str) -> bool:
        """Whether `get` would find one."""
        try:
            self.get(name)
        except ContainerNotFound:
            return False
        return True

    def list(self, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None) -> list[Container]:
        """The running containers, or all of them, by ID. `filters` are those of podman's ``ps``: name to values, each
        name has to match."""
        from pyengine.engine.filters import compile_filters

        matches = compile_filters(self._engine, filters or {})
        found = []
        for record in self._engine.store.containers.all():
            box = Container(self._engine, ContainerConfig.decode(record.config))
            try:
                if (all or box.status == "running") and matches(box):
                    found.append(box)
            except ContainerNotFound:
                continue  # removed since the rows were read
        return found


def _run(box: Container, input: bytes | None, timeout: float | None, output_limit: int) -> Result:
    left = seconds_left(timeout)
    with box.start_attached(stdin=input is not None) as attachment:
        try:
            stdout, stderr, too_large = attachment.collect(input, output_limit, left)
            exit_code = attachment.wait(left())
        except TimeoutError:
            raise WaitTimeout(f"container {box.name} did not end within {timeout} seconds and was killed") from None
        finally:
            attachment.release()
    if too_large:
        raise OutputTooLarge(output_limit, exit_code)
    return Result(exit_code, stdout, stderr, box.id)
