"""An engine without containers, for tests of the command line: it notes what it is told and does what a test says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from click.testing import CliRunner, Result

from pyengine.cli.main import cli
from pyengine.cli.session import Session
from pyengine.errors import ContainerNotFound, ImageNotFound, InvalidState, NameInUse, PyengineError

SECOND = 10**9


@dataclass
class State:
    status: str = "configured"
    pid: int = 0
    exit_code: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    restarts: int = 0


@dataclass
class Config:
    tty: bool = False
    stdin: bool = False
    auto_remove: bool = False
    user_volumes: tuple[str, ...] = ()


@dataclass
class Line:
    time: str
    stream: str
    text: bytes
    partial: bool = False


class Attachment:
    """Writes ``output`` to the descriptors that it is given, then ends with ``code`` (None: the user detached)."""

    def __init__(self, output: Sequence[tuple[str, bytes]] = (), code: int | None = 0) -> None:
        self.output, self.code = output, code
        self.pumped: tuple[Any, ...] = ()
        self.sizes: list[tuple[int, int]] = []
        self.closed = self.finished = self.released = False
        self.id = "e" * 64
        self.during: Callable[[], None] = lambda: None

    def pump(self, stdin: int | None, stdout: int, stderr: int, detach_keys: str) -> bool:
        self.pumped = (stdin, stdout, stderr, detach_keys)
        for stream, data in self.output:
            os.write(stdout if stream == "stdout" else stderr, data)
        self.during()
        return self.code is not None

    def release(self) -> None:
        self.released = True

    def finish(self) -> None:
        self.finished = True

    def wait(self, timeout: float | None = None) -> int:
        assert self.code is not None
        return self.code

    def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.closed = True


class Container:
    def __init__(self, engine: Engine, number: int, name: str, **settings: Any) -> None:
        self.engine = engine
        self.id = f"{number:02x}" * 32
        self.name = name
        self.image_name = settings.pop("image_name", "localhost/box:latest")
        self.image_id = "ab" * 32
        self.command = settings.pop("command", ("true",))
        self.created_ns = settings.pop("created_ns", number * SECOND)
        self.labels: dict[str, str] = settings.pop("labels", {})
        self.now = settings.pop("state", State())
        self.config = settings.pop("config", Config())
        self.attachment = settings.pop("attachment", Attachment())
        self.lines: list[Line] = settings.pop("lines", [])
        self.errors: dict[str, PyengineError] = settings.pop("errors", {})
        assert not settings

    def __getattr__(self, name: str) -> Any:
        """Every other method is noted down, and fails if the test says so."""
        if name not in ("start", "stop", "kill", "restart", "pause", "unpause", "wait", "remove"):
            raise AttributeError(name)

        def method(*arguments: Any, **named: Any) -> Any:
            self._note(name, *arguments, *named.values())
            if name == "remove":
                self.engine.containers.all.remove(self)
            return self.now.exit_code if name == "wait" else None

        return method

    def _note(self, name: str, *arguments: Any) -> None:
        self.engine.calls.append((self.name, name, *arguments))
        if name in self.errors:
            raise self.errors[name]

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def status(self) -> str:
        return self.now.status

    def state(self) -> State:
        return self.now

    def start_attached(self, stdin: bool = True) -> Attachment:
        self._note("start_attached", stdin)
        return self.attachment

    def attach(self, stdin: bool = True) -> Attachment:
        self._note("attach", stdin)
        return self.attachment

    def open_exec(self, command: Sequence[str], **options: Any) -> Attachment:
        self._note("open_exec", tuple(command), options)
        return self.attachment

    def logs(self, follow: bool = False, since: int | None = None, tail: int | None = None) -> Iterator[Line]:
        self._note("logs", follow, since, tail)
        return iter(self.lines)

    def inspect(self, size: bool = False) -> dict[str, Any]:
        document = {"Id": self.id, "Name": self.name, "State": {"Pid": 7, "Running": False}, "Args": ["a", "b"]}
        return {**document, "SizeRw": 1500, "SizeRootFs": 5_860_000} if size else document

    def explain(self) -> Any:
        return Explanation(f"container {self.name}")


@dataclass
class Explanation:
    words: str

    def text(self) -> str:
        return f"{self.words}\n"


@dataclass
class Image:
    id: str
    names: tuple[str, ...]
    created_ns: int = 0
    size: int = 5_860_000
    labels: dict[str, str] = field(default_factory=dict)
    digest: str = "sha256:" + "d" * 64

    @property
    def short_id(self) -> str:
        return self.id[:12]

    def inspect(self) -> dict[str, Any]:
        return {"Id": self.id, "RepoTags": list(self.names)}


class Containers:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.all: list[Container] = []
        self.created: list[dict[str, Any]] = []
        self.next: dict[str, Any] = {}
        self.error: BaseException | None = None

    def create(self, **options: Any) -> Container:
        self.created.append(options)
        if self.error:
            raise self.error
        for other in self.all:
            if other.name == options.get("name"):
                raise NameInUse(other.name, other.id)
        settings = {
            "config": Config(
                tty=options.get("tty", False),
                stdin=options.get("interactive", False),
                auto_remove=options.get("rm", False),
            ),
            **self.next,
        }
        container = Container(self.engine, len(self.all) + 1, options.get("name", "made_up"), **settings)
        self.all.append(container)
        return container

    def get(self, name: str) -> Container:
        for container in self.all:
            if container.name == name or container.id.startswith(name):
                return container
        raise ContainerNotFound(name, f"no container with name or ID {name!r} found: no such container")

    def exists(self, name: str) -> bool:
        return any(name in (container.name, container.id) for container in self.all)

    def list(self, all: bool = False, filters: Any = None) -> list[Container]:
        self.engine.calls.append(("list", all, filters))
        return [c for c in self.all if all or c.status == "running"]


class Images:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.all: list[Image] = []
        self.errors: dict[str, PyengineError] = {}
        self.error: BaseException | None = None

    def get(self, name: str) -> Image:
        for image in self.all:
            if name in image.names or image.id.startswith(name):
                return image
        raise ImageNotFound(name, f"unable to find '{name}' in local storage: no such image")

    def list(self) -> list[Image]:
        return list(self.all)

    def tag(self, name: str, new: str) -> None:
        self.engine.calls.append(("tag", name, new))

    def remove(self, name: str, force: bool = False) -> list[str]:
        self.engine.calls.append(("remove", name, force))
        if name in self.errors:
            raise self.errors[name]
        image = self.get(name)
        self.all.remove(image)
        return [f"Untagged: {each}" for each in image.names] + [f"Deleted: {image.id}"]

    def _transfer(self, *call: Any) -> None:
        self.engine.calls.append(call)
        if self.error:
            raise self.error

    def load(self, source: Any, *, name: str | None = None, progress: Any = None) -> list[Image]:
        self._transfer("load", source if isinstance(source, str) else source.read(), name, progress)
        return self.all

    def import_(self, source: Any, reference: str | None, *, changes: Any, message: str, progress: Any) -> Image:
        self._transfer("import", source if isinstance(source, str) else source.read(), reference, changes, message)
        return self.all[0]

    def save(self, names: Any, target: Any, *, format: str, progress: Any) -> None:
        self._transfer("save", names, target if isinstance(target, str) else "stream", format)
        if not isinstance(target, str):
            target.write(b"\x00archive")


class Engine:
    """``calls`` is what was done, in order: (container, method, arguments …)."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.containers = Containers(self)
        self.images = Images(self)
        self.closed = False
        self.explained: dict[str, Any] = {}
        self.opened_with: tuple[str | None, str | None] = (None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.closed = True

    def explain(self, **options: Any) -> Explanation:
        self.explained = options
        return Explanation(f"image {options['image']}")

    def info(self) -> dict[str, Any]:
        return {"host": {"kernel": "6.1", "cpus": 2}, "store": {"root": "/r"}}

    def add(self, name: str, status: str = "configured", **settings: Any) -> Container:
        """A container more, numbered from 1."""
        settings.setdefault("state", State(status, pid=9 if status in ("running", "paused") else 0))
        container = Container(self, len(self.containers.all) + 1, name, **settings)
        self.containers.all.append(container)
        return container

    def run(self, *args: str, input: bytes | None = None, env: dict[str, str] | None = None) -> Result:
        """Run a command line on this engine."""

        def opener(root: str | None, run_root: str | None) -> Engine:
            self.opened_with = (root, run_root)
            return self

        return CliRunner().invoke(cli, list(args), obj=Session(opener), input=input, env=env)


def wrong_state(state: str) -> InvalidState:
    return InvalidState("0" * 64, state, f"it is {state}")
