"""The guest gives the kernel features that the engine builds on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cgroup import in_child, read, until
from kernel import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, id_mapped, mount, own_namespaces, unshare


def run(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def sleeper(*words: str) -> Iterator[int]:
    """The pid of a process that sleeps in namespaces of its own."""
    with subprocess.Popen([*words, "sleep", "60"]) as process:
        try:
            until(lambda: read(f"/proc/{process.pid}/comm") == "sleep", "asleep")
            yield process.pid
        finally:
            process.kill()


def test_a_bridge_and_a_pair_of_interfaces_can_be_made() -> None:
    def make() -> None:
        own_namespaces(CLONE_NEWNET)
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
        run("ip", "link", "set", "v0", "master", "br0", "up")
        run("ip", "address", "add", "10.9.0.1/24", "dev", "br0")

    assert in_child(make) == 0


def test_seccomp_can_notify_another_process() -> None:
    actions = read("/proc/sys/kernel/seccomp/actions_avail").split()
    assert {"kill_process", "errno", "user_notif", "log"} <= set(actions)


def test_fuse_and_tun_can_be_opened() -> None:
    for device in ("/dev/fuse", "/dev/net/tun"):
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))


def test_a_process_is_signalled_through_its_descriptor() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        descriptor = os.pidfd_open(process.pid)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.as_root
def test_a_mount_of_the_disk_can_be_id_mapped(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def show() -> None:
        own_namespaces(CLONE_NEWNS)
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            unshare(CLONE_NEWUSER)
            os.write(theirs, b".")
            time.sleep(60)
        os.read(ours, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text("0 100000 1000")
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        mapped = id_mapped(str(tmp_path), namespace)
        os.kill(pid, signal.SIGKILL)
        assert os.stat("file", dir_fd=mapped).st_uid == 100000

    assert in_child(show) == 0


@pytest.mark.as_root
def test_an_image_file_can_be_mounted(tmp_path: Path) -> None:
    image, target = tmp_path / "image", tmp_path / "target"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    target.mkdir()
    run("mkfs.ext4", "-q", str(image))

    def show() -> None:
        own_namespaces(CLONE_NEWNS)
        run("mount", "-o", "loop", str(image), str(target))
        assert (target / "lost+found").is_dir()

    assert in_child(show) == 0


@pytest.mark.as_user
def test_the_user_can_mount_proc_in_namespaces_of_their_own(tmp_path: Path) -> None:
    words = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "cat",
        "/proc/1/comm",
    ]
    assert run(*words) == "cat\n"


@pytest.mark.as_user
def test_the_user_can_mount_a_tmpfs(tmp_path: Path) -> None:
    def show() -> None:
        own_namespaces(CLONE_NEWNS)
        mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=1m")
        (tmp_path / "file").touch()

    assert in_child(show) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.as_user
def test_slirp4netns_gives_the_user_a_network() -> None:
    with sleeper("unshare", "--user", "--map-root-user", "--net") as pid:
        enter = ["nsenter", "--target", str(pid), "--user", "--net", "--preserve-credentials"]
        words = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", str(pid), "tap0"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as slirp:
            try:
                until(lambda: "10.0.2.100/24" in run(*enter, "ip", "-4", "address", "show"), "tap0 has its address")
                assert "default via 10.0.2.2 dev tap0" in run(*enter, "ip", "route")
            finally:
                slirp.kill()


@pytest.mark.needs_emulation
@pytest.mark.as_root
def test_criu_restores_a_process_that_goes_on(tmp_path: Path) -> None:
    count = tmp_path / "count"
    images = tmp_path / "images"
    images.mkdir()
    script = f"i=0; while :; do i=$((i+1)); echo $i >{count}; sleep 0.05; done"
    words = ["setsid", "sh", "-c", script]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, **quiet) as process:
        until(lambda: count.exists() and count.read_text().strip() not in ("", "1"), "counting")
        run("criu", "dump", "--tree", str(process.pid), "--images-dir", str(images), "--log-file", "dump.log")
        pid = process.pid
    before = int(count.read_text())
    run("criu", "restore", "--restore-detached", "--images-dir", str(images), "--log-file", "restore.log")
    try:
        until(lambda: int(count.read_text() or 0) > before, "counting on")
    finally:
        os.kill(pid, signal.SIGKILL)
