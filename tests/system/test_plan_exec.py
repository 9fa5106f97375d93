"""Steps around the command: execve, namespaces, what a plan may not do, on the real kernel."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from plan_box import (
    MS_PRIVATE,
    NAMESPACES,
    NEWNET,
    NEWPID,
    NEWUSER,
    Box,
    build_helper,
    fails,
    new_box,
)

from pyengine.errors import KernelError, StartFailed, StepError
from pyengine.runtime.plan import (
    AS_LOOKED_UP,
    JoinNamespace,
    LookupUser,
    Loopback,
    Mount,
    Propagation,
    SetHostname,
    Symlink,
    UnshareCgroup,
    User,
)


@pytest.fixture(scope="module")
def helper() -> Path:
    return build_helper()


@pytest.fixture
def box(helper: Path):
    with new_box(helper) as box:
        yield box


# --- exec


def test_exec_gives_the_exit_code_and_both_streams(box: Box) -> None:
    output = box.run("helper", "echo", "a", "--", "stderr", "b", "--", "exit", "7")
    assert (output.exit_code, output.stdout, output.stderr) == (7, "a\n", "b\n")


def test_a_signal_is_128_and_its_number(box: Box) -> None:
    output = box.run("helper", "kill-self", "9", namespaces=NAMESPACES & ~NEWPID, proc=False)
    assert output.exit_code == 137


def test_only_the_standard_streams_are_open_inside(box: Box) -> None:
    lines = box.run("helper", "ls-fd").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
    assert lines[0] == "0 /dev/null"


def test_descriptors_that_the_plan_keeps_begin_at_three(box: Box) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        plan = box.plan("helper", "ls-fd", keep=2, descriptors=("3", "x", "4"))
        given = {"3": theirs.fileno(), "x": ours.fileno(), "4": ours.fileno()}
        lines = box.capture(plan, descriptors=given).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3", "4"]


def test_a_command_is_searched_in_the_path_of_its_environment(box: Box) -> None:
    assert box.run("helper", "echo", "x", env=("PATH=/nowhere:/etc/passwd:/bin",)).stdout == "x\n"


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("nothing", 127, "execute nothing: No such file or directory (step 5 of 5)"),
        ("/bin/nothing", 127, "execute /bin/nothing: No such file or directory (step 5 of 5)"),
        ("/bin/helper/x", 127, "execute /bin/helper/x: Not a directory (step 5 of 5)"),
        ("/bin/plain", 126, "execute /bin/plain: Permission denied (step 5 of 5)"),
        ("plain", 126, "execute plain: Permission denied (step 5 of 5)"),
        ("/bin", 126, "execute /bin: Permission denied (step 5 of 5)"),
        ("/bin/text", 126, "execute /bin/text: Exec format error (step 5 of 5)"),
        (
            "/bin/script",
            127,
            "execute /bin/script: No such file or directory (the file is there, but not the interpreter or loader that "
            "it names) (step 5 of 5)",
        ),
    ],
)
def test_a_command_that_cannot_be_executed(box: Box, command: str, code: int, text: str) -> None:
    (box.root / "bin" / "plain").write_text("x")
    for name, content in (("text", "echo hello\n"), ("script", "#!/bin/sh\n")):
        (box.root / "bin" / name).write_text(content)
        (box.root / "bin" / name).chmod(0o755)
    with pytest.raises(StartFailed) as caught:
        box.run(command)
    assert (str(caught.value), caught.value.exit_code) == (text, code)


def test_signals_are_at_their_defaults_inside(box: Box) -> None:
    status = box.run("helper", "cat", "/proc/self/status").stdout
    values = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert int(values["SigBlk"], 16) == 0
    assert int(values["SigIgn"], 16) == 0


# --- namespaces


def test_namespaces_are_new_and_the_loopback_is_up(box: Box) -> None:
    output = box.run("helper", "namespaces", "--", "cat", "/proc/net/dev", before=(Loopback(),))
    ours = {os.readlink(f"/proc/self/ns/{name}") for name in ("ipc", "mnt", "net", "pid", "uts")}
    assert not ours & set(output.stdout.splitlines())
    flags = box.run(
        "helper", "cat", "/sys/class/net/lo/flags", before=(Loopback(), Mount("sysfs", "s", "/sys", 0, (), 0, False))
    )
    assert int(flags.stdout, 16) & 1


def test_a_joined_namespace_is_that_of_the_other(box: Box) -> None:
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        join = JoinNamespace(NEWNET, "net", "the host")
        plan = box.plan("helper", "namespaces", before=(join,), namespaces=NAMESPACES & ~NEWNET, descriptors=("net",))
        assert os.readlink("/proc/self/ns/net") in box.capture(plan, descriptors={"net": fd}).stdout.splitlines()
    finally:
        os.close(fd)


def test_a_namespace_that_is_no_namespace_is_refused(box: Box) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        plan = box.plan("helper", before=(JoinNamespace(NEWNET, "net", "/dev/null"),), descriptors=("net",))
        with pytest.raises(StepError) as caught:
            box.capture(plan, descriptors={"net": fd})
    finally:
        os.close(fd)
    assert str(caught.value) == "join the network namespace of /dev/null: Invalid argument (step 1 of 6)"


def test_a_cgroup_namespace_begins_at_the_own_cgroup(box: Box) -> None:
    output = box.run("helper", "cat", "/proc/self/cgroup", before=(UnshareCgroup(),))
    assert "0::/\n" in output.stdout


def test_a_user_namespace_has_the_maps_of_the_plan(box: Box) -> None:
    for name in ("", "dev"):
        os.chown(box.root / name, 100000, 100000)
    output = box.run(
        "helper",
        "ids",
        "--",
        "cat",
        "/proc/self/uid_map",
        "/proc/self/gid_map",
        "/proc/self/setgroups",
        "--",
        "write",
        "/dev/stdout",
        "x",
        namespaces=NAMESPACES | NEWUSER,
        uid_map=(0, 100000, 1000, 1000, 300000, 1),
        gid_map=(0, 100000, 500),
        before=(Symlink("/proc/self/fd/1", "/dev/stdout"),),
    )
    lines = [line.split() for line in output.stdout.splitlines()]
    assert lines[:5] == [
        ["0", "0"],
        ["0", "100000", "1000"],
        ["1000", "300000", "1"],
        ["0", "100000", "500"],
        ["allow"],
    ]
    assert lines[5] == ["x"], output.stderr


def test_a_user_namespace_can_deny_setgroups(box: Box) -> None:
    options = {"namespaces": NAMESPACES | NEWUSER, "uid_map": (0, 0, 1), "gid_map": (0, 0, 1), "deny_setgroups": True}
    (box.root / "etc" / "group").write_text("more:x:0:root\nother:x:7:root\n")
    (box.root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    steps = (LookupUser("root", (), "", ""), User(AS_LOOKED_UP, AS_LOOKED_UP, (), -1))
    output = box.run("helper", "ids", "--", "cat", "/proc/self/setgroups", after=steps, **options)
    assert output.stdout == "0 0\ndeny\n"
    text = fails(box, "helper", after=(User(0, 0, (5,), -1),), **options)
    assert text == "become user 0:0: Operation not permitted (step 5 of 6)"
    text = fails(box, "helper", after=(User(3, 0, (), -1),), **options)
    assert text == "become user 3:0: Invalid argument (the id is not mapped into the user namespace) (step 5 of 6)"


def test_ids_that_may_not_be_mapped_are_refused(box: Box) -> None:
    with pytest.raises(KernelError) as caught:
        box.run("helper", namespaces=NAMESPACES | NEWUSER, uid_map=(0, 1, 10, 5, 20, 10), gid_map=(0, 0, 1))
    assert str(caught.value) == "set the container up: Invalid argument (write the uid map of the user namespace)"


# --- around the steps


def test_propagation_needs_a_flag_that_the_kernel_knows(box: Box) -> None:
    box.run("helper", before=(Propagation(MS_PRIVATE, "private"),))
    text = fails(box, "helper", before=(Propagation(1 << 30, "strange"),))
    assert text.startswith("make all mounts strange: ")


def test_a_failed_start_leaves_the_reason_for_later_engines(box: Box) -> None:
    from plan_box import until_gone

    session, run = box.launch(box.plan("nothing"))
    with pytest.raises(StartFailed):
        session.await_started()
    state = until_gone(run)
    assert (state.phase, state.pid) == ("failed", None)
    assert state.error == "execute nothing: No such file or directory (step 5 of 5)"


def test_namespace_flags_are_needed_by_what_changes_them(box: Box) -> None:
    """The monitor does not change the host's mounts or names, whatever a plan says."""
    from pyengine.runtime.plan import Exec, Plan, Settings

    for steps, text in (
        (
            (Propagation(MS_PRIVATE, "private"),),
            "make all mounts private: Invalid argument (needs a mount namespace of its own)",
        ),
        ((SetHostname("x"),), "set the host name x: Invalid argument (needs a uts namespace)"),
        ((Loopback(),), "set lo up: Invalid argument (needs a network namespace)"),
    ):
        plan = Plan(Settings("x", namespaces=NEWPID), (*steps, Exec(("/bin/true",), (), 0)))
        session, _ = box.launch(plan)
        with pytest.raises(StepError) as caught:
            session.await_started()
        assert str(caught.value).startswith(text), str(caught.value)
