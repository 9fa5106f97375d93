"""A tour in a minute: an image from this machine's busybox, containers from it, and what the engine says of them.

Run it with ``make demo``, or by itself: ``python examples/demo.py``. It keeps everything in a temporary directory.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
import time
from itertools import islice

from pyengine import Engine, errors

BUSYBOX = "/bin/busybox"


def busybox_image() -> io.BytesIO:
    """A root file system as a tar: busybox, a link for each of its commands, and a user."""
    commands = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:

        def add(name: str, kind: bytes, content: bytes = b"", target: str = "", mode: int = 0o755) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode, member.size = kind, target, mode, len(content)
            tar.addfile(member, io.BytesIO(content))

        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("home", 0o755)):
            add(name, tarfile.DIRTYPE, mode=mode)
        with open(BUSYBOX, "rb") as file:
            add("bin/busybox", tarfile.REGTYPE, file.read())
        for command in commands:
            if command != "busybox":
                add(f"bin/{command}", tarfile.SYMTYPE, target="busybox")
        add("etc/passwd", tarfile.REGTYPE, b"root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home:/bin/sh\n", mode=0o644)
        add("etc/group", tarfile.REGTYPE, b"root:x:0:\nann:x:1000:\n", mode=0o644)
    archive.seek(0)
    return archive


def show(title: str, text: str) -> None:
    print(f"\n\033[1m{title}\033[0m" if os.isatty(1) else f"\n== {title}")
    print("   " + text.strip().replace("\n", "\n   "))


def tour(engine: Engine) -> None:
    who = "an ordinary user" if engine.rootless else "root"
    print(f"pyengine as {who} (uid {os.geteuid()}), store {engine.root}")

    image = engine.images.import_(busybox_image(), "localhost/busybox:demo", changes=["CMD=/bin/sh"])
    show("An image, from this machine's busybox", f"{image.names[0]}  {image.short_id}  {image.size // 1024} KiB")

    result = engine.containers.run(image.id, ["sh", "-c", "echo hello from $(hostname), pid $$; id; exit 3"])
    show(f"engine.containers.run(…): exit code {result.exit_code}", result.stdout.decode())

    result = engine.containers.run(image.id, ["sh", "-c", "id; grep -i capeff /proc/self/status; ls /dev"], user="ann")
    show("The same as user ann: no capabilities, devices of its own", result.stdout.decode())

    with engine.containers.create(image.id, ["sh", "-c", "while :; do date; sleep 1; done"], name="clock") as box:
        box.start()
        result = box.exec(["ps"])
        show("exec in a running container", result.stdout.decode())
        show("its log, as it comes", "\n".join(str(line) for line in islice(box.logs(follow=True), 2)))
        state = box.state()
        show("its state, read where the kernel has it", f"{state.status}, pid {state.pid} on the host")
        box.stop(timeout=0)
        show("stopped", f"exit code {box.wait()}")

    for command, limits in ((["/no/such/program"], {}), (["true"], {"hostname": "x", "workdir": "/proc/self/fd/3"})):
        try:
            engine.containers.run(image.id, command, **limits)
        except errors.PyengineError as error:
            show(f"An error says what happened: {type(error).__name__}", str(error))

    plan = engine.explain(image.id, ["sh"]).plan
    show("What happens inside a new container, step by step (pyengine explain)", "\n".join(plan))

    rounds = 20
    begin = time.perf_counter()
    for _ in range(rounds):
        engine.containers.run(image.id, ["true"])
    spent = (time.perf_counter() - begin) / rounds
    show("create, start, wait, remove", f"{spent * 1000:.1f} ms each, mean of {rounds}")
    show("left behind", f"{len(engine.containers.list(all=True))} containers")


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="pyengine-demo-") as directory,
        Engine(root=f"{directory}/root", run_root=f"{directory}/run") as engine,
    ):
        tour(engine)
        engine.reset()


if __name__ == "__main__":
    main()
