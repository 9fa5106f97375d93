"""stop, restart, kill, pause, unpause, wait, rm, ps, logs, inspect, against an engine of the test's own."""

from __future__ import annotations

import json
import time

import click
import pytest
from fake_engine import SECOND, Config, Engine, Line, State, wrong_state

from pyengine.cli.main import COMMANDS, cli
from pyengine.errors import AmbiguousName, CannotEnforce, InUse, InvalidValue

NOW = time.time_ns()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)  # however long the tests before this one took
    return Engine()


def ids(*containers: object) -> str:
    return "".join(f"{container.id}\n" for container in containers)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("args", "call"),
    [
        (["stop", "a"], ("a", "stop", None)),
        (["stop", "-t", "3", "a"], ("a", "stop", 3)),
        (["stop", "a", "--time=0"], ("a", "stop", 0)),
        (["stop", "--timeout", "7", "a"], ("a", "stop", 7)),
        (["restart", "a"], ("a", "restart", None)),
        (["restart", "-t5", "a"], ("a", "restart", 5)),
        (["kill", "a"], ("a", "kill", 9)),
        (["kill", "-s", "TERM", "a"], ("a", "kill", 15)),
        (["kill", "--signal=SIGUSR1", "a"], ("a", "kill", 10)),
        (["kill", "-s", "1", "a"], ("a", "kill", 1)),
        (["pause", "a"], ("a", "pause")),
        (["unpause", "a"], ("a", "unpause")),
        (["rm", "a"], ("a", "remove", False)),
        (["rm", "-f", "a"], ("a", "remove", True)),
        (["rm", "a", "--force"], ("a", "remove", True)),
        (["start", "a"], ("a", "start")),
    ],
)
def test_a_command_does_its_one_thing_and_prints_the_id(engine: Engine, args: list[str], call: tuple[object]) -> None:
    container = engine.add("a")
    result = engine.run(*args)
    assert (result.exit_code, result.stdout, engine.calls) == (0, ids(container), [call])
    assert engine.closed


def test_several_are_all_tried_and_each_failure_is_reported(engine: Engine) -> None:
    first, last = engine.add("a"), engine.add("c")
    engine.add("b", errors={"kill": wrong_state("exited")})
    result = engine.run("kill", "a", "nope", "b", "c")
    assert result.exit_code == 125
    assert result.stdout == ids(first, last)
    assert result.stderr == "Error: no container with name or ID 'nope' found: no such container\nError: it is exited\n"


def test_all_means_those_that_can_be_meant(engine: Engine) -> None:
    for name, status in (("r", "running"), ("p", "paused"), ("e", "exited"), ("c", "configured")):
        engine.add(name, status)

    def done(*args: str) -> set[str]:
        engine.calls.clear()
        assert engine.run(*args).exit_code == 0
        return {call[0] for call in engine.calls if call[0] != "list"}

    assert done("kill", "-a") == {"r"}
    assert done("pause", "--all") == {"r"}
    assert done("unpause", "-a") == {"p"}
    assert done("stop", "-a") == {"r"}
    assert done("restart", "--running") == {"r"}
    assert done("start", "--all") == {"e", "c"}
    assert done("rm", "-fa") == {"r", "p", "e", "c"}
    assert engine.containers.all == []


def test_latest_is_the_one_that_was_created_last(engine: Engine) -> None:
    engine.add("new", created_ns=50)
    engine.add("old", created_ns=10)
    assert engine.run("rm", "-l").exit_code == 0
    assert engine.calls[-1] == ("new", "remove", False)


