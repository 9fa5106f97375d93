"""Engines and images for the tests: an engine with a store of its own, and a root file system of busybox."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pyengine import Engine

BUSYBOX = "/bin/busybox"
IMAGE = "localhost/busybox:test"
APPLETS = (
    "cat chmod chown cut date dd df echo env false find grep head hostname id ip kill ln ls mkdir mknod mount mv "
    "nproc printf ps pwd readlink rm rmdir sed seq sh sleep sort stat stty tail test touch tr true tty umount uname "
    "unshare wc yes"
)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"
GROUP = b"root:x:0:\nann:x:1000:\naudio:x:29:ann\nvideo:x:44:\n"


@cache
def root_tar(extra: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """A root file system as a tar: busybox with links, users, a few directories; `extra` files by name."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:

        def add(name: str, kind: bytes, content: bytes = b"", target: str = "", mode: int = 0o755) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode, member.size = kind, target, mode, len(content)
            tar.addfile(member, io.BytesIO(content))

        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("home/ann", 0o755)):
            add(name, tarfile.DIRTYPE, mode=mode)
        with open(BUSYBOX, "rb") as file:
            add("bin/busybox", tarfile.REGTYPE, file.read())
        for applet in APPLETS.split():
            add(f"bin/{applet}", tarfile.SYMTYPE, target="busybox")
        add("etc/passwd", tarfile.REGTYPE, PASSWD, mode=0o644)
        add("etc/group", tarfile.REGTYPE, GROUP, mode=0o644)
        for name, content in extra:
            add(name, tarfile.REGTYPE, content)
    return archive.getvalue()


@contextmanager
def new_engine(directory: str | os.PathLike[str]) -> Iterator[Engine]:
    """An engine whose store is below `directory`, emptied at the end."""
    with Engine(root=f"{directory}/root", run_root=f"{directory}/run") as engine:
        try:
            yield engine
        finally:
            engine.reset()
