"""Command lines of QEMU's microvm with Debian's cloud kernel and the root over virtiofs."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from machine.host import program

MODULES = ("virtio_mmio", "overlay", "virtio_console", "virtio_blk", "virtiofs", "ext4")
PACKAGE = "qemu-system-x86"
# QEMU emulates five-level page tables slowly, and `rep movsb` byte by byte: without erms and fsrm words are copied
EMULATED_CPU = "max,-la57,-erms,-fsrm"
APPEND = (
    "console=ttyS0 quiet panic=-1 reboot=t oops=panic nokaslr audit=0 apparmor=0 random.trust_cpu=on "
    "rcupdate.rcu_expedited=1 cryptomgr.notests"
)
APPEND_EMULATED = "tsc=reliable norandmaps mitigations=off"


@dataclass(frozen=True)
class Machine:
    """What a QEMU machine is made of; ``channels`` are descriptors of sockets by name, in the order of the ports."""

    accelerator: str
    kernel: str
    initramfs: str
    memory: int
    cpus: int
    scratch: str
    share: str
    console: str
    channels: Mapping[str, int]
    tty: bool
    tsc_khz: int = 0

    def append(self) -> str:
        """The kernel's command line."""
        if self.accelerator == "kvm":
            return APPEND
        # measured against an emulated timer the clock's rate is wrong now and then, and the boot hangs
        clock = f" tsc_early_khz={self.tsc_khz} lpj={self.tsc_khz * 4}" if self.tsc_khz else ""
        return f"{APPEND} {APPEND_EMULATED}{clock}"

    def argv(self) -> list[str]:
        """The command line of qemu-system-x86_64."""
        emulated = self.accelerator == "tcg"
        words = [program("qemu-system-x86_64", PACKAGE)]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        words += ["-machine", "microvm,memory-backend=memory", "-global", "virtio-mmio.force-legacy=false"]
        words += ["-accel", "tcg,thread=multi" if emulated else "kvm"]
        words += ["-cpu", EMULATED_CPU if emulated else "host", "-smp", str(self.cpus), "-m", f"{self.memory}B"]
        words += ["-object", f"memory-backend-memfd,id=memory,size={self.memory}B,share=on"]
        words += ["-kernel", self.kernel, "-initrd", self.initramfs, "-append", self.append()]
        # first, so that its ports are /dev/vport0p1 and up
        words += ["-device", f"virtio-serial-device,max_ports={len(self.channels) + 1}"]
        for number, (name, descriptor) in enumerate(self.channels.items(), 1):
            words += ["-chardev", f"socket,id={name},fd={descriptor}"]
            words += ["-device", f"virtserialport,chardev={name},nr={number},name=vm.{name}"]
        words += ["-chardev", f"socket,id=share,path={self.share}"]
        words += ["-device", "vhost-user-fs-device,chardev=share,tag=root"]
        words += ["-drive", f"if=none,id=scratch,format=raw,cache=unsafe,file={self.scratch}"]
        words += ["-device", "virtio-blk-device,drive=scratch"]
        if self.tty:
            words += ["-chardev", "stdio,id=terminal,signal=off"]
            words += ["-device", "virtconsole,chardev=terminal,nr=0"]
        return [*words, "-serial", f"file:{self.console}"]


def virtiofsd_argv(socket: int, directory: str) -> list[str]:
    """The command line that serves a directory over the listening socket of that descriptor number."""
    server = program("virtiofsd", "qemu-system-common")
    usage = subprocess.run([server, "--help"], capture_output=True, text=True, check=False).stdout
    if "-o source=" in usage:  # Debian 12: the one in C that QEMU had before version 8
        values = f"source={directory},cache=always,sandbox=chroot,log_level=err"
        return [server, f"--fd={socket}", "-f", "-o", values, "--thread-pool-size=1"]
    options = ["--shared-dir", directory, "--cache", "always", "--sandbox", "chroot", "--log-level", "error"]
    return [server, f"--fd={socket}", *options]


def tsc_khz(seconds: float = 0.03) -> int:
    """The rate of this CPU's time stamp counter, which an emulated guest reads too; 0 where it cannot be read."""
    try:
        with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
            page.write(bytes.fromhex("0f3148c1e2204809d0c3"))  # rdtsc; shl rdx, 32; or rax, rdx; ret
            byte = ctypes.c_char.from_buffer(page)
            counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(byte))
            before, start = counter(), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            time.sleep(seconds)
            after, end = counter(), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            del byte, counter
    except OSError:  # a host that forbids pages that are both writable and executable
        return 0
    return int((after - before) * 1_000_000 // (end - start))