def test_latest_of_nothing_is_an_error(engine: Engine) -> None:
    result = engine.run("stop", "-l")
    assert (result.exit_code, result.stderr) == (125, "Error: there is no container\n")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["stop"], "a container has to be named"),
        (["rm", "-a", "x"], "--all and names contradict each other"),
        (["kill", "-l", "x"], "--latest and names contradict each other"),
        (["kill", "-l", "-a"], "--all and --latest contradict each other"),
        (["stop", "-t", "-1", "x"], "-1 is not in the range"),
        (["kill", "-s", "NOPE", "x"], "NOPE"),
        (["wait"], "a container has to be named"),
        (["logs"], "a container has to be named"),
        (["inspect"], "name a container or an image"),
        (["inspect", "-l", "x"], "--latest and names contradict each other"),
        (["ps", "-f", "status"], "expected KEY=VALUE"),
        (["logs", "--since", "whenever", "x"], "time 'whenever'"),
        (["frobnicate"], "unknown command 'frobnicate'"),
        (["pss"], "did you mean ps?"),
        (["--log-level=loud", "ps"], "'loud' is not one of"),
    ],
)
def test_nonsense_is_refused_with_125(engine: Engine, args: list[str], text: str) -> None:
    engine.add("x", "running")
    result = engine.run(*args)
    assert result.exit_code == 125
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert text in result.stderr


def test_to_stop_what_has_ended_is_no_error(engine: Engine) -> None:
    ended = engine.add("a", errors={"stop": wrong_state("exited")})
    result = engine.run("stop", "a")
    assert (result.exit_code, result.stdout) == (0, ids(ended))


def test_to_stop_what_was_never_started_is_one(engine: Engine) -> None:
    engine.add("a", errors={"stop": wrong_state("configured")})
    result = engine.run("stop", "a")
    assert (result.exit_code, result.stdout, result.stderr) == (125, "", "Error: it is configured\n")


def test_to_start_what_runs_is_no_error(engine: Engine) -> None:
    container = engine.add("a", "running")
    result = engine.run("start", "a")
    assert (result.exit_code, result.stdout, engine.calls) == (0, ids(container), [])


def test_wait_prints_exit_codes_and_succeeds(engine: Engine) -> None:
    engine.add("a", state=State("exited", exit_code=3))
    engine.add("b", state=State("exited", exit_code=137))
    result = engine.run("wait", "a", "b")
    assert (result.exit_code, result.stdout) == (0, "3\n137\n")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["rm", "nope"], 1),
        (["rm", "nope", "a"], 125),
        (["rm", "running"], 2),
        (["rm", "a", "running"], 2),
        (["rm", "stuck"], 125),
        (["rm", "-f", "nope"], 1),
    ],
)
def test_rm_tells_unknown_and_running_apart(engine: Engine, args: list[str], code: int) -> None:
    engine.add("a")
    engine.add("running", "running", errors={"remove": wrong_state("running")})
    engine.add("stuck", errors={"remove": InUse("other containers need it")})
    assert engine.run(*args).exit_code == code


def test_an_ambiguous_prefix_is_an_error_of_its_own(engine: Engine) -> None:
    engine.add("a", errors={"kill": AmbiguousName("0", "several containers begin with 0")})
    result = engine.run("kill", "a")
    assert (result.exit_code, result.stderr) == (125, "Error: several containers begin with 0\n")


# --- ps


def list_some(engine: Engine) -> None:
    engine.add(
        "web",
        state=State("running", pid=9, started_ns=NOW - 190 * SECOND),
        created_ns=NOW - 7200 * SECOND,
        command=("httpd", "-f", "-p", "8080:8080"),
        labels={"a": "1"},
    )
    engine.add(
        "job",
        state=State("exited", exit_code=3, finished_ns=NOW - 3 * 86400 * SECOND),
        created_ns=NOW - 3 * 86400 * SECOND,
        image_name="docker.io/library/busybox:1",
    )
    engine.add("new", created_ns=NOW + 3600 * SECOND)  # a clock that was set back: never older than a second


def test_ps_shows_what_runs_in_podmans_columns(engine: Engine) -> None:
    list_some(engine)
    result = engine.run("ps")
    heading, row = result.stdout.splitlines()
    assert heading.split("  ")[0] == "CONTAINER ID"
    assert heading.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert row == (
        "010101010101  localhost/box:latest  httpd -f -p 8080:...  2 hours ago  Up 3 minutes ago         web"
    )
    assert heading.index("NAMES") == row.index("web")


