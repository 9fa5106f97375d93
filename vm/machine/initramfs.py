"""The initramfs: busybox, the guest's two scripts, the modules for the root file system."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from machine.compression import decompress
from machine.host import VMError, cached, identity, program, read
from machine.kernel import Kernel, module_name

GUEST = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "guest")
DIRECTORIES = ("bin", "dev", "proc", "sys", "run", "modules", "lower", "upper", "root", "vm")


@dataclass(frozen=True)
class Entry:
    """A file of a cpio archive; ``device`` are the numbers of a device node."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(entries: list[Entry]) -> bytes:
    """A "newc" archive (Documentation/driver-api/early-userspace/buffer-format.rst), padded to four bytes."""
    archive = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        name = entry.name.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        archive += bytes(-len(archive) % 4) + entry.data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def busybox() -> str:
    """The path of a static busybox. Raises VMError when it is not static."""
    path = program("busybox", "busybox-static")
    if b"/ld-linux" in read(path)[:4096]:
        raise VMError(f"{path} is not static: apt-get install busybox-static")
    return path


def base(kernel: Kernel, modules: tuple[str, ...]) -> str:
    """The path of the part that is the same for every run, made once."""
    order = kernel.load_order(modules)
    sources = [busybox(), os.path.join(GUEST, "boot"), os.path.join(GUEST, "setup")]

    def make() -> bytes:
        entries = [Entry(name, stat.S_IFDIR | 0o755) for name in DIRECTORIES]
        entries.append(Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
        for name, source in zip(("bin/busybox", "init", "vm/setup"), sources, strict=True):
            entries.append(Entry(name, stat.S_IFREG | 0o755, read(source)))
        for path in order:
            data = read(path) if path.endswith(".ko") else decompress(read(path))
            entries.append(Entry(f"modules/{module_name(path)}.ko", stat.S_IFREG | 0o644, data))
        listing = "".join(f"{module_name(path)}.ko\n" for path in order).encode()
        entries.append(Entry("modules/order", stat.S_IFREG | 0o644, listing))
        return cpio(entries)

    return cached("initramfs", [identity(path) for path in [*sources, *order]], make)


def complete(base_path: str, configuration: bytes, command: bytes, target: str) -> None:
    """Write an initramfs for one run: the kernel unpacks archives that follow one another."""
    extra = [
        Entry("vm", stat.S_IFDIR | 0o755),
        Entry("vm/configuration", stat.S_IFREG | 0o644, configuration),
        Entry("vm/command", stat.S_IFREG | 0o755, command),
    ]
    with open(target, "wb") as file:
        file.write(read(base_path) + cpio(extra))
