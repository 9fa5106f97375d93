"""The steps that make a root file system, on the real kernel, as they should go and refused with words."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from plan_box import (
    MS_PRIVATE,
    MS_SHARED,
    NODEV,
    NOEXEC,
    NOSUID,
    RDONLY,
    Box,
    bind,
    build_helper,
    fails,
    new_box,
    tmpfs,
    until,
)

from pyengine.errors import StepError
from pyengine.runtime.plan import (
    BindRoot,
    Device,
    MakeDirectory,
    MaskPath,
    Mount,
    Overlay,
    ReadonlyPath,
    ReadonlyRoot,
    Symlink,
)


@pytest.fixture(scope="module")
def helper() -> Path:
    return build_helper()


@pytest.fixture
def box(helper: Path):
    with new_box(helper) as box:
        yield box


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
