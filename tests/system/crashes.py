"""Operations that are interrupted by kill -9, and what has to be true of a store afterwards.

Run as a program it is the engine that crashes: ``crashes.py ROOT RUN_ROOT OPERATION [ARGUMENT]``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

# ruff: noqa: E402 - as a program it has to find the others first
from engines import IMAGE, ROOTLESS, eventually, import_image, root_tar

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import PyengineError

SLEEPER = ["sh", "-c", "echo begun; exec sleep 1000"]


def start_attached(engine: Engine, _: str) -> None:
    with engine.containers.get("victim").start_attached() as attachment:
        assert attachment.read() == ("stdout", b"begun\n")


def start_initialised(engine: Engine, _: str) -> None:
    box = engine.containers.get("victim")
    box.init()
    box.start()


OPERATIONS: dict[str, Callable[[Engine, str], Any]] = {
    "create": lambda engine, _: engine.containers.create(IMAGE, SLEEPER, name="victim"),
    "start": lambda engine, _: engine.containers.get("victim").start(),
    "start attached": start_attached,
    "start initialised": start_initialised,
    "exec": lambda engine, _: engine.containers.get("witness").exec(["echo", "done"]),
    "remove": lambda engine, _: engine.containers.get("victim").remove(force=True),
    "load": lambda engine, path: engine.images.load(path),
    "import": lambda engine, path: engine.images.import_(path, "localhost/imported:1"),
    "save": lambda engine, path: engine.images.save([IMAGE], path),
    "tag": lambda engine, name: engine.images.tag(IMAGE, name),
    "rmi": lambda engine, name: engine.images.remove(name),
}


def live(engine: Engine, _: str) -> None:
    """All there is to a container's life, until somebody ends it."""
    while True:
        box = engine.containers.create(IMAGE, SLEEPER)
        box.start()
        box.exec(["true"])
        engine.containers.run(IMAGE, ["true"])
        box.stop(0)
        box.start_attached().close()
        box.remove(force=True)


OPERATIONS["live"] = live


def places(directory: Path) -> tuple[str, str]:
    return f"{directory}/root", f"{directory}/run"


def open_engine(directory: Path) -> Engine:
    return Engine(*places(directory))


def crash(directory: Path, operation: str, argument: str = "", *, fault: str = "") -> bool:
    """Do the operation in another process, which kills itself at the fault point. Whether it did.

    What a rootless engine does in its storage worker ends the worker, and is an error of the engine's."""
    environment = dict(os.environ)
    if fault:
        environment["PYENGINE_FAULT"] = fault
    program = [sys.executable, str(HERE / "crashes.py"), *places(directory), operation, argument]
    ended = subprocess.run(program, env=environment, capture_output=True, timeout=60)
    if ROOTLESS and ended.returncode == 3 and b"the storage worker ended in the middle of" in ended.stderr:
        return True
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()
    return ended.returncode != 0


class Site:
    """A store with an image, a container that runs (``witness``) and one that has ended (``ended``)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with open_engine(directory) as engine:
            import_image(engine)
            witness = engine.containers.create(IMAGE, ["cat"], name="witness", interactive=True)
            witness.start()
            ended = engine.containers.create(IMAGE, ["sh", "-c", "echo over; exit 3"], name="ended")
            ended.start()
            assert ended.wait(20) == 3
            self.ids = {witness.id, ended.id}
            self.pid = witness.state().pid
            self.images = {image.id: image.names for image in engine.images.list()}
            self.root_tar = directory / "root.tar"
            self.root_tar.write_bytes(root_tar((("extra", b"one"),)))
            engine.images.import_(str(self.root_tar), "localhost/other:1", changes=["CMD /bin/true"])
            self.archive = directory / "other.tar"
            engine.images.save(["localhost/other:1"], str(self.archive))
            engine.images.remove("localhost/other:1")

    def victim(self, engine: Engine) -> Container:
        return engine.containers.create(IMAGE, SLEEPER, name="victim")

    def check(self, engine: Engine, *, light: bool = False) -> None:
        """Everything that was there is there, and works."""
        witness = engine.containers.get("witness")
        state = witness.state()
        assert (state.status, state.pid) == ("running", self.pid)
        ended = engine.containers.get("ended").state()
        assert (ended.status, ended.exit_code, ended.error) == ("exited", 3, "")
        assert [line.text for line in engine.containers.get("ended").logs()] == [b"over"]
        known = {image.id: image.names for image in engine.images.list()}
        assert {id: names for id, names in known.items() if id in self.images} == self.images
        engine.store.database.check()
        if not light:
            assert witness.exec(["echo", "here"]).stdout == b"here\n"
            with witness.attach() as attachment:
                attachment.write(b"ping\n")
                assert attachment.read() == ("stdout", b"ping\n")
            assert next(iter(witness.logs(tail=1))).text == b"ping"

    def left(self, engine: Engine, *others: Engine, patience: float = 5.0) -> list[str]:
        """What belongs to no container that the store knows, nor to the engines that are open. What has just been
        killed has a moment to go."""
        found: list[str] = []

        def nothing() -> bool:
            found[:] = self._left(engine, *others)
            return not found

        eventually(nothing, patience)
        return found

    def _left(self, engine: Engine, *others: Engine) -> list[str]:
        known = {record.id for record in engine.store.containers.all()}
        found = []
        for place in (f"{engine.root}/containers", f"{engine.run_root}/containers"):
            found += [f"{place}/{name}" for name in os.listdir(place) if name not in known]
        ours = {os.path.basename(one._work.path) for one in (engine, *others) if one._work is not None}
        found += [f"{engine.root}/tmp/{name}" for name in os.listdir(f"{engine.root}/tmp") if name not in ours]
        for name in known:
            sessions = f"{engine.run_root}/containers/{name}/exec"
            if os.path.isdir(sessions):
                found += [f"{sessions}/{session}" for session in os.listdir(sessions)]
        for record in engine.store.containers.all():
            box = engine.containers.get(record.id)
            group = engine.cgroups.group(box.config.cgroup)
            if group is None or not os.path.isdir(group.path):
                continue
            if box.status not in ("running", "created", "paused"):
                found.append(f"{group.path} of {box.name}, which is {box.status}")
            found += [f"{group.path}/{name}" for name in os.listdir(group.path) if name.startswith("exec-")]
        return found


def main(root: str, run_root: str, operation: str, argument: str) -> None:
    try:
        with Engine(root, run_root) as engine:
            OPERATIONS[operation](engine, argument)
    except PyengineError as error:
        print(error, file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
