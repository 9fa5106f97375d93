"""The guest gives namespaces, file systems, ids and a clean environment, to root and to the user."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest
from cgroup import ROOT, in_child, read, until
from kernel import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUTS,
    mount,
    own_namespaces,
)

NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET


def test_the_environment_is_the_documented_one() -> None:
    allowed = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "TMPDIR", "PYTHONDONTWRITEBYTECODE"}
    allowed |= {"PYENGINE_VM", "PYENGINE_TEST_HOST", "XDG_RUNTIME_DIR", "VM_OUT"}
    given = {line.partition("=")[0] for line in read(f"/proc/{os.getpid()}/environ").split("\0") if line}
    chosen_by_the_suite = {"HYPOTHESIS_STORAGE_DIRECTORY", "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTHONUNBUFFERED"}
    assert given - chosen_by_the_suite <= allowed
    assert os.environ["PYENGINE_VM"] in {"kvm", "tcg", "uml"}
    assert os.environ["USER"] == pwd.getpwuid(os.getuid()).pw_name
    assert Path.home().owner() == os.environ["USER"]


def test_the_user_or_root_has_the_capabilities_of_a_login() -> None:
    status = dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines())
    assert int(status["CapInh"], 16) == 0
    assert int(status["CapAmb"], 16) == 0
    assert (int(status["CapEff"], 16) == 0) == (os.getuid() != 0)
    assert status["NoNewPrivs"] == "0"


@pytest.mark.as_user
def test_the_user_is_an_ordinary_one() -> None:
    assert (os.getuid(), os.getgid(), os.getgroups()) == (4242, 4242, [])
    assert os.stat(os.environ["XDG_RUNTIME_DIR"]).st_uid == 4242
    assert read("/etc/subuid") == read("/etc/subgid") == "tester:100000:65536"
    with pytest.raises(PermissionError):
        os.mkdir("/etc/x")


@pytest.mark.as_root
def test_root_may_write_anywhere_and_changes_nothing_on_the_host() -> None:
    Path("/etc/of-the-guest").write_text("x")
    root = next(line.split() for line in read("/proc/self/mounts").splitlines() if line.split()[1] == "/")
    assert root[2] == "overlay"


def test_temporary_files_are_on_a_disk_with_extended_attributes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    os.setxattr(file, "user.test", b"x")
    assert os.getxattr(file, "user.test") == b"x"
    assert os.stat(tmp_path).st_dev == os.stat("/scratch").st_dev


def test_every_namespace_can_be_unshared() -> None:
    assert in_child(lambda: own_namespaces(NAMESPACES)) == 0


@pytest.mark.needs_emulation
def test_time_namespaces_can_be_unshared() -> None:
    assert in_child(lambda: own_namespaces(CLONE_NEWTIME)) == 0


def test_an_overlay_can_be_mounted_and_hides_what_is_removed(tmp_path: Path) -> None:
    for name in ("lower/directory", "upper", "work", "merged"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lower/directory/file").write_text("below")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"

    def overlay() -> None:
        own_namespaces(CLONE_NEWNS)
        user = "" if os.environ["USER"] == "root" else ",userxattr"
        mount("overlay", f"{tmp_path}/merged", "overlay", 0, options + user)
        directory = tmp_path / "merged/directory"
        (directory / "file").unlink()
        directory.rmdir()
        directory.mkdir()
        assert not list(directory.iterdir())

    assert in_child(overlay) == 0


@pytest.mark.as_user
def test_newuidmap_gives_the_subordinate_ids() -> None:
    with subprocess.Popen(["unshare", "--user", "sleep", "60"]) as sleeper:
        own = os.readlink("/proc/self/ns/user")
        until(lambda: os.readlink(f"/proc/{sleeper.pid}/ns/user") != own, "unshared")
        wanted = ["0", "4242", "1", "1", "100000", "65536"]
        for program in ("newuidmap", "newgidmap"):
            subprocess.run([program, str(sleeper.pid), *wanted], check=True)
        maps = [read(f"/proc/{sleeper.pid}/{name}").split() for name in ("uid_map", "gid_map")]
        sleeper.kill()
    assert maps == [wanted, wanted]


def test_loopback_is_up() -> None:
    assert int(read("/sys/class/net/lo/flags"), 16) & 1


def test_nothing_but_the_machine_lies_in_the_root_cgroup() -> None:
    assert {entry.name for entry in os.scandir(ROOT) if entry.is_dir()} <= {
        "init.scope",
        "vm.scope",
        "pyengine",
        "user.slice",
    }


@pytest.mark.needs_emulation
@pytest.mark.as_root
def test_nat_rules_are_accepted() -> None:
    rules = "table ip t { chain c { type nat hook postrouting priority 100; masquerade\n }\n }\n"

    def apply() -> None:
        own_namespaces(CLONE_NEWNET)
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)

    assert in_child(apply) == 0


@pytest.mark.needs_emulation
@pytest.mark.as_root
def test_criu_finds_what_it_needs() -> None:
    subprocess.run(["criu", "check"], check=True, capture_output=True)
