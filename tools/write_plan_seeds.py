"""Write valid plans, one with each kind of step and one with all, as seeds for the fuzzer of the plan reader.

Usage: python tools/write_plan_seeds.py DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyengine.runtime.plan import (
    AwaitStart,
    Bind,
    BindRoot,
    Capabilities,
    Chdir,
    Device,
    Exec,
    JoinNamespace,
    LookupUser,
    Loopback,
    MakeDirectory,
    MaskPath,
    Mount,
    NewSession,
    NoNewPrivileges,
    OomScore,
    OpenSources,
    Overlay,
    PivotRoot,
    Plan,
    Propagation,
    ReadonlyPath,
    ReadonlyRoot,
    Rlimit,
    Seccomp,
    SetDomainname,
    SetHostname,
    Settings,
    Step,
    Symlink,
    Sysctl,
    Terminal,
    UnshareCgroup,
    User,
)

NAMESPACES = 0x7C020000
ROOT = BindRoot("/root", "/target", True)
END = Exec(("helper", "echo"), ("PATH=/bin",), 1)
FIRST: tuple[Step, ...] = (
    OpenSources("users", "/store"),
    JoinNamespace(0x40000000, "net", "x"),
    UnshareCgroup(),
    Loopback(),
    Propagation(1 << 19, "slave"),
)
BELOW: tuple[Step, ...] = (
    Mount("tmpfs", "tmpfs", "/tmp", 6, ("mode=1777", "ro"), 1 << 18, True),
    Bind("/a", "/b", True, 1, 2, 4, 8, 1 << 18, True, "users"),
    MakeDirectory("/c", 0o755),
    Symlink("x", "/y"),
    Device("/dev/null", 0o20666, 1, 3, 0, 0),
    MaskPath("/proc/kcore"),
    ReadonlyPath("/proc/sys"),
    ReadonlyRoot(),
    LookupUser("web:staff", ("a", "5"), "/run/passwd", "/"),
    PivotRoot(1 << 18),
)
INSIDE: tuple[Step, ...] = (
    SetHostname("x"),
    SetDomainname("y"),
    Sysctl("net/x", "1"),
    Rlimit(7, 1, 2, "nofile"),
    OomScore(5),
    NewSession(),
    Terminal(24, 80, True),
    AwaitStart(),
    User(-1, -1, (5, 6), 0o22),
    Capabilities(1, 1, 1, 1, 1),
    NoNewPrivileges(),
    Seccomp(b"\0" * 16, 2),
    Chdir("/"),
)


def seeds() -> list[Plan]:
    full = Settings(
        "id",
        namespaces=NAMESPACES,
        uid_map=(0, 1, 2),
        gid_map=(0, 1, 2, 3, 4, 5),
        terminal=True,
        cgroup="/c",
        log_path="/l",
        cleanup=("a", "b"),
        cleanup_env=("c=d",),
        restart=1,
    )
    plain = Settings("id", namespaces=NAMESPACES & ~0x10000000)
    names = ("net", "users", "3", "cgroup")
    overlay = Overlay("/base", ("1", "2"), "/u", "/w", "userxattr", "/t")
    plans = [Plan(full, (*FIRST, overlay, *BELOW, *INSIDE, END), names), Plan(plain, (END,), names)]
    lookup = LookupUser("", (), "", "")
    for step in (*FIRST, *BELOW, *INSIDE):
        settings = Settings("id", namespaces=plain.namespaces, terminal=isinstance(step, Terminal))
        before: tuple[Step, ...] = () if step in FIRST else (ROOT, lookup)
        plans.append(Plan(settings, (*before, step, END), names))
    return plans


def main() -> int:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for number, plan in enumerate(seeds()):
        (directory / f"plan{number}").write_bytes(plan.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
