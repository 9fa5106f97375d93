"""Engines and images for the tests: an engine with a store of its own, and a root file system of busybox."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from pyengine import Engine
from pyengine.engine.result import Result

BUSYBOX = "/bin/busybox"
IMAGE = "localhost/busybox:test"
ROOTLESS = os.geteuid() != 0
APPLETS = (
    "adduser awk base64 basename cat chmod chown chroot cmp cp cut date dd df dirname dmesg echo env expr false find "
    "free getopt grep groups head hexdump hostname id ip kill killall ln ls md5sum mkdir mkfifo mknod mount mv nc nice "
    "nohup nproc od passwd pidof printf ps pwd readlink realpath renice reset rm rmdir sed seq setsid sh sha256sum "
    "sleep sort stat stty su sync tail tar tee test timeout top touch tr true truncate tty umount uname uniq unshare "
    "usleep vi wc which xargs yes"
)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"
GROUP = b"root:x:0:\nann:x:1000:\naudio:x:29:ann\nvideo:x:44:\n"


@cache
def root_tar(extra: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """A root file system as a tar: busybox with links, users, a few directories; `extra` files by name."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:

        def add(
            name: str, kind: bytes, content: bytes = b"", target: str = "", mode: int = 0o755, owner: int = 0
        ) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode, member.size = kind, target, mode, len(content)
            member.uid = member.gid = owner
            tar.addfile(member, io.BytesIO(content))

        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("home", 0o755)):
            add(name, tarfile.DIRTYPE, mode=mode)
        add("home/ann", tarfile.DIRTYPE, owner=1000)
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


def import_image(engine: Engine, name: str = IMAGE, extra: tuple[tuple[str, bytes], ...] = (), **options: Any) -> None:
    """The root file system of `root_tar` as an image that runs a shell."""
    options.setdefault("changes", ["CMD /bin/sh"])
    engine.images.import_(io.BytesIO(root_tar(extra)), name, **options)


def sh(engine: Engine, script: str, **options: Any) -> Result:
    """What a shell script in a new container wrote and returned."""
    return engine.containers.run(IMAGE, ["sh", "-c", script], **options)


def out(engine: Engine, script: str, **options: Any) -> str:
    """What a shell script in a new container wrote to stdout; it has to succeed, and may not complain."""
    result = sh(engine, script, **options)
    assert (result.exit_code, result.stderr) == (0, b""), result
    return result.stdout.decode().removesuffix("\n")


def left_over(engine: Engine) -> list[str]:
    """What an engine without containers still has of them on the disk."""
    found = []
    for place in (f"{engine.root}/containers", f"{engine.run_root}/containers"):
        found += [f"{place}/{name}" for name in os.listdir(place)]
    for work in os.listdir(f"{engine.root}/tmp"):  # an open engine has a directory there, to make things in
        found += [f"{engine.root}/tmp/{work}/{name}" for name in os.listdir(f"{engine.root}/tmp/{work}")]
    return found


def eventually(condition: Callable[[], object], patience: float = 10.0) -> bool:
    """Whether `condition` comes true before patience ends."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
