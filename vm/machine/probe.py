"""Chooses the engine: KVM only where a trial boot worked."""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass

from machine import initramfs, kernel, qemu, uml
from machine.host import VMError, cache_directory, program, read, write_atomically

TRIAL_SECONDS = 8
SIGN = b"vm-trial-works"
TRIAL_INIT = b"#!/bin/busybox sh\necho " + SIGN + b"\n/bin/busybox reboot -f\n"


@dataclass(frozen=True)
class Choice:
    """The engine to use, its kernel, and why no other."""

    engine: str
    kernel: kernel.Kernel
    reasons: tuple[str, ...] = ()


def choose(wanted: str) -> Choice:
    """The engine for ``auto``, ``kvm``, ``tcg`` or ``uml``. Raises VMError when the host has not what it needs."""
    if wanted == "uml":
        return Choice("uml", uml.find_kernel())
    if os.geteuid() != 0:
        if wanted == "auto":
            return Choice("uml", uml.find_kernel(), ("kvm and tcg: only root can share files over virtiofs",))
        raise VMError(f"{wanted} needs root on the host, to share its files over virtiofs; uml does not")
    found = kernel.find()
    program("qemu-system-x86_64", qemu.PACKAGE)
    if wanted == "tcg":
        return Choice("tcg", found)
    works, reason = kvm_works(found)
    if works or wanted == "auto":
        return Choice("kvm" if works else "tcg", found, (f"kvm: {reason}",))
    raise VMError(f"kvm: {reason}")


def kvm_works(found: kernel.Kernel) -> tuple[bool, str]:
    """Whether the kernel boots under KVM, and how that is known. The answer is kept until this machine reboots.

    The device proves nothing: on nested and para-virtualised hosts it is there, and guests hang or abort.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False, "/dev/kvm cannot be opened"
    path = os.path.join(cache_directory(), "kvm.json")
    boot = read("/proc/sys/kernel/random/boot_id").decode().strip()
    key = [boot, found.image, os.stat("/dev/kvm").st_rdev]
    try:
        answer = json.loads(read(path))
    except (OSError, ValueError):
        answer = {}
    if answer.get("key") == key:
        return answer["works"], answer["reason"]
    works, reason = _trial(found)
    write_atomically(path, json.dumps({"key": key, "works": works, "reason": reason}).encode())
    return works, reason


def _trial(found: kernel.Kernel) -> tuple[bool, str]:
    start = time.monotonic()
    output = b""
    with tempfile.TemporaryDirectory(prefix="vm-trial-") as directory:
        archive = os.path.join(directory, "initramfs")
        entries = [initramfs.Entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "dev")]
        entries.append(initramfs.Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
        entries.append(initramfs.Entry("bin/busybox", stat.S_IFREG | 0o755, read(initramfs.busybox())))
        entries.append(initramfs.Entry("init", stat.S_IFREG | 0o755, TRIAL_INIT))
        with open(archive, "wb") as file:
            file.write(initramfs.cpio(entries))
        words = [program("qemu-system-x86_64", qemu.PACKAGE)]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "microvm"]
        words += ["-accel", "kvm", "-cpu", "host", "-m", "256M", "-serial", "stdio"]
        words += ["-kernel", kernel.unpacked(found.image), "-initrd", archive, "-append", qemu.APPEND]
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as machine:
            assert machine.stdout is not None
            while SIGN not in output and (left := start + TRIAL_SECONDS - time.monotonic()) > 0:
                if select.select([machine.stdout], [], [], left)[0]:
                    block = os.read(machine.stdout.fileno(), 65536)
                    if not block:
                        break
                    output += block
            machine.kill()  # a CPU that is stuck in the kernel heeds no other signal
    if SIGN in output:
        return True, f"a trial boot took {time.monotonic() - start:.1f} s"
    lines = output.decode(errors="replace").strip().splitlines()
    return False, f"a trial boot failed: {lines[-1][:200] if lines else f'silent for {TRIAL_SECONDS} s'}"
