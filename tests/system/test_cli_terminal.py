"""The command line on a terminal: raw mode and back, sizes, detaching, and tables for people."""

from __future__ import annotations

import os
import signal

import pytest
from cli import Cli
from engines import eventually

from pyengine import Engine

DETACH = b"\x10\x11"  # ctrl-p, ctrl-q


@pytest.fixture
def cli(engine: Engine) -> Cli:
    return Cli(engine)


def test_a_shell_on_a_terminal_from_the_first_prompt_to_its_exit_code(cli: Cli, image: str) -> None:
    with cli.terminal("run", "--rm", "-it", image, "sh", rows=30, columns=100) as terminal:
        terminal.expect(rb"# ")
        assert terminal.is_raw
        terminal.type(b"tty; stty size\r")
        terminal.expect(rb"/dev/pts/0\r\n")
        terminal.expect(rb"30 100\r\n")
        terminal.resize(40, 120)
        terminal.expect(rb"# ")
        terminal.type(b"stty size; echo sized\r")
        terminal.expect(rb"40 120\r\nsized\r\n")
        terminal.type(b"exit 9\r")
        assert terminal.wait() == 9
        assert terminal.modes_are_restored
    assert cli.out("ps", "-aq") == ""


def test_keys_go_to_the_container_and_not_to_us(cli: Cli, image: str) -> None:
    with cli.terminal(
        "run", "--rm", "-it", image, "sh", "-c", "trap 'exit 5' INT; echo go; while :; do sleep 0.05; done"
    ) as t:
        t.expect(rb"go\r\n")
        t.type(b"\x03")  # ctrl-c: the terminal inside makes a signal of it
        assert t.wait() == 5
        assert t.modes_are_restored


def test_detach_leaves_it_running_and_attach_comes_back(cli: Cli, engine: Engine, image: str) -> None:
    with cli.terminal("run", "-it", "--name=box", image, "sh") as terminal:
        terminal.expect(rb"# ")
        terminal.type(b"export X=kept\r")
        terminal.expect(rb"# ")
        terminal.type(DETACH)
        assert terminal.wait() == 0
        assert terminal.modes_are_restored
    assert engine.containers.get("box").status == "running"
    with cli.terminal("attach", "box", rows=33, columns=44) as terminal:
        assert eventually(lambda: terminal.is_raw)
        terminal.type(b"echo $X; stty size\r")
        terminal.expect(rb"kept\r\n33 44\r\n")
        terminal.type(b"exit 3\r")
        assert terminal.wait() == 3
        assert terminal.modes_are_restored


def test_detach_keys_can_be_chosen(cli: Cli, engine: Engine, image: str) -> None:
    with cli.terminal("run", "-it", "--detach-keys=ctrl-a,d", "--name=box", image, "cat") as terminal:
        assert eventually(lambda: terminal.is_raw)
        terminal.type(b"x" + DETACH + b"\r")
        terminal.expect(rb"x\^P\r\n")  # ctrl-q is the inner terminal's own
        terminal.type(b"\x01d")
        assert terminal.wait() == 0
        assert terminal.modes_are_restored
    assert engine.containers.get("box").status == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_the_terminal_is_restored_when_a_signal_ends_us(
    cli: Cli, engine: Engine, image: str, number: signal.Signals
) -> None:
    with cli.terminal("run", "-it", "--sig-proxy=false", "--name=box", image, "sh") as terminal:
        terminal.expect(rb"# ")
        assert terminal.is_raw
        os.kill(terminal.process.pid, number)
        assert terminal.wait() == 128 + number
        assert terminal.modes_are_restored
    assert engine.containers.get("box").status == "running"


def test_the_terminal_is_restored_when_the_container_is_killed(cli: Cli, engine: Engine, image: str) -> None:
    with cli.terminal("run", "-it", "--name=box", image, "sh") as terminal:
        terminal.expect(rb"# ")
        engine.containers.get("box").kill()
        assert terminal.wait() == 137
        assert terminal.modes_are_restored


def test_a_failed_start_leaves_the_terminal_alone(cli: Cli, image: str) -> None:
    with cli.terminal("run", "--rm", "-it", image, "nope") as terminal:
        assert terminal.wait() == 127
        assert terminal.seen.startswith(b"Error: ")
        assert terminal.modes_are_restored


def test_exec_has_a_terminal_of_its_own(cli: Cli, image: str) -> None:
    cli.out("run", "-d", "--name=box", image, "sleep", "1000")
    with cli.terminal("exec", "-it", "box", "sh", rows=20, columns=70) as terminal:
        terminal.expect(rb"# ")
        terminal.type(b"stty size; tty\r")
        terminal.expect(rb"20 70\r\n/dev/pts/\d+\r\n")
        terminal.resize(21, 71)
        terminal.type(b"stty size; exit 4\r")
        terminal.expect(rb"21 71\r\n")
        assert terminal.wait() == 4
        assert terminal.modes_are_restored


def test_output_is_sent_without_a_terminal_as_it_is(cli: Cli, image: str) -> None:
    # with -t the container's terminal makes \r\n; without it nothing does
    assert cli("run", "--rm", image, "echo", "x").stdout == b"x\n"
    assert cli("run", "--rm", "-t", image, "echo", "x").stdout == b"x\r\n"


def test_tables_are_for_people_on_a_terminal_and_for_programs_in_a_pipe(cli: Cli, image: str) -> None:
    cli.out("create", "--name=box", image, "true")
    for columns in (200, 40):
        with cli.terminal("ps", "-a", columns=columns) as terminal:
            assert terminal.wait() == 0
            heading, row = terminal.seen.splitlines()
            assert b"\x1b[1m" in heading
            assert row.split()[-1] == b"box"  # in one line, however long, that can be copied
            assert image.encode() in row
    assert "\x1b" not in cli.out("ps", "-a")


def test_an_archive_is_not_written_to_a_terminal(cli: Cli, image: str) -> None:
    with cli.terminal("save", image) as terminal:
        assert terminal.wait() == 125
        assert b"an archive is not written to a terminal" in terminal.seen
    with cli.terminal("load") as terminal:
        assert terminal.wait() == 125
        assert b"a terminal is not an archive" in terminal.seen
