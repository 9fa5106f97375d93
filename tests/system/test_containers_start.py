"""Starting: exit codes, and the exact words for what cannot be started."""

from __future__ import annotations

import errno
import io
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import leaks
import pytest
from engines import IMAGE, import_image, out, root_tar, sh

from pyengine import Engine
from pyengine.errors import InvalidValue, StartFailed, StepError

pytestmark = pytest.mark.rootless


@pytest.mark.parametrize("code", [0, 1, 3, 125, 126, 127, 128, 137, 254, 255])
def test_the_exit_code_is_the_commands(engine: Engine, code: int) -> None:
    assert sh(engine, f"exit {code}").exit_code == code


@pytest.mark.parametrize(("name", "number"), [("HUP", 1), ("INT", 2), ("KILL", 9), ("SEGV", 11), ("TERM", 15)])
def test_a_signal_ends_with_128_and_its_number(engine: Engine, name: str, number: int) -> None:
    # The first process of a pid namespace gets no signal from inside that it did not ask for: from outside it does.
    box = engine.containers.create(IMAGE, ["sleep", "100"])
    box.start()
    if name == "KILL":
        box.kill(name)
    else:
        # what sleep has no handler for only SIGKILL can do to a first process, so a child has to show the others
        assert box.exec(["sh", "-c", f"kill -{name} $$"]).exit_code == 128 + number
        box.kill()
    assert box.wait(10) == 128 + 9


EXECUTION_ERRORS = {
    "missing": (["/no/such"], 127, "execute /no/such: No such file or directory"),
    "missing in PATH": (["nosuch"], 127, "execute nosuch: No such file or directory"),
    "not executable": (["/etc/passwd"], 126, "execute /etc/passwd: Permission denied"),
    "a directory": (["/etc"], 126, "execute /etc: Permission denied"),
    "below a file": (["/etc/passwd/x"], 127, "execute /etc/passwd/x: Not a directory"),
    "a NUL format": (["/data/junk"], 126, "execute /data/junk: Exec format error"),
    "a script without its interpreter": (["/data/script"], 127, "execute /data/script: No such file or directory"),
}


@pytest.fixture(scope="module")
def odd_files(shared_store: Path) -> Iterator[str]:
    """An image with files that cannot be executed."""
    name = "localhost/odd:test"
    extra = (("data/junk", b"\x7fELF, or rather not"), ("data/script", b"#!/no/such/interpreter\n"))
    with Engine(f"{shared_store}/root", f"{shared_store}/run") as engine:
        import_image(engine, name, extra)
    yield name
    with Engine(f"{shared_store}/root", f"{shared_store}/run") as engine:
        engine.images.remove(name)


@pytest.mark.parametrize("case", EXECUTION_ERRORS)
def test_a_command_that_cannot_be_executed(engine: Engine, odd_files: str, case: str) -> None:
    command, code, text = EXECUTION_ERRORS[case]
    groups = leaks.cgroups()
    box = engine.containers.create(odd_files, command)
    with pytest.raises(StartFailed) as caught:
        box.start()
    assert caught.value.exit_code == code
    assert re.fullmatch(re.escape(text) + r"( \(.*\))? \(step (\d+) of \2\)", str(caught.value))
    assert box.status == "configured"
    assert (box.state().error, os.listdir(f"{engine.run_root}/containers")) == ("", [])
    assert leaks.cgroups() == groups


def test_a_failed_start_can_be_tried_again(engine: Engine) -> None:
    box = engine.containers.create(IMAGE, ["/tmp/later"])
    for _ in range(2):
        with pytest.raises(StartFailed, match="/tmp/later"):
            box.start()
    assert box.status == "configured"


def test_an_empty_command_is_refused_when_it_is_created(engine: Engine) -> None:
    with pytest.raises(InvalidValue, match="the command is an empty word"):
        engine.containers.create(IMAGE, [""])


def test_there_has_to_be_a_command(engine: Engine) -> None:
    with pytest.raises(InvalidValue, match="no command: neither the request nor the image says what to run"):
        engine.containers.create(IMAGE, entrypoint="")


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("nobody", "no such user in the container's /etc/passwd"),
        ("ann:nogroup", "no such group in the container's /etc/group"),
        ("0:nogroup", "no such group in the container's /etc/group"),
    ],
)
def test_an_unknown_user_is_126(engine: Engine, user: str, reason: str) -> None:
    with pytest.raises(StartFailed) as caught:
        sh(engine, "true", user=user)
    assert caught.value.exit_code == 126
    assert str(caught.value).startswith(f"look up user {user}: No such file or directory ({reason}) (step ")


@pytest.mark.parametrize("user", ["4294967295", "2147483648", "0:4294967295", "-1", "a:b:c", "ann:"])
def test_a_user_that_cannot_be_is_refused_when_it_is_created(engine: Engine, user: str) -> None:
    # CVE-2024-40635: an id that overflowed became 0
    with pytest.raises(InvalidValue, match=r"^user "):
        engine.containers.create(IMAGE, ["true"], user=user)


def test_a_missing_working_directory_is_made(engine: Engine) -> None:
    assert out(engine, "pwd; stat -c '%u %a' .", workdir="/var/made/for it") == "/var/made/for it\n0 755"


def test_a_working_directory_that_is_a_file(engine: Engine) -> None:
    with pytest.raises(StepError, match=r"^make directory /etc/passwd: Not a directory") as caught:
        sh(engine, "true", workdir="/etc/passwd")
    assert caught.value.errno == errno.ENOTDIR


def test_a_working_directory_through_a_symbolic_link_stays_inside(engine: Engine, tmp_path: Path) -> None:
    # CVE-2024-45310, CVE-2026-55686: the directory was made on the host
    outside = tmp_path / "outside"
    archive = io.BytesIO(root_tar())
    with tarfile.open(fileobj=archive, mode="a") as tar:
        for name, target in (("link", f"{tmp_path}"), ("up", f"../../../../../../../../../..{tmp_path}")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    archive.seek(0)
    image = engine.images.import_(archive, "localhost/links:test")
    try:
        for link in ("link", "up"):
            result = engine.containers.run("localhost/links:test", ["/bin/pwd"], workdir=f"/{link}/outside")
            assert result.stdout.decode() == f"{outside}\n"
    finally:
        engine.images.remove(image.id, force=True)
    assert not outside.exists()


@pytest.mark.parametrize("workdir", [f"/proc/self/fd/{number}" for number in range(3, 12)])
def test_the_working_directory_cannot_be_a_descriptor_of_the_engine(engine: Engine, workdir: str) -> None:
    # CVE-2024-21626: a descriptor of a directory of the host was still open when the command was changed into
    with pytest.raises((StartFailed, StepError)) as caught:
        sh(engine, "pwd; ls", workdir=workdir)
    assert workdir in str(caught.value)


def test_the_entrypoint_comes_before_the_command(engine: Engine) -> None:
    result = engine.containers.run(IMAGE, ["a b", "$HOME"], entrypoint=["echo", "-n"])
    assert result.stdout == b"a b $HOME"
