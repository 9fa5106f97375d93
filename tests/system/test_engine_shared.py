"""Engines that come and go, and several on one store, in several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from engines import IMAGE, ROOTLESS, eventually, import_image, left_over

from pyengine import Engine
from pyengine.errors import ContainerNotFound

pytestmark = pytest.mark.rootless

WAITS = ["sh", "-c", "trap 'echo asked; exit 7' TERM; echo ready; while :; do sleep 0.02; done"]

OTHER = """
import json, sys
from pyengine import Engine
with Engine(sys.argv[1], sys.argv[2]) as engine:
    box = engine.containers.get(sys.argv[3])
    inside = box.exec(["cat", "/mark"])
    box.stop()
    print(json.dumps({
        "exec": inside.stdout.decode(), "code": box.wait(), "log": [str(line) for line in box.logs()],
        "status": box.status, "listed": [b.name for b in engine.containers.list(all=True)],
    }))
    box.remove()
"""


def test_what_one_process_started_another_ends(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, WAITS, name="box")
    box.start()
    assert eventually(lambda: list(box.logs()))
    box.exec(["sh", "-c", "echo here > /mark"])
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(box.wait(20)))
    waiting.start()
    program = subprocess.run(
        [sys.executable, "-c", OTHER, engine.root, engine.run_root, "box"], capture_output=True, text=True, check=False
    )
    assert program.stderr == ""
    assert json.loads(program.stdout) == {
        "exec": "here\n", "code": 7, "log": ["ready", "asked"], "status": "exited", "listed": ["box"]
    }  # fmt: skip
    waiting.join(10)
    assert codes == [7]
    with pytest.raises(ContainerNotFound):
        box.start()


def test_a_container_outlives_the_engine_that_started_it(shared_store: Path, engine: Engine) -> None:
    places = f"{shared_store}/root", f"{shared_store}/run"
    with Engine(*places) as first:
        box = first.containers.create(IMAGE, WAITS, name="box")
        box.start()
        pid = box.state().pid
    with Engine(*places) as second:
        box = second.containers.get("box")
        assert (box.status, box.state().pid) == ("running", pid)
        assert eventually(lambda: list(box.logs()))
        with box.attach() as attachment:
            box.stop()
            assert attachment.read() == ("stdout", b"asked\n")
        assert box.wait() == 7
    assert engine.containers.get("box").state().exit_code == 7


def test_an_exit_code_is_kept_while_no_engine_is_there(shared_store: Path, engine: Engine) -> None:
    with Engine(f"{shared_store}/root", f"{shared_store}/run") as first:
        box = first.containers.create(IMAGE, ["sh", "-c", "sleep 0.1; exit 9"], name="box")
        box.start()
    box = engine.containers.get("box")
    assert box.wait(10) == 9
    assert (box.status, box.state().error) == ("exited", "")


def test_a_closed_engine_can_be_closed_again(tmp_path: Path) -> None:
    engine = Engine(f"{tmp_path}/root", f"{tmp_path}/run")
    engine.close()
    engine.close()


def test_many_engines_open_at_once(shared_store: Path, engine: Engine) -> None:
    wrong: list[str] = []

    def work() -> None:
        try:
            for _ in range(3):
                with Engine(f"{shared_store}/root", f"{shared_store}/run") as mine:
                    assert mine.containers.run(IMAGE, ["true"]).exit_code == 0
        except BaseException:  # noqa: BLE001 - the thread's result
            wrong.append(traceback.format_exc())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert engine.containers.list(all=True) == []


@pytest.mark.parametrize("place", ["in work", "without a row"])
def test_what_a_crash_left_of_other_ids_is_swept(engine: Engine, shared_store: Path, place: str) -> None:
    # An ordinary user has no power over files of the ids that only the user namespace maps: no engine could be opened
    # any more once a removal had been killed in the middle.
    box = engine.containers.create(IMAGE, ["sh", "-c", "mkdir -m 700 /a; touch /a/b; chown -R ann /a"])
    box.start()
    assert box.wait(10) == 0
    left = f"{shared_store}/root/tmp/crashed"
    os.mkdir(left)
    if place == "in work":
        os.rename(f"{engine.root}/containers/{box.id}", f"{left}/container-1")
    engine.store.containers.remove(box.id)
    with Engine(f"{shared_store}/root", f"{shared_store}/run") as other:
        assert left_over(other) == []
    assert not os.path.exists(left)


def test_an_engine_of_ones_own_is_emptied(tmp_path: Path) -> None:
    with Engine(f"{tmp_path}/root", f"{tmp_path}/run") as engine:
        import_image(engine)
        engine.containers.create(IMAGE, ["sleep", "1000"]).start()
        engine.reset()
        assert (engine.containers.list(all=True), engine.images.list(), left_over(engine)) == ([], [], [])


def test_the_engine_says_what_it_is(engine: Engine) -> None:
    assert engine.rootless == ROOTLESS
    assert json.loads(json.dumps(engine.info()))
    assert engine.version()
    assert IMAGE in {name for image in engine.images.list() for name in image.names}


def test_inspect_and_explain_tell_about_a_running_container(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sleep", "1000"], name="box")
    box.start()
    document = box.inspect()
    assert (document["Id"], document["State"]["Pid"], document["State"]["Running"]) == (box.id, box.state().pid, True)
    text = box.explain().text()
    assert "execute" in text
    assert engine.explain(IMAGE, ["true"]).plan[-1].endswith(" execute true")
    assert [other.id for other in engine.containers.list(all=True)] == [box.id]
