"""Images by the command line: archives in and out, piped and from files, and interrupted half-way."""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import termios
from pathlib import Path
from typing import IO

import pytest
from cli import Cli
from engines import eventually, root_tar

from pyengine import Engine


@pytest.fixture
def cli(own_engine: Engine) -> Cli:
    return Cli(own_engine)


@pytest.fixture
def tarball(tmp_path: Path) -> str:
    path = tmp_path / "root.tar"
    path.write_bytes(root_tar())
    return str(path)


def test_an_image_goes_in_out_and_in_again(cli: Cli, tarball: str, tmp_path: Path) -> None:
    id = cli.out("import", "--change", "CMD=/bin/true", "-m", "of a test", tarball, "localhost/box:1")
    assert len(id) == 64
    assert cli.out("images", "-q", "--no-trunc") == f"sha256:{id}"
    cli.out("tag", "box:1", "box:2", "example.com/x/y")
    table = cli.out("images").splitlines()
    assert table[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert sorted(line.split()[0] for line in table[1:]) == ["example.com/x/y", "localhost/box", "localhost/box"]
    assert cli.out("run", "--rm", "box:1") == ""
    archive = f"{tmp_path}/image.tar"
    cli.out("save", "-o", archive, "box:1")
    piped = cli("save", "--format=oci-archive", "box:1")
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert cli.out("rmi", "-f", id).splitlines()[-1] == f"Deleted: {id}"
    assert cli.out("images", "-q") == ""
    assert cli.out("load", "-i", archive) == "Loaded image(s): localhost/box:1"
    assert cli.out("rmi", "box:1") == f"Untagged: localhost/box:1\nDeleted: {id}"
    assert cli.out("load", input=piped.stdout) == "Loaded image(s): localhost/box:1"
    assert cli.out("run", "--rm", "box:1", "echo", "works") == "works"
    document = json.loads(cli.out("images", "--format=json"))[0]
    assert (document["id"], document["names"]) == (id, ["localhost/box:1"])
    assert cli.out("rmi", "-a").splitlines()[-1] == f"Deleted: {id}"


def test_an_image_that_is_used_stays(cli: Cli, tarball: str) -> None:
    id = cli.out("import", tarball, "localhost/box:1")
    container = cli.out("create", "box:1", "true")
    used = cli("rmi", "box:1")
    assert (used.returncode, used.stdout) == (2, b"")
    assert b"Error: " in used.stderr
    unknown = cli("rmi", "nope")
    assert (unknown.returncode, unknown.stderr.count(b"Error: ")) == (1, 1)
    cli.out("rm", container)
    assert cli.out("rmi", "box:1").endswith(f"Deleted: {id}")


@pytest.mark.parametrize("data", [b"", b"no archive at all", root_tar()[:100_000]])
def test_a_broken_archive_is_one_error_and_leaves_nothing(cli: Cli, own_engine: Engine, data: bytes) -> None:
    for command in (["load"], ["import", "-"]):
        if command == ["import", "-"] and not data:
            continue  # an empty tarball is an empty root file system
        done = cli(*command, input=data)
        assert (done.returncode, done.stdout) == (125, b""), done
        assert done.stderr.startswith(b"Error: ")
        assert done.stderr.count(b"\n") == 1
    assert own_engine.images.list() == []
    assert _work_under_way(own_engine) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", [["load"], ["import", "-"]])
def test_an_interrupted_transfer_leaves_nothing(
    cli: Cli, own_engine: Engine, command: list[str], number: signal.Signals, code: int
) -> None:
    with cli.start(*command) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(root_tar()[:500_000])  # and then no more: it waits in the middle
        process.stdin.flush()
        assert eventually(lambda: _unread(process.stdin) == 0)
        process.send_signal(number)
        assert process.wait(20) == code
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
        process.stdin.close()
    assert _work_under_way(own_engine) == []
    assert own_engine.images.list() == []
    assert os.listdir(f"{own_engine.root}/layers") == []


def test_progress_is_shown_on_a_terminal_and_gone_afterwards(cli: Cli, tarball: str) -> None:
    with cli.terminal("import", tarball, "localhost/box:1", columns=100) as terminal:
        assert terminal.wait() == 0
        assert b"Importing" in terminal.seen or b"localhost/box:1" in terminal.seen
        assert b"layer" in terminal.seen
    with cli.terminal("import", "-q", tarball, "localhost/box:2", columns=100) as terminal:
        assert terminal.wait() == 0
        assert len(terminal.seen.strip()) == 64


def _unread(pipe: IO[bytes]) -> int:
    """Bytes in a pipe that the other side has not read yet."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def _work_under_way(engine: Engine) -> list[str]:
    directory = f"{engine.root}/tmp"
    return os.listdir(directory) if os.path.isdir(directory) else []