def test_ps_all_shows_every_state_oldest_first(engine: Engine) -> None:
    list_some(engine)
    lines = engine.run("ps", "-a").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["NAMES", "job", "web", "new"]
    assert "Exited (3) 3 days ago" in lines[1]
    assert "Less than a second ago  Created" in lines[3]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State("running", started_ns=NOW - 5 * SECOND), "Up 5 seconds ago"),
        (State("exited", exit_code=137, finished_ns=NOW - 90 * SECOND), "Exited (137) About a minute ago"),
        (State("stopped", finished_ns=NOW - 5 * SECOND), "Exited (0) 5 seconds ago"),
        (State("paused"), "Paused"),
        (State("configured"), "Created"),
        (State("created"), "Created"),
        (State("unknown"), "Error"),
    ],
)
def test_a_state_is_described_in_podmans_words(engine: Engine, state: State, words: str) -> None:
    from pyengine.cli.commands.ps import describe_status

    assert describe_status(state, NOW) == words  # type: ignore[arg-type]


def test_ps_quiet_prints_ids(engine: Engine) -> None:
    list_some(engine)
    assert engine.run("ps", "-aq").stdout == "02" * 6 + "\n" + "01" * 6 + "\n" + "03" * 6 + "\n"
    assert engine.run("ps", "-q", "--no-trunc").stdout == "01" * 32 + "\n"


def test_ps_without_truncation_shows_ids_and_commands_in_full(engine: Engine) -> None:
    list_some(engine)
    text = engine.run("ps", "--no-trunc").stdout
    assert "01" * 32 in text
    assert "httpd -f -p 8080:8080" in text


def test_ps_last_and_latest_take_every_state(engine: Engine) -> None:
    list_some(engine)
    assert engine.run("ps", "-l", "--format", "{{.Names}}").stdout == "new\n"
    assert engine.run("ps", "-n", "2", "--format", "{{.Names}}").stdout == "web\nnew\n"
    assert engine.run("ps", "--last=9", "--format", "{{.Names}}").stdout == "job\nweb\nnew\n"


def test_ps_hands_filters_to_the_engine(engine: Engine) -> None:
    assert engine.run("ps", "-a", "-f", "label=a=b", "--filter", "label=c", "--filter=name=x").exit_code == 0
    assert engine.calls == [("list", True, {"label": ["a=b", "c"], "name": ["x"]})]


def test_a_filter_by_state_means_all_states(engine: Engine) -> None:
    engine.run("ps", "-f", "status=exited")
    assert engine.calls == [("list", True, {"status": ["exited"]})]


def test_ps_formats(engine: Engine) -> None:
    list_some(engine)
    assert engine.run("ps", "--format", r"{{.Names}}\t{{.Status}}").stdout == "web\tUp 3 minutes ago\n"
    assert engine.run("ps", "--format", '{{index .Labels "a"}}/{{.State}}/{{.Pid}}').stdout == "1/running/9\n"
    table = engine.run("ps", "-a", "--format", r"table {{.ID}}\t{{.ExitCode}}").stdout
    assert table.splitlines()[:2] == ["CONTAINER ID  EXIT CODE", "020202020202  3"]
    assert engine.run("ps", "--noheading").stdout.startswith("010101010101  ")


def test_ps_json_has_facts_and_not_words(engine: Engine) -> None:
    list_some(engine)
    job, web, new = json.loads(engine.run("ps", "-a", "--format", "json").stdout)
    assert web["Names"] == ["web"]
    assert web["Command"] == ["httpd", "-f", "-p", "8080:8080"]
    assert (web["State"], web["Pid"], web["ExitedAt"]) == ("running", 9, None)
    assert (job["ExitCode"], job["State"]) == (3, "exited")
    assert new["Created"] == NOW // SECOND + 3600
    assert json.loads(engine.run("ps", "--format", "{{json .Labels}}").stdout) == {"a": "1"}


def test_ps_size_asks_the_engine(engine: Engine) -> None:
    list_some(engine)
    lines = engine.run("ps", "-s").stdout.splitlines()
    assert lines[0].endswith("NAMES  SIZE")
    assert lines[1].endswith("1.5 kB (virtual 5.86 MB)")


def test_ps_sorts(engine: Engine) -> None:
    list_some(engine)
    assert engine.run("ps", "-a", "--sort", "names", "--format", "{{.Names}}").stdout == "job\nnew\nweb\n"
    assert engine.run("ps", "-a", "--sort", "image", "--format", "{{.Names}}").stdout.startswith("job\n")


