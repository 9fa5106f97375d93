"""What reaches the kernel from inside: single system calls, and mounts of the host that come and go."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import IMAGE, ROOTLESS, eventually, out, sh
from plan_box import build_helper

from pyengine import Engine
from pyengine.errors import UnsupportedField

SYSCALLS = {"add_key": 248, "keyctl": 250, "unshare": 272, "setns": 308, "bpf": 321, "fsopen": 430, "fsconfig": 431}


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the static helper, for all to read."""
    place = tmp_path_factory.mktemp("helper")
    place.chmod(0o755)
    source = Path(__file__).parents[2] / "build" / "tests" / "bin" / "helper"
    if not ROOTLESS:
        source = build_helper()
    (place / "helper").write_bytes(source.read_bytes())
    (place / "helper").chmod(0o755)
    return place


@pytest.mark.rootless
@pytest.mark.parametrize("name", SYSCALLS)
def test_the_default_filter_refuses(engine: Engine, helper: Path, name: str) -> None:
    # CVE-2022-0185, CVE-2022-0492
    assert platform.machine() == "x86_64"
    command = ["/helper/helper", "syscall", str(SYSCALLS[name]), "0", "0", "0", "0", "0"]
    volume = [f"{helper}:/helper:ro"]
    filtered = engine.containers.run(IMAGE, command, volume=volume)
    free = engine.containers.run(
        IMAGE, command, volume=volume, security_opt=["seccomp=unconfined"], cap_add=["SYS_ADMIN"]
    )
    assert filtered.exit_code == 1
    assert filtered.stderr.endswith((b"Operation not permitted\n", b"Function not implemented\n"))
    assert (free.exit_code, free.stderr) != (filtered.exit_code, filtered.stderr)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A mount that is shared, and one below it; of root only, since others cannot mount on the host."""
    tmp_path.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    (tmp_path / "below").mkdir()
    (tmp_path / "later").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "below"], check=True)
    (tmp_path / "below" / "file").write_text("x")
    yield tmp_path
    subprocess.run(["umount", "-R", tmp_path], check=True)


def test_mounts_below_come_along_unless_they_are_told_not_to(engine: Engine, shared: Path) -> None:
    assert out(engine, "ls /data/below", volume=[f"{shared}:/data"]) == "file"
    assert out(engine, "ls /data/below", volume=[f"{shared}:/data:bind"]) == ""


def test_read_only_reaches_what_is_mounted_below(engine: Engine, shared: Path) -> None:
    script = "touch /data/below/new 2>&1; touch /data/new 2>&1; true"
    assert out(engine, script, volume=[f"{shared}:/data:ro"]).count("Read-only file system") == 2
    assert not (shared / "below" / "new").exists()


@pytest.mark.parametrize(("propagation", "arrives"), [("rprivate", False), ("rslave", True)])
def test_mounts_of_the_host_arrive_if_they_may(engine: Engine, shared: Path, propagation: str, arrives: bool) -> None:
    box = engine.containers.create(IMAGE, ["sleep", "1000"], volume=[f"{shared}:/data:{propagation}"])
    box.start()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", shared / "later"], check=True)
    (shared / "later" / "file").write_text("x")

    def seen() -> bool:
        return box.exec(["ls", "/data/later"]).stdout == b"file\n"

    assert eventually(seen, 5 if arrives else 0.1) == arrives
    box.stop(0)
    subprocess.run(["umount", shared / "later"], check=True)


def test_mounts_of_the_container_cannot_be_asked_to_appear_on_the_host(engine: Engine, shared: Path) -> None:
    with pytest.raises(UnsupportedField, match="what a container mounts cannot appear on the host: use slave"):
        sh(engine, "true", volume=[f"{shared}:/data:rshared"])
    assert engine.containers.list(all=True) == []
