"""Hostile images, and a directory of the host that has to stay as it is."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from engines import APPLETS, BUSYBOX, GROUP, PASSWD
from plan_box import build_helper

from pyengine import Engine

DIRECTORIES = {"bin": 0o755, "etc": 0o755, "tmp": 0o1777, "root": 0o700, "home": 0o755}
FILES = {"etc/passwd": PASSWD, "etc/group": GROUP}

#: what stands at a path of a hostile image: (kind of member, link target or content)
Thing = tuple[bytes, str | bytes]


def symlink(target: str) -> Thing:
    return tarfile.SYMTYPE, target


def file(content: bytes = b"") -> Thing:
    return tarfile.REGTYPE, content


FIFO: Thing = (tarfile.FIFOTYPE, b"")


def image_tar(things: Mapping[str, Thing]) -> bytes:
    """A root file system of busybox and the test helper, with `things` in place of what is usually there."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:

        def add(name: str, kind: bytes, content: str | bytes = b"", mode: int = 0o755) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, mode
            data = content if isinstance(content, bytes) else b""
            member.linkname = content if isinstance(content, str) else ""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        for name, mode in DIRECTORIES.items():
            if name not in things:
                add(name, tarfile.DIRTYPE, mode=mode)
        add("bin/busybox", tarfile.REGTYPE, Path(BUSYBOX).read_bytes())
        add("helper", tarfile.REGTYPE, build_helper().read_bytes())
        for applet in APPLETS.split():
            add(f"bin/{applet}", tarfile.SYMTYPE, "busybox")
        for name, content in FILES.items():
            if name not in things and name.split("/")[0] not in things:
                add(name, tarfile.REGTYPE, content, mode=0o644)
        for name, (kind, content) in things.items():
            parent = os.path.dirname(name)
            if parent and parent not in DIRECTORIES:
                add(parent, tarfile.DIRTYPE)
            add(name, kind, content)
    return archive.getvalue()


def hostile_image(engine: Engine, name: str, things: Mapping[str, Thing], *changes: str) -> None:
    engine.images.import_(io.BytesIO(image_tar(things)), name, changes=["CMD /bin/sh", *changes])


class Canary:
    """A directory of the host with the names that an engine makes or mounts on in a container."""

    NAMES = ("null", "console", "hostname", "hosts", "resolv.conf", "passwd", ".containerenv", "ptmx", "self", "kcore")

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("pts", "shm", "mqueue", "sys", "fs", "net", "x"):
            (path / name).mkdir(parents=True)
        for name in self.NAMES:
            (path / name).write_text(f"the host's {name}\n")
        self.before = self.state()

    def state(self) -> dict[str, tuple[int, int, int, int, bytes]]:
        found = {}
        for place, _, files in os.walk(self.path):
            for name in ("", *files):
                path = os.path.join(place, name)
                status = os.lstat(path)
                content = Path(path).read_bytes() if name else b""
                found[path] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, content)
        return found

    def check(self) -> None:
        assert self.state() == self.before
