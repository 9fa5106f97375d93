"""What a test may leave behind: nothing. Counted before and after each one."""

from __future__ import annotations

import os
import signal
import threading
import time

CGROUPS = "/sys/fs/cgroup"
KERNEL_THREAD = 0x200000  # PF_KTHREAD


def mounts() -> list[str]:
    with open("/proc/self/mountinfo") as table:
        return sorted(" ".join(line.split()[3:5]) for line in table)


def cgroups() -> list[str]:
    """Every group of the test host. A container's is below one named pyengine, which stays."""
    return sorted(path for path, _, _ in os.walk(CGROUPS) if os.path.basename(path) != "pyengine")


def processes() -> dict[str, str]:
    """Every process of the test host but this one: pid → name. What waits to be reaped by the machine's init has ended
    already; threads of the kernel, which a machine of its own shows, come and go by themselves."""
    found = {}
    for place, _, files in os.walk(CGROUPS):
        if "cgroup.procs" not in files:
            continue
        try:
            with open(f"{place}/cgroup.procs") as listing:
                pids = listing.read().split()
        except OSError:
            continue
        for pid in pids:
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    fields = stat.read().rpartition(")")
            except OSError:
                continue
            state, flags = fields[2].split()[0], int(fields[2].split()[6])
            if state not in "ZX" and not flags & KERNEL_THREAD and int(pid) != os.getpid():
                found[pid] = fields[0].partition("(")[2]
    return found


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


def state() -> dict[str, object]:
    """Everything that has to be the same afterwards. SIGALRM is pytest-timeout's."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "mounts": mounts(),
        "cgroups": cgroups(),
        "processes": processes(),
        "descriptors": descriptors(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "network": sorted(os.listdir("/sys/class/net")),
        "directory": os.getcwd(),
        "umask": umask,
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals() - {signal.SIGALRM}},
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
    }


def describe(key: str, before: object, now: object) -> str:
    """The items that are different, where there are several."""
    if isinstance(before, dict) and isinstance(now, dict):
        before, now = list(before.items()), list(now.items())
    if isinstance(before, list) and isinstance(now, list):
        before, now = [item for item in before if item not in now], [item for item in now if item not in before]
    return f"{key}: {before} before, {now} after"


def differences(before: dict[str, object], patience: float = 3.0) -> list[str]:
    """What is not as it was, once what is just ending had its time."""
    deadline = time.monotonic() + patience
    while True:
        now = state()
        changed = [describe(key, before[key], now[key]) for key in before if before[key] != now[key]]
        if not changed or time.monotonic() > deadline:
            return changed
        time.sleep(0.02)
