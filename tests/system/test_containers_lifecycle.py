"""Every call from every state: what it leads to, or `InvalidState` in words (containers.md 1.2)."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable

import leaks
import pytest
from engines import IMAGE, eventually, left_over

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import AmbiguousName, ContainerNotFound, InvalidState, InvalidValue, NameInUse, WaitTimeout

pytestmark = pytest.mark.rootless

STATES = ("configured", "created", "running", "paused", "exited")
WAITS = ["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done"]


def container_in(engine: Engine, state: str) -> Container:
    box = engine.containers.create(IMAGE, ["true"] if state == "exited" else WAITS, name="box", stop_timeout=5)
    if state == "created":
        box.init()
    elif state != "configured":
        box.start()
    if state in ("running", "paused"):
        assert eventually(lambda: list(box.logs()))  # it listens to signals
    if state == "paused":
        box.pause()
    if state == "exited":
        assert box.wait(10) == 0
    assert box.status == state
    return box


CALLS: dict[str, tuple[Callable[[Container], object], str, dict[str, str]]] = {
    # call, how the refusal begins, state before → state after
    "init": (Container.init, "cannot initialise", {"configured": "created", "exited": "created"}),
    "start": (
        Container.start,
        "cannot start",
        {"configured": "running", "created": "running", "exited": "running or exited"},
    ),
    "stop": (Container.stop, "cannot stop", {"created": "configured or exited", "running": "exited"}),
    "kill": (lambda box: box.kill("USR2"), "cannot send a signal to", {"running": "running"}),
    "pause": (Container.pause, "cannot pause", {"running": "paused"}),
    "unpause": (Container.unpause, "cannot unpause", {"paused": "running"}),
    "restart": (
        Container.restart,
        "cannot start",
        {"configured": "running", "created": "running", "running": "running", "exited": "running or exited"},
    ),
    "remove": (
        Container.remove,
        "cannot remove",
        {"configured": "gone", "exited": "gone"},
    ),
    "remove by force": (lambda box: box.remove(force=True), "", dict.fromkeys(STATES, "gone")),
    "exec": (lambda box: box.exec(["true"]), "cannot execute in", {"running": "running"}),
    "attach": (lambda box: box.attach().close(), "cannot attach to", {"running": "running"}),
    "rename": (lambda box: box.rename("other"), "", {state: state for state in STATES}),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
def test_each_call_from_each_state(engine: Engine, call: str, state: str) -> None:
    function, refusal, table = CALLS[call]
    box = container_in(engine, state)
    before = box.state()
    if state not in table:
        with pytest.raises(InvalidState) as caught:
            function(box)
        assert (caught.value.id, caught.value.state) == (box.id, state)
        assert str(caught.value).startswith(f"{refusal} container box: it ")
        assert state in str(caught.value)
        assert box.state() == before
        return
    function(box)
    if table[state] == "gone":
        assert not engine.containers.exists(box.id)
        assert left_over(engine) == []
        with pytest.raises(ContainerNotFound, match=f"no container with ID {box.id} found: no such container"):
            box.start()
    else:
        assert box.status in table[state].split(" or ")


def test_a_container_that_ends_has_the_state_exited(engine: Engine) -> None:
    box = container_in(engine, "exited")
    state = box.state()
    assert (state.exit_code, state.pid, state.monitor_pid, state.restarts, state.error) == (0, 0, 0, 0, "")
    assert box.created_ns < state.started_ns < state.finished_ns


def test_what_runs_has_a_process_and_a_monitor(engine: Engine) -> None:
    state = container_in(engine, "running").state()
    with open(f"/proc/{state.pid}/cmdline", "rb") as file:
        assert file.read().split(b"\0")[:2] == [b"sh", b"-c"]
    with open(f"/proc/{state.monitor_pid}/comm") as file:
        assert file.read().startswith("pyengine")
    assert (state.finished_ns, state.running) == (0, True)


def test_what_is_held_before_its_command_has_set_everything_up(engine: Engine) -> None:
    box = container_in(engine, "created")
    with open(f"/proc/{box.state().pid}/mountinfo") as table:
        assert " - overlay " in next(iter(table))
    with pytest.raises(WaitTimeout, match=r"container box did not end within 0\.05 seconds"):
        box.wait(0.05)
    assert list(box.logs()) == []
    box.start()
    assert eventually(lambda: list(box.logs()))
    box.stop()
    assert box.wait(5) == 7


def test_waiting_for_what_was_never_started_returns_at_once(engine: Engine) -> None:
    assert container_in(engine, "configured").wait() == 0


@pytest.mark.parametrize("state", ["running", "paused"])
def test_waiting_takes_as_long_as_it_is_told_to(engine: Engine, state: str) -> None:
    box = container_in(engine, state)
    with pytest.raises(WaitTimeout, match=r"container box did not end within 0\.05 seconds"):
        box.wait(0.05)
    with pytest.raises(TimeoutError):
        box.wait(0)


def test_many_wait_for_the_same_end(engine: Engine) -> None:
    box = container_in(engine, "running")
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(box.wait(10))) for _ in range(6)]
    for thread in threads:
        thread.start()
    box.stop()
    for thread in threads:
        thread.join()
    assert codes == [7] * 6


def test_a_paused_container_does_nothing_until_it_goes_on(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "while :; do echo x; sleep 0.01; done"])
    box.start()
    assert eventually(lambda: len(list(box.logs())) > 2)
    box.pause()
    lines = len(list(box.logs()))
    assert not eventually(lambda: len(list(box.logs())) > lines + 1, 0.15)
    box.unpause()
    assert eventually(lambda: len(list(box.logs())) > lines + 1)


def test_a_second_start_is_a_new_run_of_the_same_files(engine: Engine) -> None:
    box = engine.containers.create(
        IMAGE, ["sh", "-c", "echo x >> /count; wc -l < /count; test $(wc -l < /count) -gt 1"]
    )
    box.start()
    assert box.wait(10) == 1
    first = box.state()
    box.start()
    assert box.wait(10) == 0
    assert box.state().started_ns > first.finished_ns
    assert [line.text for line in box.logs()] == [b"1", b"2"]


def test_only_one_of_many_starts_succeeds(engine: Engine) -> None:
    box = container_in(engine, "configured")
    outcomes: list[str] = []

    def start() -> None:
        try:
            engine.containers.get("box").start()
        except InvalidState as error:
            outcomes.append(error.state)
        else:
            outcomes.append("started")

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["running"] * 7 + ["started"]
    assert box.status == "running"


def test_only_one_of_many_removals_succeeds(engine: Engine) -> None:
    box = container_in(engine, "running")
    outcomes: list[str] = []

    def remove() -> None:
        try:
            box.remove(force=True)
        except ContainerNotFound:
            outcomes.append("not found")
        else:
            outcomes.append("removed")

    threads = [threading.Thread(target=remove) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["not found"] * 7 + ["removed"]


def test_a_with_block_removes_what_it_made(engine: Engine) -> None:
    with engine.containers.create(IMAGE, WAITS) as box:
        box.start()
        pid = box.state().pid
    assert not engine.containers.exists(box.id)
    assert str(pid) not in leaks.processes()


# --- names


def test_a_name_is_claimed_once_by_many_threads(engine: Engine) -> None:
    outcomes: list[str] = []

    def claim() -> None:
        try:
            outcomes.append(engine.containers.create(IMAGE, ["true"], name="wanted").id)
        except NameInUse as error:
            outcomes.append(error.owner)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert set(outcomes) == {engine.containers.get("wanted").id}
    assert len(engine.containers.list(all=True)) == 1


CLAIM = """
import sys
from pyengine import Engine
from pyengine.errors import NameInUse
with Engine(sys.argv[1], sys.argv[2]) as engine:
    sys.stdin.readline()
    try:
        engine.containers.create(sys.argv[3], ["true"], name="wanted")
    except NameInUse:
        print("in use")
    else:
        print("claimed")