def test_a_hostile_label_cannot_reach_the_terminal(engine: Engine) -> None:
    engine.add("a", "running", labels={"x": "\x1b[2J"}, command=("\x1b]0;t\x07",))
    for args in (["ps"], ["ps", "--format", "{{.Labels}}"], ["ps", "--format", "json"]):
        assert "\x1b" not in engine.run(*args).stdout


# --- logs


LINES = [
    Line("2026-01-01T00:00:01.000000000Z", "stdout", b"one"),
    Line("2026-01-01T00:00:03.000000000Z", "stderr", b"\xff three"),
    Line("2026-01-01T00:00:05.000000000Z", "stdout", b"five", partial=True),
]


def test_logs_come_out_as_they_went_in(engine: Engine) -> None:
    engine.add("a", lines=LINES)
    result = engine.run("logs", "a")
    assert result.stdout_bytes == b"one\nfive"
    assert result.stderr_bytes == b"\xff three\n"
    assert engine.calls == [("a", "logs", False, None, None)]


def test_logs_options_reach_the_engine(engine: Engine) -> None:
    engine.add("a")
    assert engine.run("logs", "-f", "--tail", "5", "--since", "2026-01-01T00:00:00Z", "a").exit_code == 0
    assert engine.calls == [("a", "logs", True, 1767225600 * SECOND, 5)]
    engine.run("logs", "--tail=0", "-l")
    assert engine.calls[-1] == ("a", "logs", False, None, 0)


def test_logs_until_ends_in_time(engine: Engine) -> None:
    engine.add("a", lines=LINES)
    result = engine.run("logs", "--follow", "--until", "2026-01-01T00:00:03Z", "a")
    assert result.stdout_bytes == b"one\n"
    assert result.stderr_bytes == b"\xff three\n"
    assert engine.calls[-1] == ("a", "logs", False, None, None)  # nothing that comes now can be early enough


def test_logs_can_have_times_and_names(engine: Engine) -> None:
    engine.add("a", lines=LINES[:1])
    assert engine.run("logs", "-t", "a").stdout == "2026-01-01T00:00:01.000000000Z one\n"
    assert engine.run("logs", "-tn", "a").stdout == "a 2026-01-01T00:00:01.000000000Z one\n"


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_logs_of_several_name_each_line_s_container(engine: Engine, follow: list[str]) -> None:
    engine.add("a", lines=[LINES[0], LINES[2]])
    engine.add("b", lines=[Line("2026-01-01T00:00:02Z", "stdout", b"two")])
    lines = engine.run("logs", *follow, "a", "b").stdout.splitlines()
    expected = ["010101010101 one", "020202020202 two", "010101010101 five"]
    assert sorted(lines) == sorted(expected)
    if not follow:
        assert lines == expected  # by the time of each line


def test_logs_of_several_fail_together(engine: Engine) -> None:
    engine.add("a", lines=LINES)
    engine.add("b", errors={"logs": InvalidValue("container b keeps no log")})
    result = engine.run("logs", "-f", "a", "b")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (125, "Error: container b keeps no log")


# --- inspect


def test_inspect_takes_containers_first_and_images_else(engine: Engine) -> None:
    from fake_engine import Image

    engine.add("box")
    engine.images.all = [Image("ab" * 32, ("localhost/box:1", "box"))]
    assert json.loads(engine.run("inspect", "box").stdout)[0]["Name"] == "box"
    assert json.loads(engine.run("inspect", "--type", "image", "box").stdout)[0]["Id"] == "ab" * 32
    both = json.loads(engine.run("inspect", "localhost/box:1", "box").stdout)
    assert [document["Id"] for document in both] == ["ab" * 32, "01" * 32]


def test_inspect_shows_what_it_found_and_reports_the_rest(engine: Engine) -> None:
    engine.add("box")
    result = engine.run("inspect", "nope", "box")
    assert (result.exit_code, len(json.loads(result.stdout))) == (125, 1)
    assert result.stderr == "Error: no container and no image is called 'nope'\n"
    result = engine.run("inspect", "--type=container", "nope")
    assert result.stderr == "Error: no container with name or ID 'nope' found: no such container\n"
    result = engine.run("inspect", "--type=image", "nope")
    assert result.stderr == "Error: unable to find 'nope' in local storage: no such image\n"


