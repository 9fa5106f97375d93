"""The facts in a run directory: read as they are, corrected where they cannot be true any more."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue
from pyengine.linux.process import ProcessId
from pyengine.runtime.state import MONITOR_KILLED, PHASES, Failure, State, parse_error, parse_state, read_state

LINE = "phase={} monitor={} pid={} created=1 started=2 finished=3 code=4 oom=1 restarts=5\n"
times = st.integers(0, 1 << 62)
processes = st.builds(ProcessId, st.integers(1, 1 << 22), times)


def line(state: State) -> str:
    def process(value: ProcessId | None) -> str:
        return f"{value.pid}:{value.start_time}" if value else "0:0"

    return (
        f"phase={state.phase} monitor={process(state.monitor)} pid={process(state.pid)} created={state.created_ns} "
        f"started={state.started_ns} finished={state.finished_ns} code={state.exit_code} oom={int(state.oom_killed)} "
        f"restarts={state.restarts}\n"
    )


@given(
    st.builds(
        State,
        phase=st.sampled_from(PHASES[1:]),
        monitor=processes | st.none(),
        pid=processes | st.none(),
        created_ns=times,
        started_ns=times,
        finished_ns=times,
        exit_code=st.integers(-1, 255),
        oom_killed=st.booleans(),
        restarts=st.integers(0, 1 << 31),
        error=st.just(""),
    )
)
def test_a_state_survives_writing_and_reading(state: State) -> None:
    assert parse_state(line(state)) == state


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
@example("")
@example(LINE.format("running", "1:1", "²:1"))
@example(LINE.format("running", "1:1", "1_0:1"))
@example(LINE.format("running", "1:1", "-5:1"))
@example(LINE.format("running", "1:1", "99999999:1"))
@example(LINE.format("running", "1:1", "1"))
@example(LINE.format("asleep", "1:1", "1:1"))
@example(LINE.format("running", "1:1", "1:1").replace("oom=1", "oom=2"))
@example(LINE.format("running", "1:1", "1:" + "9" * 5000))
def test_anything_else_is_refused_as_that(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_state(text)


@given(st.integers(0, 9999), st.integers(0, 9999), st.text(), st.text())
def test_an_error_survives_writing_and_reading(step: int, errno: int, detail: str, subject: str) -> None:
    detail = detail.replace("\n", "")
    failure = Failure(step, 40, 44, errno, detail, subject.removesuffix("\n"))
    assert parse_error(f"{step} 40 44 {errno} {detail}\n{failure.subject}\n") == failure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 5 44 2 \nfoo\n", "execute foo: No such file or directory (step 5 of 5)"),
        ("5 6 43 20 \n/w\n", "change into /w: Not a directory (step 5 of 6)"),
        ("5 6 37 2 no such user\n\n", "look up user root: No such file or directory (no such user) (step 5 of 6)"),
        ("5 6 12 1 \n\n", "set the container up: Operation not permitted (step 5 of 6)"),
        ("0 6 0 28 open the log\n\n", "set the container up: No space left on device (open the log)"),
    ],
)
def test_an_error_reads_like_one(text: str, expected: str) -> None:
    assert parse_error(text).describe() == expected


@pytest.mark.parametrize("text", ["", "1 2 3 4", "a b c d e", "1 2 3 x e"])
def test_no_error(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_error(text)


def own() -> str:
    me = ProcessId.own()
    return f"{me.pid}:{me.start_time}"


def dead() -> str:
    program = subprocess.Popen(["true"])
    me = ProcessId.of(program.pid)
    program.wait()
    assert me is not None
    return f"{me.pid}:{me.start_time}"


def test_nothing_was_ever_started(tmp_path: Path) -> None:
    assert read_state(str(tmp_path)) == State()
    assert read_state(str(tmp_path / "missing")) == State()
    assert not State().monitor_alive
    assert not State().process_alive


def test_a_living_monitor_is_believed(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(LINE.format("running", own(), dead()))
    state = read_state(str(tmp_path))
    assert (state.phase, state.monitor_alive, state.process_alive) == ("running", True, False)


@pytest.mark.parametrize("phase", ["created", "running", "restarting"])
def test_when_monitor_and_process_are_gone_it_has_ended_somehow(tmp_path: Path, phase: str) -> None:
    (tmp_path / "state").write_text(LINE.format(phase, dead(), dead()))
    state = read_state(str(tmp_path))
    assert (state.phase, state.exit_code, state.pid, state.error) == ("exited", -1, None, MONITOR_KILLED)


def test_a_process_that_outlives_its_monitor_still_runs(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(LINE.format("running", dead(), own()))
    state = read_state(str(tmp_path))
    assert (state.phase, state.monitor_alive, state.process_alive) == ("running", False, True)


def test_a_pid_that_was_given_away_again_is_another_process(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(LINE.format("running", f"{os.getpid()}:1", f"{os.getpid()}:2"))
    assert read_state(str(tmp_path)).phase == "exited"


def test_what_has_ended_stays_ended(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(LINE.format("exited", dead(), "0:0"))
    state = read_state(str(tmp_path))
    assert (state.phase, state.exit_code, state.error, state.oom_killed) == ("exited", 4, "", True)


def test_a_failed_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(LINE.format("failed", dead(), "0:0"))
    assert read_state(str(tmp_path)).error == "the start failed"
    (tmp_path / "error").write_text("5 5 44 2 \nfoo\n")
    assert read_state(str(tmp_path)).error == "execute foo: No such file or directory (step 5 of 5)"
    (tmp_path / "error").write_text("?")
    assert read_state(str(tmp_path)).error == "not the error of a container: '?'"


def test_a_damaged_state_is_no_exception(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"\xff\x00")
    state = read_state(str(tmp_path))
    assert (state.phase, state.exit_code) == ("exited", -1)
    assert state.error.startswith("not the state of a container: ")
