"""kill -9 of the processes beside the monitor: the holder of the user namespace and the storage worker.

Root has neither: there the same has to be true of an engine whose callbacks fail."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import leaks
import pytest
from engines import IMAGE, ROOTLESS, eventually, import_image, left_over, new_engine, root_tar, sh

from pyengine import Engine
from pyengine.errors import PyengineError
from pyengine.transports.progress import Event

pytestmark = pytest.mark.rootless


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with new_engine(tmp_path) as engine:
        import_image(engine)
        yield engine


def helpers(name: bytes) -> list[int]:
    """Processes of this test host that are called so; those of the session's other engines are among them."""
    found = []
    for pid in leaks.processes():
        try:
            if name in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
        except OSError:
            continue
    return found


def kill(pids: list[int]) -> None:
    """Root has no helpers: there are none to kill."""
    assert len(pids) == ROOTLESS
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not {str(pid) for pid in pids} & set(leaks.processes()))


def is_of(engine: Engine, pid: int) -> bool:
    return os.fsencode(engine.root) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_containers_live_on_without_the_holder_of_their_namespace(engine: Engine, tmp_path: Path) -> None:
    """Their namespace is theirs as long as they run; new ones get another with the same ids."""
    with engine.containers.create(IMAGE, ["sleep", "1000"]) as box:
        box.start()
        kill([engine.user_namespace().pid] if ROOTLESS else [])
        with Engine(f"{tmp_path}/root", f"{tmp_path}/run") as later:
            for one in (engine, later):
                known = one.containers.get(box.id)
                assert known.exec(["id", "-u"], user="ann").stdout == b"1000\n"
                assert sh(one, "touch /tmp/new; chown ann /tmp/new; id -u", user="0").stdout == b"0\n"
        box.stop(0)
        box.start()
        assert box.exec(["echo", "here"]).stdout == b"here\n"


def test_the_storage_worker_is_replaced_when_it_was_killed(engine: Engine) -> None:
    kill([pid for pid in helpers(b"pyengine.engine.worker") if is_of(engine, pid)])
    if ROOTLESS:
        with pytest.raises(PyengineError, match=r"^the storage worker ended in the middle of import_rootfs: "):
            import_image(engine, "localhost/other:1")
    import_image(engine, "localhost/other:1", extra=(("file", b"content"),))
    assert engine.containers.run("localhost/other:1", ["cat", "/file"]).stdout == b"content"


def test_a_callback_that_raises_ends_the_operation_and_nothing_else(engine: Engine, tmp_path: Path) -> None:
    """What a worker still had to say was taken for the answer to the next call."""

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    before = [image.id for image in engine.images.list()]
    with pytest.raises(KeyboardInterrupt):
        engine.images.import_(io.BytesIO(root_tar((("one", b"1"),))), "localhost/one:1", progress=interrupted)
    assert [image.id for image in engine.images.list()] == before
    import_image(engine, "localhost/two:1", extra=(("two", b"2"),))
    assert engine.containers.run("localhost/two:1", ["cat", "/two"]).stdout == b"2"
    with Engine(f"{tmp_path}/root", f"{tmp_path}/run") as later:
        assert left_over(later) == []
