"""How containers end: asked, killed, with their parent, by themselves; and how they come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import leaks
import pytest
from engines import IMAGE, eventually, import_image, left_over, sh

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import ContainerNotFound, InvalidValue, StartFailed

pytestmark = pytest.mark.rootless

POLITE = "trap 'echo asked; exit 7' {signal}; echo ready; while :; do sleep 0.02; done"


def ready(box: Container) -> Container:
    box.start()
    assert eventually(lambda: b"ready" in [line.text for line in box.logs()])
    return box


def gone(pid: int) -> bool:
    """Whether a process is gone, or waits for nothing but its parent."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_stop_asks_first(engine: Engine) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", POLITE.format(signal="TERM")]))
    box.stop()
    state = box.state()
    assert (state.status, state.exit_code, state.oom_killed) == ("exited", 7, False)
    assert [line.text for line in box.logs()] == [b"ready", b"asked"]


def test_stop_kills_what_does_not_listen(engine: Engine) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done"]))
    box.stop(timeout=0.1)
    assert (box.status, box.wait()) == ("exited", 137)


def test_stop_without_patience_kills_at_once(engine: Engine) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", POLITE.format(signal="TERM")]))
    box.stop(timeout=0)
    assert box.wait() == 137
    assert [line.text for line in box.logs()] == [b"ready"]


def test_the_stop_signal_can_be_chosen(engine: Engine) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", POLITE.format(signal="USR1")], stop_signal="SIGUSR1"))
    box.stop()
    assert box.wait() == 7


def test_the_stop_signal_of_the_image_is_used(engine: Engine) -> None:
    import_image(engine, "localhost/stop:test", changes=["STOPSIGNAL SIGUSR2"])
    try:
        with engine.containers.create("localhost/stop:test", ["sh", "-c", POLITE.format(signal="USR2")]) as box:
            assert box.config.stop_signal == signal.SIGUSR2
            ready(box).stop()
            assert box.wait() == 7
    finally:
        engine.images.remove("localhost/stop:test")


@pytest.mark.parametrize("name", ["SIGUSR1", "usr1", 10, "10"])
def test_kill_takes_names_and_numbers(engine: Engine, name: str | int) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", POLITE.format(signal="USR1")]))
    box.kill(name)
    assert box.wait(10) == 7


@pytest.mark.parametrize("name", ["SIGNOTHING", 0, 65, -9, ""])
def test_kill_refuses_what_is_no_signal(engine: Engine, name: str | int) -> None:
    box = engine.containers.create(IMAGE, ["true"])
    with pytest.raises(InvalidValue, match="signal"):
        box.kill(name)


def test_all_processes_end_with_the_first(engine: Engine) -> None:
    script = "(trap '' TERM HUP; sleep 1000) & (setsid sleep 2000 &) ; echo ready; read x"
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", script], interactive=True))
    assert eventually(lambda: list(leaks.processes().values()).count("sleep") == 2)
    before = {pid for pid, name in leaks.processes().items() if name in ("sleep", "sh")}
    assert len(before) >= 3
    box.kill()
    assert box.wait(10) == 137
    assert all(gone(int(pid)) for pid in before)


def test_orphans_are_the_first_processs_to_reap(engine: Engine) -> None:
    # busybox's sleep as the first process reaps nothing, a shell does
    script = "(sleep 0.01 & ) ; sleep 0.1; grep -l '^PPid:.1$' /proc/[0-9]*/status | wc -l"
    assert int(sh(engine, script).stdout) <= 2


def test_the_first_process_is_one(engine: Engine) -> None:
    assert sh(engine, "echo $$ $PPID").stdout == b"1 0\n"


def test_restart_stops_and_starts(engine: Engine) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", POLITE.format(signal="TERM")]))
    pid = box.state().pid
    box.restart()
    state = box.state()
    assert (state.status, state.exit_code, state.restarts, state.finished_ns) == ("running", 0, 0, 0)
    assert state.pid != pid
    assert gone(pid)
    assert [line.text for line in box.logs()][:2] == [b"ready", b"asked"]


# --- with its parent

