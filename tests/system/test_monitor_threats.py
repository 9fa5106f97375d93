"""Hostile roots and hostile containers against the monitor: a class of published defects a test."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from plan_box import (
    NAMESPACES,
    NEWIPC,
    NEWNET,
    NEWNS,
    NEWUSER,
    NEWUTS,
    Box,
    build_helper,
    cgroup,
    new_box,
    until,
    until_gone,
)

from pyengine.errors import KernelError, StartFailed, StepError
from pyengine.linux import calls
from pyengine.runtime import monitor
from pyengine.runtime.plan import (
    AS_LOOKED_UP,
    Bind,
    Capabilities,
    Chdir,
    Device,
    Exec,
    JoinNamespace,
    LookupUser,
    MakeDirectory,
    MaskPath,
    Mount,
    NewSession,
    OomScore,
    Plan,
    ReadonlyPath,
    Settings,
    Symlink,
    Sysctl,
    Terminal,
    User,
)
from pyengine.runtime.state import read_state

PTS = Mount("devpts", "devpts", "/dev/pts", 0, ("newinstance", "ptmxmode=0666"), 0, False)


@pytest.fixture(scope="module")
def helper() -> Path:
    return build_helper()


@pytest.fixture
def box(helper: Path):
    with new_box(helper) as box:
        yield box


@pytest.fixture
def own_program(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that nobody else executes: a busy program refuses to be written for another reason."""
    copy = box.base / "monitor"
    shutil.copy(monitor.PROGRAM, copy)
    monkeypatch.setattr(monitor, "PROGRAM", str(copy))


def digest() -> str:
    return hashlib.sha256(Path(monitor.PROGRAM).read_bytes()).hexdigest()


def exec_plan(pidfd_name: str, *argv: str, namespaces: int = NAMESPACES, **options: object) -> Plan:
    """An exec session: joins the namespaces of a process by its pidfd."""
    steps = options.pop("steps", ())
    return Plan(
        Settings("exec", session=True, **options),
        (
            JoinNamespace(namespaces, pidfd_name, "the container"),
            *steps,
            Exec(argv, ("PATH=/bin",), 0),
        ),
        (pidfd_name,),
    )


# --- overwrite the engine's binary: CVE-2019-5736


