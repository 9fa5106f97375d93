"""The command line over real containers, piped: output, exit codes, signals, the life of a container."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli import Cli
from engines import eventually

from pyengine import Engine

TRAP = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def cli(engine: Engine) -> Cli:
    return Cli(engine)


def test_run_passes_output_and_exit_code_on(cli: Cli, image: str) -> None:
    done = cli("run", "--rm", image, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert cli.out("ps", "-aq") == ""


def test_run_without_rm_leaves_the_container(cli: Cli, image: str) -> None:
    assert cli.out("run", "--name=box", image, "true") == ""
    row = cli.out("ps", "-a").splitlines()[1]
    assert "Exited (0)" in row
    assert row.endswith("box")
    assert json.loads(cli.out("ps", "-a", "--format", "json"))[0]["State"] == "exited"


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["IMAGE", "nope"], 127, "nope"),
        (["IMAGE", "/etc/passwd"], 126, "Permission denied"),
        (["--pid=host", "IMAGE", "sh", "-c", "kill -9 $$"], 137, ""),
        (["no/such/image", "true"], 125, "no such image"),
        (["--memory=lots", "IMAGE", "true"], 125, "memory: size 'lots'"),
        (["--frobnicate", "IMAGE", "true"], 125, "No such option '--frobnicate'"),
        (["--network=mynet", "IMAGE", "true"], 125, "network 'mynet'"),
    ],
)
def test_exit_codes_tell_who_failed(cli: Cli, image: str, args: list[str], code: int, text: str) -> None:
    done = cli("run", "--rm", *(image if word == "IMAGE" else word for word in args))
    assert (done.returncode, done.stdout) == (code, b"")
    assert text in done.stderr.decode()
    if code != 137:
        assert done.stderr.startswith(b"Error: ")
    assert cli.out("ps", "-aq") == ""


def test_stdin_goes_in_only_when_asked_for(cli: Cli, image: str) -> None:
    assert cli.out("run", "--rm", "-i", image, "cat", input=b"hello\n") == "hello"
    assert cli.out("run", "--rm", image, "cat", input=b"hello\n") == ""


def test_a_closed_stdin_is_an_empty_one(cli: Cli, image: str) -> None:
    script = '"$@" <&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *cli.prefix, "run", "--rm", "-i", image, "cat"], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("args", [["wait", "box"], ["logs", "-f", "box"], ["attach", "--sig-proxy=false", "box"]])
def test_ctrl_c_ends_what_waits_without_a_word(cli: Cli, engine: Engine, image: str, args: list[str]) -> None:
    cli.out("run", "-d", "--name=box", image, "sh", "-c", "while :; do echo x; sleep 0.05; done")
    with cli.start(*args) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if args[0] == "wait":
            assert eventually(lambda: _has_a_socket(process.pid))
        else:
            assert process.stdout.readline() == b"x\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == b""
    assert engine.containers.get("box").status == "running"


def _has_a_socket(pid: int) -> bool:
    """Whether it is connected to a monitor."""
    directory = f"/proc/{pid}/fd"
    return any(os.readlink(f"{directory}/{name}").startswith("socket:") for name in os.listdir(directory) if name > "2")


def test_replace_takes_the_name_over(cli: Cli, image: str) -> None:
    first = cli.out("run", "-d", "--name=box", image, "sleep", "1000")
    assert cli("create", "--name=box", image).returncode == 125
    second = cli.out("create", "--replace", "--name=box", image)
    assert second != first
    assert cli.out("ps", "-aq", "--no-trunc") == second


def test_much_goes_through_both_ways_at_once(cli: Cli, image: str) -> None:
    data = os.urandom(1 << 20) * 8
    done = cli("run", "--rm", "-i", image, "cat", input=data)
    assert done.returncode == 0
    assert done.stdout == data


def test_a_pipe_s_bytes_are_no_detach_keys(cli: Cli, image: str) -> None:
    assert cli("run", "--rm", "-i", image, "cat", input=b"a\x10\x11b").stdout == b"a\x10\x11b"


def test_a_reader_that_goes_away_ends_it_quietly(cli: Cli, engine: Engine, image: str) -> None:
    with cli.start("run", "--name=endless", image, "yes") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""
    assert engine.containers.get("endless").status == "running"


def test_signals_go_on_to_the_container(cli: Cli, image: str) -> None:
    with cli.start("run", "--rm", image, "sh", "-c", TRAP) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got it\n"
        assert process.wait(30) == 7
    assert cli.out("ps", "-aq") == ""


def test_without_the_proxy_a_signal_leaves_the_container_running(cli: Cli, engine: Engine, image: str) -> None:
    with cli.start("run", "--name=box", "--sig-proxy=false", image, "sh", "-c", TRAP) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert engine.containers.get("box").status == "running"


def test_the_life_of_a_container(cli: Cli, image: str) -> None:
    id = cli.out("run", "-d", "--name=box", "-l", "a=b", image, "sh", "-c", TRAP)
    assert cli.out("ps", "-q", "--no-trunc") == id
    assert eventually(lambda: cli.out("logs", "box") == "ready")
    assert cli.out("exec", "box", "hostname") == id[:12]
    assert cli.out("pause", "box") == id
    assert cli.out("ps", "-a", "--format", "{{.Status}}") == "Paused"
    assert cli("rm", "box").returncode == 2
    assert cli.out("unpause", "-a") == id
    assert cli.out("stop", "-t", "20", "box") == id
    assert cli.out("stop", "box") == id
    assert cli.out("wait", "box") == "7"
    assert cli.out("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "box") == "exited 7"
    assert cli.out("start", "box") == id
    assert cli.out("kill", id[:6]) == id
    assert cli.out("wait", "box") == "137"
    assert cli.out("rm", "box") == id
    assert cli("rm", "box").returncode == 1


def test_created_then_started_with_its_streams(cli: Cli, image: str) -> None:
    id = cli.out("create", "-i", image, "sh", "-c", "cat; exit 5")
    assert cli.out("ps", "-a", "--format", "{{.Status}}") == "Created"
    done = cli("start", "-ai", id, input=b"text")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"text", b"")


def test_attach_shows_what_comes_and_returns_the_exit_code(cli: Cli, image: str) -> None:
    cli.out("run", "-di", "--name=box", image, "sh", "-c", "read line; echo got $line; exit 4")
    done = cli("attach", "box", input=b"it\n")
    assert (done.returncode, done.stdout, done.stderr) == (4, b"got it\n", b"")


def test_what_removes_itself_is_gone_however_its_end_was_seen(cli: Cli, engine: Engine, image: str) -> None:
    cli.out("run", "-di", "--rm", "--name=one", image, "sh", "-c", "read line; exit 4")
    assert cli("attach", "one", input=b"it\n").returncode == 4
    cli.out("create", "--rm", "--name=two", image, "sh", "-c", "exit 5")
    assert cli("start", "-a", "two").returncode == 5
    cli.out("run", "-d", "--rm", "--name=three", image, "true")
    cli.out("create", "--rm", "--name=four", image, "nope")
    assert cli("start", "four").returncode == 127
    assert eventually(lambda: engine.containers.list(all=True) == [])


def test_sizes_are_shown_when_asked_for(cli: Cli, image: str) -> None:
    cli.out("run", "--name=box", image, "sh", "-c", "head -c 5000000 /dev/zero > /big")
    heading, row = cli.out("ps", "-as").splitlines()
    assert heading.endswith("SIZE")
    assert re.search(r"  5(\.\d+)? MB \(virtual \d+(\.\d+)? MB\)$", row)
    sizes = json.loads(cli.out("ps", "-as", "--format=json"))[0]["Size"]
    assert 5_000_000 <= sizes["rwSize"] < 5_100_000
    assert sizes["rootFsSize"] > 1_000_000


def test_exec_has_streams_and_exit_codes_of_its_own(cli: Cli, image: str) -> None:
    cli.out("run", "-d", "--name=box", image, "sleep", "1000")
    done = cli("exec", "-i", "-e", "A=1", "-w", "/tmp", "box", "sh", "-c", "pwd; echo $A; cat; exit 6", input=b"in")
    assert (done.returncode, done.stdout, done.stderr) == (6, b"/tmp\n1\nin", b"")
    assert cli.out("exec", "-u", "ann", "box", "id", "-un") == "ann"
    assert cli("exec", "box", "nope").returncode == 127
    assert cli("exec", "box", "/etc/passwd").returncode == 126
    assert len(cli.out("exec", "-d", "box", "sh", "-c", "echo x > /tmp/made")) == 64
    assert eventually(lambda: cli("exec", "box", "cat", "/tmp/made").stdout == b"x\n")
    cli.out("rm", "-f", "box")


def test_logs_follow_until_the_end(cli: Cli, image: str) -> None:
    cli.out("run", "-d", "--name=box", image, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done; echo e >&2")
    done = cli("logs", "-f", "box")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n2\n3\n", b"e\n")
    assert (cli("logs", "--tail=2", "box").stdout, cli("logs", "--tail=1", "box").stdout) == (b"3\n", b"")
    assert cli("logs", "--since=1h", "--until", "10m", "box").stdout == b""


def test_files_of_ids(cli: Cli, engine: Engine, image: str, tmp_path: Path) -> None:
    id = cli.out("run", "-d", f"--cidfile={tmp_path}/cid", f"--pidfile={tmp_path}/pid", image, "sleep", "1000")
    assert (tmp_path / "cid").read_text() == id
    assert int((tmp_path / "pid").read_text()) == engine.containers.get(id).state().pid


def test_explain_and_inspect_read_well(cli: Cli, image: str) -> None:
    text = cli.out("explain", "--read-only", image, "sh", "-c", "echo explained")
    assert "echo explained" in text
    assert cli.out("ps", "-aq") == ""
    id = cli.out("create", image, "true")
    assert cli.out("explain", id)
    assert json.loads(cli.out("inspect", id))[0]["Id"] == id
    assert json.loads(cli.out("inspect", image))[0]["RepoTags"] == [image]


def test_version_and_info(cli: Cli) -> None:
    assert cli.out("--version").startswith("pyengine version ")
    assert json.loads(cli.out("version", "--format=json"))
    assert cli.out("version")
    assert json.loads(cli.out("info", "--format=json"))
    assert cli.out("info")


def test_what_costs_to_import_is_not_imported_when_piped(engine: Engine) -> None:
    heavy = {"rich", "yaml", "urllib3", "pyroute2", "asyncio", "varlink", "zstandard", "isal", "tarfile", "inspect"}
    script = (
        "import sys; from pyengine.cli.main import cli; "
        f"code = cli.run(['--root', {engine.root!r}, '--runroot', {engine.run_root!r}, 'ps']); "
        "print(*sorted(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "click" in loaded
    assert loaded & heavy == {"inspect"} & loaded  # click's own
