"""What an ordinary user gets: each test runs a script as one, in a test host of its own (``tests/host --user``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
PRELUDE = """
import os
from pyengine.errors import *
from pyengine.linux import calls, cgroups, device_filter, namespaces, process, userns
from pyengine.linux.idmap import IdMap, RootlessMaps
from pyengine.linux.resources import Resources
from pyengine.linux.spawn import run, spawn
run_root = os.environ["XDG_RUNTIME_DIR"]
"""


def as_user(script: str) -> str:
    """The output of a script that runs as uid 12345, which must succeed and write no warning."""
    command = [sys.executable, str(REPOSITORY / "tests/host"), "--user", "--", sys.executable, "-X", "dev", "-c"]
    ended = subprocess.run(
        [*command, PRELUDE + script], capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=100
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return ended.stdout


def test_the_user_namespace_maps_the_subordinate_ids() -> None:
    out = as_user("""
made = userns.ensure(run_root)
assert made.uid_map == made.gid_map == (IdMap(0, 12345, 1), IdMap(1, 200000, 65536)), made
assert userns.ensure(run_root) == made
with made.user_fd() as user, made.mount_fd() as mount:
    script = "id -u; touch $0/owned; chown 7:8 $0/owned; mount -t tmpfs none /mnt && echo mounted"
    print(run(["sh", "-c", script, run_root], executable="/bin/sh", timeout=20, namespaces=[user, mount]))
    with namespaces.new_network_namespace(user) as network:
        calls.socket_inside([user, network], 16, 3).close()
print(os.stat(run_root + "/owned").st_uid, os.stat(run_root + "/owned").st_gid, os.getuid(), os.path.ismount("/mnt"))
assert os.access("/proc/self/environ", os.R_OK)
assert userns.stop(run_root)
""")
    assert out == "Finished(exit_code=0, stdout=b'0\\nmounted\\n', stderr=b'')\n200006 200007 12345 False\n"


def test_without_a_range_it_is_the_single_id() -> None:
    out = as_user("""
from pyengine.linux import idmap
maps = idmap.rootless_maps(os.getuid(), os.getgid(), "/dev/null", "/dev/null")
made = userns.ensure(run_root, maps=maps)
print(made.single_id, made.uid_map)
with made.user_fd() as user, made.mount_fd() as mount:
    script = "id -u; cat /proc/self/setgroups; chown 7 $0 2> /dev/null || echo refused"
    print(run(["sh", "-c", script, run_root], executable="/bin/sh", timeout=20, namespaces=[user, mount]).stdout)
assert userns.stop(run_root)
""")
    assert out == "True (IdMap(container=0, host=12345, size=1),)\nb'0\\ndeny\\nrefused\\n'\n"


def test_a_range_of_another_is_refused_with_the_reason_and_nothing_stays() -> None:
    out = as_user("""
foreign = (IdMap(0, os.getuid(), 1), IdMap(1, 900000, 10))
try:
    userns.ensure(run_root, maps=RootlessMaps(foreign, foreign))
except CannotEnforce as error:
    print(error)
print(os.path.exists(run_root + "/userns"), userns.find(run_root))
""")
    assert out.startswith(
        "/usr/bin/newuidmap refused to map 0:12345:1 1:900000:10: "
        "newuidmap: uid range [1-11) -> [900000-900010) not allowed"
    )
    assert out.endswith("the ranges must be those of /etc/subuid)\nFalse None\n")


def test_without_newuidmap_its_package_is_named() -> None:
    out = as_user("""
from pyengine.linux import spawn as module
real = os.access
os.access = lambda path, *rest: not str(path).endswith("newuidmap") and real(path, *rest)
try:
    userns.ensure(run_root)
except MissingProgram as error:
    print(error)
print(userns.find(run_root))
""")
    expected = "mapping a range of ids for rootless containers needs newuidmap: install it with: apt-get install uidmap"
    assert out == f"{expected}\nNone\n"


def test_groups_are_made_below_what_was_delegated() -> None:
    out = as_user("""
hierarchy = cgroups.find()
assert hierarchy.base == hierarchy.top + "/user" and hierarchy.rootless, hierarchy
group = hierarchy.create("box")
started = spawn(["sleep", "60"], executable="/bin/sleep")
group.add(started.pid)
group.freeze()
group.thaw()
group.kill()
with started.pidfd:
    assert process.wait_ended(started.pidfd, 20)
group.remove()
try:
    hierarchy.create("/elsewhere")
except RequiresCgroupsV2 as error:
    print(error)
try:
    group.create(hierarchy.base)
    group.apply(Resources(unified={"rdma.max": "x"}))
except RequiresCgroupsV2 as error:
    print(str(error).partition(":")[0])
hierarchy.group.remove()
print(device_filter.can_filter_devices())
""")
    assert out == (
        "the group /sys/fs/cgroup/elsewhere cannot be made: Permission denied\n"
        "the cgroup controller rdma is not in /sys/fs/cgroup/cgroup.controllers\nFalse\n"
    )