def test_inspect_formats_with_gos_names(engine: Engine) -> None:
    engine.add("box")
    assert engine.run("inspect", "-f", "{{.ID}} {{.State.Pid}} {{.State.Running}}", "box").stdout == (
        f"{'01' * 32} 7 false\n"
    )
    assert json.loads(engine.run("inspect", "--format", "json", "-l").stdout)[0]["Name"] == "box"
    assert json.loads(engine.run("inspect", "-s", "box").stdout)[0]["SizeRw"] == 1500
    result = engine.run("inspect", "-f", "{{.Nope}}", "box")
    assert (result.exit_code, result.stderr) == (
        125,
        "Error: format: no field .Nope: there are Id, Name, State, Args\n",
    )


# --- the outermost frame


def test_global_options_choose_the_store(engine: Engine) -> None:
    assert engine.run("--root", "/a", "--runroot=/b", "ps").exit_code == 0
    assert engine.opened_with == ("/a", "/b")


def test_an_unforeseen_error_is_one_line_and_a_hint(engine: Engine) -> None:
    engine.containers.list = lambda **_: 1 / 0  # type: ignore[method-assign]
    result = engine.run("ps")
    assert result.exit_code == 125
    assert result.stderr == (
        "Error: ZeroDivisionError: division by zero\nThis is a defect of pyengine: --log-level=debug shows where.\n"
    )
    assert "Traceback" not in result.stderr


def test_debugging_shows_where_an_error_came_from(engine: Engine) -> None:
    engine.containers.list = lambda **_: 1 / 0  # type: ignore[method-assign]
    result = engine.run("--log-level=debug", "ps")
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("Error: ZeroDivisionError: division by zero\n")


def test_an_error_of_the_kernel_keeps_its_words(engine: Engine) -> None:
    from pyengine.errors import KernelError

    engine.add("a", errors={"start": KernelError(28, "write /x", remedy="free some space")})
    result = engine.run("start", "a")
    assert (result.exit_code, result.stderr) == (125, "Error: write /x: No space left on device (free some space)\n")


def test_what_the_machine_cannot_give_is_said(engine: Engine) -> None:
    engine.add("a", "running", errors={"pause": CannotEnforce("cannot pause: no cgroup")})
    result = engine.run("pause", "a")
    assert (result.exit_code, result.stderr) == (125, "Error: cannot pause: no cgroup\n")


def test_a_reader_that_goes_away_is_no_error(engine: Engine) -> None:
    def gone(**_: object) -> list[object]:
        raise BrokenPipeError(32, "Broken pipe")

    engine.containers.list = gone  # type: ignore[assignment, method-assign]
    result = engine.run("ps")
    assert (result.exit_code, result.output) == (141, "")


def test_ctrl_c_is_no_traceback(engine: Engine) -> None:
    def interrupted(**_: object) -> list[object]:
        raise KeyboardInterrupt

    engine.containers.list = interrupted  # type: ignore[assignment, method-assign]
    result = engine.run("ps")
    assert (result.exit_code, result.output) == (130, "")


def test_config_of_the_fake_is_that_of_the_engine() -> None:
    from dataclasses import fields

    from pyengine.engine.config import ContainerConfig

    assert {field.name for field in fields(Config)} <= set(ContainerConfig.__struct_fields__)


def test_without_arguments_there_is_help(engine: Engine) -> None:
    result = engine.run()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: ")
    assert "  ps       List containers" in result.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_every_flag(engine: Engine, name: str) -> None:
    result = engine.run(name, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0].split()[2] == name
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, param.name
            assert all(option in result.stdout for option in param.opts)


def test_what_is_not_text_is_refused(engine: Engine) -> None:
    result = engine.run("run", "img", "echo", "\udcff")
    assert (result.exit_code, result.stderr) == (125, "Error: the argument b'\\xff' is not UTF-8\n")
    assert not engine.containers.created
