"""What a process does to itself before its command, on the real kernel: names, limits, user, terminal."""

from __future__ import annotations

import stat
import struct
from pathlib import Path

import pytest
from plan_box import (
    NOEXEC,
    NOSUID,
    Box,
    build_helper,
    fails,
    new_box,
)

from pyengine.errors import StartFailed
from pyengine.runtime.plan import (
    AS_LOOKED_UP,
    Capabilities,
    Chdir,
    Device,
    LookupUser,
    Mount,
    NewSession,
    NoNewPrivileges,
    OomScore,
    Rlimit,
    Seccomp,
    SetDomainname,
    SetHostname,
    Symlink,
    Sysctl,
    Terminal,
    User,
)


@pytest.fixture(scope="module")
def helper() -> Path:
    return build_helper()


@pytest.fixture
def box(helper: Path):
    with new_box(helper) as box:
        yield box


# --- the process


def test_names_of_the_host_are_set(box: Box) -> None:
    steps = (SetHostname("box"), SetDomainname("example"))
    assert box.run("helper", "hostname", after=steps).stdout == "box example\n"
    text = fails(box, "helper", after=(SetHostname("x" * 65),))
    assert text == f"set the host name {'x' * 65}: Invalid argument (step 5 of 6)"


def test_a_sysctl_is_set_in_the_namespace(box: Box) -> None:
    steps = (Sysctl("net/ipv4/ip_forward", "1"), Sysctl("kernel/msgmax", "4242"))
    output = box.run("helper", "cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax", after=steps)
    assert output.stdout == "1\n4242\n"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("net/nothing", "No such file or directory"),
        ("../self/oom_score_adj", "Invalid cross-device link"),
        ("kernel/ostype", "Permission denied"),
    ],
)
def test_a_sysctl_that_there_is_not(box: Box, path: str, reason: str) -> None:
    text = fails(box, "helper", after=(Sysctl(path, "1"),))
    assert text.startswith(f"set {path.replace('/', '.')} to 1: ")
    if path != "../self/oom_score_adj":  # a symbolic link, which is refused too
        assert text == f"set {path.replace('/', '.')} to 1: {reason} (step 5 of 6)"


def test_limits_and_the_oom_score(box: Box) -> None:
    steps = (Rlimit(7, 100, 200, "nofile"), Rlimit(4, 0, 0, "core"), OomScore(321))
    output = box.run("helper", "limits", "--", "cat", "/proc/self/oom_score_adj", after=steps)
    assert "7 100 200" in output.stdout.splitlines()
    assert "4 0 0" in output.stdout.splitlines()
    assert output.stdout.endswith("321\n")
    text = fails(box, "helper", after=(Rlimit(7, 200, 100, "nofile"),))
    assert text == "set limit nofile to 200:100: Invalid argument (step 5 of 6)"


def test_the_user_of_the_plan(box: Box) -> None:
    output = box.run("helper", "id", after=(User(1000, 1001, (5, 6), 0o027),))
    values = dict(line.split(":", 1) for line in output.stdout.splitlines())
    assert values["Uid"].split() == ["1000"] * 4
    assert values["Gid"].split() == ["1001"] * 4
    assert values["Groups"].split() == ["5", "6"]
    assert values["Umask"].strip() == "0027"
    assert (values["CapEff"].split(), values["CapPrm"].split()) == (["0" * 16], ["0" * 16])


def test_an_ordinary_user_can_open_its_standard_streams(box: Box) -> None:
    link = Symlink("/proc/self/fd/1", "/dev/stdout")
    output = box.run("helper", "write", "/dev/stdout", "x", before=(link,), after=(User(1000, 1000, (), -1),))
    assert output.stdout == "x", output.stderr


def test_all_five_sets_of_capabilities(box: Box) -> None:
    steps = (User(1000, 1000, (), -1), Capabilities(0b1111, 0b0111, 0b0111, 0b0011, 0b0001))
    output = box.run("helper", "id", after=steps)
    values = {key: int(value, 16) for key, value in (l.split(":") for l in output.stdout.splitlines()) if "Cap" in key}  # noqa: E741
    # An ordinary user keeps across execve what is ambient, and what is inheritable.
    assert values == {"CapBnd": 0b1111, "CapEff": 1, "CapPrm": 1, "CapInh": 0b0011, "CapAmb": 1}
    output = box.run("helper", "id", after=(Capabilities(0b1111, 0b0111, 0b0111, 0, 0),))
    values = {key: int(value, 16) for key, value in (l.split(":") for l in output.stdout.splitlines()) if "Cap" in key}  # noqa: E741
    assert values == {"CapBnd": 0b1111, "CapEff": 0b1111, "CapPrm": 0b1111, "CapInh": 0, "CapAmb": 0}


