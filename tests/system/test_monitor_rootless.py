"""The monitor of an ordinary user: it joins the user's namespaces first, then does as root does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from plan_box import HERE_PLANS, build_helper, until

USER = 4242


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory):
    import tempfile

    base = Path(tempfile.mkdtemp(prefix="pyengine-user-"))
    for name in ("root/bin", "root/proc", "root/dev", "root/etc", "root/tmp", "target", "run"):
        (base / name).mkdir(parents=True)
    shutil.copy(build_helper(), base / "root" / "bin" / "helper")
    for path in (base, *base.rglob("*")):
        os.chown(path, USER, USER)
    yield base
    shutil.rmtree(base)


SCRIPT = """
import json, os, socket, sys
sys.path.insert(0, sys.argv[2])
from plan_box import *
from pyengine.errors import PyengineError
from pyengine.runtime.plan import *

base, pid = sys.argv[1], int(sys.argv[3])
assert os.getuid() == int(sys.argv[4])
with monitor.open_program() as program:
    kind = os.readlink(f"/proc/self/fd/{program.fileno()}")
user, pidfd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY), os.pidfd_open(pid)
steps = (
    JoinNamespace(NEWUSER, "user", "the user"),
    JoinNamespace(NEWNS, "holder", "the user"),
    Propagation(MS_SLAVE, "slave"),
    BindRoot(base + "/root", base + "/target", False),
    PROC,
    Mount("tmpfs", "tmpfs", "/tmp", 0, (), 0, False),
    MaskPath("/proc/kcore"),
    PivotRoot(0),
    SetHostname("mine"),
    OomScore(500),
    LookupUser("", (), "", ""),
    User(-1, -1, (), -1),
    Exec(("helper", *"ids -- hostname -- cat /proc/self/oom_score_adj -- ls-fd".split()), ("PATH=/bin",), 0),
)
settings = dict(namespaces=NAMESPACES, deny_setgroups=True, log_path=base + "/log")
session = monitor.launch(Plan(Settings("mine", **settings), steps, ("user", "holder")), base + "/run",
                         {"user": user, "holder": pidfd})
with session:
    session.await_started()
    ended = session.wait_exit(20)
nested = Plan(
    Settings("nested", **{**settings, "log_path": base + "/log2", "namespaces": NAMESPACES | NEWUSER},
             uid_map=(0, 0, 1), gid_map=(0, 0, 1)),
    (*steps[:-1], Exec(("helper", "cat", "/proc/self/uid_map"), ("PATH=/bin",), 0)), ("user", "holder"),
)
with monitor.launch(nested, base + "/run", {"user": user, "holder": pidfd}) as session:
    inner = session.wait_exit(20)
print(json.dumps({"kind": kind, "code": ended.exit_code, "inner": inner.exit_code}))
"""


def test_a_container_of_an_ordinary_user(home: Path) -> None:
    as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    holder = subprocess.Popen([*as_user, "unshare", "-U", "-r", "-m", "sleep", "100"])
    try:
        until(lambda: Path(f"/proc/{holder.pid}/uid_map").read_text().split()[:2] == ["0", str(USER)], "unshare")
        until(lambda: Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n", "sleep")
        result = subprocess.run(
            [*as_user, sys.executable, "-c", SCRIPT, str(home), HERE_PLANS, str(holder.pid), str(USER)],
            stdout=subprocess.PIPE,
            check=True,
            cwd="/",
        )
    finally:
        holder.kill()
        holder.wait()
    said = json.loads(result.stdout)
    assert said == {"kind": "/memfd:pyengine-monitor (deleted)", "code": 0, "inner": 0}
    lines = [line.split(" F ")[1] for line in (home / "log").read_text().splitlines()]
    assert lines[:3] == ["0 0", "mine (none)", "500"]
    assert [line.split()[0] for line in lines[3:]] == ["0", "1", "2"]
    assert (home / "log2").read_text().split(" F ")[1].split() == ["0", "0", "1"]
    assert (home / "log").stat().st_uid == USER
