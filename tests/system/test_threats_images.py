"""Hostile images against the engine: a class of published defects a test (rows of the project's list of threats).

Where else the rows are tested: layers, archives and digests in tests/unit/store and test_layers_*.py; the monitor,
with steps that no engine would put into a plan, in test_monitor_threats.py; how plans are encoded by the fuzzer of
native/; users and descriptors of exec in test_exec.py; many clients in test_streams.py.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import ROOTLESS, new_engine
from threats import FIFO, Canary, Thing, file, hostile_image, symlink

from pyengine import Engine
from pyengine.engine.container import Container
from pyengine.errors import InvalidValue, KernelError, PyengineError, StartFailed
from pyengine.linux.fd import Fd
from pyengine.runtime import monitor

pytestmark = pytest.mark.rootless

NAME = "localhost/hostile:1"
PATHS = (
    "proc", "dev", "sys", "etc", "run", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/passwd", "dev/null",
    "dev/console", "dev/pts", "dev/shm", "dev/mqueue", "dev/ptmx", "run/.containerenv", "sys/fs", "proc/self",
)  # fmt: skip
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "dev": ({}, {"tty": True}), "dev/console": ({}, {"tty": True}), "dev/pts": ({"tty": True},),
    "dev/ptmx": ({"tty": True},), "etc": ({}, {"user": "4321"}), "etc/passwd": ({}, {"user": "4321"}),
}  # fmt: skip
LOOK = (
    "echo alive; grep -c '^proc /proc proc ' /proc/mounts; wc -c < /proc/keys; "
    "touch /proc/sys/kernel/hostname 2>&1; ls -l /dev/null; cat /proc/self/mountinfo"
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with new_engine(tmp_path_factory.mktemp("hostile")) as engine:
        hostile_image(engine, "localhost/good:1", {})
        assert engine.containers.run("localhost/good:1", ["true"]).exit_code == 0
        yield engine


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "canary")


def things(kind: str, canary: Canary) -> Thing:
    return {
        "absolute": symlink(str(canary.path)),
        "relative": symlink("../" * 20 + str(canary.path)[1:]),
        "to a file": symlink(f"{canary.path}/passwd"),
        "file": file(b"not what you think"),
        "fifo": FIFO,
    }[kind]


@pytest.mark.parametrize("kind", ["absolute", "relative", "to a file", "file", "fifo"])
def test_what_the_engine_mounts_on_and_makes_stays_below_the_root(engine: Engine, canary: Canary, kind: str) -> None:
    """CVE-2019-16884, 2019-19921, 2025-31133, 2025-52565, 2025-52881, 2026-41579, 2026-47766, 2025-24965: the image has
    something else where /proc, /dev, /etc/hosts … are expected."""
    started = 0
    for path in PATHS:
        for options in OPTIONS.get(path, ({},)):
            box = hostile_container(engine, path, things(kind, canary), from_image=kind == "absolute", **options)
            try:
                with box.start_attached(stdin=False) as attachment:
                    output, _, _ = attachment.collect(None, 1 << 20, lambda: 20.0)
                    assert attachment.wait(20) == 0, (path, output)
            except PyengineError as error:
                assert isinstance(error, (KernelError, StartFailed)), (path, error)  # noqa: PT017 - some start
            else:
                started += 1
                assert not (path in ("proc", "sys") and not ROOTLESS and kind in ("absolute", "relative")), path
                lines = output.decode().replace("\r", "").splitlines()
                assert lines[:3] == ["alive", "1", "0"], (path, lines)
                assert ("Read-only file system" in lines[3]) or "Permission denied" in lines[3], (path, lines)
                assert lines[4].startswith("crw-rw-rw-") or path == "dev/null", (path, lines)
                assert not any("canary" in line.split()[3] for line in lines[5:]), (path, lines)
            finally:
                box.remove(force=True)
            canary.check()
    assert started > 0


def hostile_container(engine: Engine, path: str, thing: Thing, *, from_image: bool, **options: Any) -> Container:
    """A container that finds `thing` at `path`: in its image, or, which is quicker, left there by an earlier run."""
    if from_image:
        hostile_image(engine, NAME, {path: thing})
        return engine.containers.create(engine.images.get(NAME).id, ["sh", "-c", LOOK], **options)
    box = engine.containers.create("localhost/good:1", ["sh", "-c", LOOK], **options)
    place = f"{engine.layout.container(box.id)}/upper/{path}"
    os.makedirs(os.path.dirname(place), exist_ok=True)
    kind, content = thing
    if kind == tarfile.SYMTYPE:
        os.symlink(content, place)
    elif kind == tarfile.FIFOTYPE:
        os.mkfifo(place)
    else:
        Path(place).write_bytes(b"not what you think")
    return box


def test_the_entrypoint_proc_self_exe_runs_nothing_of_the_host(engine: Engine) -> None:
    """CVE-2019-5736. The program of the monitor cannot be written to, neither by a start nor by a session."""
    before = hashlib.sha256(Path(monitor.PROGRAM).read_bytes()).hexdigest()
    hostile_image(engine, NAME, {"entry": symlink("/proc/self/exe")}, 'ENTRYPOINT ["/entry"]')
    write = "for i in 1 2 3 4 5 6 7 8; do for p in /proc/[0-9]*/exe; do echo x 2>/dev/null >> $p; done; done; sleep 1"
    try:
        result = engine.containers.run(NAME, ["fault=created"], timeout=20)
    except StartFailed as error:
        assert str(error).startswith("execute /entry: ")  # noqa: PT017 - either is fine
    else:
        assert result.exit_code == 2
    with engine.containers.create(NAME, ["-c", write], entrypoint="/bin/sh") as box:
        box.start()
        for _ in range(10):
            with pytest.raises(StartFailed):
                box.exec(["/no/such/program"])
            box.exec(["true"])
    engine.images.remove(NAME)
    assert hashlib.sha256(Path(monitor.PROGRAM).read_bytes()).hexdigest() == before


@pytest.mark.parametrize("number", [3, 5, 7, 16, 17])
def test_the_images_working_directory_cannot_be_a_descriptor(engine: Engine, number: int) -> None:
    """CVE-2024-21626."""
    for target in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}"):
        hostile_image(engine, NAME, {"link": symlink(target)}, "WORKDIR /link")
        with pytest.raises((StartFailed, KernelError)) as caught:
            engine.containers.run(NAME, ["pwd"])
        assert "/link" in str(caught.value)
        with pytest.raises((StartFailed, KernelError)):
            engine.containers.run(NAME, ["pwd"], workdir=target)
        engine.images.remove(NAME)


def test_only_the_standard_descriptors_are_open(engine: Engine) -> None:
    """CVE-2016-9962: 3 is the listing's own."""
    for options in ({}, {"tty": True}, {"interactive": True}, {"workdir": "/tmp"}):
        assert engine.containers.run("localhost/good:1", ["ls", "/proc/self/fd"], **options).stdout.split() == [
            b"0", b"1", b"2", b"3",
        ]  # fmt: skip


