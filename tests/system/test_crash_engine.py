"""kill -9 of the engine at every fault point of every operation: the next engine finds everything, and no debris."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from crashes import HERE, OPERATIONS, Site, crash, open_engine, places
from engines import IMAGE, eventually, out

import pyengine
from pyengine.errors import ContainerNotFound
from pyengine.linux.faults import declared

pytestmark = pytest.mark.rootless

START = {"container-start-directory", "container-start-cgroup", "container-start-launched"}
LOAD = {
    "load-opened", "load-layer-unpacked", "load-blob-kept", "load-before-commit", "image-synced", "image-layer-renamed",
    "image-blob-renamed", "image-inserted", "image-index-written", "image-committed",
}  # fmt: skip
POINTS = {
    "create": {"work-made", "container-create-written", "container-create-placed", "container-create-added"},
    "start": START,
    "start attached": START,
    "start initialised": START,
    "exec": {"exec-directory", "exec-launched"},
    "remove": {"work-made", "container-remove-begun", "container-remove-forgotten", "container-remove-moved"},
    "load": {"work-made", *LOAD},
    "import": {"work-made", "image-synced", "image-committed"},  # the others: test_layers_crashes.py
    "tag": {"work-made"},
    "rmi": {"image-remove-rows", "image-remove-committed", "image-remove-moved"},
}
CONTAINERS = ("create", "start", "start attached", "start initialised", "remove")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    with open_engine(site.directory) as engine:
        site.check(engine)
        witness = engine.containers.get("witness")
        witness.stop(0)
        assert witness.state().status == "exited"
        engine.reset()


def test_every_fault_point_is_tried() -> None:
    for package in ("engine", "runtime", "store", "transports", "linux"):
        directory = f"{os.path.dirname(pyengine.__file__)}/{package}"
        for module in pkgutil.iter_modules([directory], f"pyengine.{package}."):
            importlib.import_module(module.name)
    assert declared() == set().union(*POINTS.values()) | {"work-sweep"}  # that: test_layers_crashes.py


def prepare(site: Site, operation: str) -> str:
    """What the operation needs; its argument."""
    with open_engine(site.directory) as engine:
        if operation in CONTAINERS and operation != "create":
            box = site.victim(engine)
            if operation == "remove":
                box.start()
                closed = "mkdir -m 700 /x /x/y; touch /x/y/z; chown -R ann /x"  # to other users, the engine's included
                assert box.exec(["sh", "-c", closed]).exit_code == 0
        if operation == "rmi":
            engine.images.load(str(site.archive))
    return {
        "load": str(site.archive), "import": str(site.root_tar), "tag": "new:1", "rmi": "localhost/other:1",
    }.get(operation, "")  # fmt: skip


def undo(site: Site) -> None:
    with open_engine(site.directory) as engine:
        for box in engine.containers.list(all=True):
            if box.id not in site.ids:
                box.remove(force=True)
        for image in engine.images.list():
            if image.id not in site.images:
                engine.images.remove(image.id, force=True)
        engine.images.untag(IMAGE, "localhost/new:1")


def repeat(site: Site, operation: str, argument: str) -> None:
    """The same again has to succeed, whatever has become of the first."""
    with open_engine(site.directory) as engine:
        exists = engine.containers.exists("victim")
        if operation == "create" and exists:
            engine.containers.get("victim").remove()
        if operation == "remove" and not exists:
            return
        if operation.startswith("start") and engine.containers.get("victim").status in ("running", "created"):
            engine.containers.get("victim").stop(0)
        if operation == "rmi" and not engine.images.exists(argument):
            return
        OPERATIONS[operation](engine, argument)
        if operation in ("create", "start", "start attached", "start initialised"):
            box = engine.containers.get("victim")
            if operation == "create":
                box.start()
            assert box.exec(["echo", "hi"]).stdout == b"hi\n"
            assert [line.text for line in box.logs()] != []
        elif operation in ("load", "import"):
            name = "localhost/other:1" if operation == "load" else "localhost/imported:1"
            assert engine.containers.run(name, ["cat", "/extra"]).stdout == b"one"


def nothing_left(site: Site) -> bool:
    with open_engine(site.directory) as engine:
        return site.left(engine, patience=0.2) == []


@pytest.mark.parametrize(
    ("operation", "fault"), [(operation, fault) for operation, faults in POINTS.items() for fault in sorted(faults)]
)
def test_a_crash_of_the_engine_loses_nothing_and_leaves_nothing(site: Site, operation: str, fault: str) -> None:
    argument = prepare(site, operation)
    try:
        assert crash(site.directory, operation, argument, fault=fault)
        with open_engine(site.directory) as engine:
            site.check(engine)
            if operation != "exec":  # the command may run on: the engine after that sweeps it
                assert site.left(engine) == []
            if operation in CONTAINERS:
                try:
                    box = engine.containers.get("victim")
                except ContainerNotFound:
                    assert operation in ("create", "remove")
                else:
                    assert box.inspect()["Name"] == "victim"
                    assert box.status in ("configured", "created", "running", "exited")
            for image in engine.images.list():
                assert engine.containers.run(image.id, ["echo", "works"]).stdout == b"works\n"
        repeat(site, operation, argument)
        assert eventually(lambda: nothing_left(site))
    finally:
        undo(site)


def test_crashes_at_any_moment(site: Site) -> None:
    """Several engines at once, each killed at a random moment of a container's life; the seed is part of the test."""
    random = Random(20261123)
    program = [sys.executable, str(HERE / "crashes.py"), *places(site.directory), "live", ""]
    for _ in range(5):
        running = [subprocess.Popen(program) for _ in range(2)]
        for process in running:
            time.sleep(0.25 + random.random() / 4)
            process.send_signal(signal.SIGKILL)
            assert process.wait(20) == -signal.SIGKILL
        with open_engine(site.directory) as engine:
            site.check(engine)
    undo(site)
    assert eventually(lambda: nothing_left(site))


def test_a_crash_after_saving_began_leaves_the_store_as_it_was(site: Site, tmp_path: Path) -> None:
    assert not crash(site.directory, "save", str(tmp_path / "saved.tar"), fault="load-opened")
    with open_engine(site.directory) as engine:
        site.check(engine)
        assert out(engine, "echo works") == "works"
