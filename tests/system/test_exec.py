"""Commands in running containers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import leaks
import pytest
from engines import IMAGE, ROOTLESS, eventually

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import ExecTimeout, InvalidState, InvalidValue, OutputTooLarge, StartFailed, WaitTimeout

pytestmark = pytest.mark.rootless

DEFAULT = "00000000a80425fb"
NONE = "0" * 16


@pytest.fixture
def box(engine: Engine) -> Iterator[Container]:
    """A container that runs."""
    with engine.containers.create(IMAGE, ["sleep", "1000"], env={"A": "1", "B": "2"}, workdir="/tmp") as box:
        box.start()
        yield box


def out(box: Container, script: str, **options: object) -> str:
    result = box.exec(["sh", "-c", script], **options)  # type: ignore[arg-type]
    assert (result.exit_code, result.stderr) == (0, b""), result
    return result.stdout.decode().removesuffix("\n")


@pytest.mark.parametrize("code", [0, 1, 125, 126, 127, 255])
def test_the_exit_code_is_the_commands(box: Container, code: int) -> None:
    result = box.exec(["sh", "-c", f"echo out; echo err >&2; exit {code}"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, b"out\n", b"err\n")


def test_a_signal_ends_with_128_and_its_number(box: Container) -> None:
    assert box.exec(["sh", "-c", "kill -9 $$"]).exit_code == 137


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["/no/such"], 127, "execute /no/such: No such file or directory"),
        (["nosuch"], 127, "execute nosuch: No such file or directory"),
        (["/etc/passwd"], 126, "execute /etc/passwd: Permission denied"),
        (["/etc"], 126, "execute /etc: Permission denied"),
    ],
)
def test_a_command_that_cannot_be_executed(box: Container, command: list[str], code: int, text: str) -> None:
    with pytest.raises(StartFailed) as caught:
        box.exec(command)
    assert caught.value.exit_code == code
    assert str(caught.value).startswith(text)
    assert box.status == "running"


def test_an_unknown_user_and_a_missing_directory(box: Container) -> None:
    with pytest.raises(StartFailed, match="look up user nobody: No such file or directory") as caught:
        box.exec(["true"], user="nobody")
    assert caught.value.exit_code == 126
    with pytest.raises(StartFailed, match="change into /no/such: No such file or directory") as caught:
        box.exec(["true"], workdir="/no/such")
    assert caught.value.exit_code == 127
    assert box.exec(["test", "-e", "/no/such"]).exit_code == 1
    for options in ({"user": "0:4294967296"}, {"workdir": "relative"}):
        with pytest.raises(InvalidValue):
            box.exec(["true"], **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="there is no command"):
        box.exec([])


def test_the_working_directory_cannot_be_a_descriptor_of_the_host(box: Container) -> None:
    # CVE-2024-21626
    for number in range(3, 16):
        with pytest.raises(StartFailed, match=f"change into /proc/self/fd/{number}"):
            box.exec(["pwd"], workdir=f"/proc/self/fd/{number}")


def test_environment_and_directory_are_the_containers_with_what_is_added(box: Container) -> None:
    assert out(box, "echo $A $B $C; pwd; hostname", env=["B=3", "C=4"]) == f"1 3 4\n/tmp\n{box.short_id}"
    assert out(box, "pwd", workdir="/etc") == "/etc"
    assert out(box, "echo $HOME $container $TERM", user="ann") == "/home/ann podman xterm"


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", "0 0 0"),
        ("ann", "1000 1000 29 1000"),
        ("ann:audio", "1000 29 29"),
        ("1000", "1000 1000 29 1000"),
        ("1000:1000", "1000 1000 1000"),
        ("0:audio", "0 29 29"),
        ("4321", "4321 0 0"),
        ("4321:1234", "4321 1234 1234"),
    ],
)
def test_users(box: Container, user: str, ids: str) -> None:
    uid, gid, *groups = out(box, "id -u; id -g; id -G", user=user).replace(" ", "\n").split()
    expected_uid, expected_gid, *expected_groups = ids.split()
    assert (uid, gid, set(groups) - {gid}) == (expected_uid, expected_gid, set(expected_groups) - {gid})


def sets(text: str) -> dict[str, str]:
    return {line[3:6]: line.split()[1] for line in text.splitlines() if line.startswith("Cap")}


def test_the_capabilities_of_root_and_of_users(box: Container) -> None:
    # CVE-2022-24769: inheritable capabilities were not empty
    assert sets(out(box, "grep Cap /proc/self/status")) == {
        "Inh": NONE, "Prm": DEFAULT, "Eff": DEFAULT, "Bnd": DEFAULT, "Amb": NONE
    }  # fmt: skip
    assert sets(out(box, "grep Cap /proc/self/status", user="ann")) == {
        "Inh": NONE, "Prm": NONE, "Eff": NONE, "Bnd": DEFAULT, "Amb": NONE
    }  # fmt: skip


def test_a_privileged_command_has_all_that_the_engine_can_give(box: Container, engine: Engine) -> None:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        every = (1 << (int(file.read()) + 1)) - 1
    with open("/proc/self/status") as file:
        granted = every if ROOTLESS else int(sets(file.read())["Bnd"], 16)
    found = sets(out(box, "grep Cap /proc/self/status", privileged=True))
    assert int(found["Eff"], 16) == int(found["Bnd"], 16) == granted
    assert out(box, "grep Seccomp: /proc/self/status", privileged=False).split()[1] == "2"


def test_what_was_added_and_dropped_holds_for_commands(engine: Engine) -> None:
    with engine.containers.create(IMAGE, ["sleep", "100"], cap_drop=["ALL"], cap_add=["NET_RAW"]) as box:
        box.start()
        found = sets(out(box, "grep Cap /proc/self/status"))
        assert (found["Eff"], found["Bnd"], found["Inh"]) == (f"{1 << 13:016x}", f"{1 << 13:016x}", NONE)
        found = sets(out(box, "grep Cap /proc/self/status", user="ann"))
        assert (found["Eff"], found["Amb"]) == (f"{1 << 13:016x}", f"{1 << 13:016x}")


def test_only_the_standard_descriptors_are_open(box: Container) -> None:
    # CVE-2016-9962, CVE-2024-21626; 3 is the listing's own
    assert out(box, "ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    assert out(box, "ls -l /proc/1/fd | grep -c /") == "1" or ROOTLESS


def test_a_command_is_where_the_container_is(box: Container) -> None:
    script = "for kind in cgroup ipc mnt net pid uts; do readlink /proc/{}/ns/$kind; done; cat /proc/{}/cgroup"
    mine, first = out(box, script.replace("{}", "self")), out(box, script.replace("{}", "1"))
    assert mine.splitlines()[:6] == first.splitlines()[:6]
    assert out(box, "grep ^NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj; ulimit -n") == out(
        box, "grep ^NoNewPrivs /proc/1/status; cat /proc/1/oom_score_adj; ulimit -n"
    )


def test_input_and_output_are_binary_and_large(box: Container) -> None:
    data = os.urandom(3_000_000)
    assert box.exec(["cat"], input=data).stdout == data
    assert box.exec(["cat"]).stdout == b""
    with pytest.raises(OutputTooLarge) as caught:
        box.exec(["sh", "-c", "yes | head -c 1001; exit 3"], output_limit=1000)
    assert (caught.value.limit, caught.value.exit_code) == (1000, 3)


def test_a_timeout_kills_the_command_with_all_that_it_started(box: Container) -> None:
    before = set(leaks.processes())
    script = "trap '' TERM HUP; (setsid sleep 2000 &) ; sleep 3000 & sleep 4000"
    with pytest.raises(ExecTimeout, match=r"^the command ran longer than 0\.3 seconds and was killed$"):
        box.exec(["sh", "-c", script], timeout=0.3)
    assert eventually(lambda: set(leaks.processes()) <= before)
    assert box.status == "running"


def test_commands_run_at_once(box: Container) -> None:
    results: list[bytes] = []

    def work(number: int) -> None:
        for _ in range(4):
            results.append(box.exec(["sh", "-c", f"cat; exit {number}"], input=bytes([65 + number]) * 9000).stdout)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(bytes([65 + number]) * 9000 for number in range(8) for _ in range(4))


@pytest.mark.parametrize("state", ["paused", "exited", "configured"])
def test_only_what_runs_takes_commands(engine: Engine, state: str) -> None:
    with engine.containers.create(IMAGE, ["sleep", "1000"], name="box") as box:
        if state != "configured":
            box.start()
        if state == "paused":
            box.pause()
        if state == "exited":
            box.stop(0)
        with pytest.raises(InvalidState) as caught:
            box.exec(["true"])
        assert caught.value.state == state
        assert str(caught.value) == f"cannot execute in container box: it is {state}"


def test_a_terminal(box: Container) -> None:
    result = box.exec(["sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo yes >&2; exit 3"], tty=True)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"/dev/pts/0\r\nyes\r\n", b"")


def test_a_terminal_is_resized(box: Container) -> None:
    with box.open_exec(["sh", "-c", "read x; stty size"], tty=True) as session:
        session.resize(33, 99)
        session.write(b"\n")
        text = b""
        while packet := session.read():
            text += packet[1]
        assert b"33 99\r\n" in text
        assert session.wait(10) == 0
        session.finish()


def test_a_session_goes_on_when_it_is_left(box: Container) -> None:
    session = box.open_exec(["sh", "-c", "read x; echo $x > /tmp/done; exec sleep 1000"])
    session.write(b"hello\n")
    session.close()
    assert eventually(lambda: box.exec(["cat", "/tmp/done"]).stdout == b"hello\n")
    assert eventually(lambda: "sleep 1000" in out(box, "ps -o args"))


def test_a_session_is_waited_for_and_killed(box: Container) -> None:
    with box.open_exec(["sleep", "1000"]) as session:
        assert session.pid > 1
        with pytest.raises(WaitTimeout, match=r"the command did not end within 0\.05 seconds"):
            session.wait(0.05)
        session.kill()
        assert session.wait(10) == 137
        session.finish()


def test_sessions_end_with_their_container(box: Container) -> None:
    with box.open_exec(["sleep", "1000"]) as session:
        box.kill()
        assert session.wait(10) == 137
        assert session.read() is None
        session.finish()


def test_a_command_of_the_image_cannot_reach_the_program_that_started_it(box: Container) -> None:
    # CVE-2019-5736: the engine's binary was written by way of /proc/self/exe
    script = "cat > /tmp/x <<'X'\n#!/proc/self/exe\nX\nchmod +x /tmp/x"
    out(box, script)
    try:
        box.exec(["/tmp/x"], timeout=5)
    except (StartFailed, ExecTimeout):
        pass  # whatever it does, the file is as before
    from pyengine.runtime import monitor

    with open(monitor.PROGRAM, "rb") as file:
        assert file.read(4) == b"\x7fELF"
    assert box.exec(["true"]).exit_code == 0