def test_a_working_directory_and_a_volume_through_links_are_made_inside(engine: Engine, canary: Canary) -> None:
    """CVE-2024-45310, CVE-2026-55686: a directory was made on the host."""
    link = symlink("../" * 20 + str(canary.path)[1:])
    hostile_image(engine, NAME, {"work": link, "data": link}, "WORKDIR /work/made")
    source = canary.path.parent / "source"
    source.mkdir()
    result = engine.containers.run(NAME, ["pwd"])
    assert result.stdout.decode() == f"{canary.path}/made\n"  # inside, of the same name
    result = engine.containers.run(NAME, ["cat", "/proc/self/mountinfo"], volume=[f"{source}:/data/sub"])
    assert f" {canary.path}/sub " in result.stdout.decode()
    canary.check()
    engine.images.remove(NAME)


def test_the_user_of_an_image_cannot_overflow(engine: Engine) -> None:
    """CVE-2024-40635: an id above 2³¹ became 0."""
    for user in ("2147483648", "4294967296", "0:4294967295"):
        hostile_image(engine, NAME, {}, f"USER {user}")
        with pytest.raises((InvalidValue, StartFailed)):
            engine.containers.run(NAME, ["id", "-u"])
        engine.images.remove(NAME)


@pytest.mark.parametrize("kind", ["absolute", "relative", "fifo", "directory", "nul", "lines", "numbers"])
def test_a_user_database_that_is_none(engine: Engine, canary: Canary, kind: str) -> None:
    """CVE-2024-9676: what the engine reads of an image is a small regular file or nothing."""
    (canary.path / "passwd").write_text("eve:x:0:0::/:/bin/sh\n")
    canary.before = canary.state()
    thing = {
        "absolute": symlink(f"{canary.path}/passwd"),
        "relative": symlink("../" * 20 + f"{canary.path}/passwd"[1:]),
        "fifo": FIFO,
        "directory": (b"5", b""),
        "nul": file(b"eve\0:x:0:0::/:/bin/sh\neve:\0x:0:0::/:/bin/sh\n"),
        "lines": file(b"a" * (1 << 20) + b"\neve:x:0:0::/:/bin/sh\n"),
        "numbers": file(b"eve:x:18446744073709551616:0::/:/bin/sh\neve:x:0x0:0::/:\neve:x:-1:0::/:\n"),
    }[kind]
    hostile_image(engine, NAME, {"etc/passwd": thing})
    with pytest.raises(StartFailed, match="look up user eve: ") as caught:
        engine.containers.run(NAME, ["id"], user="eve", timeout=20)
    assert caught.value.exit_code == 126
    canary.check()
    engine.images.remove(NAME)


