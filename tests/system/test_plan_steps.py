"""Every kind of step on the real kernel, as it should go, and refused with the words that people will read."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from plan_box import (
    MS_PRIVATE,
    MS_SHARED,
    NAMESPACES,
    NEWNET,
    NEWPID,
    NEWUSER,
    NODEV,
    NOEXEC,
    NOSUID,
    RDONLY,
    Box,
    build_helper,
    new_box,
    until,
)

from pyengine.errors import KernelError, StartFailed, StepError
from pyengine.runtime.plan import (
    AS_LOOKED_UP,
    Bind,
    BindRoot,
    Capabilities,
    Chdir,
    Device,
    JoinNamespace,
    LookupUser,
    Loopback,
    MakeDirectory,
    MaskPath,
    Mount,
    NewSession,
    NoNewPrivileges,
    OomScore,
    Overlay,
    Propagation,
    ReadonlyPath,
    ReadonlyRoot,
    Rlimit,
    Seccomp,
    SetDomainname,
    SetHostname,
    Symlink,
    Sysctl,
    Terminal,
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


def fails(box: Box, *argv: str, **options: object) -> str:
    """The text of the error with which a plan fails; nothing was left running."""
    with pytest.raises((KernelError, StartFailed)) as caught:
        box.run(*argv, **options)
    return str(caught.value)


def bind(source: str | Path, target: str, **options: object) -> Bind:
    values = dict.fromkeys(("set", "clear", "set_recursive", "clear_recursive", "propagation"), 0)
    fields = {"recursive": True, "propagation_recursive": False, "idmap": "", **values, **options}
    return Bind(source=str(source), target=target, **fields)


def tmpfs(target: str, attributes: int = 0, *data: str, copy_up: bool = False) -> Mount:
    return Mount("tmpfs", "tmpfs", target, attributes, data, 0, copy_up)


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


# --- root


def test_an_overlay_shows_all_layers_and_writes_to_the_upper_one(box: Box) -> None:
    layers = box.base / "layers"
    for number in range(60):
        (layers / str(number)).mkdir(parents=True)
        (layers / str(number) / f"file{number}").write_text("x")
    shown = box.base / "with:colon,and comma"
    for name in ("upper", "work"):
        (shown / name).mkdir(parents=True)
    box.root.rename(layers / "root")
    lower = (*map(str, range(60)), "root")
    overlay = Overlay(str(layers), lower, str(shown / "upper"), str(shown / "work"), "", str(box.target))
    output = box.run("helper", "write", "/new", "x", "--", "ls", "/", root=overlay)
    assert {"file0", "file59", "new", "bin"} <= set(output.stdout.split())
    assert (shown / "upper" / "new").read_text() == "x"
    assert not (layers / "0" / "new").exists()
    assert list(box.target.iterdir()) == []  # nothing shows on the host
    overlay = Overlay(str(layers), lower, "", "", "", str(box.target))
    assert "Read-only file system" in box.run("helper", "write", "/new2", "x", root=overlay).stderr


def test_an_overlay_that_cannot_be_mounted(box: Box) -> None:
    text = fails(box, "helper", root=Overlay(str(box.base), ("root", "missing"), "", "", "", str(box.target)))
    assert text == "mount overlay of 2 layer(s) as the root: No such file or directory (step 2 of 5)"
    text = fails(box, "helper", root=Overlay("/missing", ("root",), "", "", "", str(box.target)))
    assert text == (
        "mount overlay of 1 layer(s) as the root: No such file or directory (change into /missing) (step 2 of 5)"
    )
    text = fails(box, "helper", root=Overlay(str(box.base), ("l" * 100,) * 50, "", "", "", str(box.target)))
    assert text == (
        "mount overlay of 50 layer(s) as the root: Argument list too long (the options take more than a page) "
        "(step 2 of 5)"
    )


def test_a_root_that_is_not_there(box: Box) -> None:
    text = fails(box, "helper", root=BindRoot("/missing", str(box.target), False))
    assert text == "bind /missing as the root: No such file or directory (step 2 of 5)"


def test_nothing_of_the_host_is_mounted_after_the_pivot(box: Box) -> None:
    mounts = box.run("helper", "mounts").stdout.splitlines()
    assert [line.split()[4] for line in mounts] == ["/", "/proc"]


def test_a_read_only_root_leaves_mounts_below_writable(box: Box) -> None:
    output = box.run("helper", "write", "/x", "--", "write", "/tmp/x", before=(tmpfs("/tmp"), ReadonlyRoot()))
    assert output.stderr == "write: /x: Read-only file system\n"


# --- mounts and files


def test_a_mount_has_its_options_and_attributes(box: Box) -> None:
    before = (tmpfs("/deep/er/tmp", NOSUID | NODEV | NOEXEC, "size=64k", "mode=1777"),)
    output = box.run("helper", "mounts", "--", "stat", "/deep/er/tmp", "/deep", before=before)
    line = next(line for line in output.stdout.splitlines() if " /deep/er/tmp " in line)
    assert "nosuid,nodev,noexec" in line
    assert "size=64k" in line
    assert "d 1777 0 0" in output.stdout
    assert "d 0755 0 0" in output.stdout


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (
            tmpfs("/tmp", 0, "size=x"),
            "mount tmpfs on /tmp: Invalid argument (tmpfs: Bad value for 'size') (step 4 of 6)",
        ),
        (
            tmpfs("/tmp", 0, "colour=red"),
            "mount tmpfs on /tmp: Invalid argument (tmpfs: Unknown parameter 'colour') (step 4 of 6)",
        ),
        (
            Mount("nofs", "x", "/tmp", 0, (), 0, False),
            "mount nofs on /tmp: No such device (the kernel has no file system nofs) (step 4 of 6)",
        ),
        (tmpfs("/bin/helper"), "mount tmpfs on /bin/helper: Not a directory (step 4 of 6)"),
        (bind("/missing", "/mnt"), "bind /missing on /mnt: No such file or directory (step 4 of 6)"),
        (bind("/etc/passwd", "/bin"), "bind /etc/passwd on /bin: Is a directory (step 4 of 6)"),
        (MakeDirectory("/bin/helper/x", 0o755), "make directory /bin/helper/x: Not a directory (step 4 of 6)"),
        (Symlink("x", "/bin"), "link /bin to x: File exists (something else is there) (step 4 of 6)"),
        (
            Device("/bin/helper", stat.S_IFCHR | 0o666, 1, 3, 0, 0),
            "make device /bin/helper (1:3): File exists (something else is there) (step 4 of 6)",
        ),
    ],
)
def test_what_cannot_be_mounted_or_made(box: Box, step, text: str) -> None:
    assert fails(box, "helper", before=(step,)) == text


def test_copy_up_brings_what_the_root_has_there(box: Box) -> None:
    data = box.root / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "file").write_text("content")
    os.chown(data / "sub" / "file", 7, 8)
    (data / "sub" / "file").chmod(0o4640)
    (data / "link").symlink_to("/etc/shadow")
    os.mkfifo(data / "fifo", 0o600)
    data.chmod(0o750)
    os.chown(data, 5, 6)
    paths = ("/data", "/data/sub/file", "/data/link", "/data/fifo")
    for attributes in (0, RDONLY):
        output = box.run(
            "helper",
            "stat",
            *paths,
            "--",
            "cat",
            "/data/sub/file",
            "--",
            "write",
            "/data/new",
            before=(tmpfs("/data", attributes, copy_up=True),),
        )
        lines = [line.split()[:4] for line in output.stdout.splitlines()]
        assert lines[:4] == [
            ["d", "0750", "5", "6"],
            ["-", "4640", "7", "8"],
            ["l", "0777", "0", "0"],
            ["p", "0600", "0", "0"],
        ]
        assert "content" in output.stdout
        assert output.stderr == ("write: /data/new: Read-only file system\n" if attributes else "")
    assert not (data / "new").exists()


def test_copy_up_stops_at_what_the_new_file_system_holds(box: Box) -> None:
    (box.root / "data").mkdir()
    (box.root / "data" / "big").write_bytes(b"x" * (1 << 20))
    text = fails(box, "helper", before=(tmpfs("/data", 0, "size=64k", copy_up=True),))
    assert text == "mount tmpfs on /data: No space left on device (copy what the root has there) (step 4 of 6)"


def test_copy_up_of_a_bottomless_directory_is_refused(box: Box) -> None:
    (box.root / "data" / "/".join("d" * 80)).mkdir(parents=True)
    text = fails(box, "helper", before=(tmpfs("/data", copy_up=True),))
    assert (
        text == "mount tmpfs on /data: Too many levels of symbolic links (copy what the root has there) (step 4 of 6)"
    )


def test_a_bind_makes_its_target_as_the_source_is(box: Box) -> None:
    source = box.base / "source"
    source.mkdir()
    (source / "file").write_text("hello")
    output = box.run(
        "helper",
        "cat",
        "/a/b/file",
        "/c/d",
        "--",
        "write",
        "/a/b/file",
        "changed",
        "--",
        "write",
        "/c/d",
        "x",
        before=(bind(source, "/a/b", set=RDONLY), bind(source / "file", "/c/d")),
    )
    assert output.stdout == "hellohello"
    assert output.stderr == "write: /a/b/file: Read-only file system\n"
    assert (source / "file").read_text() == "x"


def test_a_recursive_bind_is_read_only_all_the_way_down(box: Box) -> None:
    source = box.base / "source"
    (source / "inner").mkdir(parents=True)
    first = tmpfs("/data/inner")
    for options, inner_error in (({"set": RDONLY}, ""), ({"set_recursive": RDONLY}, "Read-only file system")):
        (box.root / "data" / "inner").mkdir(parents=True, exist_ok=True)
        output = box.run(
            "helper",
            "write",
            "/mnt/x",
            "--",
            "write",
            "/mnt/inner/x",
            before=(first, bind(f"{box.target}/data", "/mnt", **options)),
        )
        assert "write: /mnt/x: Read-only file system\n" in output.stderr
        assert ("/mnt/inner/x" in output.stderr) == bool(inner_error)


REFUSED = "Invalid argument (the file system does not do id-mapped mounts, or not for us) (step 4 of 6)"


def test_a_bind_can_map_ids(box: Box) -> None:
    """The descriptor is that of a user namespace whose map says who the owners become."""
    source = box.base / "source"
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source], check=True)
    holder = subprocess.Popen(["unshare", "-U", "sleep", "100"])
    try:
        (source / "file").touch()
        until(lambda: os.readlink(f"/proc/{holder.pid}/ns/user") != os.readlink("/proc/self/ns/user"), "unshare")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text("0 5000 1000")
        users = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY)
        try:
            assert bound_as(box, "/proc", users) == f"bind /proc on /mnt: {REFUSED}"
            tmpfs_can = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 3)
            expected = "5000 5000" if tmpfs_can else f"bind {source} on /mnt: {REFUSED}"
            assert bound_as(box, source, users) == expected
        finally:
            os.close(users)
    finally:
        holder.kill()
        holder.wait()
        subprocess.run(["umount", "-l", source], check=True)


def bound_as(box: Box, source: Path | str, users: int) -> str:
    """The owner that a file has in an id-mapped bind, or why there is none."""
    mapped = (bind(source, "/mnt", idmap="users"),)
    plan = box.plan("helper", "stat", "/mnt/file", before=mapped, descriptors=("users",))
    try:
        return " ".join(box.capture(plan, descriptors={"users": users}).stdout.split()[2:4])
    except StepError as error:
        return str(error)


def test_propagation_of_binds_mounts_and_the_root(box: Box) -> None:
    steps = (
        Mount("tmpfs", "tmpfs", "/tmp", 0, (), MS_SHARED, False),
        bind(box.base, "/mnt", propagation=MS_SHARED),
        bind(box.base, "/mnt2", propagation=MS_PRIVATE, propagation_recursive=True),
    )
    lines = [line.split() for line in box.run("helper", "mounts", before=steps).stdout.splitlines()]
    optional = {line[4]: line[6 : line.index("-")] for line in lines}
    assert optional["/tmp"][0].startswith("shared:")
    assert optional["/mnt"][0].startswith("shared:")
    assert optional["/mnt2"] == []


def test_directories_links_and_devices_are_as_the_plan_says(box: Box) -> None:
    steps = (
        MakeDirectory("/a/b", 0o1711),
        MakeDirectory("/bin", 0o700),
        Symlink("/proc/self/fd", "/dev/fd"),
        Symlink("/proc/self/fd", "/dev/fd"),
        Device("/dev/null", stat.S_IFCHR | 0o666, 1, 3, 4, 5),
        Device("/dev/pipe", stat.S_IFIFO | 0o622, 0, 0, 0, 0),
        Device("/dev/null", stat.S_IFCHR | 0o666, 1, 3, 4, 5),
    )
    output = box.run("helper", "stat", "/a", "/a/b", "/bin", "/dev/fd", "/dev/null", "/dev/pipe", before=steps)
    lines = [line.split() for line in output.stdout.splitlines()]
    assert [line[:4] for line in lines] == [
        ["d", "0755", "0", "0"],
        ["d", "1711", "0", "0"],
        ["d", "0755", "0", "0"],
        ["l", "0777", "0", "0"],
        ["c", "0666", "4", "5"],
        ["p", "0622", "0", "0"],
    ]
    assert lines[4][5] == "1:3"


def test_masked_paths_hold_nothing_and_cannot_be_written(box: Box) -> None:
    secret = box.root / "secret"
    secret.mkdir()
    (secret / "key").write_text("x")
    (box.root / "second").mkdir()
    (box.root / "file").write_text("x")
    masks = tuple(map(MaskPath, ("/secret", "/second", "/file", "/absent", "/file/absent")))
    output = box.run(
        "helper",
        "ls",
        "/secret",
        "--",
        "cat",
        "/file",
        "--",
        "stat",
        "/file",
        "--",
        "write",
        "/secret/x",
        "--",
        "write",
        "/second/x",
        before=masks,
    )
    assert output.stdout.split()[0] == "c"
    assert " 1:3 " in output.stdout
    assert output.stderr.count("Read-only file system") == 2


def test_masks_after_the_pivot_use_the_null_device_inside(box: Box) -> None:
    (box.root / "file").write_text("x")
    device = Device("/dev/null", stat.S_IFCHR | 0o666, 1, 3, 0, 0)
    assert " 1:3 " in box.run("helper", "stat", "/file", before=(device,), after=(MaskPath("/file"),)).stdout


def test_read_only_paths_are_so_with_all_below(box: Box) -> None:
    (box.root / "data" / "inner").mkdir(parents=True)
    steps = (tmpfs("/data/inner"), ReadonlyPath("/data"), ReadonlyPath("/absent"), ReadonlyPath("/proc/sys"))
    output = box.run("helper", "write", "/data/x", "--", "write", "/data/inner/x", before=steps)
    assert output.stderr.count("Read-only file system") == 2


def test_mounts_of_the_plan_never_reach_the_host(box: Box) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    box.run("helper", before=(tmpfs("/tmp"), bind("/etc", "/mnt")))
    assert Path("/proc/self/mountinfo").read_text() == before


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
    assert output.stdout == "root:x:0:0:root:/root:/bin/sh\n1234:*:1234:5:container user:/work:/bin/sh\n"
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