@pytest.mark.parametrize("copy", [False, True])
def test_the_monitor_cannot_be_written_through_proc_self_exe(
    box: Box, copy: bool, own_program: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2019-5736, 2019: an image whose command is /proc/self/exe overwrote runc on the host. A container that runs
    as root with all capabilities executes the monitor's program, and others reach it meanwhile."""
    if copy:  # what an engine without privileges does

        def denied(*args: object, **kwargs: object) -> object:
            raise KernelError(1, "open_tree")

        monkeypatch.setattr(monitor.calls, "open_tree", denied)
    before = digest()
    # The command of the container is the monitor's program itself: it finds no descriptors, and ends.
    assert box.run("/proc/self/exe").exit_code == 2
    # A script whose interpreter it is.
    script = box.root / "bin" / "script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    assert box.run("/bin/script").exit_code == 2
    # In the pid namespace of the host the monitor can be looked at directly, as root with everything.
    plan = box.plan(
        "helper",
        "await-signal",
        "10",
        "--",
        "open-for-write",
        "/proc/self/exe",
        namespaces=NEWNS | NEWUTS | NEWIPC | NEWNET,
    )
    session, run = box.launch(plan)
    session.await_started()
    pid = read_state(run).monitor.pid
    attack = box.run("helper", "open-for-write", f"/proc/{pid}/exe", namespaces=NEWNS | NEWUTS | NEWIPC | NEWNET)
    answers = attack.stdout.strip().split(", ")
    assert answers[0] in ("Read-only file system", "Text file busy", "Permission denied", "Operation not permitted")
    assert "open" not in answers
    assert "remounted" not in answers
    # Even when nobody executes it any more, through a descriptor that was kept, and by somebody who may mount.
    kept = os.open(f"/proc/{pid}/exe", os.O_PATH)
    try:
        os.kill(session.pid, signal.SIGKILL)
        session.wait_exit(10)
        until_gone(run)
        with suppress(KernelError):
            calls.mount_setattr(kept, clear=1)
        refusal = until(lambda: refused(f"/proc/self/fd/{kept}"), "the end of other monitors")
        assert refusal == ("Operation not permitted" if copy else "Read-only file system")
    finally:
        os.close(kept)
    assert digest() == before


def test_the_mount_of_the_program_cannot_be_made_writable_while_an_engine_keeps_it(box: Box, own_program: None) -> None:
    """A detached mount whose descriptor is open belongs to an anonymous mount namespace, and whoever may mount can
    change its attributes: a container with CAP_SYS_ADMIN could, through /proc/self/exe."""
    with monitor.open_program() as program:
        for flags in (0, calls.AT_RECURSIVE):
            with pytest.raises(KernelError):
                calls.mount_setattr(program, clear=1, recursive=bool(flags))
        with pytest.raises(KernelError):
            calls.open_tree("", calls.OPEN_TREE_CLONE | calls.AT_EMPTY_PATH, directory=program).close()
        assert refused(f"/proc/self/fd/{program.fileno()}") == "Read-only file system"
        session = monitor.launch(box.plan("helper", "exit", "3"), box.run_directory(), {}, program=program)
        with session:
            assert session.wait_exit(10).exit_code == 3


def refused(path: str) -> str:
    """Why a file cannot be overwritten; "" while it is being executed."""
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        overwrite(path)
    return "" if caught.value.errno == errno.ETXTBSY else str(caught.value.strerror)


def overwrite(path: str) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.write(b"overwritten")


def test_a_joining_process_shows_nothing_of_the_host(box: Box) -> None:
    """CVE-2016-9962, CVE-2019-5736: a container that watches for processes that join it, finds neither their program
    nor their descriptors, for a thousand looks a second during execs."""
    status = dict.fromkeys(("bounding", "effective", "permitted"), 0xA80425FB)  # podman's default set
    caps = Capabilities(**status, inheritable=0, ambient=0)
    session, _ = box.launch(box.plan("helper", "hunt", "2", after=(caps,), log_path=f"{box.base}/log"))
    session.await_started()
    pidfd = os.pidfd_open(session.pid)
    try:
        count = 0
        end = time.monotonic() + 1.8
        while time.monotonic() < end:
            child, _ = box.launch(
                exec_plan("target", "helper", "sleep", "0.01", steps=(OomScore(0), caps)), {"target": pidfd}
            )
            assert child.wait_exit(10).exit_code == 0
            child.close()
            count += 1
    finally:
        os.close(pidfd)
    assert count > 2
    assert session.wait_exit(10).exit_code == 0
    text = (box.base / "log").read_text()
    assert "foreign 0 writable 0 descriptors 0 looked yes" in text, text


# --- exec sessions


def test_a_session_runs_inside_the_container(box: Box) -> None:
    with cgroup("exec") as path:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        session, _ = box.launch(box.plan("helper", "sleep", "100", before=(), descriptors=("cgroup",)), {"cgroup": fd})
        session.await_started()
        pidfd = os.pidfd_open(session.pid)
        plan = exec_plan(
            "target", "helper", "namespaces", "--", "ls-fd", "--", "ls", "/", "--", "cat", "/proc/self/cgroup"
        )
        plan = Plan(plan.settings, plan.steps, ("target", "cgroup"))
        output = box.capture(plan, descriptors={"target": pidfd, "cgroup": fd})
        inside = {os.readlink(f"/proc/{session.pid}/ns/{name}") for name in ("ipc", "mnt", "net", "pid", "uts")}
        lines = output.stdout.splitlines()
        assert inside <= set(lines)
        assert [line.split()[0] for line in lines[7:10]] == ["0", "1", "2"]
        assert "bin" in lines
        assert f"0::/{path.name}" in output.stdout or path.name in output.stdout
        os.close(pidfd)
        os.close(fd)
        os.kill(session.pid, signal.SIGKILL)
        session.wait_exit(10)


def test_a_session_in_a_user_namespace(box: Box) -> None:
    for name in ("", "dev", "tmp"):
        os.chown(box.root / name, 100000, 100000)
    maps = {"uid_map": (0, 100000, 65536), "gid_map": (0, 100000, 65536)}
    plan = box.plan(
        "helper",
        "sleep",
        "100",
        before=(MaskPath("/proc/kcore"), ReadonlyPath("/proc/sys")),
        namespaces=NAMESPACES | NEWUSER,
        **maps,
    )
    session, _ = box.launch(plan)
    session.await_started()
    pidfd = os.pidfd_open(session.pid)
    user = os.open(f"/proc/{session.pid}/ns/user", os.O_RDONLY)
    try:
        plan = Plan(
            Settings("exec", session=True),
            (
                JoinNamespace(NEWUSER, "user", "the container"),
                JoinNamespace(NAMESPACES, "target", "the container"),
                OomScore(300),
                LookupUser("33:44", (), "", ""),
                User(AS_LOOKED_UP, AS_LOOKED_UP, (), -1),
                Exec(
                    ("helper", "ids", "--", "cat", "/proc/self/uid_map", "/proc/self/oom_score_adj"), ("PATH=/bin",), 0
                ),
            ),
            ("user", "target"),
        )
        output = box.capture(plan, descriptors={"target": pidfd, "user": user})
        assert [line.split() for line in output.stdout.splitlines()] == [
            ["33", "44"],
            ["0", "100000", "65536"],
            ["300"],
        ]
    finally:
        os.close(pidfd)
        os.close(user)
    os.kill(session.pid, signal.SIGKILL)
    session.wait_exit(10)


def test_a_session_has_a_terminal_of_the_container(box: Box) -> None:
    session, _ = box.launch(box.plan("helper", "sleep", "100", before=(PTS,)))
    session.await_started()
    pidfd = os.pidfd_open(session.pid)
    try:
        plan = exec_plan(
            "target",
            "helper",
            "tty",
            "--",
            "ls",
            "/dev/pts",
            terminal=True,
            steps=(NewSession(), Terminal(7, 9, False)),
        )
        output = box.capture(plan, descriptors={"target": pidfd})
        assert output.stdout == "1 1 1 7 9 -\r\n0\r\nptmx\r\n"
    finally:
        os.close(pidfd)
    os.kill(session.pid, signal.SIGKILL)
    session.wait_exit(10)


def test_a_session_of_a_container_that_has_ended(box: Box) -> None:
    gone = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(gone.pid)
    gone.wait()
    try:
        session, _ = box.launch(exec_plan("target", "helper"), {"target": pidfd})
        with pytest.raises(StepError) as caught:
            session.await_started()
    finally:
        os.close(pidfd)
    assert str(caught.value).endswith("of the container: No such process (step 1 of 2)")


# --- leaked descriptors and working directories: CVE-2024-21626


@pytest.mark.parametrize("path", ["/proc/self/fd/7", "/proc/self/fd/100", "/proc/self/cwd", "/proc/1/root", "/link"])
def test_a_working_directory_through_a_magic_link_is_refused(box: Box, path: str) -> None:
    (box.root / "link").symlink_to("/proc/self/fd/100")
    with pytest.raises(StartFailed) as caught:
        box.run("helper", "pwd", after=(Chdir(path),))
    assert str(caught.value).startswith(f"change into {path}: ")
    assert "Too many levels of symbolic links" in str(caught.value) or "No such file" in str(caught.value)


def test_a_command_cannot_be_reached_through_a_descriptor(box: Box) -> None:
    for number in (3, 4, 5, 6, 7, 8, 16, 100, 101):
        with pytest.raises(StartFailed):
            box.run(f"/proc/self/fd/{number}/../../bin/sh")


# --- procfs replaced: CVE-2019-16884, 2019-19921, 2025-52881


def test_a_proc_that_is_a_link_does_not_lead_outside(box: Box) -> None:
    outside = box.base / "outside"
    (outside / "sys" / "net").mkdir(parents=True)
    (outside / "sys" / "net" / "x").write_text("")
    (box.root / "proc").rmdir()
    (box.root / "proc").symlink_to(outside)
    steps = (Sysctl("net/ipv4/ip_forward", "1"), OomScore(7))
    with pytest.raises(StepError) as caught:
        box.run("helper", before=(), after=steps)
    assert str(caught.value).startswith(
        "mount proc on /proc: Too many levels of symbolic links (it is a symbolic link in the image) (step "
    )
    box.run("helper", proc=False, after=steps)  # written through a procfs of the monitor's own
    assert (outside / "sys" / "net" / "x").read_text() == ""
    assert sorted(path.name for path in outside.iterdir()) == ["sys"]


def test_a_sysctl_does_not_go_to_a_file_of_the_image(box: Box) -> None:
    fake = box.root / "proc" / "sys" / "net" / "ipv4"
    fake.mkdir(parents=True)
    (fake / "ip_forward").write_text("untouched")
    box.run("helper", proc=False, after=(Sysctl("net/ipv4/ip_forward", "1"),))
    assert (fake / "ip_forward").read_text() == "untouched"


# --- masks: CVE-2025-31133, 2025-52565


def test_a_mask_does_not_trust_the_null_device_of_the_image(box: Box) -> None:
    (box.root / "secret").write_text("secret")
    (box.root / "dev" / "null").symlink_to("/tmp/mine")
    (box.root / "tmp" / "mine").write_text("mine")
    output = box.run("helper", "stat", "/secret", "--", "cat", "/secret", before=(MaskPath("/secret"),))
    assert output.stdout.startswith("c 0666")  # the host's
    with pytest.raises(StepError) as caught:
        box.run("helper", after=(MaskPath("/secret"),))
    assert str(caught.value) == ("mask /secret: No such device (/dev/null is not the null device) (step 5 of 6)")
    (box.root / "dev" / "null").unlink()
    (box.root / "dev" / "null").write_text("mine")
    with pytest.raises(StepError, match="/dev/null is not the null device"):
        box.run("helper", after=(MaskPath("/secret"),))


def test_a_console_that_is_a_link_covers_nothing_else(box: Box) -> None:
    (box.root / "dev" / "console").symlink_to("/etc/target")
    (box.root / "etc" / "target").write_text("x")
    with pytest.raises(StepError) as caught:
        box.run("helper", before=(PTS,), after=(NewSession(), Terminal(0, 0, True)))
    assert str(caught.value) == (
        "open a terminal: Too many levels of symbolic links (/dev/console is a link) (step 7 of 8)"
    )


# --- targets through links: CVE-2024-45310, 2026-55686, 2021-30465


@pytest.mark.parametrize("target", ["/link/new/dir", "/up/new", "/abs/new", "/dangling/new"])
def test_whatever_is_made_is_made_below_the_root(box: Box, target: str) -> None:
    outside = box.base / "outside"
    outside.mkdir()
    (box.root / "link").symlink_to("../" * 20 + str(outside).lstrip("/"))
    (box.root / "up").symlink_to("../../../../../../../..")
    (box.root / "abs").symlink_to(outside)
    (box.root / "dangling").symlink_to("/nowhere/../else/../../deep")
    source = box.base / "source"
    source.write_text("x")
    bind = Bind(str(source), target + "/file", False, 0, 0, 0, 0, 0, False, "")
    steps = (
        MakeDirectory(target, 0o755),
        bind,
        Symlink("x", target + "/symlink"),
        Device(target + "/dev", 0o20666, 1, 3, 0, 0),
        Mount("tmpfs", "tmpfs", target + "/mount", 0, (), 0, False),
    )
    output = box.run("helper", "ls", target, before=steps)
    assert output.stdout.split() == ["dev", "file", "mount", "symlink"]
    assert list(outside.iterdir()) == []
    assert not Path("/new").exists()
    assert not Path("/nowhere").exists()
    assert sorted(path.name for path in box.base.iterdir()) == ["outside", "root", "run1", "source", "target"]


def test_links_without_an_end_are_refused(box: Box) -> None:
    (box.root / "a").symlink_to("b")
    (box.root / "b").symlink_to("a")
    with pytest.raises(StepError) as caught:
        box.run("helper", before=(MakeDirectory("/a/x", 0o755),))
    assert str(caught.value) == "make directory /a/x: Too many levels of symbolic links (step 4 of 6)"


def test_a_dangling_link_is_followed_below_the_root(box: Box) -> None:
    """/etc/resolv.conf of many images is a link to a file that only a running systemd makes."""
    (box.root / "etc" / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    source = box.base / "source"
    source.write_text("nameserver ::1\n")
    bind = Bind(str(source), "/etc/resolv.conf", False, 0, 0, 0, 0, 0, False, "")
    assert box.run("helper", "cat", "/etc/resolv.conf", before=(bind,)).stdout == "nameserver ::1\n"


def test_a_directory_that_is_exchanged_for_a_link_leads_nowhere_else(box: Box) -> None:
    """CVE-2021-30465: another container swaps a mount target while this one starts."""
    outside = box.base / "outside"
    outside.mkdir()
    shared = box.root / "shared"
    (shared / "real").mkdir(parents=True)
    (shared / "evil").symlink_to("../" * 20 + str(outside).lstrip("/"))
    swapper = subprocess.Popen(
        [
            "python3",
            "-c",
            f"""
import ctypes, os
libc = ctypes.CDLL(None)
while True:
    libc.renameat2(-100, b"{shared}/real", -100, b"{shared}/evil", 2)
""",
        ]
    )
    try:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            steps = (
                Mount("tmpfs", "tmpfs", "/shared/real/deep/target", 0, (), 0, False),
                MakeDirectory("/shared/evil/made/here", 0o755),
            )
            try:
                assert box.run("helper", before=steps).exit_code == 0
            except StepError as error:  # it may lose the race, honestly
                if error.errno not in (2, 11, 17, 20, 40):
                    raise
            assert list(outside.iterdir()) == []
    finally:
        swapper.kill()
        swapper.wait()


# --- user database: CVE-2024-9676


def test_a_user_database_that_is_no_file(box: Box) -> None:
    passwd = box.root / "etc" / "passwd"

    def refused() -> str:
        with pytest.raises(StartFailed) as caught:
            box.run("helper", after=(LookupUser("root", (), "", ""),))
        return str(caught.value)

    os.mkfifo(passwd)
    assert refused() == "look up user root: Invalid argument (/etc/passwd is not a regular file) (step 5 of 6)"
    passwd.unlink()
    passwd.mkdir()
    assert "is not a regular file" in refused()
    passwd.rmdir()
    os.mknod(passwd, 0o20666, os.makedev(1, 5))
    assert "is not a regular file" in refused()
    passwd.unlink()
    passwd.symlink_to("/proc/self/fd/3")
    assert "Too many levels of symbolic links" in refused()
    passwd.unlink()
    secret = box.base / "secret"
    secret.write_text("root:x:5:5::/:\n")
    passwd.symlink_to(secret)  # not there, below the root
    assert refused().startswith("look up user root: No such file or directory (no such user")


def test_a_gigantic_user_database_is_read_in_part(box: Box) -> None:
    passwd = box.root / "etc" / "passwd"
    with passwd.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    begin = time.monotonic()
    with pytest.raises(StartFailed, match="no such user"):
        box.run("helper", after=(LookupUser("web", (), "", ""),))
    passwd.write_bytes(b"x" * 500_000 + b"\nlong:" + b"y" * 5000 + b":1:1::/:\nweb:x:7:7::/:\n" + b"z" * 10_000_000)
    steps = (LookupUser("web", (), "", ""), User(AS_LOOKED_UP, AS_LOOKED_UP, (), -1))
    assert box.run("helper", "ids", after=steps).stdout == "7 7\n"
    assert time.monotonic() - begin < 5


# --- exhaustion by the container


def test_a_fork_bomb_ends_with_its_container(box: Box) -> None:
    with cgroup("bomb") as path:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        plan = box.plan("helper", "forks", "200", "--", "exit", "4", cgroup=str(path), descriptors=("cgroup",))
        session, run = box.launch(plan, {"cgroup": fd})
        os.close(fd)
        assert session.wait_exit(10).exit_code == 4
        until_gone(run)
        assert not path.exists()


def test_endless_output_with_a_stalled_reader_stays_bounded(box: Box) -> None:
    """CVE-2022-31030: the memory of the monitor does not grow with what nobody reads."""
    session, run = box.launch(box.plan("helper", "spam", str(1 << 40), "0"))
    session.await_started()
    with monitor.connect_streams(run):
        time.sleep(0.3)
        pid = read_state(run).monitor.pid
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
        assert private <= 200, rollup
    os.kill(session.pid, signal.SIGKILL)
    assert session.wait_exit(10).exit_code == 137


def test_environments_do_not_mix(box: Box) -> None:
    """CVE-2020-14370: the environment of one container showed up in another."""
    import threading

    def one(number: int) -> None:
        for _ in range(5):
            output = box.run("helper", "env", env=(f"N={number}", "PATH=/bin")).stdout
            results.append(output == f"N={number}\nPATH=/bin\n")

    results: list[bool] = []
    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 40


def test_nothing_is_left_behind(box: Box) -> None:
    """Mounts, processes and descriptors are the same before and after good and failed plans."""

    def count() -> tuple[str, int]:
        return Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))

    before = count()
    for argv in (["helper"], ["missing"]):
        session, run = box.launch(box.plan(*argv))
        try:
            session.wait_exit(10)
        except StartFailed:
            pass
        session.close()
        until_gone(run)
    assert count() == before
