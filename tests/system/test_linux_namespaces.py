"""Namespaces, mounts and the rootless user namespace on the kernel at hand."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyengine.errors import KernelError
from pyengine.linux import calls, mounts, namespaces, process, userns
from pyengine.linux.idmap import IdMap, RootlessMaps
from pyengine.linux.namespaces import Namespace
from pyengine.linux.spawn import run, spawn
from pyengine.linux.userns import UserNamespace

ROOT_MAPS = RootlessMaps((IdMap(0, 0, 1), IdMap(1, 100000, 1000)), (IdMap(0, 0, 1), IdMap(1, 100000, 1000)))


@pytest.fixture
def run_root(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path)
    userns.stop(str(tmp_path))


@pytest.fixture
def user_namespace(run_root: str) -> UserNamespace:
    return userns.ensure(run_root, maps=ROOT_MAPS)


def test_a_new_network_has_its_loopback_up_and_the_caller_stays() -> None:
    before = namespaces.inodes()
    with namespaces.new_network_namespace() as network:
        assert namespaces.is_namespace(network, Namespace.NETWORK)
        with calls.socket_inside([network], socket.AF_INET, socket.SOCK_DGRAM) as fd:
            request = fcntl.ioctl(fd.fileno(), 0x8913, struct.pack("16sh14x", b"lo", 0))  # SIOCGIFFLAGS
            assert struct.unpack("16sh14x", request)[1] & 1
        with calls.open_inside([network], "/proc/self/net/dev", os.O_RDONLY) as fd:
            interfaces = [line.split(b":")[0].strip() for line in os.read(fd.fileno(), 4096).splitlines()[2:]]
        assert b"lo" in interfaces
        assert os.fstat(network.fileno()).st_ino != before[Namespace.NETWORK]
    assert namespaces.inodes() == before


def test_the_caller_is_left_as_it_was(user_namespace: UserNamespace) -> None:
    """A thread would be enough to change umask, directory or credentials of the process: nothing may."""
    before = (os.getcwd(), open_text("/proc/self/status").split("Cpus_allowed")[0], namespaces.inodes())
    threads = threading.active_count()
    with user_namespace.user_fd() as user, user_namespace.mount_fd() as mount:
        calls.open_inside([user, mount], "/proc/self/status", os.O_RDONLY).close()
        namespaces.new_network_namespace(user).close()
    keep = ("Uid", "Gid", "Groups", "CapEff", "SigBlk", "SigCgt", "Threads", "Umask", "NoNewPrivs")
    after = (os.getcwd(), open_text("/proc/self/status").split("Cpus_allowed")[0], namespaces.inodes())
    for name in keep:
        assert field(before[1], name) == field(after[1], name)
    assert (before[0], before[2], threads) == (after[0], after[2], threading.active_count())
    assert os.stat("/proc/self/environ").st_uid == os.geteuid()  # still dumpable


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()


def field(status: str, name: str) -> str:
    return next(line for line in status.splitlines() if line.startswith(f"{name}:"))


def test_a_file_is_no_namespace() -> None:
    with calls.open("/etc/passwd", os.O_RDONLY) as fd:
        assert not namespaces.is_namespace(fd, Namespace.NETWORK)
        with pytest.raises(KernelError) as caught:
            calls.open_inside([fd], "/", os.O_RDONLY)
    assert caught.value.errno == errno.EINVAL
    assert str(caught.value) == "open in another namespace /: Invalid argument"


def test_the_user_namespace_has_its_maps(user_namespace: UserNamespace) -> None:
    assert (user_namespace.uid_map, user_namespace.gid_map) == (ROOT_MAPS.uids, ROOT_MAPS.gids)
    assert not user_namespace.single_id
    assert namespaces.in_user_namespace(user_namespace.pid)
    with user_namespace.user_fd() as user, user_namespace.mount_fd() as mount, user_namespace.user_fd() as again:
        assert namespaces.is_same(user, again)
        assert not namespaces.is_same(user, mount)
        assert namespaces.is_namespace(mount, Namespace.MOUNT)
        ended = run(
            ["sh", "-c", "id -u; touch /tmp/owned && chown 5 /tmp/owned"],
            executable="/bin/sh",
            timeout=20,
            namespaces=[user, mount],
        )
    assert (ended.exit_code, ended.stdout) == (0, b"0\n")
    owned = os.stat("/tmp/owned")
    os.unlink("/tmp/owned")
    assert owned.st_uid == 100004


def test_the_holder_keeps_nothing_of_its_maker(user_namespace: UserNamespace) -> None:
    pid = user_namespace.pid
    links = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    assert links == ["/dev/null"] * 3
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid
    assert open_text(f"/proc/{pid}/environ") == ""


def test_it_is_found_again_and_stopped(run_root: str) -> None:
    assert userns.find(run_root) is None
    made = userns.ensure(run_root, maps=ROOT_MAPS)
    assert userns.ensure(run_root) == made == userns.find(run_root)
    assert userns.stop(run_root) is True
    assert not made.holder.running()
    assert userns.find(run_root) is None
    assert userns.stop(run_root) is False
    with pytest.raises(KernelError, match="No such"):
        made.user_fd()


def test_a_holder_that_was_killed_is_replaced(run_root: str) -> None:
    made = userns.ensure(run_root, maps=ROOT_MAPS)
    with made.holder.open() or pytest.fail("gone") as pidfd:
        process.send_signal(pidfd, signal.SIGKILL)
        assert process.wait_ended(pidfd, 20)
    assert userns.ensure(run_root, maps=ROOT_MAPS).holder != made.holder


@pytest.mark.parametrize("record", ["", "garbage", "{boot} 1 1", "{boot} {pid} 12345", "other-boot {identity}"])
def test_a_record_of_another_process_is_not_believed(run_root: str, record: str) -> None:
    own = process.ProcessId.own()
    text = record.format(boot=process.boot_id(), pid=own.pid, identity=own)
    with open(f"{run_root}/userns", "w") as file:
        file.write(text)
    assert userns.find(run_root) is None


def test_processes_that_ask_at_once_get_the_same(run_root: str) -> None:
    script = (
        "import sys; from pyengine.linux import userns; from pyengine.linux.idmap import *\n"
        "m = (IdMap(0, 0, 1), IdMap(1, 100000, 1000))\n"
        "print(userns.ensure(sys.argv[1], maps=RootlessMaps(m, m)).holder)"
    )
    command = [sys.executable, "-c", script, run_root]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {child.communicate(timeout=60)[0] for child in children}
    assert len(answers) == 1
    found = userns.find(run_root)
    assert found is not None
    assert answers == {f"{found.holder}\n"}


def test_maps_that_the_kernel_refuses_leave_nothing(run_root: str) -> None:
    overlapping = (IdMap(0, 0, 1), IdMap(0, 5, 1))
    with pytest.raises(KernelError) as caught:
        userns.ensure(run_root, maps=RootlessMaps(overlapping, overlapping))
    assert caught.value.errno == errno.EINVAL
    assert str(caught.value).startswith("write '0 0 1\\n0 5 1\\n' to /proc/")
    assert userns.find(run_root) is None
    assert not os.path.exists(f"{run_root}/userns")


def test_mounts_made_inside_stay_inside_and_can_be_fetched(user_namespace: UserNamespace, tmp_path: Path) -> None:
    """A detached copy brings the mount of a running container to the host, as MountContainer does."""
    place, shown = tmp_path / "place", tmp_path / "shown"
    place.mkdir()
    shown.mkdir()
    script = f"mount -t tmpfs none {place} && touch {place}/file"
    with user_namespace.user_fd() as user, user_namespace.mount_fd() as mount:
        ended = run(["sh", "-c", script], executable="/bin/sh", timeout=20, namespaces=[user, mount])
        assert (ended.exit_code, ended.stderr) == (0, b"")
        assert os.listdir(place) == []
        with calls.open_tree_inside([user, mount], str(place)) as tree:
            calls.move_mount(tree, str(shown))
    assert os.listdir(shown) == ["file"]
    calls.umount(str(shown))
    assert os.listdir(shown) == []


def test_a_mount_of_the_host_can_be_put_inside(user_namespace: UserNamespace, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").touch()
    with user_namespace.user_fd() as user, user_namespace.mount_fd() as mount, mounts.clone_tree(str(source)) as tree:
        calls.move_mount_inside([user, mount], tree, str(target))
        with calls.open_inside([user, mount], str(target / "file"), os.O_RDONLY) as fd:
            assert os.fstat(fd.fileno()).st_ino == os.stat(source / "file").st_ino
    assert os.listdir(target) == []


def test_a_detached_overlay_is_an_overlay(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "file").write_text("lower")
    lower, upper, work = (str(tmp_path / name) for name in ("lower", "upper", "work"))
    with mounts.detached_overlay([lower], upper, work) as tree:
        assert os.listdir(f"/proc/self/fd/{tree.fileno()}") == ["file"]
        fd = os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=tree.fileno())
        os.close(fd)
    assert os.listdir(tmp_path / "upper") == ["new"]
    assert mounts.probe_overlay("/dev/shm") == ""


def test_the_kernels_own_words_are_in_the_error() -> None:
    with pytest.raises(KernelError) as caught:
        mounts.detached_overlay(["/nonexistent"])
    assert str(caught.value).startswith("fsconfig ")
    assert "nonexistent" in str(caught.value)


def test_id_mapped_mounts_are_probed(user_namespace: UserNamespace, tmp_path: Path) -> None:
    with user_namespace.user_fd() as user:
        assert mounts.probe_idmap(str(tmp_path), user)
        assert not mounts.probe_idmap("/proc", user)


def test_a_program_runs_inside_while_the_host_stays_outside(user_namespace: UserNamespace) -> None:
    with user_namespace.user_fd() as user, user_namespace.mount_fd() as mount:
        started = spawn(["sleep", "60"], executable="/bin/sleep", namespaces=[user, mount])
    with started.pidfd:
        inside = namespaces.inodes(started.pid)
        assert inside[Namespace.USER] == namespaces.inode(user_namespace.pid, Namespace.USER)
        assert inside[Namespace.MOUNT] != namespaces.inode("self", Namespace.MOUNT)
        assert process.send_signal(started.pidfd, signal.SIGKILL)
        assert process.wait_ended(started.pidfd, 20)