def test_a_capability_that_the_kernel_does_not_know(box: Box) -> None:
    text = fails(box, "helper", after=(Capabilities(1 << 55, 0, 0, 0, 0),))
    assert text == (
        "keep capabilities 0 (at most 80000000000000): Invalid argument (the kernel does not know capability 55) "
        "(step 5 of 6)"
    )


def test_ambient_needs_inheritable(box: Box) -> None:
    text = fails(box, "helper", after=(Capabilities(1, 1, 1, 0, 1),))
    assert text == (
        "keep capabilities 1 (at most 1): Operation not permitted (raise capability 0 into the ambient set) "
        "(step 5 of 6)"
    )


def test_privileges_cannot_be_gained(box: Box) -> None:
    assert "NoNewPrivs:\t1" in box.run("helper", "id", after=(NoNewPrivileges(),)).stdout


def filter_of(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def test_a_system_call_filter(box: Box) -> None:
    # load the number; mkdir (83): EPERM; close_range (436), rt_sigaction (13): kill; else allow
    filter = filter_of(
        (0x20, 0, 0, 0),
        (0x15, 0, 1, 83),
        (0x06, 0, 0, 0x00050001),
        (0x15, 0, 1, 436),
        (0x06, 0, 0, 0x80000000),
        (0x15, 0, 1, 13),
        (0x06, 0, 0, 0x80000000),
        (0x06, 0, 0, 0x7FFF0000),
    )
    output = box.run("helper", "mkdir", "/x", "--", "id", after=(NoNewPrivileges(), Seccomp(filter, 0)))
    assert output.stderr == "mkdir: /x: Operation not permitted\n"
    assert "Seccomp:\t2" in output.stdout
    text = fails(box, "helper", after=(Seccomp(filter_of((0, 0, 0, 0)), 0),))
    assert text == "load the system call filter (1 instructions): Invalid argument (step 5 of 6)"


def test_the_working_directory(box: Box) -> None:
    (box.root / "work").mkdir(mode=0o700)
    (box.root / "link").symlink_to("/work")
    assert box.run("helper", "pwd", after=(Chdir("/work"),)).stdout == "/work\n"
    assert box.run("helper", "pwd", after=(Chdir("/link"),)).stdout == "/work\n"
    with pytest.raises(StartFailed) as caught:
        box.run("helper", after=(Chdir("/missing"),))
    assert str(caught.value) == "change into /missing: No such file or directory (step 5 of 6)"
    assert caught.value.exit_code == 127
    with pytest.raises(StartFailed) as caught:
        box.run("helper", after=(User(1000, 1000, (), -1), Capabilities(0, 0, 0, 0, 0), Chdir("/work")))
    assert str(caught.value) == "change into /work: Permission denied (step 7 of 8)"
    assert caught.value.exit_code == 126


# --- users


PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\nbad:x:4294967296:0::/:\nodd:x:x:0::/:\n"
GROUP = "root:x:0:\nmail:x:8:web,other\nnews:x:9:web\nbig:x:2147483648:\nstaff:x:50:\n"


@pytest.mark.parametrize(
    ("user", "groups", "expected", "home"),
    [
        ("", (), "0 0", "/root"),
        ("root", (), "0 0", "/root"),
        ("web", (), "33 34 8 9", "/var/www"),
        ("33", (), "33 34 8 9", "/var/www"),
        ("web:staff", (), "33 50", "/var/www"),
        ("web:7", (), "33 7", "/var/www"),
        ("1234", (), "1234 0", "/"),
        ("1234:5678", (), "1234 5678", "/"),
        (":staff", (), "0 50", "/root"),
        ("web:", (), "33 34 8 9", "/var/www"),
        ("web", ("staff", "77", "unknown", "mail"), "33 34 8 9 50 77", "/var/www"),
        ("2147483647:2147483647", (), "2147483647 2147483647", "/"),
    ],
)
def test_a_user_is_looked_up_in_the_root(
    box: Box, user: str, groups: tuple[str, ...], expected: str, home: str
) -> None:
    (box.root / "etc" / "passwd").write_text(PASSWD)
    (box.root / "etc" / "group").write_text(GROUP)
    steps = (LookupUser(user, groups, "", ""), User(AS_LOOKED_UP, AS_LOOKED_UP, (), -1))
    output = box.run("helper", "ids", "--", "env", after=steps)
    lines = output.stdout.splitlines()
    assert sorted(lines[0].split()[2:], key=int) == sorted(expected.split()[2:], key=int)
    assert lines[0].split()[:2] == expected.split()[:2]
    assert lines[1:] == ["PATH=/bin", f"HOME={home}"]
    assert "HOME=/mine" in box.run("helper", "env", after=steps, env=("PATH=/bin", "HOME=/mine")).stdout


@pytest.mark.parametrize(
    ("user", "code", "reason"),
    [
        ("nobody", 126, "No such file or directory (no such user in the container's /etc/passwd)"),
        ("web:nogroup", 126, "No such file or directory (no such group in the container's /etc/group)"),
        ("4294967296", 126, "Invalid argument (the id is beyond 2147483647)"),
        ("0:2147483648", 126, "Invalid argument (the id is beyond 2147483647)"),
        ("99999999999999999999999999", 126, "Invalid argument (the id is beyond 2147483647)"),
        ("bad", 126, "Numerical result out of range (an id in the container's files is not within 0 and 2147483647)"),
        ("odd", 126, "Numerical result out of range (an id in the container's files is not within 0 and 2147483647)"),
        (
            "web:big",
            126,
            "Numerical result out of range (an id in the container's files is not within 0 and 2147483647)",
        ),
        ("x" * 300, 126, "Invalid argument (the name is too long)"),
    ],
)
def test_a_user_that_there_is_not(box: Box, user: str, code: int, reason: str) -> None:
    (box.root / "etc" / "passwd").write_text(PASSWD)
    (box.root / "etc" / "group").write_text(GROUP)
    with pytest.raises(StartFailed) as caught:
        box.run("helper", after=(LookupUser(user, (), "", ""),))
    assert (str(caught.value), caught.value.exit_code) == (f"look up user {user}: {reason} (step 5 of 6)", code)


def test_a_user_without_an_entry_gets_one_on_a_copy(box: Box) -> None:
    passwd = box.root / "etc" / "passwd"
    passwd.write_text("root:x:0:0:root:/root:/bin/sh")  # no line feed at its end
    copy = box.base / "passwd"
    step = LookupUser("1234:5", (), str(copy), "/work")
    output = box.run("helper", "cat", "/etc/passwd", before=(step,), after=(User(-1, -1, (), -1),))
    assert output.stdout == "root:x:0:0:root:/root:/bin/sh\n1234:x:1234:5:container user:/work:/bin/sh\n"
    assert passwd.read_text() == "root:x:0:0:root:/root:/bin/sh"
    passwd.unlink()
    assert "No such file" in box.run("helper", "cat", "/etc/passwd", before=(step,)).stderr


# --- terminal


PTS = Mount("devpts", "devpts", "/dev/pts", NOSUID | NOEXEC, ("newinstance", "ptmxmode=0666", "mode=0620"), 0, False)


def test_a_terminal_controls_and_has_its_size(box: Box) -> None:
    output = box.run("helper", "tty", before=(PTS,), after=(NewSession(), Terminal(24, 80, True)))
    assert output.stdout == "1 1 1 24 80 -\r\n"  # no /dev/tty here
    output = box.run(
        "helper",
        "tty",
        "--",
        "ls-fd",
        "--",
        "stat",
        "/dev/console",
        before=(PTS, Device("/dev/tty", stat.S_IFCHR | 0o666, 5, 0, 0, 0)),
        after=(NewSession(), Terminal(0, 0, True)),
    )
    lines = output.stdout.split("\r\n")
    assert lines[0] == "1 1 1 0 0 controlling"
    assert lines[1:4] == ["0 /dev/pts/0", "1 /dev/pts/0", "2 /dev/pts/0"]
    assert lines[4] == "3 /dev/tty"  # opened by the verb before
    assert " 136:0 " in lines[5]


def test_a_terminal_needs_a_devpts(box: Box) -> None:
    text = fails(box, "helper", after=(NewSession(), Terminal(0, 0, False)))
    assert text == "open a terminal: No such file or directory (open /dev/pts/ptmx) (step 6 of 7)"
    (box.root / "dev" / "pts").mkdir()
    (box.root / "dev" / "pts" / "ptmx").write_text("x")
    text = fails(box, "helper", after=(NewSession(), Terminal(0, 0, False)))
    assert (
        text == "open a terminal: Inappropriate ioctl for device (/dev/pts/ptmx is not a pseudo terminal) (step 6 of 7)"
    )
    (box.root / "dev" / "pts" / "ptmx").unlink()
    text = fails(box, "helper", before=(PTS,), after=(Terminal(0, 0, False),))
    assert text.startswith("open a terminal: Operation not permitted (make it the controlling terminal")