PARENT = """
import sys, time
from pyengine import Engine
with Engine(sys.argv[1], sys.argv[2]) as engine:
    box = engine.containers.create(sys.argv[3], ["sleep", "1000"], name="child", die_with_parent=sys.argv[4] == "die")
    box.start()
    print(box.state().pid, flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("word", ["die", "live"])
def test_a_container_dies_with_its_parent_if_it_was_told_to(engine: Engine, word: str) -> None:
    arguments = [sys.executable, "-c", PARENT, engine.root, engine.run_root, IMAGE, word]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        box = engine.containers.get("child")
        assert box.status == "running"
        parent.kill()
    if word == "die":
        assert box.wait(10) == 137
        assert gone(pid)
    else:
        time.sleep(0.1)
        assert (box.status, gone(pid)) == ("running", False)


# --- by itself


def test_what_is_to_be_removed_goes_when_it_ends(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["sh", "-c", "mkdir -p /a/b; head -c 100000 /dev/zero > /a/b/c"], rm=True)
    box.start()
    assert eventually(lambda: not engine.containers.exists(box.id))
    assert eventually(lambda: left_over(engine) == [])


def test_what_is_to_be_removed_goes_when_it_is_stopped(engine: Engine) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", POLITE.format(signal="TERM")], rm=True))
    box.stop()
    assert eventually(lambda: not engine.containers.exists(box.id))
    assert eventually(lambda: left_over(engine) == [])


def test_what_is_to_be_removed_goes_when_no_engine_is_there(tmp_path: Path) -> None:
    places = f"{tmp_path}/root", f"{tmp_path}/run"
    with Engine(*places) as engine:
        import_image(engine)
        engine.containers.create(IMAGE, ["sh", "-c", "touch /x; sleep 0.3"], rm=True, name="box").start()
    with Engine(*places) as engine:
        try:
            assert engine.containers.get("box").status == "running"
            assert eventually(lambda: not engine.containers.exists("box"))
            assert eventually(lambda: left_over(engine) == [])
        finally:
            engine.reset()


def test_what_is_to_be_removed_goes_when_its_start_fails(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["/no/such"], rm=True)
    with pytest.raises(StartFailed, match="/no/such"):
        box.start()
    assert not engine.containers.exists(box.id)


def test_a_run_that_is_to_be_removed_by_itself_gives_its_result(engine: Engine) -> None:
    result = sh(engine, "echo x; exit 3", rm=True)
    assert (result.exit_code, result.stdout) == (3, b"x\n")
    with pytest.raises(ContainerNotFound):
        engine.containers.get(result.container_id)


# --- restart policies


def count(engine: Engine, policy: str, code: int) -> Container:
    box = engine.containers.create(IMAGE, ["sh", "-c", f"echo run >> /runs; exit {code}"], restart=policy)
    box.start()
    return box


def runs(engine: Engine, box: Container) -> int:
    with open(f"{engine.root}/containers/{box.id}/upper/runs") as file:
        return len(file.read().splitlines())


def test_on_failure_counts(engine: Engine) -> None:
    box = count(engine, "on-failure:3", 5)
    assert box.wait(20) == 5
    state = box.state()
    assert (state.status, state.restarts, runs(engine, box)) == ("exited", 3, 4)


def test_on_failure_does_not_restart_a_success(engine: Engine) -> None:
    box = count(engine, "on-failure", 0)
    assert box.wait(10) == 0
    assert (box.state().restarts, runs(engine, box)) == (0, 1)


def test_always_restarts_a_success_until_it_is_stopped(engine: Engine) -> None:
    box = count(engine, "always", 0)
    assert eventually(lambda: box.state().restarts >= 2)
    box.stop(1)
    assert box.status == "exited"
    seen = runs(engine, box)
    assert seen >= 2
    assert not eventually(lambda: runs(engine, box) != seen, 0.5)


def test_no_restart_after_stop(engine: Engine) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", POLITE.format(signal="TERM")], restart="always"))
    box.stop()
    state = box.state()
    assert (state.status, state.exit_code, state.restarts) == ("exited", 7, 0)
    assert not eventually(lambda: box.status != "exited", 0.3)


def test_a_start_after_stop_has_its_policy_again(engine: Engine) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", POLITE.format(signal="TERM")], restart="on-failure:1"))
    box.stop()
    box.start()
    assert eventually(lambda: len(list(box.logs())) >= 3)
    box.exec(["kill", "-TERM", "1"])
    assert eventually(lambda: box.state().restarts == 1)
    assert box.status == "running"


def test_a_signal_of_kill_ends_it_for_good(engine: Engine) -> None:
    # containers.md 8.3: a policy is for what ends when nobody called stop or kill
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", POLITE.format(signal="TERM")], restart="always"))
    box.kill()
    assert box.wait(10) == 137
    assert not eventually(lambda: box.status != "exited", 0.3)


def test_the_container_is_the_same_in_each_run(engine: Engine) -> None:
    box = engine.containers.create(
        IMAGE, ["sh", "-c", "hostname; cat /proc/1/cgroup; ls /proc/self/fd; exit 1"], restart="on-failure:1"
    )
    box.start()
    assert box.wait(10) == 1
    lines = [line.text for line in box.logs()]
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    assert len(lines) > 6


def test_policies_that_cannot_be(engine: Engine) -> None:
    for policy in ("sometimes", "on-failure:x", "on-failure:-1", "no:3"):
        with pytest.raises(InvalidValue, match="restart policy"):
            engine.containers.create(IMAGE, ["true"], restart=policy)
    with pytest.raises(InvalidValue, match="contradict each other"):
        engine.containers.create(IMAGE, ["true"], restart="always", rm=True)


# --- the monitor


def test_a_container_outlives_its_monitor(engine: Engine) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", "echo ready; exec sleep 1000"]))
    state = box.state()
    os.kill(state.monitor_pid, signal.SIGKILL)
    assert eventually(lambda: gone(state.monitor_pid))
    assert box.status == "running"
    assert box.exec(["true"]).exit_code == 0
    box.stop()
    after = box.state()
    assert (after.status, after.exit_code, after.error) == ("exited", -1, "the monitor was killed")
    box.start()
    assert box.status == "running"


@pytest.mark.parametrize("kind", ["removed", "started"])
def test_what_a_killed_monitor_left_is_cleared_away(engine: Engine, kind: str) -> None:
    box = ready(engine.containers.create(IMAGE, ["sh", "-c", "echo ready; exec sleep 1000"]))
    state = box.state()
    os.kill(state.monitor_pid, signal.SIGKILL)
    os.kill(state.pid, signal.SIGKILL)
    assert eventually(lambda: box.status == "exited")
    if kind == "removed":
        box.remove()
    else:
        box.start()
        assert box.status == "running"