def test_a_gigantic_user_database_is_read_in_part(engine: Engine) -> None:
    box = engine.containers.create("localhost/good:1", ["id", "-u"], user="eve")
    directory = f"{engine.layout.container(box.id)}/upper/etc"
    os.mkdir(directory, 0o755)
    with open(f"{directory}/passwd", "wb") as passwd:
        passwd.truncate(200 << 30)
        passwd.seek(200 << 30)
        passwd.write(b"\neve:x:0:0::/:/bin/sh\n")
    began = time.monotonic()
    with pytest.raises(StartFailed, match="look up user eve: "):
        box.start()
    assert time.monotonic() - began < 5
    box.remove()


def test_a_mount_target_that_is_swapped_while_a_container_starts(engine: Engine, canary: Canary) -> None:
    """CVE-2021-30465: a directory in a volume that others share turns into a link and back all the time."""
    shared = canary.path.parent / "shared"
    source = canary.path.parent / "source"
    (shared / "x").mkdir(parents=True)
    source.mkdir()
    (shared / "link").symlink_to("../" * 20 + str(canary.path)[1:])
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            exchange(str(shared / "x"), str(shared / "link"))

    thread = threading.Thread(target=swap)
    thread.start()
    places = set()
    try:
        for _ in range(120):
            try:
                result = engine.containers.run(
                    "localhost/good:1",
                    ["cat", "/proc/self/mountinfo"],
                    volume=[f"{shared}:/data", f"{source}:/data/x"],
                )
            except KernelError as error:
                places.add(type(error).__name__)  # the target was exchanged between two looks
            else:
                lines = [line.split() for line in result.stdout.decode().splitlines()]
                mine = [line[4] for line in lines if line[3].endswith(str(source.name)) and "/source" in line[3]]
                assert len(mine) == 1
                places.add(mine[0])
    finally:
        ended.set()
        thread.join()
    assert places <= {"/data/x", "/data/link", str(canary.path), "StepError", "KernelError"}
    canary.check()


def exchange(one: str, other: str) -> None:
    import ctypes

    assert ctypes.CDLL(None).renameat2(-100, one.encode(), -100, other.encode(), 2) == 0


def test_the_program_of_the_monitor_is_out_of_reach(engine: Engine) -> None:
    """CVE-2019-5736: on a read-only mount of its own; for an ordinary user a memory file that is sealed."""
    with pytest.raises(OSError, match=r"Read-only file system|Text file busy|Operation not permitted"):
        overwrite(f"/proc/self/fd/{engine.monitor_program.fileno()}")


def overwrite(path: str) -> None:
    with Fd(os.open(path, os.O_WRONLY)) as fd:
        os.write(fd.fileno(), b"x")