"""


def test_a_name_is_claimed_once_by_many_processes(engine: Engine) -> None:
    arguments = [sys.executable, "-c", CLAIM, engine.root, engine.run_root, IMAGE]
    programs = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("go\n")
        program.stdin.flush()
    words = sorted(program.communicate()[0].strip() for program in programs)
    assert words == ["claimed"] + ["in use"] * 7


def test_a_name_in_use_names_its_owner(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["true"], name="box")
    with pytest.raises(NameInUse) as caught:
        engine.containers.create(IMAGE, ["true"], name="box")
    assert str(caught.value) == f"the name 'box' is in use by {box.id}: remove that first, or choose another name"
    box.remove()
    engine.containers.create(IMAGE, ["true"], name="box")


@pytest.mark.parametrize("name", ["-x", ".x", "a b", "a/b", "ä", "a\n", "x" * 256])
def test_a_name_that_cannot_be(engine: Engine, name: str) -> None:
    with pytest.raises(InvalidValue, match="expected letters, digits"):
        engine.containers.create(IMAGE, ["true"], name=name)
    box = engine.containers.create(IMAGE, ["true"])
    with pytest.raises(InvalidValue, match="expected letters, digits"):
        box.rename(name)


def test_names_and_ids_have_their_form(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["true"])
    assert re.fullmatch("[0-9a-f]{64}", box.id)
    assert box.short_id == box.id[:12]
    assert re.fullmatch("[a-z]+_[a-z]+", box.name)


def test_renaming_moves_the_claim(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["true"], name="old")
    other = engine.containers.create(IMAGE, ["true"], name="other")
    box.rename("new")
    assert (box.name, engine.containers.get("new").id, engine.containers.get(box.id).name) == ("new", box.id, "new")
    assert not engine.containers.exists("old")
    with pytest.raises(NameInUse, match=f"the name 'new' is in use by {box.id}"):
        other.rename("new")
    assert engine.containers.get(other.id).name == "other"
    other.rename("old")


def test_looking_up(engine: Engine) -> None:
    boxes = [engine.containers.create(IMAGE, ["true"], name=f"box{number}") for number in range(17)]
    box = boxes[0]
    for text in (box.id, box.name, box.short_id):
        assert engine.containers.get(text).id == box.id
    named = engine.containers.create(IMAGE, ["true"], name=box.id[:4])
    assert engine.containers.get(box.id[:4]).id == named.id  # a name comes before the beginning of an ID
    shared = next(digit for digit in "0123456789abcdef" if sum(other.id[0] == digit for other in boxes) > 1)
    with pytest.raises(AmbiguousName) as caught:
        engine.containers.get(shared)
    assert caught.value.id == shared
    for text in ("nothing", "box", box.id + "0", "BOX1", ""):
        with pytest.raises(ContainerNotFound) as missing:
            engine.containers.get(text)
        assert missing.value.id == text
        assert not engine.containers.exists(text)


def test_lists_are_ordered_by_id_and_show_what_runs(engine: Engine) -> None:
    boxes = [engine.containers.create(IMAGE, WAITS) for _ in range(5)]
    boxes[2].start()
    assert [box.id for box in engine.containers.list(all=True)] == sorted(box.id for box in boxes)
    assert [box.id for box in engine.containers.list()] == [boxes[2].id]
