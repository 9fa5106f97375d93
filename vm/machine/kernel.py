"""Kernels of the host's /boot, their modules, and the ELF inside a bzImage."""

from __future__ import annotations

import glob
import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from machine.compression import decompress
from machine.host import VMError, cached, identity, read

ELF = b"\x7fELF"


def module_name(path: str) -> str:
    """The kernel's name of a module file: ``kernel/fs/fuse/virtiofs.ko.xz`` is ``virtiofs``."""
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def parse_modules_dep(text: str) -> dict[str, list[str]]:
    """Each module file of a ``modules.dep`` with the files that it needs, as depmod lists them."""
    needs = {}
    for number, line in enumerate(text.splitlines(), 1):
        path, colon, rest = line.partition(":")
        if not colon or not path:
            raise VMError(f"modules.dep line {number}: no module in {line!r}")
        needs[path] = rest.split()
    return needs


def load_order(needs: Mapping[str, list[str]], builtin: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """The files to insert one by one for the wanted modules, what is needed first.

    Raises VMError for a module that is neither a file nor built in, and for a circle.
    """
    files = {module_name(path): path for path in needs}
    built_in = set(builtin)
    order: list[str] = []

    def add(path: str, above: tuple[str, ...]) -> None:
        if path in above:
            raise VMError(f"modules need each other: {' → '.join([*above, path])}")
        if path in order:
            return
        if path not in needs:
            raise VMError(f"modules.dep does not list {path}")
        # depmod lists a module's needs from the last to insert to the first
        for other in reversed(needs[path]):
            add(other, (*above, path))
        order.append(path)

    for name in wanted:
        if name in files:
            add(files[name], ())
        elif name not in built_in:
            raise VMError(f"the kernel has no module {name}")
    return order


@dataclass(frozen=True)
class Kernel:
    """A kernel image with the directory of its modules."""

    image: str
    modules: str

    @property
    def release(self) -> str:
        return os.path.basename(self.modules)

    def load_order(self, wanted: Iterable[str]) -> list[str]:
        """The paths of the module files to insert for the wanted modules."""
        try:
            needs = parse_modules_dep(read(os.path.join(self.modules, "modules.dep")).decode())
            builtin = read(os.path.join(self.modules, "modules.builtin")).decode().split()
        except OSError as error:
            raise VMError(f"cannot read the modules of kernel {self.release}: {error}") from error
        order = load_order(needs, map(module_name, builtin), wanted)
        return [os.path.join(self.modules, path) for path in order]


def preference(release: str) -> tuple[bool, list[int]]:
    """Sorts releases: a cloud kernel (small, few drivers) above others, then the newest."""
    return "cloud" in release, [int(number) for number in re.findall(r"\d+", release)]


def find(boot: str = "/boot", modules: str = "/lib/modules") -> Kernel:
    """The best kernel of the host that can be read and has its modules. Raises VMError."""
    found = []
    for image in glob.glob(os.path.join(boot, "vmlinuz-*")):
        directory = os.path.join(modules, os.path.basename(image).removeprefix("vmlinuz-"))
        if os.path.exists(os.path.join(directory, "modules.dep")) and os.access(image, os.R_OK):
            found.append(Kernel(image, directory))
    if not found:
        raise VMError(f"no readable kernel with modules in {boot}: apt-get install linux-image-cloud-amd64")
    return max(found, key=lambda kernel: preference(kernel.release))


def unpack(image: bytes) -> bytes:
    """The ELF inside a bzImage (x86 boot protocol ≥ 2.08: payload_offset and payload_length at 0x248).

    Raises VMError when there is none that QEMU can start over PVH.
    """
    if image.startswith(ELF):
        return image
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        raise VMError("not a bzImage")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if len(payload) < max(length, 8):
        raise VMError("the bzImage ends early")
    # the kernel's build appends the size of the content to the compressed payload
    (size,) = struct.unpack("<I", payload[-4:])
    kernel = decompress(payload, size)
    if not kernel.startswith(ELF) or b"Xen\0" not in kernel:
        raise VMError("the bzImage holds no ELF with a PVH entry")
    return kernel


def unpacked(image: str) -> str:
    """The path of the unpacked kernel, made once: under emulation the guest would unpack for seconds."""
    return cached("vmlinux", identity(image), lambda: unpack(read(image)))
